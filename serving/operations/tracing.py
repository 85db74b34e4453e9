"""Traces of requests for an OpenTelemetry collector, if one is named in the environment by OpenTelemetry's own variables.

A span carries the method, the route's template, the status and the id of the request, and joins the trace that the client began (W3C
Trace Context). It does not carry the address, the query, headers or the words of an error, as OpenTelemetry's own ASGI layer does: accounts
stand in them.
"""

from typing import Any

from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from features.errors import ServiceError, explain
from serving.answers.problems import request_id
from serving.operations.access import route_of
from serving.operations.metrics import METHODS

__all__ = ["Traced", "open_traces", "provider_of"]

_NAME = "renewcast"


def open_traces(address: str) -> TracerProvider:
    """Return what makes spans and sends them to a collector (OTLP over HTTP), in batches beside the requests.

    A collector that does not answer costs spans and nothing else.

    Raises
    ------
    ServiceError
        If the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        todo = "Install it with `pip install 'renewcast[tracing]'`, or remove the variables OTEL_EXPORTER_OTLP_*."
        raise ServiceError(explain("traces are asked for, and their exporter is not installed", given=address, todo=todo)) from error
    return provider_of(OTLPSpanExporter(endpoint=address))


def provider_of(exporter: SpanExporter) -> TracerProvider:
    """Return what makes spans and gives them to an exporter; it does not keep the process from ending."""
    provider = TracerProvider(resource=Resource.create({"service.name": _NAME}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Traced:
    """Makes a span of each request."""

    def __init__(self, app: ASGIApp, *, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer(_NAME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        options: dict[str, Any] = {"kind": SpanKind.SERVER, "record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span("request", context=extract(Headers(scope=scope)), **options) as span:
            status = 500

            async def send_seen(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await self._app(scope, receive, send_seen)
            finally:
                _describe(span, scope, status)


def _describe(span: Span, scope: Scope, status: int) -> None:
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    route = route_of(scope)
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("renewcast.request_id", request_id(scope))
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
