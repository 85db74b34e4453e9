"""The page of the book: the accounts that need somebody, ranked; and the same book by who may grow."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Self, get_args
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers import schema
from serving.answers.account_answers import account_answer, book_answer
from serving.answers.portfolio import SORTS, BookPage, BookQuery, Sort, book_rows, choices, closed_fields, select_accounts
from serving.answers.problems import ProblemError
from serving.api.desk import DeskOf, view_of
from serving.api.filters import require_open
from serving.api.routes_export import export_accounts
from serving.health import BANDS
from serving.scores.causes import Causes, causes_of
from serving.scores.courses import Courses, courses_of
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.web.charts import Spark, band_shares, sparkline
from serving.web.pages import Reader
from serving.web.pages_frame import frame, partner_name, render_page

__all__ = ["BookAddress", "router"]

Side = Literal["risk", "growth"]

_RENEWALS = (30, 60, 90, 180)
_LONGEST = 200

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class BookAddress:
    """What the address of a book asks for: a view that can be kept as a bookmark, and sent to a colleague.

    Parameters
    ----------
    view
        The book by who may leave, or by who may grow.
    renewal
        Days after the cutoff within which contracts renew; an empty text is any time.
    """

    view: Side = "risk"
    search: str = ""
    band: str = ""
    segment: str = ""
    partner: str = ""
    csm: str = ""
    renewal: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def read(cls, params: Mapping[str, str]) -> Self:
        """Read an address; what is empty is not asked for.

        Raises
        ------
        ProblemError
            422 for what no page could answer.
        """
        given = {name: params[name][:_LONGEST] for name in cls.__dataclass_fields__ if params.get(name)}
        allowed = {"view": get_args(Side), "band": BANDS, "sort": SORTS, "renewal": [str(days) for days in _RENEWALS]}
        page = given.pop("page", "1")
        if any(given.get(name) not in (None, *values) for name, values in allowed.items()) or not _is_page(page):
            raise ProblemError(422, "The address asks for a view, a band, an order, a window or a page that there is not.")
        return cls(page=int(page), **given)  # type: ignore[arg-type]

    @property
    def filtered(self) -> bool:
        """Whether it leaves accounts out."""
        return any((self.search, self.band, self.segment, self.partner, self.csm, self.renewal))

    def query(self, cutoff: datetime) -> BookQuery:
        """Return what to ask of the book as of a cutoff."""
        texts = {name: getattr(self, name) or None for name in ("band", "segment", "partner", "csm", "sort")}
        if self.renewal:
            texts |= {"renewal_from": cutoff, "renewal_until": cutoff + timedelta(days=int(self.renewal))}
        if self.view == "growth" and not self.sort:
            texts["sort"] = "expansion_probability"
        return BookQuery(search=self.search, page=self.page, **texts)  # type: ignore[arg-type]

    def but(self, **changed: str | int) -> str:
        """Return the address with something changed; another order or filter begins on the first page."""
        other = asdict(replace(self, **({"page": 1} | changed)))  # type: ignore[arg-type]
        usual = asdict(BookAddress())
        wanted = {name: value for name, value in other.items() if value != usual[name]}
        return "/?" + urlencode(wanted) if wanted else "/"

    def export(self) -> str:
        """Return the address of a file of all accounts of the view."""
        return "/export" + self.but().removeprefix("/")


@router.get("/")
async def book_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show the accounts that the caller may see, ranked."""
    score_set = desk.live.current()
    address = BookAddress.read(request.query_params)
    query = address.query(score_set.manifest.cutoff)
    view = view_of(desk, reader, score_set)
    await require_open(desk, query, view, reader, action="list accounts")
    selected = select_accounts(score_set, query, view)
    answer = book_answer(score_set, selected.rows, selected.totals, view)
    courses = await asyncio.to_thread(courses_of, desk.archive, score_set)
    read = [account.account_id for account in answer.accounts]
    await desk.journal.read(read, principal=reader, action="list accounts", score_set=score_set.manifest.version)
    context = {
        "book": answer,
        "asked": address,
        "selected": selected,
        "filters": _filters(score_set, view),
        "views": _views(answer, view) if _has_renewals(score_set) else (),
        "sortable": {sort for sort in SORTS if _may_sort(sort, view)},
        "renewals": _RENEWALS if _has_renewals(score_set) else (),
        "shares": band_shares(answer.totals.bands),
        "trends": _trends(score_set, selected, courses),
        "causes": _causes(score_set, selected, courses, await asyncio.to_thread(causes_of, desk.archive, score_set), view),
        "movement": courses and courses.movement(book_rows(score_set, query, view)[1]),
        "may_export": "export" in reader.scopes and view.may("export"),
        "may_see_retention": view.may("see_retention"),
        "growth": _growth(score_set, selected, view) if address.view == "growth" else {},
    }
    return render_page(request, "book.html", frame(score_set, reader, here="book") | context)


