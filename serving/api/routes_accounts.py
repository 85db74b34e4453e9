"""`/v1/accounts`: the book, and one account."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from serving.answers import schema
from serving.answers.account_answers import account_bytes, book_bytes
from serving.answers.portfolio import book_rows, rows_after, total_up
from serving.answers.problems import ProblemError, problems
from serving.api.cursors import Cursors, Paged
from serving.api.desk import DeskOf, Reader, account_row, view_of
from serving.api.filters import Filters, require_open
from serving.api.routing import v1_router
from serving.api.tags import NOT_MODIFIED, not_modified, tag_of, tagged
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
    paging: Paged,
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
    cursors = Cursors(desk.identity.secret, principal.caller, {"list": "accounts", **vars(query)})
    last = None if paging.cursor is None else _row_at(score_set, cursors.open(paging.cursor))
    _, everything = book_rows(score_set, query, view)
    left = everything if last is None else rows_after(score_set, query, view, last=last)
    page = left[: paging.limit]
    read = score_set.accounts["account_id"][page].tolist()
    following = cursors.seal(score_set.manifest.version, read[-1]) if len(left) > len(page) else None
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


def _row_at(score_set: ScoreSet, place: Sequence[str]) -> int:
    """Return the row of the account where a page ended.

    Raises
    ------
    ProblemError
        410 if it was a page of other scores: going on would skip accounts and tell others twice.
    """
    version, account_id = place
    if version != score_set.manifest.version:
        raise ProblemError(410, "New scores have come since this cursor was given: start again without a cursor.")
    return score_set.index[account_id]
