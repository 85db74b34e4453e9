"""The outermost layer of the application: each request gets an id, a line in the log and its place in the counts, whatever comes of it."""

import logging
import re
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answers.problems import KINDS, ProblemError, request_id
from serving.callers.journal import REQUEST_ID
from serving.operations.draining import Drain
from serving.operations.logs import ACCESS
from serving.operations.metrics import Metrics

__all__ = ["Access", "route_of"]

_LOG = logging.getLogger("renewcast.serving")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_LEFT = 499
"""Stands in counts and log for an answer that nobody waited for."""
_KIND_OF = {kind.status: name for name, kind in reversed(tuple(KINDS.items()))}


@dataclass
class _Answered:
    """What becomes known of a request while it is answered."""

    started: float = field(default_factory=time.perf_counter)
    status: int = 0


class Access:
    """Names, times, logs and counts every request, and answers for whatever falls through.

    An id that the client sends as `X-Request-ID` is kept if it is short and plain; the answer, the log and the journal carry it. While the
    service drains, answers close their connections, so that no client finds out by an error that it is gone.

    Parameters
    ----------
    answer
        Turns the problem of a request that failed into an answer, in the form that the client wants.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, drain: Drain, answer: Callable[[Request, ProblemError], Response]) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain
        self._answer_problem = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier, token = self._name(scope)
        request = _Answered()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = identifier
                if self._drain.begun:
                    headers["connection"] = "close"
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, send_named, request)
        finally:
            self._metrics.in_flight.dec()
            self._note(scope, request)
            REQUEST_ID.reset(token)

    def _name(self, scope: Scope) -> tuple[str, Token[str]]:
        given = Headers(scope=scope).get("x-request-id", "")
        if _SANE_ID.fullmatch(given):
            scope.setdefault("state", {})["request_id"] = given
        identifier = request_id(scope)
        return identifier, REQUEST_ID.set(identifier)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request: _Answered) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            request.status = _CLIENT_LEFT
        except Exception:
            _LOG.exception("a request failed")
            if request.status:
                raise  # the answer is on its way: all that is left is to cut the connection
            problem = ProblemError(500, "Something went wrong on our side; it is in the log of the service.")
            await self._answer_problem(Request(scope), problem)(scope, receive, send)

    def _note(self, scope: Scope, request: _Answered) -> None:
        seconds, route, status = time.perf_counter() - request.started, route_of(scope), request.status or _CLIENT_LEFT
        self._metrics.answered(route=route, method=scope["method"], status=status, kind=_KIND_OF.get(status), seconds=seconds)
        line = {
            "method": scope["method"] if len(scope["method"]) < 10 else "other",
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1000, 2),
            "caller": _caller(scope),
        }
        ACCESS.info("request", extra={"request": line})


def route_of(scope: Scope) -> str:
    """Return the template of the route that answered, such as `/v1/accounts/{account_id}`; `unknown` for an address that there is not."""
    route = scope.get("route")
    template: str | None = getattr(route, "path", None)
    if template is not None:
        return template
    return "/static" if scope["path"].startswith("/static/") else "unknown"


def _caller(scope: Scope) -> str:
    """Return what kind of caller asked: `vendor`, `partner`, or `unknown` before it has shown who it is."""
    principals: dict[str, Any] = scope.get("renewcast.principals", {})
    for principal in principals.values():
        return "vendor" if principal.caller.is_vendor else "partner"
    return "unknown"
