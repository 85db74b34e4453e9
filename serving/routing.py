"""How the routes of `/v1` take requests: strictly, and only from callers who have shown who they are.

Every router of the API is made by `v1_router`. Before a route's function runs, and before the body is read, its caller is identified; query
parameters that the route does not know, and bodies that are not JSON, are refused rather than ignored.
"""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response

from features.errors import nearest
from serving.desk import Require
from serving.problems import ProblemError, problems
from serving.schema import FieldProblem

__all__ = ["StrictRoute", "v1_router"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses what it does not understand."""

    def get_route_handler(self) -> Handler:
        """Return the function that answers a request."""
        answer = super().get_route_handler()
        required = next(_requirements(self.dependant), None)
        known = frozenset(_query_names(self.dependant))
        takes_json = self.body_field is not None

        async def handle(request: Request) -> Response:
            if required is not None:
                await required(request)
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            if takes_json:
                _refuse_other_than_json(request)
            return await answer(request)

        return handle


def v1_router(tag: str) -> APIRouter:
    """Return a router for the routes of one topic."""
    return APIRouter(tags=[tag], route_class=StrictRoute, responses=problems(401, 403, 422))


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _dependants(inner)


def _requirements(dependant: Dependant) -> Iterator[Require]:
    return (found.call for found in _dependants(dependant) if isinstance(found.call, Require))


def _query_names(dependant: Dependant) -> Iterator[str]:
    return (field.alias for found in _dependants(dependant) for field in found.query_params)


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    problems = [
        FieldProblem(pointer=f"/query/{name}", message=f"there is no such parameter here; {nearest(name, known)}".rstrip("; "))
        for name in dict.fromkeys(request.query_params.keys())
        if name not in known
    ]
    if problems:
        raise ProblemError(422, "The address has parameters that there are not.", errors=problems[:20])


def _refuse_other_than_json(request: Request) -> None:
    headers = request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().casefold()
    without_body = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    if kind != "application/json" and not (without_body and not kind):
        raise ProblemError(415, "Send JSON, and say so: `Content-Type: application/json`.")
