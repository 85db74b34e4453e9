"""`/v1/accounts`: the book, and one account."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from serving.answers import schema
from serving.answers.account_answers import account_bytes, book_bytes
from serving.answers.portfolio import DEFAULT_PAGE_SIZE, LARGEST_PAGE, BookQuery, Rows, book_rows, rows_after, total_up
from serving.answers.problems import problems
from serving.api.cursors import Cursors
from serving.api.desk import Desk, DeskOf, Reader, account_row, view_of
from serving.api.filters import Filters, require_open
from serving.api.routing import v1_router
from serving.api.tags import NOT_MODIFIED, not_modified, tag_of, tagged
from serving.callers.identity import Principal
from serving.scores.scoring import ScoreSet

__all__ = ["router"]

router = v1_router("accounts")

_FEW = 100
"""So many accounts are written at once, without the detour of a thread."""


@router.get(
    "/v1/accounts",
    response_model=schema.Book,
    operation_id="list_accounts",
    summary="The book",
    responses=problems(410) | NOT_MODIFIED,
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
    await require_open(desk, query, view, principal, action="list accounts")
    tag = tag_of(score_set, view)
    if (unchanged := not_modified(request, tag)) is not None:
        return unchanged
    last = _last_row(desk, score_set, query, principal, cursor)
    _, everything = book_rows(score_set, query, view)
    left = everything if last is None else rows_after(score_set, query, view, last=last)
    page = left[:limit]
    following = _cursor_after(desk, score_set, query, principal, page) if len(left) > limit else None
    read = score_set.accounts["account_id"][page].tolist()
    await desk.journal.read(read, principal=principal, action="list accounts", score_set=score_set.manifest.version)
    make = partial(book_bytes, score_set, page.tolist(), total_up(score_set, everything), view, next_cursor=following)
    return tagged(await asyncio.to_thread(make) if len(page) > _FEW else make(), tag)


@router.get(
    "/v1/accounts/{account_id}",
    response_model=schema.Account,
    operation_id="get_account",
    summary="One account",
    responses=problems(404) | NOT_MODIFIED,
)
async def get_account(request: Request, desk: DeskOf, principal: Reader, account_id: schema.AccountId) -> Response:
    """Return one account with its scores explained: `base + parts of the drivers + part of the other factors = raw_score`."""
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    row = await account_row(desk, score_set, account_id, principal, view)
    tag = tag_of(score_set, view)
    return not_modified(request, tag) or tagged(account_bytes(score_set, row, view), tag)


def _last_row(desk: Desk, score_set: ScoreSet, query: BookQuery, principal: Principal, cursor: str | None) -> int | None:
    if cursor is None:
        return None
    return _cursors(desk).open(cursor, score_set=score_set, caller=principal.caller, question=vars(query))


def _cursor_after(desk: Desk, score_set: ScoreSet, query: BookQuery, principal: Principal, page: Rows) -> str:
    last = score_set.accounts["account_id"][page[-1]]
    return _cursors(desk).after(last, score_set=score_set, caller=principal.caller, question=vars(query))


def _cursors(desk: Desk) -> Cursors:
    return Cursors(desk.identity.secret)
