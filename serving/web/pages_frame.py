"""What every page is put together from: the templates, and what stands around a page's content."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from serving import wording
from serving.callers.identity import Principal
from serving.health import AMBER_FROM, AMBER_TO, BANDS
from serving.scores.reasons import EVENT
from serving.scores.scoring import ScoreSet

__all__ = ["STATIC", "THEME", "THEMES", "frame", "partner_name", "render_page"]

_WEB = Path(__file__).parent
STATIC = _WEB / "static"

THEME = "renewcast_theme"
"""The cookie that remembers how pages should look."""

THEMES = ("light", "dark")

_PAGES = (("book", "/", "Book"), ("retention", "/retention", "Retention"), ("track", "/track-record", "Track record"))
_PARTNERS, _MODELS = ("partners", "/partners", "Partners"), ("models", "/models", "Models")
_API = ("docs", "/docs", "API")

_WORDS = ("about", "amount", "chance", "day", "factor", "money", "number", "sentence_case", "short_day", "signed")


def frame(score_set: ScoreSet, reader: Principal, *, here: str) -> dict[str, Any]:
    """Return what every page shows around its content.

    Parameters
    ----------
    here
        The page's name in the navigation.
    """
    partner = reader.caller.partner_id
    return {
        "caller": reader.caller,
        "caller_name": "Vendor" if partner is None else partner_name(score_set, partner),
        "manifest": score_set.manifest,
        "pages": (*_PAGES, *_vendors(score_set, reader), _API),
        "here": here,
    }


def _vendors(score_set: ScoreSet, reader: Principal) -> tuple[tuple[str, str, str], ...]:
    """Return the pages that only the vendor has; those of the partners if the book has any."""
    if not reader.caller.is_vendor:
        return ()
    return (_PARTNERS, _MODELS) if score_set.partners or any(score_set.accounts["partner_id"]) else (_MODELS,)


def render_page(request: Request, template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    """Answer with a template that is filled in, in the colours that the reader chose."""
    theme = request.cookies.get(THEME, "")
    query = f"?{request.url.query}" if request.url.query else ""
    around = {"theme": theme if theme in THEMES else "", "address": request.url.path + query}
    around["csrf"] = getattr(request.state, "csrf", "")
    return HTMLResponse(_templates().get_template(template).render(around | dict(context)), status_code=status)


def partner_name(score_set: ScoreSet, partner: str) -> str:
    """Return what people call a partner; its id if the tables do not say."""
    known = score_set.partners.get(partner)
    return known.name if known else partner


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_WEB / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {name: getattr(wording, name) for name in _WORDS}
    templates.globals |= {
        "static": _static,
        "events": EVENT,
        "bands": BANDS,
        "amber": (AMBER_FROM, AMBER_TO),
        "days_between": _days_between,
    }
    return templates


@cache
def _static(name: str) -> str:
    """Return the address of a static file, which changes with its content."""
    return f"/static/{name}?{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def _days_between(earlier: datetime, later: datetime) -> int:
    return (later.replace(tzinfo=None) - earlier.replace(tzinfo=None)).days
