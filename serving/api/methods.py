"""Methods that no route is written for: `HEAD` is `GET` without the body, and `OPTIONS` tells what an address takes."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answers.problems import ProblemError

__all__ = ["AnswerHead", "allowed_methods", "options_or_problem"]


class AnswerHead:
    """Answers `HEAD` with the status and the headers of `GET`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> tuple[str, ...]:
    """Return the methods that the address of a request takes, over all its routes, in alphabetical order."""
    here = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in here for method in getattr(route, "methods", None) or ()}
    return tuple(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def options_or_problem(request: Request) -> Response | ProblemError:
    """Return the answer to a method that the address does not take."""
    allowed = ", ".join(allowed_methods(request.app.routes, request.scope))
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"allow": allowed})
    return ProblemError(405, f"This address takes {allowed}.", headers={"Allow": allowed})
