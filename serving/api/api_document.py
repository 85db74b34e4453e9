"""The OpenAPI document: what FastAPI knows of the routes, completed by examples and by what holds for all of them.

The examples in `examples.json` were recorded from the service itself, on a small made-up book; a test holds them against the schemas.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from serving.answers.problems import PROBLEM_JSON, problems
from serving.api.idempotency import HEADER
from serving.api.routing import StrictRoute

__all__ = ["EXAMPLES_FILE", "METHODS", "TAGS", "api_document", "operations"]

Document = dict[str, Any]

EXAMPLES_FILE = Path(__file__).with_name("examples.json")
"""By operation: the parameters, the body and the answer of a call."""

METHODS = ("get", "post", "put", "patch", "delete")

TAGS: Mapping[str, str] = {
    "accounts": "The book, and each account with its scores explained.",
    "changes": "What was, what changed and why, what would change, and what has changed since you last asked.",
    "predictions": "Scores of many accounts at once, or of features that you send.",
    "partners": "The partners and what their accounts add up to.",
    "retention": "Net and gross retention, past and forecast.",
    "track record": "What the scores said in the past, and what happened.",
    "models": "What the scores are made of, and by.",
    "export": "The book as a file.",
    "contributions": "What partners add to the data, and what it is worth.",
    "feedback": "What people did, and whether they agree with a score.",
    "service": "Whether the service is alive and ready, and what it has counted.",
}

_DESCRIPTION = """
Scores of a software vendor's customers: who will leave, shrink or grow, why, and how sure that is, for the vendor and for the partners who
look after these customers. A caller sees what the vendor's policy shares with it; what is not shared is null, or not there at all.

**Credentials.** Send `Authorization: Bearer <key>` with an API key, or with a token of the identity provider that the vendor has set up.

**Errors** are problem details (RFC 9457) of one shape. Their `type` says which kind of problem it is, `request_id` by what the log of the
service knows the request.

**Pages.** Where an answer has a `next_cursor`, send it as `cursor` for what comes next, until it is null.

**Caches.** Answers made from scores have an `ETag`. Send it as `If-None-Match`; while nothing has changed the answer is 304.

**Once and only once.** Send an `Idempotency-Key` of yours with a write: sent again with the same key within a day, it is not done again,
and the answer is the same.

**Limits.** Each credential may ask so often a minute; the headers `RateLimit` and `RateLimit-Policy` tell how often still. Beyond that, and
when the service is busy, the answer is 429 or 503 with `Retry-After`.
""".strip()

_HEADERS: Mapping[str, tuple[str, str]] = {
    "ETag": ("string", "The tag of the scores and of what you may see of them."),
    "Retry-After": ("integer", "After how many seconds to try again."),
    "Allow": ("string", "The methods that the address takes."),
    "WWW-Authenticate": ("string", "How to sign in."),
}
_HEADERS_OF = {"401": ("WWW-Authenticate",), "405": ("Allow",), "429": ("Retry-After",), "503": ("Retry-After",), "409": ("Retry-After",)}


_KEY: Mapping[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A key of yours for this write: sent again with it within a day, it is not done again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    "example": "6c1f4c7e-4d5b-4c53-9f0e-1f6a2f0a5b1d",
}


def api_document(routes: Sequence[BaseRoute]) -> Document:
    """Return the OpenAPI 3.1 document of an application's routes."""
    document = get_openapi(
        title="Renewcast",
        version=version("renewcast"),
        summary="Explained churn, contraction and expansion scores that a vendor and its partners share.",
        description=_DESCRIPTION,
        routes=routes,
        separate_input_output_schemas=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    used = {tag for _, _, operation in operations(document) for tag in operation.get("tags", ())}
    document["tags"] = [{"name": name, "description": TAGS.get(name, "")} for name in (*TAGS, *sorted(used - set(TAGS))) if name in used]
    writes = {route.operation_id for route in routes if isinstance(route, StrictRoute) and route.is_write}
    for _, _, operation in operations(document):
        if operation["operationId"] in writes:
            operation.setdefault("parameters", []).append(_KEY)
            operation["responses"] |= {str(status): response for status, response in problems(409).items()}
        _complete(operation, _examples().get(operation["operationId"], {}))
    _make_plain(document["components"]["schemas"])
    _drop_unused(document["components"]["schemas"], document)
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return path, method and operation of each operation of a document."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _complete(operation: dict[str, Any], example: Mapping[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in example.get("parameters", {}):
            parameter["example"] = example["parameters"][parameter["name"]]
    if "requestBody" in operation:
        read_as_json = "application/json" in operation["requestBody"]["content"]
        operation["responses"] |= {str(status): said for status, said in problems(408, 413, 415 if read_as_json else 400).items()}
    if "body" in example and "requestBody" in operation:
        for media in operation["requestBody"]["content"].values():
            media.setdefault("examples", {"example": {"value": example["body"]}})
    for status, response in operation["responses"].items():
        _complete_response(status, response, example)


def _complete_response(status: str, response: dict[str, Any], example: Mapping[str, Any]) -> None:
    content = response.get("content", {})
    if PROBLEM_JSON in content:
        content.pop("application/json", None)  # FastAPI writes the model of a problem down there, too
        response.pop("model", None)
    elif status.startswith("2") and "answer" in example and "application/json" in content:
        content["application/json"].setdefault("examples", {"example": {"value": example["answer"]}})
    tagged = ("ETag",) if example.get("tagged") and status in ("200", "304") else ()
    for name in (*_HEADERS_OF.get(status, ()), *tagged):
        kind, meaning = _HEADERS[name]
        response.setdefault("headers", {})[name] = {"description": meaning, "schema": {"type": kind}}


def _make_plain(schemas: Mapping[str, Any]) -> None:
    """Say in the older way, too, what generators of clients do not understand in the newer one: files, and names that have a pattern."""
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            if field.get("contentMediaType") == "application/octet-stream":
                field["format"] = "binary"
            if "patternProperties" in field:
                ((pattern, value),) = field.pop("patternProperties").items()
                field |= {"additionalProperties": value, "propertyNames": {"pattern": pattern, **field.get("propertyNames", {})}}


def _drop_unused(schemas: dict[str, Any], document: Document) -> None:
    """Leave out schemas that nothing refers to, such as FastAPI's own of an invalid request."""
    while unused := [name for name in schemas if f'"#/components/schemas/{name}"' not in json.dumps(document)]:
        for name in unused:
            del schemas[name]


@cache
def _examples() -> dict[str, Any]:
    examples: dict[str, Any] = json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))
    return examples
