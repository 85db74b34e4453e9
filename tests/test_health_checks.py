import asyncio
import logging

import pytest

from serving.app import create_app
from serving.operations import health_checks
from serving.operations.health_checks import Check, HealthChecks, disk_fault
from serving.scores.batch import score_workspace
from tests.serving_book import TestClient, make_workspace


def health_of(*checks):
    return asyncio.run(HealthChecks(checks).health())


def check(name, fault, needed=False):
    return Check(name=name, fault=lambda: fault, words=f"{name} is bad", needed=needed)


@pytest.mark.parametrize(
    ("scores", "journal", "ready", "degraded"),
    [(None, None, True, False), (None, "waits", True, True), ("none", None, False, True), ("none", "waits", False, True)],
)
def test_only_what_is_needed_makes_it_unready(scores, journal, ready, degraded):
    health = health_of(check("scores", scores, needed=True), check("journal", journal))
    assert (health.ready, health.degraded) == (ready, degraded)


def test_details_are_words_for_anybody_and_faults_for_the_log(caplog):
    health = health_of(check("journal", "/srv/secret/path is full"))
    assert [finding.detail for finding in health.findings] == ["journal is bad"]
    assert "/srv/secret/path is full" in caplog.text


def test_the_log_tells_a_change_once(caplog):
    caplog.set_level(logging.INFO)
    faults = [None, "down", "down", "down", None, None]
    checks = HealthChecks([Check(name="database", fault=lambda: faults.pop(0), words="")])
    while faults:
        checks.look()
    assert [record.getMessage() for record in caplog.records] == ["database: down", "database: good again"]


def test_a_look_that_fails_is_a_fault_like_any_other():
    def broken():
        raise RuntimeError("canary")

    health = health_of(Check(name="database", fault=broken, words="It does not answer."))
    assert health.degraded and health.ready


def test_a_disk_that_is_almost_full_is_said(tmp_path, monkeypatch):
    assert disk_fault(tmp_path) is None
    monkeypatch.setattr(health_checks, "LEAST_FREE_BYTES", 2**63)
    assert "MB are free" in disk_fault(tmp_path)
    assert "cannot be looked at" in disk_fault(tmp_path / "nowhere")


def test_a_service_without_scores_says_what_it_waits_for_and_answers_as_soon_as_there_are_some(tmp_path):
    workspace = make_workspace(tmp_path)
    app = create_app(workspace)
    client = TestClient(app)
    assert client.get("/livez").status_code == 200
    answer = client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"] == "There are no scores to answer from yet."
    assert answer.json()["errors"] == [{"pointer": "/checks/scores", "message": "There are no scores to answer from yet."}]
    assert str(tmp_path) not in answer.text
    score_workspace(workspace)
    app.state.desk.live.refresh()
    assert client.get("/readyz").json()["status"] == "ready"


def test_a_service_that_leaves_is_no_longer_ready_and_closes_its_connections(tmp_path):
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    app = create_app(workspace)
    client = TestClient(app)
    assert "connection" not in client.get("/readyz").headers
    app.state.upkeep.drain.begun = True
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"], answer.headers["connection"]) == (503, "The service is about to stop.", "close")
    assert client.get("/livez").status_code == 200


def test_a_database_that_is_away_degrades_and_does_not_stop(tmp_path):
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    workspace.database.parent.mkdir(parents=True, exist_ok=True)
    workspace.database.mkdir()  # nothing can be opened there
    app = create_app(workspace)
    client = TestClient(app)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert {found["name"] for found in ready.json()["checks"] if not found["good"]} >= {"database"}
    workspace.database.rmdir()
    app.state.upkeep._checks.look()
    assert {found["name"] for found in client.get("/readyz").json()["checks"] if not found["good"]} <= {"keys"}
