"""What caches may keep: every answer made from a score set carries a tag, and who shows the tag again is told that nothing has changed.

The tag stands for the score set, for the caller, and for all that decides what this caller sees of it. So no cache hands the answer of one
caller to another, and an edited policy or an account that changed hands is a change.
"""

from hashlib import sha256
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["CACHE_HEADERS", "NOT_MODIFIED", "not_modified", "tag_of", "tagged"]

CACHE_HEADERS = {"cache-control": "private, no-cache", "vary": "Authorization"}
"""The caller alone may keep the answer, and asks again each time whether it still holds."""

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the answer whose tag `If-None-Match` shows."}
}
"""What `/openapi.json` says about the answer without content; for a route's `responses`."""


def tag_of(score_set: ScoreSet, view: View) -> str:
    """Return the tag of the caller's answers from a score set, as the header `ETag` has it."""
    period = score_set.assignments.period(view.at or score_set.manifest.scored_at)
    seen = "\n".join((score_set.manifest.version, view.caller.name, view.tier or "", view.policy.fingerprint, str(period)))
    return f'"{sha256(seen.encode()).hexdigest()[:32]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """Return the answer 304 if the request shows the tag, else None."""
    shown = request.headers.get("if-none-match")
    if shown is None or not ({tag, "*"} & {part.strip().removeprefix("W/") for part in shown.split(",")}):
        return None
    return Response(status_code=304, headers={"etag": tag, **CACHE_HEADERS})


def tagged(answer: BaseModel | bytes, tag: str) -> Response:
    """Return the answer with its tag."""
    body = answer if isinstance(answer, bytes) else answer.model_dump_json().encode()
    return Response(body, media_type="application/json", headers={"etag": tag, **CACHE_HEADERS})
