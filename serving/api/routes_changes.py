"""An account's `/history`, `/changes` and `/what-if`, and the feed `/v1/changes`."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Query

from features.clock import parse_instant
from features.errors import PackageError, ServiceError
from serving.answers import schema_changes as schema
from serving.answers.change_answers import NoMomentError, changes_answer, history_answer
from serving.answers.feed_answers import feed_answer, open_bookmark, read_feed, seal_bookmark
from serving.answers.problems import ProblemError, problems
from serving.answers.schema import AccountId, FieldProblem
from serving.answers.whatif import ImpossibleError
from serving.answers.whatif_answers import what_if_answer
from serving.api.desk import DeskOf, Predictor, Reader, account_row, view_of
from serving.api.routing import v1_router
from serving.scores.standings import VERSION

__all__ = ["MOST_CHANGES", "router"]

router = v1_router("changes")

_LOG = logging.getLogger("renewcast.serving")
_T = TypeVar("_T")

MOST_CHANGES, _USUAL_CHANGES = 1000, 200

_Moment = Annotated[
    str | None,
    Query(
        max_length=100,
        description="A day or an instant, UTC if it names no zone: the scores with the newest cutoff by then. Or the version of scores.",
        examples=["2025-07-01"],
    ),
]


@router.get(
    "/v1/accounts/{account_id}/history",
    response_model=schema.AccountHistory,
    operation_id="get_account_history",
    summary="How an account's health went",
    responses=problems(404, 503),
)
async def get_account_history(desk: DeskOf, principal: Reader, account_id: AccountId) -> schema.AccountHistory:
    """Return the scores of an account as of each cutoff, oldest first: what was said then, and before that what a model says of it now.

    Whoever sees the account today sees its whole past: that is the account's, whoever looked after it. It holds no reasons.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    row = await account_row(desk, score_set, account_id, principal, view, action="read history")
    return await _looking_back(lambda: history_answer(desk.archive, score_set, row, view))


@router.get(
    "/v1/accounts/{account_id}/changes",
    response_model=schema.AccountChanges,
    operation_id="get_account_changes",
    summary="What changed of an account",
    responses=problems(404, 503),
)
async def get_account_changes(
    desk: DeskOf,
    principal: Reader,
    account_id: AccountId,
    since: Annotated[_Moment, Query(alias="from")] = None,
    until: Annotated[_Moment, Query(alias="to")] = None,
) -> schema.AccountChanges:
    """Return what changed between two scores of an account, in words and in numbers that add up.

    The move is split exactly into what the features did, driver by driver, and what a newer model did by itself. Without `from` the present
    scores are compared with the newest older ones; where none are kept, with what the present models say of the account's values about a
    quarter before.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    row = await account_row(desk, score_set, account_id, principal, view, action="read changes")
    moments = {"since": _when(since, "from"), "until": _when(until, "to")}
    try:
        return await _looking_back(lambda: changes_answer(desk.archive, score_set, row, view, **moments))
    except NoMomentError as error:
        message = "; ".join(" ".join(line.split()) for line in str(error).splitlines())
        problem = FieldProblem(pointer=f"/query/{error.parameter}", message=message)
        raise ProblemError(422, "There is nothing to compare.", errors=[problem]) from error


@router.post(
    "/v1/accounts/{account_id}/what-if",
    response_model=schema.WhatIf,
    operation_id="ask_what_if",
    summary="What the models would say of other values",
    responses=problems(404, 413, 415),
)
async def ask_what_if(desk: DeskOf, principal: Predictor, account_id: AccountId, request: schema.WhatIfRequest) -> schema.WhatIf:
    """Return how probabilities, health and reasons would move if some of an account's features had other values.

    Features that follow from these move along, such as counts over longer windows; values that no account could have are refused with the
    range that is allowed. It is what the models say of such an account, and no promise of effect. Nothing is stored.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    row = await account_row(desk, score_set, account_id, principal, view, action="what-if")
    if not view.may("what_if"):
        await desk.journal.refused("what-if", principal=principal, action="what-if", accounts=[account_id])
        raise ProblemError(403, "What-if is not open to you.")
    try:
        return await asyncio.to_thread(what_if_answer, score_set, row, request.features, view)
    except ImpossibleError as error:
        wrong = [FieldProblem(pointer=f"/body/features/{name}", message=message) for name, message in error.problems.items()]
        raise ProblemError(422, "No account could have these values, or you may not change them.", errors=wrong) from error


@router.get(
    "/v1/changes",
    response_model=schema.Feed,
    operation_id="follow_changes",
    summary="What changed since you last asked",
    responses=problems(503),
)
async def follow_changes(
    desk: DeskOf,
    principal: Reader,
    since: Annotated[str | None, Query(max_length=500, description="`cursor` of the answer before; all that is kept if not given.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_CHANGES, description="How many changes at most.")] = _USUAL_CHANGES,
) -> schema.Feed:
    """Return what changed of your accounts from each score set to the next, in their order, so that a CRM or a marketing tool can follow.

    A change is told once: keep `cursor` and send it the next time. It tells of accounts that turned red, changed their band or have another
    first driver, that are new or gone, and of new models. With `reset`, changes were missed because the scores in between are no longer
    kept: read the book again, and go on from `cursor`.
    """
    score_set = desk.live.current()
    view, secret = view_of(desk, principal, score_set), desk.identity.secret
    bookmark = None if since is None else open_bookmark(since, secret=secret, caller=principal.caller)
    if since is not None and bookmark is None:
        wrong = FieldProblem(pointer="/query/since", message="is no cursor that was given to you; start without one")
        raise ProblemError(422, "The cursor does not fit.", errors=[wrong])
    page = await _looking_back(lambda: read_feed(desk.archive, score_set, view, since=bookmark, limit=limit))
    read = [change.account_id for _, change in page.changes if change is not None]
    await desk.journal.read(read, principal=principal, action="follow changes", score_set=score_set.manifest.version)
    return feed_answer(page, score_set, view, cursor=seal_bookmark(page.bookmark, secret=secret, caller=principal.caller))


def _when(text: str | None, name: str) -> datetime | str | None:
    if text is None or VERSION.fullmatch(text):
        return text
    try:
        return parse_instant(text)
    except (ValueError, OverflowError) as error:
        message = "must be a date or a time in ISO 8601, such as 2025-07-01, or the version of a score set"
        raise ProblemError(422, "There is no such time.", errors=[FieldProblem(pointer=f"/query/{name}", message=message)]) from error


async def _looking_back(work: Callable[[], _T]) -> _T:
    """Do what reads older scores from the disk in a thread.

    Raises
    ------
    ProblemError
        503 if they cannot be read.
    """
    try:
        return await asyncio.to_thread(work)
    except (ServiceError, PackageError) as error:
        _LOG.exception("older scores cannot be read")
        raise ProblemError(503, "Older scores cannot be read just now.", headers={"Retry-After": "60"}) from error
