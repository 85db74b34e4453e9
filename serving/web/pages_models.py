"""The data scientist's corner: which models are used and how good they are, drift, freshness, and what was set aside."""

import asyncio
import json
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
from serving.web.charts_record import calibration_plot
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page

__all__ = ["router"]

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
    """Return what the last training, the last check of the tables and the last scoring left."""
    report = _last_report(desk.workspace.training)
    targets = report.get("targets", {}) if report else {}
    return {
        "report": report,
        "targets": targets,
        "plots": {target: _plot(part) for target, part in targets.items()},
        "drift": read_drift(desk.archive.folder(score_set.manifest.version)),
        "tables": (_json(desk.workspace.check_report) or {}).get("tables", []),
    }


def _plot(part: dict[str, Any]) -> Any:
    bins = [CalibrationBin(**{name: one[name] for name in CalibrationBin.model_fields}) for one in part.get("calibration_curve") or []]
    return calibration_plot(bins)


def _last_report(training: Path) -> dict[str, Any] | None:
    try:
        return _json(training / (training / "CURRENT").read_text(encoding="utf-8").strip() / "report.json")
    except FileNotFoundError:
        return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found
