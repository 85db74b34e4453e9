"""The data scientist's corner: which models are used and how good they are, drift, freshness, and what was set aside.

All of it comes from files of the workspace: the page works while MLflow is away, and links to it where it is a server.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from features.feature import Target
from serving.answers.model_answers import find_card, models_answer
from serving.answers.problems import not_found
from serving.answers.schema_track import CalibrationBin
from serving.api.desk import Desk, DeskOf, view_of
from serving.callers.identity import Principal
from serving.scores.drift import read_drift
from serving.scores.scoring import ScoreSet
from serving.web.charts_record import CalibrationPlot, calibration_plot
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page
from training.report import REPORT

__all__ = ["Side", "router"]

_MEASURES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "lift_top_10": "lift in the top 10 %",
    "recall_top_10": "share of the positives in the top 10 %",
    "brier_skill": "Brier skill",
    "ece": "calibration error (ECE)",
    "ece_expected": "calibration error that chance alone would give",
}
"""The measures of a report that the page shows; `renewcast report` shows all."""

router = APIRouter(include_in_schema=False)


@router.get("/models")
async def models_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show the models behind the scores, how they were judged, and what happened to the data since."""
    await _for_the_vendor(desk, reader)
    score_set = desk.live.current()
    answer = models_answer(score_set, view_of(desk, reader, score_set))
    found = await asyncio.to_thread(_found, desk, score_set)
    context = {"answer": answer, "measures": _MEASURES}
    return render_page(request, "models.html", frame(score_set, reader, here="models") | context | found)


@router.get("/models/{target}/card")
async def card_page(request: Request, desk: DeskOf, reader: Reader, target: Target) -> Response:
    """Show the card of the model that made a target's scores."""
    await _for_the_vendor(desk, reader)
    score_set = desk.live.current()
    model = score_set.manifest.models.get(target)
    card = None if model is None else await asyncio.to_thread(find_card, desk.workspace.training, target, model.package_hash)
    if card is None:
        raise not_found()
    return render_page(request, "card.html", frame(score_set, reader, here="models") | {"card": card, "target": target})


async def _for_the_vendor(desk: Desk, reader: Principal) -> None:
    """See that a person of the vendor's reads.

    Raises
    ------
    ProblemError
        404 for anybody else.
    """
    if not reader.caller.is_vendor:
        await desk.journal.refused("the models are the vendor's to see", principal=reader, action="read models")
        raise not_found()


def _found(desk: Desk, score_set: ScoreSet) -> dict[str, Any]:
    """Return what the trainings, the last check of the tables and the last scoring left."""
    trainings = list(_trainings(desk.workspace.training))
    targets = {target: _sides(trainings, target, model.package_hash) for target, model in score_set.manifest.models.items()}
    last = trainings[0] if trainings else None
    return {
        "report": last,
        "targets": targets,
        "untrained": _untrained(last, score_set),
        "plots": {target: _plot(sides[0].part) for target, sides in targets.items() if sides},
        "drift": read_drift(desk.archive.folder(score_set.manifest.version)),
        "tables": (_json(desk.workspace.check_report) or {}).get("tables", []),
    }


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model beside another one, as its training's report tells of it.

    Parameters
    ----------
    name
        What it is called: that which made the scores, and the newest one that did not.
    part
        The target's part of the report.
    links
        Where MLflow shows its version and its run; none without a tracking server.
    """

    name: str
    run: str
    made_at: str
    part: Mapping[str, Any]
    links: Mapping[str, str]


def _sides(trainings: Sequence[Mapping[str, Any]], target: Target, package_hash: str) -> tuple[Side, ...]:
    """Return the model that made the scores, if its report is still there, and the newest other one if it was trained later."""
    trained = [(report, report["targets"].get(target, {})) for report in trainings]
    trained = [(report, part) for report, part in trained if part.get("status") == "trained"]
    used = next((place for place, (_, part) in enumerate(trained) if part["package_hash"] == package_hash), None)
    newer = trained[:1] if used != 0 else []
    sides = [_side("In use", *trained[used])] if used is not None else []
    return (*sides, *(_side(_role(part), report, part) for report, part in newer))


def _role(part: Mapping[str, Any]) -> str:
    """Say what a newer model is: one that waits for the next scoring, or one that was not taken."""
    return "Champion from the next scoring on" if part["role"] == "champion" else "Challenger"


def _side(name: str, report: Mapping[str, Any], part: Mapping[str, Any]) -> Side:
    links = {what: address for what, address in (part.get("links") or {}).items() if address.startswith(("https://", "http://"))}
    return Side(name=name, run=report["run"], made_at=report["made_at"], part=part, links=links)


def _untrained(last: Mapping[str, Any] | None, score_set: ScoreSet) -> dict[str, str]:
    """Return by target why the last training made no model of it, where none is used either."""
    parts = last["targets"] if last else {}
    return {target: part["verdict"] for target, part in parts.items() if target not in score_set.manifest.models}


def _plot(part: Mapping[str, Any]) -> CalibrationPlot | None:
    bins = [CalibrationBin(**{name: one[name] for name in CalibrationBin.model_fields}) for one in part.get("calibration_curve") or []]
    return calibration_plot(bins)


def _trainings(training: Path) -> Iterator[dict[str, Any]]:
    """Yield the reports of the trainings that are kept, the newest first."""
    for path in sorted(training.glob(f"*/{REPORT}"), reverse=True):
        report = _json(path)
        if report is not None and "targets" in report:
            yield report


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found
