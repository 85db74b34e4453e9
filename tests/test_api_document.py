"""The OpenAPI document: every operation, every answer and every error is described, with examples that are true.

With RENEWCAST_REFRESH_EXAMPLES=1 the examples are recorded again.
"""

import json
import os
from functools import cache

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from serving.answers.problems import KINDS, PROBLEM_JSON
from serving.api.api_document import EXAMPLES_FILE, TAGS, operations
from serving.app import create_app
from serving.commands.cli import app as cli
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from tests.calls import CALLS
from tests.changes_book import make_scored_thrice
from tests.serving_book import TestClient
from tests.test_retention_answers import forecast, movements

LONGEST = 5


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    workspace = make_scored_thrice(tmp_path_factory.mktemp("book"))
    summary = score_workspace(workspace)
    movements(np.random.default_rng(5)).to_parquet(workspace.snapshots / "movements.parquet", index=False)
    folder = workspace.state / "forecasts" / "2025-07-01"
    folder.mkdir(parents=True)
    (folder / "forecast.json").write_text(json.dumps(forecast()))
    run = workspace.training / "20250701T000000-aaaa"
    run.mkdir()
    part = {"status": "trained", "verdict": "churn: fine.", "package_hash": summary.packages["churn"], "notes": []}
    (run / "report.json").write_text(json.dumps({"run": run.name, "targets": {"churn": part}}))
    with TestClient(create_app(workspace), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def document(client):
    return client.app.openapi()


@pytest.fixture(scope="module")
def keys(client):
    @cache
    def key_of(caller):
        return {"Authorization": f"Bearer {client.app.state.desk.identity.issue_key(caller, label='test', role='administrator')}"}

    return key_of


@pytest.fixture(scope="module")
def answers(client, document, keys):
    """Make every call, in order."""
    described = {operation["operationId"]: (path, method) for path, method, operation in operations(document)}
    given = {}
    for operation_id, call in CALLS.items():
        path, method = described[operation_id]
        parameters = call.parameters_after(given)
        address = path.format(**{name: value for name, value in parameters.items() if "{" + name + "}" in path})
        query = {name: value for name, value in parameters.items() if "{" + name + "}" not in path}
        body = {"files": {"file": call.file}} if call.file else {"json": call.body_after(given)}
        answer = client.request(method, address, params=query, headers=keys(call.caller), **body)
        assert answer.is_success, f"{operation_id}: {answer.status_code} {answer.text}"
        given[operation_id] = answer.json() if answer.headers["content-type"] == "application/json" else answer
    return given


def test_there_is_a_call_of_every_operation(document):
    assert {operation["operationId"] for _, _, operation in operations(document)} == set(CALLS)


def test_every_operation_is_answered_with_what_it_is_for(answers):
    assert set(answers) == set(CALLS)


def shortened(value):
    """Cut long lists."""
    if isinstance(value, list):
        return [shortened(each) for each in value[:LONGEST]]
    return {name: shortened(each) for name, each in value.items()} if isinstance(value, dict) else value


def test_the_examples_are_those_of_the_operations(answers):
    if os.environ.get("RENEWCAST_REFRESH_EXAMPLES"):
        recorded = {}
        for operation_id, call in CALLS.items():
            example = {"parameters": call.parameters_after(answers), "body": call.body_after(answers), "answer": answers[operation_id]}
            recorded[operation_id] = {name: shortened(value) for name, value in example.items() if value and not hasattr(value, "headers")}
        EXAMPLES_FILE.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert set(json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))) == set(CALLS), "record them again, see CONTRIBUTING.md"


def media(document):
    """Return each body that the document describes: of requests, of answers, of problems."""
    for _, _, operation in operations(document):
        for media_type, described in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{operation['operationId']} request {media_type}", described
        for status, response in operation["responses"].items():
            for media_type, described in response.get("content", {}).items():
                yield f"{operation['operationId']} {status} {media_type}", described


def test_every_body_has_examples_that_keep_to_its_schema(document):
    for where, described in media(document):
        examples = [one["value"] for one in described.get("examples", {}).values()]
        examples += [described["example"]] if "example" in described else []
        if "parquet" in where or "multipart" in where:
            continue  # a file
        assert examples, f"no example: {where}"
        for example in examples:
            schema = described.get("schema", {}) | {"components": document["components"]}
            jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(example)


def test_every_operation_is_described(document):
    assert document["openapi"].startswith("3.1")
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"] and not operation["summary"].endswith("."), where
        assert len(operation["description"]) > 20, where
        assert set(operation["tags"]) <= set(TAGS), where
        assert all(parameter.get("description") for parameter in operation.get("parameters", ())), where
        if path.startswith("/v1/"):
            assert operation["security"] == [{"bearer": []}], where
            assert {"401", "403", "406", "422", "429", "500", "503"} <= set(operation["responses"]), where
    assert all(tag["description"] for tag in document["tags"])


def test_operation_ids_make_names(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and name.islower() for name in names)


def test_every_kind_of_problem_is_an_example_where_its_status_is(document):
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [PROBLEM_JSON]
                kinds = {name for name, kind in KINDS.items() if kind.status == int(status)}
                assert set(response["content"][PROBLEM_JSON]["examples"]) == kinds


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_the_description_is_for_those_who_have_shown_who_they_are(client, keys, path):
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer rk_nobody_nothing"}).status_code == 401
    assert client.get(path, headers=keys(Caller("p1"))).status_code == 200
    with TestClient(client.app, headers={"accept": "text/html"}) as browser:
        browser.get("/sign-in", params={"token": client.app.state.desk.identity.sign_in_token(VENDOR)})
        assert browser.get(path).status_code == 200


def test_the_page_shows_every_operation_every_parameter_and_every_problem(client, keys, document):
    page = client.get("/docs", headers=keys(VENDOR)).text
    for path, method, operation in operations(document):
        assert f'id="{operation["operationId"]}"' in page
        assert f"{method.upper()} {path}" in page
    assert all(f'id="{kind}"' in page for kind in KINDS)
    assert "<script>" not in page and "style=" not in page
    assert "curl -s -H" in page and "import httpx" in page


def test_the_command_prints_the_document_that_a_service_gives(document):
    printed = CliRunner().invoke(cli, ["openapi"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == json.loads(json.dumps(document))
