"""`/v1/track-record`: what was said, and what happened."""

import asyncio

from serving.answers import schema_track as schema
from serving.answers.said_record import read_said, said_answer
from serving.answers.track_record import track_record_answer
from serving.api.desk import Desk, DeskOf, Reader, view_of
from serving.api.routing import v1_router
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["router"]

router = v1_router("track record")


@router.get(
    "/v1/track-record", response_model=schema.TrackRecord, operation_id="get_track_record", summary="What was said and what happened"
)
async def get_track_record(desk: DeskOf, principal: Reader) -> schema.TrackRecord:
    """Return of the accounts that were flagged in the past how many left, how well chances could be taken at their word, and the misses.

    Beside what models that knew no better would have said of the past stands what the score sets that were served have really `said`.
    It tells about the whole book. Partners learn shares, of groups that are large enough; counts and single accounts are the vendor's.
    """
    score_set = desk.live.current()
    view = view_of(desk, principal, score_set)
    return await asyncio.to_thread(_answer, desk, score_set, view)


def _answer(desk: Desk, score_set: ScoreSet, view: View) -> schema.TrackRecord:
    said = said_answer(read_said(desk.archive, desk.workspace, score_set), score_set, view)
    return track_record_answer(desk.workspace, score_set, view, said=said)
