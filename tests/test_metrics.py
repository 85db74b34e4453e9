import os
import subprocess
import sys

import pytest

from serving.app import create_app
from serving.callers.credentials import opened_identity
from serving.operations.metrics import Metrics
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from tests.serving_book import PARTNERS, TestClient, make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("metrics"))
    score_workspace(workspace)
    return workspace


@pytest.fixture(scope="module")
def client(workspace):
    return TestClient(create_app(workspace), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def watcher(workspace):
    with opened_identity(workspace) as identity:
        key = identity.issue_key(VENDOR, label="prometheus", role="administrator", scopes=("metrics",))
    return {"Authorization": f"Bearer {key}"}


def read(client, watcher):
    answer = client.get("/metrics", headers=watcher)
    assert answer.status_code == 200
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in answer.text.splitlines() if not line.startswith("#")}


def test_addresses_that_are_made_up_make_no_series(client, watcher):
    for path in ("/nothing", "/static/nothing.css", "/v1/accounts/a/b"):
        client.get(path)
    client.request("BREW", "/nothing")
    read(client, watcher)
    before = read(client, watcher)
    for number in range(200):
        client.get(f"/made-up/{number}", headers={"X-Request-ID": f"id-{number}"})
        client.get(f"/v1/accounts/{number}/made-up")
        client.get(f"/static/{number}.css")
        client.request(f"BREW{number}", "/nothing")
    after = read(client, watcher)
    assert set(after) == set(before)
    unknown = 'renewcast_requests_total{method="GET",route="unknown",status="4xx"}'
    assert after[unknown] - before[unknown] == 400


def test_accounts_are_counted_by_the_template_of_their_route(client, watcher):
    for number in range(5):
        client.get(f"/v1/accounts/acc-{number:04d}")
    found = read(client, watcher)
    assert found['renewcast_requests_total{method="GET",route="/v1/accounts/{account_id}",status="4xx"}'] == 5
    assert found['renewcast_refusals_total{kind="not-signed-in"}'] >= 5
    assert found['renewcast_request_seconds_count{route="/v1/accounts/{account_id}"}'] == 5


def test_what_is_counted_takes_a_key_for_it(client, workspace):
    with opened_identity(workspace) as identity:
        reader = identity.issue_key(VENDOR, label="crm", scopes=("accounts:read",))
        partner = identity.issue_key(Caller("p1"), label="partner")
    assert client.get("/metrics").status_code == 401
    assert [client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code for key in (reader, partner)] == [403, 403]


def test_states_are_shown_and_nobody_is_named(client, watcher, workspace):
    text = client.get("/metrics", headers=watcher).text
    found = read(client, watcher)
    assert found["renewcast_ready"] == 1
    assert found["renewcast_score_set_age_seconds"] < 300
    assert found["renewcast_cutoff_age_seconds"] > 300 * 24 * 3600
    assert found['renewcast_source_age_seconds{table="telemetry"}'] > found["renewcast_score_set_age_seconds"]
    assert found['renewcast_drift_largest{family="usage"}'] > 0.1, "a quarter of the book uses less than it did in training"
    assert found['renewcast_drift_features{above="0.25",family="usage"}'] >= 1
    assert 0 < found['renewcast_probability_average{target="churn"}'] < 1
    assert found["renewcast_journal_backlog_lines"] >= 0
    assert found['renewcast_reloads_total{outcome="taken"}'] == 1
    for canary in ("acc-", *PARTNERS, *PARTNERS.values(), "active_users", "discount", "Fieldnote", "Aster"):
        assert canary not in text, canary


COUNT = """
import os, pathlib
from serving.operations.metrics import Metrics
metrics = Metrics(pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
metrics.in_flight.inc()
metrics.answered(route="/livez", method="GET", status=200, kind=None, seconds=0.01)
print(metrics.text().decode())
"""


def test_processes_that_share_a_folder_add_up_and_the_dead_are_not_busy(tmp_path):
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for number in (1, 2, 3):
        ran = subprocess.run([sys.executable, "-c", COUNT], env=environ, capture_output=True, text=True, check=True)
        assert f'renewcast_requests_total{{method="GET",route="/livez",status="2xx"}} {number}.0' in ran.stdout
        assert "renewcast_requests_in_flight 1.0" in ran.stdout


def test_what_cannot_be_counted_costs_nobody_an_answer(monkeypatch, caplog):
    metrics = Metrics()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics, "_series", full)
    metrics.answered(route="/livez", method="GET", status=200, kind=None, seconds=0.01)
    assert "could not be counted: No space left" in caplog.text
