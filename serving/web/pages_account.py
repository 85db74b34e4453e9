"""The page of one account: how it stands, why, what changed, and what can be done."""

import asyncio
import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from features import clock
from features.errors import PackageError, ServiceError
from serving.answers import schema, schema_changes
from serving.answers.account_answers import account_answer
from serving.answers.change_answers import NoMomentError, changes_answer, history_answer
from serving.answers.playbook import load_playbook
from serving.answers.schema_track import CalibrationBin
from serving.answers.track_record import calibration_answer, read_record
from serving.api.desk import Desk, DeskOf, account_row, view_of
from serving.callers.identity import Principal
from serving.scores.feature_courses import FeatureCourse, seen_feature_courses
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.web.charts import Course, hundred, over_time, waterfall
from serving.web.charts_feature import feature_plot
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page
from serving.web.pages_remarks import remarks_of
from serving.web.pages_what_if import levers_of, may_ask, outcomes_of

__all__ = ["MOST_POINTS", "account_context", "router"]

MOST_POINTS = 24
"""So many points of health are drawn, the newest."""

_OLDEST = timedelta(days=3 * 365)
"""Older points are not drawn: they would push the present to the edge."""

router = APIRouter(include_in_schema=False)


@router.get("/accounts/{account_id}")
async def account_page(request: Request, desk: DeskOf, reader: Reader, account_id: str) -> Response:
    """Show one account and why it scores as it does."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    row = await account_row(desk, score_set, account_id, reader, view)
    context = await account_context(desk, reader, score_set, row, view)
    return render_page(request, "account.html", context | {"sent": request.query_params.get("sent", "")})


async def account_context(desk: Desk, reader: Principal, score_set: ScoreSet, row: int, view: View) -> dict[str, Any]:
    """Return all that the page of an account shows."""
    answer = account_answer(score_set, row, view)
    looked_back = await asyncio.to_thread(_look_back, desk, score_set, row, view)
    courses = await asyncio.to_thread(_feature_courses, desk, score_set, row, view)
    return (
        frame(score_set, reader, here="book")
        | _charts(answer, courses)
        | looked_back
        | await remarks_of(desk, reader, answer.account_id)
        | {
            "account": answer,
            "definition": score_set.manifest.health,
            "models": score_set.manifest.models,
            "suggestions": load_playbook(desk.workspace).suggest(answer.scores, side="vendor" if reader.caller.is_vendor else "partner"),
            "may_say": "feedback" in reader.scopes and view.may("feedback"),
            "levers": await asyncio.to_thread(levers_of, score_set, row, view, answer.scores) if may_ask(reader, view) else (),
            "may_ask": may_ask(reader, view),
            "outcomes": outcomes_of(score_set, row, view),
            "wrong": {},
            "typed": {},
            "form": "",
        }
    )


def _charts(answer: schema.Account, courses: Mapping[str, FeatureCourse]) -> dict[str, Any]:
    return {
        "plots": {
            score.target: [feature_plot(courses.get((driver.features or [""])[0]), driver) for driver in score.drivers]
            for score in answer.scores
        },
        "charts": {score.target: waterfall(score) for score in answer.scores},
        "hundred": hundred,
    }


def _look_back(desk: Desk, score_set: ScoreSet, row: int, view: View) -> dict[str, Any]:
    """Return what reads files: the past of the account, and how often such chances came true."""
    history = _history(desk, score_set, row, view)
    calibration = calibration_answer(read_record(desk.workspace, score_set), view)
    probability = float(score_set.accounts["churn_probability"][row])
    return {
        "history": history,
        "course": _course(history),
        "changes": _changes(desk, score_set, row, view),
        "alike": _alike(calibration, probability),
    }


def _feature_courses(desk: Desk, score_set: ScoreSet, row: int, view: View) -> Mapping[str, FeatureCourse]:
    try:
        return seen_feature_courses(desk.archive, score_set, row, view)
    except ServiceError:
        return {}


def _history(desk: Desk, score_set: ScoreSet, row: int, view: View) -> schema_changes.AccountHistory | None:
    try:
        return history_answer(desk.archive, score_set, row, view)
    except (ServiceError, PackageError):
        return None


def _changes(desk: Desk, score_set: ScoreSet, row: int, view: View) -> schema_changes.AccountChanges | None:
    try:
        return changes_answer(desk.archive, score_set, row, view)
    except (ServiceError, PackageError, NoMomentError):
        return None


def _course(history: schema_changes.AccountHistory | None) -> Course | None:
    if history is None:
        return None
    known = [point for point in history.points if point.health is not None][-MOST_POINTS:]
    points = [point for point in known if not clock.has_come(point.cutoff, known[-1].cutoff - _OLDEST)]
    newer = [point.cutoff for earlier, point in itertools.pairwise(points) if earlier.package != point.package]
    return over_time([(point.cutoff, point.health or 0, point.origin == "said") for point in points], models=newer)


def _alike(bins: list[CalibrationBin], probability: float) -> CalibrationBin | None:
    """Return the group of past scores whose chance was nearest to this one, if it is near: how sure one can be of the chance."""
    known = [one for one in bins if one.probability and one.low is not None and one.high is not None]
    nearest = min(known, key=lambda one: abs((one.probability or 0.0) - probability), default=None)
    if nearest is None or not 0.5 <= probability / (nearest.probability or 1.0) <= 2.0:
        return None
    return nearest
