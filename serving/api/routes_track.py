"""`/v1/track-record`: what was said, and what happened."""

import asyncio

from serving.answers import schema_track as schema
from serving.answers.track_record import track_record_answer
from serving.api.desk import DeskOf, Reader, view_of
from serving.api.routing import v1_router

__all__ = ["router"]

router = v1_router("track record")


@router.get(
    "/v1/track-record", response_model=schema.TrackRecord, operation_id="get_track_record", summary="What was said and what happened"
)
async def get_track_record(desk: DeskOf, principal: Reader) -> schema.TrackRecord:
    """Return of the accounts that were flagged in the past how many left, how well chances could be taken at their word, and the misses.

    It tells about the whole book. Partners learn shares, of groups that are large enough; counts and single accounts are the vendor's.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    return await asyncio.to_thread(track_record_answer, desk.workspace, score_set, view)
