"""`/v1/accounts`: the book, and one account."""

from typing import Annotated

from fastapi import Query

from serving import schema
from serving.answers import account_answer, book_answer
from serving.desk import DeskOf, Reader, account_row, view_of
from serving.health import Band
from serving.portfolio import DEFAULT_PAGE_SIZE, LARGEST_PAGE, BookQuery, Sort, select_accounts
from serving.problems import problems
from serving.routing import v1_router

__all__ = ["router"]

router = v1_router("accounts")


@router.get("/v1/accounts", response_model=schema.Book, operation_id="list_accounts", summary="The book")
async def list_accounts(
    desk: DeskOf,
    principal: Reader,
    band: Annotated[Band | None, Query()] = None,
    segment: Annotated[str | None, Query()] = None,
    partner: Annotated[str | None, Query(description="A partner's id.")] = None,
    csm: Annotated[str | None, Query()] = None,
    search: Annotated[str, Query(max_length=200, description="Part of a name or of an account id.")] = "",
    sort: Annotated[Sort | None, Query(description="ARR at risk by default; probability of churn where there is no ARR.")] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = DEFAULT_PAGE_SIZE,
) -> schema.Book:
    """Return the accounts that you may see, those that need you first."""
    score_set = desk.live.current()
    query = BookQuery(band=band, segment=segment, partner=partner, csm=csm, search=search, sort=sort, page=page, page_size=page_size)
    selected = select_accounts(score_set, query, principal.caller)
    answer = book_answer(score_set, selected, view_of(desk, principal, score_set), page_size=page_size)
    read = [account.account_id for account in answer.accounts]
    await desk.journal.read(read, principal=principal, action="list accounts", score_set=score_set.manifest.version)
    return answer


@router.get(
    "/v1/accounts/{account_id}",
    response_model=schema.Account,
    operation_id="get_account",
    summary="One account",
    responses=problems(404),
)
async def get_account(desk: DeskOf, principal: Reader, account_id: schema.AccountId) -> schema.Account:
    """Return one account with its scores explained."""
    score_set = desk.live.current()
    row = await account_row(desk, score_set, account_id, principal)
    return account_answer(score_set, row, view_of(desk, principal, score_set))
