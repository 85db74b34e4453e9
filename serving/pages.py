"""The doors of the pages for people: signing in and out, who is reading, and what a page says when it cannot answer."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from serving.desk import DeskOf
from serving.identity import SESSION_SECONDS, Principal, RefusedError
from serving.pages_frame import render_page
from serving.problems import ProblemError, problem_response

__all__ = ["Reader", "problem_answer", "router"]

_SESSION, _BROWSER = "renewcast_session", "renewcast_browser"
_BROWSER_SECONDS = 365 * 24 * 3600

_ASK: dict[str, Any] = {"refused": False, "unsent": {}}

router = APIRouter(include_in_schema=False)


async def _signed_in(request: Request, desk: DeskOf) -> Principal:
    try:
        return await desk.identity.check_session(request.cookies.get(_SESSION, ""))
    except RefusedError as error:
        raise ProblemError(401, "Open the sign-in link that you were given; it has to be a fresh one after a while.") from error


Reader = Annotated[Principal, Depends(_signed_in)]


@router.get("/sign-in")
async def sign_in(request: Request, desk: DeskOf, token: Annotated[str, Query(max_length=2000)] = "") -> Response:
    """Exchange a sign-in link for a session, or say how to get a link."""
    if not token:
        return render_page(request, "sign_in.html", _ASK)
    browser = request.cookies.get(_BROWSER) or secrets.token_urlsafe(24)
    try:
        caller = desk.identity.redeem_token(token, browser=browser)
    except RefusedError as error:
        await desk.journal.refused(str(error), credential="link", action="sign in")
        return render_page(request, "sign_in.html", _ASK | {"refused": True}, status=401)
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
        return render_page(request, "sign_in.html", _ASK, status=401)
    return render_page(request, "problem.html", {"problem": problem}, status=problem.status)


_MACHINES = ("/livez", "/readyz", "/openapi.json")
