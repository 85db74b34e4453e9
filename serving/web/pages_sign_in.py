"""Signing in to the pages with a company's account: the way to the identity provider, and the way back."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from serving.answers.problems import ProblemError
from serving.api.desk import Desk, DeskOf
from serving.api.rates import address_of
from serving.callers.code_flow import FLOW_SECONDS, CodeFlow, StaleSignInError
from serving.callers.identity import RefusedError
from serving.web.pages import ask_to_sign_in, cookie_options, enter, own_address

__all__ = ["router"]

_FLOW = "renewcast_sign_in"
_BACK = "/sign-in/back"

router = APIRouter(include_in_schema=False)


@router.get("/sign-in/account")
async def leave(request: Request, desk: DeskOf, to: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Send the browser to the identity provider, to come back for a page."""
    departure = await _flow(desk).begin(back=_back(request, desk), to=own_address(to))
    response = RedirectResponse(departure.address, status_code=303)
    response.set_cookie(_FLOW, departure.cookie, max_age=FLOW_SECONDS, **cookie_options(request, path=_BACK))
    return response


@router.get(_BACK)
async def come_back(request: Request, desk: DeskOf) -> Response:
    """Open a session for whom the identity provider sent back, or say why not."""
    flow, address = _flow(desk), address_of(request)
    desk.rates.require_patience(address)
    answer, cookie = dict(request.query_params), request.cookies.get(_FLOW, "")
    try:
        session, to = await desk.identity.sign_in_at_provider(flow, answer, cookie=cookie, back=_back(request, desk))
        response = await enter(request, desk, session, to=to)
    except RefusedError as error:
        desk.rates.count_failure(address)
        response = ask_to_sign_in(request, refused="stale" if isinstance(error, StaleSignInError) else "nobody", status=401)
    response.delete_cookie(_FLOW, **cookie_options(request, path=_BACK))
    return response


def _flow(desk: Desk) -> CodeFlow:
    if desk.identity.code_flow is None:
        raise ProblemError(404, "There is nothing at this address.")
    return desk.identity.code_flow


def _back(request: Request, desk: Desk) -> str:
    """Return the address here that the identity provider knows; where the config names ours, a request cannot say another one."""
    here = desk.workspace.config.serving.address or str(request.base_url)
    return f"{here.rstrip('/')}{_BACK}"
