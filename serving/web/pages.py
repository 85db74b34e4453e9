"""The doors of the pages for people: signing in and out, who is reading, and what a page says when it cannot answer.

Every POST of a page has to carry the session's form token (see `serving.callers.sessions`), in the field `csrf` or the header
`X-CSRF-Token`. Over HTTPS the session's cookie is a `__Host-` cookie: browsers take it from this host alone, and only over HTTPS.
"""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from serving.answers.problems import ProblemError, problem_response
from serving.api.desk import Desk, DeskOf
from serving.api.rates import address_of
from serving.callers.identity import Principal, RefusedError
from serving.callers.sessions import SESSION_SECONDS
from serving.web.pages_frame import render_page

__all__ = ["Reader", "StaleFormError", "from_own_page", "problem_answer", "router", "signed_form", "signed_in"]

_SESSION, _BROWSER = "renewcast_session", "renewcast_browser"
_BROWSER_SECONDS = 365 * 24 * 3600

_ASK: dict[str, Any] = {"refused": False}

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
        return render_page(request, "sign_in.html", _ASK)
    address = address_of(request)
    desk.rates.require_patience(address)
    browser = request.cookies.get(_BROWSER) or secrets.token_urlsafe(24)
    try:
        session = await desk.identity.sign_in(token, browser=browser)
    except RefusedError:
        desk.rates.count_failure(address)
        return render_page(request, "sign_in.html", _ASK | {"refused": True}, status=401)
    if earlier := _session_of(request):
        await desk.identity.sign_out(earlier)
    response = RedirectResponse("/", status_code=303)
    cookie = _cookie(request)
    response.set_cookie(_session_name(request), session, max_age=SESSION_SECONDS, **cookie)
    response.set_cookie(_BROWSER, browser, max_age=_BROWSER_SECONDS, **cookie | {"path": "/sign-in"})
    return response


@router.post("/sign-out")
async def sign_out(request: Request, desk: DeskOf, reader: Reader) -> Response:
    """End the session, wherever a copy of its cookie is."""
    await signed_form(request, desk)
    await desk.identity.sign_out(_session_of(request))
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(_session_name(request), **_cookie(request))
    return response


def _session_name(request: Request) -> str:
    return f"__Host-{_SESSION}" if request.url.scheme == "https" else _SESSION


def _session_of(request: Request) -> str:
    return request.cookies.get(_session_name(request), "")


def _cookie(request: Request) -> dict[str, Any]:
    return {"path": "/", "httponly": True, "samesite": "lax", "secure": request.url.scheme == "https"}


def problem_answer(request: Request, problem: ProblemError) -> Response:
    """Answer with a page where a person asks with a browser, else with problem details."""
    path = request.url.path
    if path.startswith("/v1/") or path in _MACHINES or "text/html" not in request.headers.get("accept", ""):
        return problem_response(problem, request.scope)
    if problem.status == 401:
        return render_page(request, "sign_in.html", _ASK, status=401)
    return render_page(request, "problem.html", {"problem": problem}, status=problem.status)


_MACHINES = ("/livez", "/readyz", "/openapi.json")
