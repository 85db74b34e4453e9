"""Errors as the API tells them: problem details of RFC 9457, one shape for all of them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from features.errors import IssuerDownError, StoreDownError
from serving.answers.schema import FieldProblem, Problem

__all__ = [
    "KINDS",
    "PROBLEM_JSON",
    "Kind",
    "ProblemError",
    "add_problem_handlers",
    "not_found",
    "problem_response",
    "problems",
    "request_id",
]

PROBLEM_JSON = "application/problem+json"

_MOST_ERRORS = 20
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of problem: what its status and title are, what it means, and what an application does about it."""

    status: int
    title: str
    meaning: str
    example: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(
        status=400,
        title="Bad request",
        meaning="The request could not be read at all. Sending it again will not help.",
        example="The body could not be read.",
    ),
    "not-signed-in": Kind(
        status=401,
        title="Not signed in",
        meaning="There is no credential, or it is unknown, expired or revoked; it is not said which.",
        example="Send an API key: `Authorization: Bearer rk_...`.",
    ),
    "not-allowed": Kind(
        status=403,
        title="Not allowed",
        meaning="The credential is good, but not for this.",
        example="This key may not do that: it lacks the scope predict.",
    ),
    "not-found": Kind(
        status=404,
        title="Not found",
        meaning="What was asked for does not exist, or not for you: the answer is the same.",
        example="There is no such account.",
    ),
    "method-not-allowed": Kind(
        status=405,
        title="Method not allowed",
        meaning="The address exists and takes other methods: see the header `Allow`.",
        example="This address takes GET.",
    ),
    "not-acceptable": Kind(
        status=406,
        title="Not acceptable",
        meaning="The header `Accept` leaves none of the forms that this address answers in.",
        example="This address answers in application/json.",
    ),
    "too-slow": Kind(
        status=408,
        title="Too slow",
        meaning="The body of the request did not arrive in time. Send it again, in smaller parts over a slow line.",
        example="The body of the request did not arrive within 30 seconds.",
    ),
    "in-flight": Kind(
        status=409,
        title="Still being done",
        meaning="A request with the same idempotency key is still being answered. Wait as long as `Retry-After` says, and send it again.",
        example="A request with this Idempotency-Key is still being answered.",
    ),
    "gone": Kind(
        status=410,
        title="No longer there",
        meaning="The cursor belongs to scores that are no longer kept. Start again without it.",
        example="The scores that this cursor stands for are no longer kept: start again without a cursor.",
    ),
    "too-large": Kind(
        status=413,
        title="Too large",
        meaning="The body is larger than the service takes. Send it in parts.",
        example="A request may have at most 32 MB: send fewer rows at a time.",
    ),
    "not-json": Kind(
        status=415,
        title="Unknown form",
        meaning="The body is not in a form that this address takes.",
        example="Send JSON, and say so: `Content-Type: application/json`.",
    ),
    "invalid": Kind(
        status=422,
        title="Invalid request",
        meaning="A parameter or a field is missing, unknown or of another form; `errors` names each.",
        example="The request does not have the form that /openapi.json describes.",
    ),
    "key-reused": Kind(
        status=422,
        title="Idempotency key used before",
        meaning="The same idempotency key came with another request. Use a new key for each thing that is to be done once.",
        example="This Idempotency-Key was used for another request.",
    ),
    "too-many-requests": Kind(
        status=429,
        title="Too many requests",
        meaning="The credential, or its address, asked too often. Wait as long as `Retry-After` says.",
        example="At most 600 requests a minute: try again in 12 seconds.",
    ),
    "head-too-large": Kind(
        status=431,
        title="Headers too large",
        meaning="The headers of the request are larger than the service takes.",
        example="The headers of a request may have 32 KB together.",
    ),
    "internal": Kind(
        status=500,
        title="Internal error",
        meaning="Something went wrong on our side; the log of the service knows it by `request_id`.",
        example="Something went wrong on our side; it is in the log of the service.",
    ),
    "not-ready": Kind(
        status=503,
        title="Not ready",
        meaning="The service cannot answer now. Wait as long as `Retry-After` says, and send the request again.",
        example="The service is starting.",
    ),
}
"""The kinds of problems by the name in their `type`, `/docs#<name>`. The first one of a status is its usual one."""


