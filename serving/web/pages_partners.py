"""The pages of the partners: what the accounts of each add up to, side by side and in no order of merit."""

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers.partner_books import partner_answer, partners_answer
from serving.answers.problems import not_found
from serving.answers.retention_answers import ON_THE_PAGE_OF_PARTNERS
from serving.answers.schema import PartnerId
from serving.answers.schema_portfolio import Retention, RetentionOutlook, RetentionWindow
from serving.api.desk import DeskOf, view_of
from serving.api.routes_contributions import get_worth
from serving.api.routes_retention import get_retention
from serving.scores.courses import Courses, Movement, courses_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.web.charts import band_shares
from serving.web.charts_retention import SpanBar, span_bar
from serving.web.pages import Reader
from serving.web.pages_frame import frame, render_page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/partners")
async def partners_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show each partner's book, how it moved of late, and its retention."""
    if not reader.caller.is_vendor:
        await desk.journal.refused("the partners are the vendor's to see", principal=reader, action="read partners")
        raise not_found()
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    answer = partners_answer(score_set, view)
    courses = await asyncio.to_thread(courses_of, desk.archive, score_set)
    context = {
        "partners": answer,
        "shares": {book.partner_id: band_shares(book.totals.bands) for book in answer.partners},
        "movements": {book.partner_id: _movement(courses, score_set, book.partner_id, view) for book in answer.partners},
    }
    return render_page(request, "partners.html", frame(score_set, reader, here="partners") | context)


@router.get("/partners/retention")
async def partners_retention(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show net and gross retention of each partner's customers: what it was in the last year, and what is foretold."""
    if not reader.caller.is_vendor:
        await desk.journal.refused("the partners are the vendor's to see", principal=reader, action="read partners")
        raise not_found()
    score_set = desk.live.current()
    retention = await get_retention(desk, reader, **ON_THE_PAGE_OF_PARTNERS)
    names = {partner_id: row.name for partner_id, row in score_set.partners.items()}
    context = {"rows": _by_partner(retention), "names": names, "notes": retention.notes}
    return render_page(request, "partners_retention.html", frame(score_set, reader, here="partners") | context)


@router.get("/partners/{partner_id}")
async def partner_page(request: Request, desk: DeskOf, reader: Reader, partner_id: PartnerId) -> Response:
    """Show one partner's book by segment, beside the accounts of all other partners, and what its data are worth."""
    score_set = desk.live.current()
    view = view_of(desk, reader, score_set)
    answer = partner_answer(score_set, partner_id, view)
    if answer is None:
        await desk.journal.refused(f"no such partner, or another one: {partner_id}", principal=reader, action="read partners")
        raise not_found()
    courses = await asyncio.to_thread(courses_of, desk.archive, score_set)
    context = {
        "partner": answer,
        "shares": band_shares(answer.totals.bands),
        "movement": _movement(courses, score_set, partner_id, view),
        "worth": await get_worth(desk, reader, partner_id if reader.caller.is_vendor else None),
    }
    return render_page(request, "partner.html", frame(score_set, reader, here="partners") | context)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One partner's retention: the last year, and the next."""

    partner_id: str
    window: RetentionWindow | None
    outlook: RetentionOutlook | None
    bar: SpanBar | None


def _by_partner(retention: Retention) -> list[_Row]:
    """Return the partners whose retention is known, those with the most ARR first."""
    windows = {series.group: series.windows[-1] for series in retention.actual if series.group and series.windows}
    made = retention.forecast.outlooks if retention.forecast else []
    furthest = max((one.days for one in made), default=0)
    outlooks = {one.group: one for one in made if one.group and one.days == furthest}
    rows, every = [], [one.ndr for one in outlooks.values()]
    for group in windows.keys() | outlooks.keys():
        outlook = outlooks.get(group)
        rows.append(
            _Row(partner_id=group, window=windows.get(group), outlook=outlook, bar=span_bar(outlook.ndr, every) if outlook else None)
        )
    return sorted(rows, key=lambda row: (-(row.window.arr_start if row.window else 0.0), row.partner_id))


def _movement(courses: Courses | None, score_set: ScoreSet, partner_id: str, view: View) -> Movement | None:
    if courses is None or view.at is None:
        return None
    return courses.movement(score_set.assignments.rows_of(partner_id, view.at))
