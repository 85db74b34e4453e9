"""Errors as the API tells them: problem details of RFC 9457, one shape for all of them."""

from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.schema import FieldProblem, Problem

__all__ = ["PROBLEM_JSON", "ProblemError", "add_problem_handlers", "not_found", "problem_response"]

PROBLEM_JSON = "application/problem+json"

_TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    422: "Invalid request",
    500: "Internal error",
    503: "Not ready",
}


class ProblemError(Exception):
    """An answer that is a problem.

    Parameters
    ----------
    errors
        What is wrong with which field of the request.
    """

    def __init__(self, status: int, detail: str, *, errors: Sequence[FieldProblem] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """The kind of problem, in two or three words."""
        return _TITLES.get(self.status, "Error")


def not_found() -> ProblemError:
    """Return the answer for an account that the caller may not see or that does not exist: it is the same."""
    return ProblemError(404, "There is no such account.")


def problem_response(problem: ProblemError) -> Response:
    """Turn a problem into a response."""
    body = Problem(title=problem.title, status=problem.status, detail=problem.detail, errors=list(problem.errors))
    return JSONResponse(body.model_dump(mode="json"), status_code=problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


def add_problem_handlers(app: FastAPI, answer: Callable[[Request, ProblemError], Response]) -> None:
    """Answer every error of the app with a problem, in the form that `answer` chooses for the request."""

    async def problem(request: Request, error: Exception) -> Response:
        return answer(request, _as_problem(error))

    for kind in (ProblemError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, problem)


def _as_problem(error: Exception) -> ProblemError:
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            errors = [FieldProblem(pointer=_pointer(found["loc"]), message=found["msg"]) for found in error.errors()]
            return ProblemError(422, "The request does not have the form that /openapi.json describes.", errors=errors)
        case HTTPException():
            detail = "There is nothing at this address." if error.status_code == 404 else str(error.detail)
            return ProblemError(error.status_code, detail, headers=error.headers)
        case _:
            return ProblemError(500, "Something went wrong on our side; it is in the log of the service.")


def _pointer(location: Sequence[object]) -> str:
    """Say where in the request, as a JSON pointer below `body`, `query` or `path`."""
    return "/" + "/".join(str(part) for part in location)
