"""`/v1/retention`: net and gross retention of the caller's book."""

import asyncio
from typing import Annotated

from fastapi import Query

from serving.answers.problems import ProblemError
from serving.answers.retention_answers import By, kept_retention
from serving.answers.schema_portfolio import Retention
from serving.api.desk import DeskOf, Reader, view_of
from serving.api.routing import v1_router

__all__ = ["router"]

router = v1_router("retention")


@router.get("/v1/retention", response_model=Retention, operation_id="get_retention", summary="Net and gross retention, past and forecast")
async def get_retention(
    desk: DeskOf,
    principal: Reader,
    months: Annotated[int, Query(ge=1, le=60, description="Length of the past windows in months.")] = 12,
    by: Annotated[By | None, Query(description="Shows each partner, or each segment, beside the book; for the vendor.")] = None,
    last: Annotated[int, Query(ge=1, le=120, description="How many past windows, the last ones.")] = 24,
) -> Retention:
    """Return the Net Dollar Retention of your book: what it was, and what is forecast for today's customers with 80 and 95 % intervals.

    A partner reads that of its own book, over windows with at least ten customers. Where something is not there, `notes` says why.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    if not view.may("see_retention"):
        await desk.journal.refused("retention", principal=principal, action="read retention")
        raise ProblemError(403, "Retention is not shared with you.")
    if by is not None and not view.caller.is_vendor:
        await desk.journal.refused(f"retention by {by}", principal=principal, action="read retention")
        raise ProblemError(403, "Groups are shown to the vendor; leave `by` out for your own book.")
    return await asyncio.to_thread(kept_retention, desk.workspace, score_set, view, months=months, by=by, last=last)
