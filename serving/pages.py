"""The pages for people: the book and the account, rendered on the server, without a line of script."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from serving import wording
from serving.answers import account_answer, book_answer
from serving.charts import band_shares, waterfall
from serving.desk import DeskOf, account_row, view_of
from serving.health import AMBER_FROM, AMBER_TO, BANDS
from serving.identity import SESSION_SECONDS, Principal, RefusedError
from serving.portfolio import SORTS, BookPage, BookQuery, choices, select_accounts
from serving.problems import ProblemError, problem_response
from serving.reasons import EVENT
from serving.scoring import ScoreSet

__all__ = ["STATIC", "problem_answer", "router"]

_WEB = Path(__file__).parent / "web"
STATIC = _WEB / "static"

_SESSION, _BROWSER = "renewcast_session", "renewcast_browser"
_BROWSER_SECONDS = 365 * 24 * 3600

router = APIRouter(include_in_schema=False)


async def _signed_in(request: Request, desk: DeskOf) -> Principal:
    try:
        return await desk.identity.check_session(request.cookies.get(_SESSION, ""))
    except RefusedError as error:
        raise ProblemError(401, "Open the sign-in link that you were given; it has to be a fresh one after a while.") from error


Reader = Annotated[Principal, Depends(_signed_in)]


@router.get("/")
async def book_page(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """Show the accounts that the caller may see, ranked."""
    score_set = desk.live.current()
    query = _book_query(request.query_params)
    selected = select_accounts(score_set, query, reader.caller)
    answer = book_answer(score_set, selected, view_of(desk, reader, score_set), page_size=query.page_size)
    read = [account.account_id for account in answer.accounts]
    await desk.journal.read(read, principal=reader, action="list accounts", score_set=score_set.manifest.version)
    context = {
        "book": answer,
        "query": query,
        "sort": selected.sort,
        "filters": _filters(score_set, reader),
        "shares": band_shares(answer.totals.bands),
    }
    return _page("book.html", _frame(score_set, reader) | context | {"links": _Links(query, selected)})


@router.get("/accounts/{account_id}")
async def account_page(desk: DeskOf, reader: Reader, account_id: str) -> Response:
    """Show one account and why it scores as it does."""
    score_set = desk.live.current()
    row = await account_row(desk, score_set, account_id, reader)
    answer = account_answer(score_set, row, view_of(desk, reader, score_set))
    charts = {score.target: waterfall(score) for score in answer.scores}
    context = {"account": answer, "charts": charts, "definition": score_set.manifest.health, "models": score_set.manifest.models}
    return _page("account.html", _frame(score_set, reader) | context)


@router.get("/sign-in")
async def sign_in(request: Request, desk: DeskOf, token: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """Exchange a sign-in link for a session, or say how to get a link."""
    if not token:
        return _page("sign_in.html", {"refused": False})
    browser = request.cookies.get(_BROWSER) or secrets.token_urlsafe(24)
    try:
        caller = desk.identity.redeem_token(token, browser=browser)
    except RefusedError as error:
        await desk.journal.refused(str(error), credential="link", action="sign in")
        return _page("sign_in.html", {"refused": True}, status=401)
    response = RedirectResponse("/", status_code=303)
    cookie: Mapping[str, Any] = {"httponly": True, "samesite": "lax", "secure": request.url.scheme == "https"}
    response.set_cookie(_SESSION, desk.identity.session_cookie(caller), max_age=SESSION_SECONDS, **cookie)
    response.set_cookie(_BROWSER, browser, max_age=_BROWSER_SECONDS, path="/sign-in", **cookie)
    return response


@router.post("/sign-out")
async def sign_out() -> Response:
    """Forget the session."""
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(_SESSION)
    return response


def problem_answer(request: Request, problem: ProblemError) -> Response:
    """Answer with a page where a person asks with a browser, else with problem details."""
    path = request.url.path
    if path.startswith("/v1/") or path in _MACHINES or "text/html" not in request.headers.get("accept", ""):
        return problem_response(problem, request.scope)
    if problem.status == 401:
        return _page("sign_in.html", {"refused": False}, status=401)
    return _page("problem.html", {"problem": problem}, status=problem.status)


_MACHINES = ("/livez", "/readyz", "/openapi.json")


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


def _filters(score_set: ScoreSet, reader: Principal) -> dict[str, Mapping[str, str]]:
    """Return the choices of each filter, from value to label."""
    caller = reader.caller
    segments, csms, partners = (choices(score_set, column, caller) for column in ("segment", "csm", "partner_id"))
    names = dict(zip(score_set.accounts["partner_id"], score_set.accounts["partner_name"], strict=True))
    return {
        "segment": {name: name for name in segments},
        "csm": {name: name for name in csms},
        "partner": {key: names[key] or key for key in partners} if caller.is_vendor else {},
    }


def _frame(score_set: ScoreSet, reader: Principal) -> dict[str, Any]:
    """Return what every page shows around its content."""
    names = dict(zip(score_set.accounts["partner_id"], score_set.accounts["partner_name"], strict=True))
    partner = reader.caller.partner_id
    return {
        "caller": reader.caller,
        "caller_name": "Vendor" if partner is None else names.get(partner) or partner,
        "manifest": score_set.manifest,
    }


def _page(template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    return HTMLResponse(_templates().get_template(template).render(context), status_code=status)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_WEB / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {name: getattr(wording, name) for name in ("amount", "chance", "day", "factor", "money", "number")}
    templates.globals |= {
        "stylesheet": f"/static/renewcast.css?{hashlib.sha256((STATIC / 'renewcast.css').read_bytes()).hexdigest()[:12]}",
        "events": EVENT,
        "bands": BANDS,
        "amber": (AMBER_FROM, AMBER_TO),
        "days_between": _days_between,
    }
    return templates


def _days_between(earlier: datetime, later: datetime) -> int:
    return (later.replace(tzinfo=None) - earlier.replace(tzinfo=None)).days