class ProblemError(Exception):
    """An answer that is a problem.

    Parameters
    ----------
    errors
        What is wrong with which field of the request.
    kind
        A name of `KINDS`; the status's usual one if None.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.kind = kind or _USUAL.get(status)

    @property
    def title(self) -> str:
        """The kind of problem, in two or three words."""
        return KINDS[self.kind].title if self.kind else "Error"

    @property
    def type(self) -> str:
        """Where the kind of problem is explained."""
        return f"/docs#{self.kind}" if self.kind else "about:blank"


_USUAL = {kind.status: name for name, kind in reversed(tuple(KINDS.items()))}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what `/openapi.json` says about answers with these statuses, with an example of each kind; for a route's `responses`."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> dict[str, Any]:
    kinds = {name: kind for name, kind in KINDS.items() if kind.status == status}
    examples = {name: {"summary": kind.title, "value": _example(name, kind)} for name, kind in kinds.items()}
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}}
    return {"model": Problem, "description": " ".join(kind.meaning for kind in kinds.values()), "content": content}


def _example(name: str, kind: Kind) -> dict[str, object]:
    problem = ProblemError(kind.status, kind.example, kind=name)
    return _body(problem, "5f2c9a7e41d04b1c").model_dump(mode="json")


def not_found() -> ProblemError:
    """Return the answer for an account that the caller may not see or that does not exist: it is the same."""
    return ProblemError(404, "There is no such account.")


def request_id(scope: Scope) -> str:
    """Return the id of the request, by which the log knows it; the first who asks gives it one."""
    state: dict[str, Any] = scope.setdefault("state", {})
    found: str = state.setdefault("request_id", secrets.token_hex(8))
    return found


def problem_response(problem: ProblemError, scope: Scope) -> Response:
    """Turn a problem into the response to a request."""
    body = _body(problem, request_id(scope)).model_dump(mode="json")
    return JSONResponse(body, status_code=problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


def _body(problem: ProblemError, identifier: str) -> Problem:
    return Problem(
        type=problem.type,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        errors=list(problem.errors),
        request_id=identifier,
    )


def add_problem_handlers(
    app: FastAPI,
    answer: Callable[[Request, ProblemError], Response],
    *,
    other_method: Callable[[Request], Response | ProblemError],
) -> None:
    """Answer every error of the app with a problem.

    Parameters
    ----------
    answer
        Chooses the form of the problem for the request.
    other_method
        What is answered where the address does not take the method.
    """

    async def problem(request: Request, error: Exception) -> Response:
        wrong_method = isinstance(error, HTTPException) and error.status_code == 405
        found = other_method(request) if wrong_method else _as_problem(error)
        return found if isinstance(found, Response) else answer(request, found)

    for kind in (ProblemError, RequestValidationError, HTTPException, StoreDownError, IssuerDownError, Exception):
        app.add_exception_handler(kind, problem)


_AWAY_RETRY_SECONDS = 5


def _as_problem(error: Exception) -> ProblemError:
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            detail = "The request does not have the form that /openapi.json describes."
            return ProblemError(422, detail, errors=_field_problems(error.errors())[:_MOST_ERRORS])
        case HTTPException():
            detail = "There is nothing at this address." if error.status_code == 404 else str(error.detail)
            return ProblemError(error.status_code, detail, headers=error.headers)
        case StoreDownError() | IssuerDownError():
            detail = "This cannot be answered at the moment: something that the service needs is away."
            return ProblemError(503, detail, headers={"Retry-After": str(_AWAY_RETRY_SECONDS)})
        case _:
            return ProblemError(500, "Something went wrong on our side; it is in the log of the service.")


_KINDS = ("float", "str")
"""How pydantic calls the kinds of a value that may be either, at the end of the place where it is neither."""


def _field_problems(found: Sequence[Mapping[str, Any]]) -> list[FieldProblem]:
    """Return what is wrong with which field, once for each: a value that could be of two kinds is wrong in two ways."""
    said: dict[str, list[str]] = {}
    for one in found:
        place = one["loc"][:-1] if one["loc"][-1] in _KINDS else one["loc"]
        said.setdefault(_pointer(place), []).append(one["msg"].removeprefix("Value error, "))
    return [FieldProblem(pointer=pointer, message=", or: ".join(messages)) for pointer, messages in said.items()]


def _pointer(location: Sequence[object]) -> str:
    """Say where in the request, as a JSON pointer below `body`, `query` or `path`."""
    # a name may hold what UTF-8 cannot write, or be as long as the body
    names = (str(part).encode("utf-8", "replace").decode()[:_LONGEST_NAME] for part in location)
    return "/" + "/".join(name.replace("~", "~0").replace("/", "~1") for name in names)
