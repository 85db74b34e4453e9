"""How the routes of `/v1` take requests: strictly, and only from callers who have shown who they are.

Every router of the API is made by `v1_router`. Before a route's function runs, and before the body is read, its caller is identified; query
parameters that the route does not know, and bodies that are not JSON, are refused rather than ignored. JSON is read by the route's own
model: nothing is coerced, and neither a lone surrogate nor a number that is none gets through.

A route whose function asks for no more than the desk, its caller, the request, parts of the path and that model, and which gives a
`Response`, is called without FastAPI's solving of dependencies, which costs as much as everything else that an explained account costs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from inspect import signature
from typing import Any

from fastapi import APIRouter, Request, params
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from features.errors import nearest
from serving.answers.problems import ProblemError, problems
from serving.answers.schema import FieldProblem
from serving.api.desk import RATE_HEADERS, Desk, Require, desk_of, view_of
from serving.api.idempotency import fingerprint_of, key_of

__all__ = ["StrictRoute", "v1_router"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_JSON_KINDS = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})

_WRITING = frozenset({"contribute", "feedback", "admin"})
_WRITE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_LARGE_BODY = 64 * 1024
"""Bytes; reading a larger one would keep the event loop from other requests, so a thread does it."""


class StrictRoute(APIRoute):
    """A route that refuses what it does not understand."""

    def get_route_handler(self) -> Handler:
        """Return the function that answers a request."""
        answer = super().get_route_handler()
        required = next(_requirements(self.dependant), None)
        known = frozenset(_query_names(self.dependant))
        model = self._model()
        answers_json = isinstance(self.response_class, DefaultPlaceholder)
        answer = _direct(self.dependant, model) or answer
        once = self.is_write

        async def handle(request: Request) -> Response:
            if required is not None:
                await required(request)
            if answers_json:
                _refuse_other_forms(request.headers.get("accept", "*/*"))
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            if model is not None:
                request = await _read(request, model)
            key = key_of(request) if once else None
            response = await answer(request) if key is None else await _answer_once(request, key, answer)
            response.headers.update(request.scope.get(RATE_HEADERS, {}))
            return response

        return handle

    @property
    def is_write(self) -> bool:
        """Whether the route changes something, and so takes an idempotency key."""
        required = next(_requirements(self.dependant), None)
        return required is not None and required.scope in _WRITING and bool(_WRITE_METHODS & set(self.methods or ()))

    def _model(self) -> type[BaseModel] | None:
        """Return the model of the JSON body; None for a route without a body, or with another kind of one."""
        field = self.body_field
        if field is None or isinstance(field.field_info, params.Form):
            return None
        model = field.field_info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel), "the body of a route is one model"
        return model


class _ReadRequest(Request):
    """A request whose body has been read and found good."""

    content: BaseModel

    async def json(self) -> BaseModel:
        return self.content


def v1_router(tag: str) -> APIRouter:
    """Return a router for the routes of one topic."""
    return APIRouter(tags=[tag], route_class=StrictRoute, responses=problems(401, 403, 406, 422, 429, 431, 500, 503))


def _direct(dependant: Dependant, model: type[BaseModel] | None) -> Handler | None:
    """Return what calls a route's function with all that it asks for; None where it asks for more than this can give."""
    function = dependant.call
    needs: dict[str, Any] = {str(needed.name): needed.call for needed in dependant.dependencies}
    asks_more = [dependant.query_params, dependant.header_params, dependant.cookie_params, dependant.body_params[1:]]
    known = all(need is desk_of or isinstance(need, Require) for need in needs.values())
    if function is None or not known or any(asks_more) or bool(dependant.body_params) != (model is not None):
        return None
    if signature(function).return_annotation is not Response:
        return None
    body = dependant.body_params[0].name if dependant.body_params else None

    async def call(request: Request) -> Response:
        values, errors = request_params_to_args(dependant.path_params, request.path_params)
        if errors:
            raise RequestValidationError(errors)
        for name, need in needs.items():
            values[name] = await need(request)
        if dependant.request_param_name is not None:
            values[dependant.request_param_name] = request
        if body is not None:
            values[body] = await request.json()
        answer: Response = await function(**values)
        return answer

    return call


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _dependants(inner)


def _requirements(dependant: Dependant) -> Iterator[Require]:
    return (found.call for found in _dependants(dependant) if isinstance(found.call, Require))


def _query_names(dependant: Dependant) -> Iterator[str]:
    return (field.alias for found in _dependants(dependant) for field in found.query_params)


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    """Refuse parameters that the route does not take, and those that are there twice: nobody knows which was meant."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    wrong = [
        FieldProblem(pointer=f"/query/{name}"[:200], message=said) for name, times in given.items() if (said := _wrong(name, times, known))
    ]
    if wrong:
        raise ProblemError(422, "The address has parameters that there are not, or one of them twice.", errors=wrong[:20])


def _wrong(name: str, times: int, known: frozenset[str]) -> str:
    if name not in known:
        return f"there is no such parameter here; {nearest(name, known)}".rstrip("; ")
    return "" if times == 1 else "is given more than once"


def _refuse_other_forms(accepted: str) -> None:
    kinds = {part.partition(";")[0].strip().casefold() for part in accepted.split(",")}
    if not kinds & _JSON_KINDS:
        raise ProblemError(406, "This address answers in application/json.")


async def _answer_once(request: Request, key: str, answer: Handler) -> Response:
    """Answer a write that brings an idempotency key."""
    desk: Desk = request.app.state.desk
    principal = next(iter(request.scope["renewcast.principals"].values()))
    fingerprint = fingerprint_of(request, await request.body())
    score_set = desk.live.current()
    account_id = request.path_params.get("account_id")
    if account_id is not None:
        row = score_set.index.get(account_id)
        if row is None or not view_of(desk, principal, score_set).manages(row, score_set.assignments):
            return await answer(request)  # which refuses it, and notes that in the journal
    return await desk.once.answer(principal.caller, key, fingerprint, lambda: answer(request))


async def _read(request: Request, model: type[BaseModel]) -> Request:
    """Read the body as the model.

    Raises
    ------
    ProblemError
        415 if it does not say that it is JSON.
    RequestValidationError
        If it is not what the model says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    body = await request.body()
    if kind != "application/json" and (body or kind):
        raise ProblemError(415, "Send JSON, and say so: `Content-Type: application/json`.")
    read = _ReadRequest(request.scope, request.receive)
    read._body = body
    try:
        read.content = (
            await asyncio.to_thread(model.model_validate_json, body) if len(body) > _LARGE_BODY else model.model_validate_json(body)
        )
    except ValidationError as error:
        found = [
            {**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise RequestValidationError(found) from error
    return read
