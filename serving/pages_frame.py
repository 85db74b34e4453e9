"""What every page is put together from: the templates, and what stands around a page's content."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from serving import wording
from serving.health import AMBER_FROM, AMBER_TO, BANDS
from serving.identity import Principal
from serving.reasons import EVENT
from serving.scoring import ScoreSet

__all__ = ["STATIC", "frame", "render_page"]

_WEB = Path(__file__).parent / "web"
STATIC = _WEB / "static"


def frame(score_set: ScoreSet, reader: Principal) -> dict[str, Any]:
    """Return what every page shows around its content."""
    names = dict(zip(score_set.accounts["partner_id"], score_set.accounts["partner_name"], strict=True))
    partner = reader.caller.partner_id
    return {
        "caller": reader.caller,
        "caller_name": "Vendor" if partner is None else names.get(partner) or partner,
        "manifest": score_set.manifest,
    }


def render_page(template: str, context: Mapping[str, Any], *, status: int = 200) -> Response:
    """Answer with a template that is filled in."""
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
