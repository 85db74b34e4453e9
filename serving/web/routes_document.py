"""`/openapi.json` and `/docs`: the description of the API, for machines and for people, to callers who have shown who they are."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from serving.answers.problems import KINDS, PROBLEM_JSON
from serving.api.api_document import METHODS, operations
from serving.api.desk import DeskOf, require
from serving.callers.identity import Principal
from serving.web.pages import signed_in
from serving.web.pages_frame import frame, render_page

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_by_key = require("accounts:read")


async def _known(request: Request, desk: DeskOf) -> Principal:
    """Return who asks: by key or token if the request shows one, else by session."""
    return await (_by_key(request) if "authorization" in request.headers else signed_in(request, desk))


Known = Annotated[Principal, Depends(_known)]


@router.get("/openapi.json")
async def openapi(request: Request, _known: Known) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs(request: Request, desk: DeskOf, reader: Known) -> Response:
    """Show how to use the API: a quick start, every operation with examples, every kind of problem."""
    document = request.app.openapi()
    chapters = [
        (tag, [_operation(document, *found) for found in operations(document) if tag["name"] in found[2]["tags"]])
        for tag in document["tags"]
    ]
    base = str(request.base_url).rstrip("/")
    context = {"document": document, "chapters": chapters, "kinds": KINDS, "base": base, "account": _example_account(document)}
    return render_page(request, "docs.html", frame(desk.live.current(), reader, here="docs") | context)


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return what the page tells of an operation."""
    responses = operation["responses"]
    success = {status: found for status, found in responses.items() if status.startswith("2")}
    return {
        "path": path,
        "method": method.upper(),
        "id": operation["operationId"],
        "summary": operation["summary"],
        "paragraphs": operation.get("description", "").split("\n\n"),
        "parameters": [
            {"description": "", **parameter, "type": _type_of(parameter["schema"])} for parameter in operation.get("parameters", ())
        ],
        "body": _examples(operation.get("requestBody", {})),
        "answers": [(status, _examples(found)) for status, found in success.items()],
        "problems": sorted(status for status, found in responses.items() if PROBLEM_JSON in found.get("content", {})),
    }


def _examples(described: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return media type and example of each form of a body."""
    return [
        (media_type, media["examples"]["example"]["value"] if "examples" in media else media.get("example"))
        for media_type, media in described.get("content", {}).items()
    ]


def _type_of(schema: dict[str, Any]) -> str:
    """Say in a word or two what a parameter takes."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return " or ".join(", ".join(map(str, kind["enum"])) if "enum" in kind else kind.get("format", kind.get("type", "")) for kind in kinds)


def _example_account(document: dict[str, Any]) -> str:
    parameters = document["paths"]["/v1/accounts/{account_id}"][METHODS[0]]["parameters"]
    return next(str(parameter.get("example", "acc-0001")) for parameter in parameters if parameter["name"] == "account_id")
