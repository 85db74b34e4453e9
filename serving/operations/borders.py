"""What holds for every request, whatever it asks: headers that browsers obey, and how much room and time it may take.

A service stays alive by refusing early. From outside to inside: the head of a request may be so large; so many requests are answered at a
time, and who comes on top is asked to come again; a body may be so large and take so long; an answer may take so long until it begins. What
happens before a request is one, and after its answer has begun, is `serving.operations.connections`'s part. All durations are taken from
the monotonic clock, which does not jump.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from features.config import ServingLimits
from serving.answers.problems import ProblemError, problem_response

__all__ = ["LARGEST_HEAD", "OPEN_PATHS", "BodyLimit", "HeadLimit", "RequestLimit", "SecurityHeaders", "TimeLimit"]

LARGEST_HEAD = 32 * 1024
"""Bytes of all headers together."""

OPEN_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered however busy the service is: who watches it must be able to."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_CLOSE = {"Connection": "close"}
"""For answers to requests whose body was not read to its end."""
_AGAIN_SECONDS = 1


class SecurityHeaders:
    """Adds the headers to every response, and keeps all but static files out of caches where the route has not said otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", _kept(scope))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _kept(scope: Scope) -> str:
    """Return how long a browser may keep the answer; a static file that is asked for by its hash never changes."""
    if not scope["path"].startswith("/static/"):
        return "no-store"
    return "public, max-age=31536000, immutable" if scope["query_string"] else "public, max-age=3600"


class HeadLimit:
    """Refuses requests whose headers are too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEAD:
            problem = ProblemError(431, f"The headers of a request may have {LARGEST_HEAD // 1024} KB together.", headers=_CLOSE)
            await problem_response(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class RequestLimit:
    """Answers so many requests at a time, and asks who comes on top to come again."""

    def __init__(self, app: ASGIApp, *, limits: ServingLimits) -> None:
        self._app = app
        self._free = limits.in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._free == 0:
            detail = "The service has its hands full: try again in a moment."
            problem = ProblemError(429, detail, headers={"Retry-After": str(_AGAIN_SECONDS)})
            await problem_response(problem, scope)(scope, receive, send)
            return
        self._free -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._free += 1


class BodyLimit:
    """Refuses bodies that are too large, also those that do not say how large they are, and gives up on those that take too long."""

    def __init__(self, app: ASGIApp, *, limits: ServingLimits) -> None:
        self._app = app
        self._largest = limits.body_megabytes * 1024**2
        self._seconds = limits.body_seconds
        self._too_large = f"A request may have at most {limits.body_megabytes} MB: send fewer rows at a time."
        self._too_slow = f"The body of the request did not arrive within {limits.body_seconds:g} seconds."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > self._largest:
            await problem_response(ProblemError(413, self._too_large, headers=_CLOSE), scope)(scope, receive, send)
            return
        loop, received, complete = asyncio.get_running_loop(), 0, False
        late_at = loop.time() + self._seconds

        async def receive_within_limits() -> Message:
            nonlocal received, complete
            if complete:  # all that can come now is that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(late_at):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, self._too_slow, headers=_CLOSE) from error  # the body's reader hands this one kind on as it is
            received += len(message.get("body", b""))
            if received > self._largest:
                raise HTTPException(413, self._too_large, headers=_CLOSE)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_within_limits, send)


class TimeLimit:
    """Gives up answers that have not begun in time."""

    def __init__(self, app: ASGIApp, *, limits: ServingLimits) -> None:
        self._app = app
        self._seconds = limits.request_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = asyncio.timeout(self._seconds)

        async def send_in_time(message: Message) -> None:
            if not limit.expired():
                limit.reschedule(None)
            await send(message)

        try:
            async with limit:
                await self._app(scope, receive, send_in_time)
        except TimeoutError:
            if not limit.expired():
                raise
            detail = f"The answer was not ready within {self._seconds:g} seconds: ask for less at a time."
            problem = ProblemError(503, detail, headers=_CLOSE | {"Retry-After": str(_AGAIN_SECONDS)})
            await problem_response(problem, scope)(scope, receive, send)
