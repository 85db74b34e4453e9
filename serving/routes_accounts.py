"""`/v1/accounts`: the book, and one account."""

from datetime import date, datetime, time, timedelta
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from starlette.responses import JSONResponse, Response

from serving import schema
from serving.answers import account_answer, book_answer
from serving.cursors import Cursors
from serving.desk import Desk, DeskOf, Reader, account_row, view_of
from serving.health import Band
from serving.identity import Principal
from serving.journal import Action
from serving.portfolio import (
    DEFAULT_PAGE_SIZE,
    LARGEST_PAGE,
    BookQuery,
    Order,
    Rows,
    Sort,
    Span,
    book_rows,
    closed_fields,
    rows_after,
    total_up,
)
from serving.problems import ProblemError, problems
from serving.routing import v1_router
from serving.scoring import ScoreSet
from serving.sharing import View
from serving.tags import CACHE_HEADERS, not_modified, tag_of

__all__ = ["Filters", "permitted", "router"]

router = v1_router("accounts")

_Text = Annotated[str | None, Query(min_length=1, max_length=200, pattern=schema.WITHOUT_CONTROLS)]
_Amount = Annotated[float | None, Query(allow_inf_nan=False)]
_Chance = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]


async def _filters(
    band: Annotated[Band | None, Query(description="Band of health.", examples=["red"])] = None,
    segment: Annotated[_Text, Query(description="Segment, as it is written.", examples=["Enterprise"])] = None,
    partner: Annotated[_Text, Query(description="A partner's id.", examples=["p1"])] = None,
    csm: Annotated[_Text, Query(description="Customer success manager, as it is written.", examples=["Ada Moreau"])] = None,
    search: Annotated[str, Query(max_length=200, description="Part of a name or of an account id, in any case.", examples=["opal"])] = "",
    min_arr: Annotated[_Amount, Query(description="ARR, at least; accounts without ARR are left out.", examples=[10_000])] = None,
    max_arr: Annotated[_Amount, Query(description="ARR, at most; accounts without ARR are left out.")] = None,
    min_churn_probability: Annotated[_Chance, Query(description="Probability of churn, at least.", examples=[0.2])] = None,
    max_churn_probability: Annotated[_Chance, Query(description="Probability of churn, at most.")] = None,
    renewal_from: Annotated[date | None, Query(description="Renews on this day (UTC) or later.", examples=["2025-07-01"])] = None,
    renewal_until: Annotated[date | None, Query(description="Renews on this day (UTC) or earlier.", examples=["2025-09-30"])] = None,
    sort: Annotated[
        Sort | None, Query(description="ARR at risk if not given; probability of churn where there is no ARR. Ties: by account id.")
    ] = None,
    order: Annotated[Order | None, Query(description="What needs you first if not given. Accounts without a value come last.")] = None,
) -> BookQuery:
    """Return the filters and the order that the address asks for."""
    return BookQuery(
        band=band,
        segment=segment,
        partner=partner,
        csm=csm,
        search=search,
        arr=Span(min_arr, max_arr),
        churn_probability=Span(min_churn_probability, max_churn_probability),
        renewal_from=None if renewal_from is None else _just_before(renewal_from),
        renewal_until=None if renewal_until is None else datetime.combine(renewal_until, time.max),
        sort=sort,
        order=order,
    )


Filters = Annotated[BookQuery, Depends(_filters)]


def _just_before(day: date) -> datetime:
    return datetime.min if day == date.min else datetime.combine(day, time.min) - timedelta(microseconds=1)


async def permitted(desk: Desk, query: BookQuery, view: View, principal: Principal, *, action: Action) -> None:
    """See that the caller asks only about what it may read.

    Raises
    ------
    ProblemError
        403 for a filter or an order by what the policy keeps from the caller.
    """
    if closed := closed_fields(query, view):
        await desk.journal.refused(f"asked about {', '.join(closed)}", principal=principal, action=action)
        raise ProblemError(403, f"You may not filter or order by {' and '.join(closed)}.")


@router.get(
    "/v1/accounts",
    response_model=schema.Book,
    operation_id="list_accounts",
    summary="The book",
    responses=problems(410) | {304: {"description": "Nothing has changed since the answer with the tag in `If-None-Match`."}},
)
async def list_accounts(
    request: Request,
    desk: DeskOf,
    principal: Reader,
    query: Filters,
    cursor: Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="How many accounts at most.")] = DEFAULT_PAGE_SIZE,
) -> Any:
    """Return the accounts that you may see and the filters leave, those that need you first, a page at a time.

    Follow `next_cursor` until it is null: the pages hold every account once, however long you take, as long as the scores are the same.
    When new ones have come, the cursor is answered with 410, and you start again.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    await permitted(desk, query, view, principal, action="list accounts")
    tag = tag_of(score_set, view)
    if (unchanged := not_modified(request, tag)) is not None:
        return unchanged
    last = _last_row(desk, score_set, query, principal, cursor)
    _, everything = book_rows(score_set, query, view)
    left = everything if last is None else rows_after(score_set, query, view, last=last)
    page = left[:limit]
    following = _cursor_after(desk, score_set, query, principal, page) if len(left) > limit else None
    answer = book_answer(score_set, page.tolist(), total_up(score_set, everything), view, next_cursor=following)
    read = [account.account_id for account in answer.accounts]
    await desk.journal.read(read, principal=principal, action="list accounts", score_set=score_set.manifest.version)
    return JSONResponse(answer.model_dump(mode="json"), headers={"etag": tag, **CACHE_HEADERS})


@router.get(
    "/v1/accounts/{account_id}",
    response_model=schema.Account,
    operation_id="get_account",
    summary="One account",
    responses=problems(404) | {304: {"description": "Nothing has changed since the answer with the tag in `If-None-Match`."}},
)
async def get_account(request: Request, desk: DeskOf, principal: Reader, account_id: schema.AccountId) -> Any:
    """Return one account with its scores explained: `base + parts of the drivers + part of the other factors = raw_score`."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    row = await account_row(desk, score_set, account_id, principal)
    tag = tag_of(score_set, view)
    if (unchanged := not_modified(request, tag)) is not None:
        return unchanged
    body = account_answer(score_set, row, view).model_dump_json()
    return Response(body, media_type="application/json", headers={"etag": tag, **CACHE_HEADERS})


def _last_row(desk: Desk, score_set: ScoreSet, query: BookQuery, principal: Principal, cursor: str | None) -> int | None:
    if cursor is None:
        return None
    return _cursors(desk).open(cursor, score_set=score_set, caller=principal.caller, question=vars(query))


def _cursor_after(desk: Desk, score_set: ScoreSet, query: BookQuery, principal: Principal, page: Rows) -> str:
    last = score_set.accounts["account_id"][page[-1]]
    return _cursors(desk).after(last, score_set=score_set, caller=principal.caller, question=vars(query))


def _cursors(desk: Desk) -> Cursors:
    return Cursors(desk.identity.secret)