@router.get("/export")
async def export_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Hand out the accounts of a view as a CSV file."""
    if "export" not in reader.scopes:
        await desk.journal.refused("lacks scope export", principal=reader, action="export")
        raise ProblemError(403, "Your role does not let you take the book with you as a file.")
    address = BookAddress.read(request.query_params)
    return await export_accounts(desk, reader, address.query(desk.live.current().manifest.cutoff), "csv")


def _trends(score_set: ScoreSet, selected: BookPage, courses: Courses | None) -> dict[str, Spark]:
    """Return by account how its health went of late."""
    if courses is None:
        return {}
    drawn = {score_set.accounts["account_id"][row]: sparkline([health for _, health in courses.of(row)]) for row in selected.rows}
    return {account_id: spark for account_id, spark in drawn.items() if spark}


def _causes(score_set: ScoreSet, selected: BookPage, courses: Courses | None, causes: Causes | None, view: View) -> dict[str, str]:
    """Return by account what moved its health most since the scores before, where it moved and both speak of the same time."""
    if courses is None or causes is None:
        return {}
    told: dict[str, str] = {}
    for row in selected.rows:
        newest = courses.of(row)[-2:]
        moved = len(newest) == 2 and newest[0][0] == causes.since and newest[0][1] != newest[1][1]
        sentence = causes.of(row, view, score_set) if moved else None
        if sentence is not None:
            told[score_set.accounts["account_id"][row]] = sentence
    return told


def _has_renewals(score_set: ScoreSet) -> bool:
    """Tell whether any account of the book has a contract that renews."""
    return not np.isnat(score_set.accounts["renewal_at"]).all()


def _is_page(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 10**6


def _may_sort(sort: Sort, view: View) -> bool:
    return not closed_fields(BookQuery(sort=sort), view)


def _filters(score_set: ScoreSet, view: View) -> dict[str, Mapping[str, str]]:
    """Return the choices of each filter, from value to label."""
    segments, csms, partners = (choices(score_set, column, view) for column in ("segment", "csm", "partner_id"))
    return {
        "segment": {name: name for name in segments},
        "csm": {name: name for name in csms},
        "partner": {key: partner_name(score_set, key) for key in partners} if view.caller.is_vendor else {},
    }


def _views(book: schema.Book, view: View) -> tuple[tuple[str, BookAddress], ...]:
    """Return the views that most people begin with, by name."""
    reds = not closed_fields(BookQuery(band="red"), view)
    ready: list[tuple[str, BookAddress]] = [("All", BookAddress())]
    if reds:
        ready += [("Red", BookAddress(band="red"))]
    if not closed_fields(BookQuery(renewal_until=book.as_of.cutoff), view):
        ready += [("Renews in 90 days", BookAddress(renewal="90"))]
        ready += [("Red and renews in 90 days", BookAddress(band="red", renewal="90"))] if reds else []
    return tuple(ready)


def _growth(score_set: ScoreSet, selected: BookPage, view: View) -> dict[str, schema.Driver | None]:
    """Return by account the first reason that it might grow, one that somebody can act on first."""
    if "expansion" not in score_set.packages:
        return {}
    answers = [account_answer(score_set, row, view) for row in selected.rows]
    return {answer.account_id: _first_for_growth(answer) for answer in answers}


def _first_for_growth(answer: schema.Account) -> schema.Driver | None:
    score = next(score for score in answer.scores if score.target == "expansion")
    raising = [driver for driver in score.drivers if driver.effect == "raises"]
    return next((driver for driver in raising if driver.actionable), next(iter(raising), None))
