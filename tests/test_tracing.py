import http.server
import sys
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from features.errors import ServiceError
from serving.app import create_app
from serving.operations.tracing import open_traces, provider_of
from serving.permissions.caller import VENDOR
from serving.scores.batch import score_workspace
from tests.serving_book import TestClient, make_workspace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("traces"))
    score_workspace(workspace)
    return workspace


def client_of(workspace, provider):
    app = create_app(workspace, traces=provider)
    return TestClient(app, raise_server_exceptions=False), app.state.desk.identity.issue_key(VENDOR, label="canary-key")


def test_a_span_names_the_route_and_nobody(workspace):
    exporter = InMemorySpanExporter()
    provider = provider_of(exporter)
    client, key = client_of(workspace, provider)
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "canary-agent", "X-Request-ID": "my-id"}
    client.get("/v1/accounts/acc-0100?search=canary-query", headers=headers | {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    client.get("/canary/path")
    client.request("CANARY", "/livez")
    provider.force_flush()
    account, unknown, _other = exporter.get_finished_spans()
    assert account.name == "GET /v1/accounts/{account_id}"
    assert (f"{account.context.trace_id:032x}", f"{account.parent.span_id:016x}") == (TRACE, PARENT)
    assert account.attributes["renewcast.request_id"] == "my-id"
    assert (unknown.name, unknown.attributes["http.response.status_code"]) == ("GET unknown", 404)
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert not any(word in told.casefold() for word in ("canary", "acc-0100", key.casefold(), "testclient"))
    provider.shutdown()


def test_an_error_is_a_status_without_words(workspace, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = provider_of(exporter)
    client, key = client_of(workspace, provider)
    monkeypatch.setattr("serving.answers.live.LiveScores.current", lambda _: {}["canary"])
    assert client.get("/v1/accounts/acc-0100", headers={"Authorization": f"Bearer {key}"}).status_code == 500
    provider.force_flush()
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code.name == "ERROR"
    assert not span.events and "canary" not in span.to_json()
    provider.shutdown()


def test_spans_reach_a_collector(workspace):
    bodies, came = [], threading.Event()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        provider = open_traces(f"http://127.0.0.1:{collector.server_port}/v1/traces")
        client_of(workspace, provider)[0].get("/livez")
        provider.shutdown()
        assert came.wait(10)
        collector.shutdown()
    ((path, body),) = bodies
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "renewcast"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["GET /livez"]


def test_without_the_exporter_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ServiceError, match=r"renewcast\[tracing\]"):
        open_traces("http://127.0.0.1:4318/v1/traces")
