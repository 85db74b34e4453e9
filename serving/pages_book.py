"""The page of the book: the accounts that need somebody, ranked."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.answers import book_answer
from serving.charts import band_shares
from serving.desk import DeskOf, view_of
from serving.health import BANDS
from serving.pages import Reader
from serving.pages_frame import frame, render_page
from serving.portfolio import SORTS, BookPage, BookQuery, choices, select_accounts
from serving.problems import ProblemError
from serving.scoring import ScoreSet
from serving.sharing import View

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/")
async def book_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show the accounts that the caller may see, ranked."""
    score_set = desk.live.current()
    query = _book_query(request.query_params)
    view = view_of(desk, reader, score_set)
    selected = select_accounts(score_set, query, view)
    answer = book_answer(score_set, selected.rows, selected.totals, view)
    read = [account.account_id for account in answer.accounts]
    await desk.journal.read(read, principal=reader, action="list accounts", score_set=score_set.manifest.version)
    context = {
        "book": answer,
        "query": query,
        "selected": selected,
        "sort": selected.sort,
        "filters": _filters(score_set, view),
        "shares": band_shares(answer.totals.bands),
    }
    return render_page("book.html", frame(score_set, reader) | context | {"links": _Links(query, selected)})


class _Links:
    """Addresses of the book with one thing changed."""

    def __init__(self, query: BookQuery, selected: BookPage) -> None:
        self._asked = {
            "search": query.search,
            "band": query.band,
            "segment": query.segment,
            "partner": query.partner,
            "csm": query.csm,
            "sort": query.sort,
        }
        self._selected = selected

    def sorted_by(self, sort: str) -> str:
        """Return the address of the first page in another order."""
        return self._address({"sort": sort})

    def page(self, number: int) -> str:
        """Return the address of another page."""
        return self._address({"page": number})

    def band(self, band: str) -> str:
        """Return the address with only this band, or with all if it is chosen already."""
        return self._address({"band": None if self._asked["band"] == band else band})

    def _address(self, changed: Mapping[str, Any]) -> str:
        wanted = {name: value for name, value in (self._asked | dict(changed)).items() if value not in (None, "")}
        return "/?" + urlencode(wanted)


def _book_query(params: Mapping[str, str]) -> BookQuery:
    """Read the filters of the book's form; an empty field is no filter."""
    given = {name: value for name, value in params.items() if value}
    page = given.get("page", "1")
    if given.get("band", "red") not in BANDS or given.get("sort", "arr") not in SORTS or not (page.isdecimal() and 0 < int(page) < 10**6):
        raise ProblemError(422, "The address asks for a band, an order or a page that there is not.")
    texts = {name: given[name] for name in ("band", "segment", "partner", "csm", "sort", "search") if name in given}
    return BookQuery(page=int(page), **texts)  # type: ignore[arg-type]


def _filters(score_set: ScoreSet, view: View) -> dict[str, Mapping[str, str]]:
    """Return the choices of each filter, from value to label."""
    segments, csms, partners = (choices(score_set, column, view) for column in ("segment", "csm", "partner_id"))
    names = dict(zip(score_set.accounts["partner_id"], score_set.accounts["partner_name"], strict=True))
    return {
        "segment": {name: name for name in segments},
        "csm": {name: name for name in csms},
        "partner": {key: names[key] or key for key in partners} if view.caller.is_vendor else {},
    }
