"""The page of net and gross retention: what it was, and what is to come."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers.retention_answers import By
from serving.answers.schema_portfolio import Retention, RetentionOutlook
from serving.api.desk import Desk, DeskOf, view_of
from serving.api.routes_retention import get_retention
from serving.callers.identity import Principal
from serving.scores.scoring import ScoreSet
from serving.web.charts_retention import retention_plot, span_bar
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page
from training.forecasting import list_forecasts

__all__ = ["MONTHS_SHOWN", "outlooks_of", "read_retention", "router"]

MONTHS_SHOWN = 25

router = APIRouter(include_in_schema=False)


@router.get("/retention")
async def retention_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show net and gross retention of the reader's book, by month, and the forecast with its intervals."""
    score_set = desk.live.current()
    answer = await read_retention(desk, reader, score_set, by=None, last=MONTHS_SHOWN)
    outlooks = outlooks_of(answer)
    year = next((one for one in outlooks if one.days > 180), None)
    windows = answer.actual[0].windows if answer.actual else []
    every = [rate for one in outlooks for rate in (one.ndr, one.grr)]
    ahead = (("ndr", year.ndr), ("grr", year.grr)) if year else ()
    context = {
        "retention": answer,
        "windows": windows[::-1],
        "outlooks": outlooks,
        "bars": [(span_bar(one.ndr, every), span_bar(one.grr, every)) for one in outlooks],
        "plot": retention_plot(windows, ahead),
    }
    return render_page(request, "retention.html", frame(score_set, reader, here="retention") | context)


async def read_retention(desk: Desk, reader: Principal, score_set: ScoreSet, *, by: By | None, last: int) -> Retention:
    """Return the answer of `/v1/retention`, which is worked out once for a score set, a reader's view and a forecast.

    Raises
    ------
    ProblemError
        403 if the policy does not share it.
    """
    view = view_of(desk, reader, score_set)
    key = ("retention", reader.caller, view.policy.fingerprint, by, last, list_forecasts(desk.workspace)[-1:])
    if not view.may("see_retention") or key not in score_set.memory:
        score_set.memory[key] = await get_retention(desk, reader, months=12, by=by, last=last)
    found: Retention = score_set.memory[key]
    return found


def outlooks_of(retention: Retention, group: str | None = None) -> list[RetentionOutlook]:
    """Return what is foretold of the book, the nearest first, or of one of its groups."""
    made = retention.forecast.outlooks if retention.forecast else []
    if group is not None:
        return [one for one in made if one.group == group]
    spans = sorted({one.days for one in made})
    return [max((one for one in made if one.days == days), key=lambda one: one.accounts) for days in spans]
