"""The doors of the pages for people: signing in and out, who is reading, and what a page says when it cannot answer.

Every POST of a page has to carry the session's form token (see `serving.callers.sessions`), in the field `csrf` or the header
`X-CSRF-Token`. Over HTTPS the session's cookie is a `__Host-` cookie: browsers take it from this host alone, and only over HTTPS.
"""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from serving.answers.problems import ProblemError, problem_response
from serving.api.desk import Desk, DeskOf
from serving.api.rates import address_of
from serving.callers.identity import Principal, RefusedError
from serving.callers.sessions import SESSION_SECONDS
from serving.web.pages_frame import render_page

__all__ = [
    "Reader",
    "Refusal",
    "StaleFormError",
    "ask_to_sign_in",
    "cookie_options",
    "enter",
    "from_own_page",
    "own_address",
    "problem_answer",
    "router",
    "signed_form",
    "signed_in",
]

Refusal = Literal["link", "stale", "nobody"]
"""Why a way to sign in led nowhere."""

_SESSION, _BROWSER = "renewcast_session", "renewcast_browser"
_BROWSER_SECONDS = 365 * 24 * 3600

router = APIRouter(include_in_schema=False)


class StaleFormError(ProblemError):
    """A form was sent without the token of the session, or with that of another one."""

    def __init__(self) -> None:
        super().__init__(403, "This page was loaded before you signed in, or too long ago. Load it again, and send it once more.")


async def signed_in(request: Request, desk: DeskOf) -> Principal:
    """Return who is reading.

    Raises
    ------
    ProblemError
        401 without a session that is good.
    """
    cookie = _session_of(request)
    try:
        principal = await desk.identity.sessions.check(cookie)
    except RefusedError as error:
        raise ProblemError(401, "Open the sign-in link that you were given; it has to be a fresh one after a while.") from error
    request.state.csrf = desk.identity.sessions.form_token(cookie)
    return principal


Reader = Annotated[Principal, Depends(signed_in)]


async def from_own_page(request: Request) -> None:
    """Refuse a form of which the browser itself says that another site's page sent it (Fetch Metadata of the W3C); a dependency.

    Raises
    ------
    StaleFormError
        If it does.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise StaleFormError


async def signed_form(request: Request, desk: Desk) -> FormData:
    """Return the form that was sent, once it is sure that a page of the reader's own session sent it.

    Raises
    ------
    StaleFormError
        If it is not sure; `request.form()` still tells what was typed.
    """
    await from_own_page(request)
    form = await request.form()
    token = form.get("csrf") or request.headers.get("x-csrf-token", "")
    try:
        desk.identity.sessions.check_form(_session_of(request), token if isinstance(token, str) else "")
    except RefusedError as error:
        await desk.journal.refused(str(error), credential="session", action="authenticate")
        raise StaleFormError from error
    return form


@router.get("/sign-in")
async def sign_in(request: Request, desk: DeskOf, token: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """Exchange a sign-in link for a session, or say how to get a link."""
    if not token:
        return ask_to_sign_in(request)
    address = address_of(request)
    desk.rates.require_patience(address)
    browser = request.cookies.get(_BROWSER) or secrets.token_urlsafe(24)
    try:
        session = await desk.identity.sign_in(token, browser=browser)
    except RefusedError:
        desk.rates.count_failure(address)
        return ask_to_sign_in(request, refused="link", status=401)
    response = await enter(request, desk, session, to="/")
    response.set_cookie(_BROWSER, browser, max_age=_BROWSER_SECONDS, **cookie_options(request, path="/sign-in"))
    return response


@router.post("/sign-out")
async def sign_out(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """End the session, wherever a copy of its cookie is."""
    await signed_form(request, desk)
    await desk.identity.sign_out(_session_of(request))
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(_session_name(request), **cookie_options(request))
    return response


async def enter(request: Request, desk: Desk, session: str, *, to: str) -> Response:
    """Answer with the cookie of a session that was just opened, in place of an earlier one, and lead on to a page."""
    if earlier := _session_of(request):
        await desk.identity.sign_out(earlier)
    response = RedirectResponse(own_address(to), status_code=303)
    response.set_cookie(_session_name(request), session, max_age=SESSION_SECONDS, **cookie_options(request))
    return response


def ask_to_sign_in(request: Request, *, refused: Refusal | None = None, status: int = 200) -> Response:
    """Answer with the ways to sign in, and with why the way that was taken led nowhere."""
    desk: Desk = request.app.state.desk
    path = request.url.path
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = "/" if request.method != "GET" or path.startswith("/sign-in") else f"{path}{query}"
    with_account = desk.identity.code_flow is not None
    return render_page(request, "sign_in.html", {"refused": refused, "with_account": with_account, "wanted": wanted}, status=status)


def own_address(to: str) -> str:
    r"""Return an address of these pages; anything that could lead elsewhere becomes the first page.

    Examples
    --------
    >>> [own_address(to) for to in ("/?band=red", "//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example")]
    ['/?band=red', '/', '/', '/']
    """
    safe = to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable()
    return to if safe else "/"


def _session_name(request: Request) -> str:
    return f"__Host-{_SESSION}" if request.url.scheme == "https" else _SESSION


def _session_of(request: Request) -> str:
    return request.cookies.get(_session_name(request), "")


def cookie_options(request: Request, *, path: str = "/") -> dict[str, Any]:
    """Return how a cookie is set that no script reads and no other site sends along, but with a link that somebody follows."""
    return {"path": path, "httponly": True, "samesite": "lax", "secure": request.url.scheme == "https"}


def problem_answer(request: Request, problem: ProblemError) -> Response:
    """Answer with a page where a person asks with a browser, else with problem details."""
    path = request.url.path
    if path.startswith("/v1/") or path in _MACHINES or "text/html" not in request.headers.get("accept", ""):
        return problem_response(problem, request.scope)
    if problem.status == 401:
        return ask_to_sign_in(request, status=401)
    response = render_page(request, "problem.html", {"problem": problem}, status=problem.status)
    response.headers.update(problem.headers)
    return response


_MACHINES = ("/livez", "/readyz", "/openapi.json")
