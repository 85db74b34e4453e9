"""How pages look to one reader: light, dark, or as the system does."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.responses import RedirectResponse, Response

from serving.web.pages import from_own_page, own_address
from serving.web.pages_frame import THEME, THEMES

__all__ = ["router"]

_SECONDS = 365 * 24 * 3600

router = APIRouter(include_in_schema=False)


@router.post("/appearance", dependencies=[Depends(from_own_page)])
async def choose_appearance(theme: Annotated[str, Form(max_length=10)] = "", back: Annotated[str, Form(max_length=2000)] = "/") -> Response:
    """Remember the colours that the reader chose, and go back to the page."""
    response = RedirectResponse(own_address(back), status_code=303)
    if theme in THEMES:
        response.set_cookie(THEME, theme, max_age=_SECONDS, httponly=True, samesite="lax")
    else:
        response.delete_cookie(THEME)
    return response
