"""The page of the track record: what was said of the past, and what happened."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers.said_record import name_misses, read_said, said_answer
from serving.answers.schema_track import CalibrationBin
from serving.answers.track_record import read_record, track_record_answer
from serving.api.desk import Desk, DeskOf, view_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.web.charts_record import calibration_plot
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/track-record")
async def track_record_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show of the accounts that were flagged how many left, whether chances could be taken at their word, and the misses."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    looked_up = await asyncio.to_thread(_look_up, desk, score_set, view)
    calibration = looked_up["record"].calibration or []
    context = {"plot": calibration_plot(calibration), "verdict": _verdict(calibration)}
    return render_page(request, "track.html", frame(score_set, reader, here="track") | context | looked_up)


def _look_up(desk: Desk, score_set: ScoreSet, view: View) -> dict[str, Any]:
    """Return the record, and the misses by name: of what was said, else of the held-out scores."""
    said = read_said(desk.archive, desk.workspace, score_set)
    told = said_answer(said, score_set, view)
    record = read_record(desk.workspace, score_set)
    misses = said.misses if said.cohorts else record.misses if record else ()
    return {
        "record": track_record_answer(desk.workspace, score_set, view, said=told),
        "said": told.cohorts or [],
        "first_due": told.first_due,
        "misses": name_misses(misses, desk.workspace, score_set, view),
        "may_see_misses": view.share("TrackRecord", {"misses": True})["misses"] is not None,
    }


def _verdict(bins: Sequence[CalibrationBin]) -> str:
    """Say how many groups of accounts came out as they were told."""
    told = [one.low <= one.probability <= one.high for one in bins if None not in (one.low, one.probability, one.high)]  # type: ignore[operator]
    right = sum(told)
    if right == len(told):
        return f"Yes: in all {len(told)} groups of accounts as many left as was said, as far as chance lets one tell."
    most = "Mostly" if right >= 0.8 * len(told) else "Not quite" if right >= 0.5 * len(told) else "No"
    return f"{most}: in {right} of {len(told)} groups of accounts as many left as was said, as far as chance lets one tell."
