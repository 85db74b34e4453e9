"""The page of net and gross retention: what it was, and what is to come."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers.retention_answers import ON_THE_PAGE
from serving.answers.schema_portfolio import Retention, RetentionOutlook
from serving.api.desk import DeskOf
from serving.api.routes_retention import get_retention
from serving.web.charts_retention import retention_plot, span_bar
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page

__all__ = ["outlooks_of", "router"]

router = APIRouter(include_in_schema=False)


@router.get("/retention")
async def retention_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show net and gross retention of the reader's book, by month, and the forecast with its intervals."""
    score_set = desk.live.current()
    answer = await get_retention(desk, reader, **ON_THE_PAGE)
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


def outlooks_of(retention: Retention, group: str | None = None) -> list[RetentionOutlook]:
    """Return what is foretold of the book, the nearest first, or of one of its groups."""
    made = retention.forecast.outlooks if retention.forecast else []
    if group is not None:
        return [one for one in made if one.group == group]
    spans = sorted({one.days for one in made})
    return [max((one for one in made if one.days == days), key=lambda one: one.accounts) for days in spans]
