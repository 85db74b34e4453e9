"""The routes on the past and the possible: who may ask, what is refused, and what the journal notes."""

import pytest

from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.standings import Archive
from tests.calls import as_caller, journal
from tests.changes_book import make_scored_thrice
from tests.serving_book import TestClient


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_scored_thrice(tmp_path_factory.mktemp("routes"))


MINE, OTHERS = "acc-0004", "acc-0007"


@pytest.mark.parametrize(("address", "action"), [("/v1/accounts/{}/changes", "read changes"), ("/v1/accounts/{}/history", "read history")])
def test_another_partners_account_does_not_exist(client, app, partner, vendor, address, action):
    assert client.get(address.format(OTHERS), headers=vendor).status_code == 200
    answers = [client.get(address.format(account_id), headers=partner) for account_id in (OTHERS, "nobody")]
    assert {answer.status_code for answer in answers} == {404}
    told = [{name: value for name, value in answer.json().items() if name != "request_id"} for answer in answers]
    assert told[0] == told[1]
    assert client.get(address.format(MINE)).status_code == 401
    (refusal,) = journal(app, account_id=OTHERS, outcome="refused", action=action)
    assert refusal["reason"] == "assigned to somebody else"


def test_what_changed_is_answered_and_noted(client, app, partner, workspace):
    answer = client.get(f"/v1/accounts/{MINE}/changes", headers=partner)
    assert answer.status_code == 200
    body = answer.json()
    assert body["health"]["sentence"].startswith("Health rose by")
    assert body["before"]["score_set"] == Archive(workspace.scores).versions()[1]
    assert journal(app, account_id=MINE, action="read changes", outcome="read")
    named = client.get(f"/v1/accounts/{MINE}/changes", params={"from": "2025-04-15", "to": "2025-06-30T12:00:00+02:00"}, headers=partner)
    assert named.json()["before"]["cutoff"] == "2025-04-01T00:00:00Z"
    assert named.json()["after"]["cutoff"] == "2025-06-24T00:00:00Z"


def test_the_past_is_answered_to_whoever_sees_the_account_today(client, app, partner, vendor):
    answers = [client.get(f"/v1/accounts/{MINE}/history", headers=headers) for headers in (partner, vendor)]
    assert answers[0].json() == answers[1].json()
    points = answers[0].json()["points"]
    assert [point["origin"] for point in points] == ["replayed", "said", "said", "said"]
    assert points[0]["cutoff"] == "2024-07-01T00:00:00Z"
    account = client.get(f"/v1/accounts/{MINE}", headers=partner).json()
    assert {name: points[-1][name] for name in ("health", "band", "churn_probability", "expansion_probability", "arr")} == {
        name: account[name] for name in ("health", "band", "churn_probability", "expansion_probability", "arr")
    }
    assert "no track record" in answers[0].json()["note"]
    assert len(journal(app, account_id=MINE, action="read history", outcome="read")) == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"from": "yesterday"}, "must be a date"),
        ({"to": "0001-01-01T00:00:00+14:00"}, "must be a date"),
        ({"from": "2001-01-01"}, "no scores as of then"),
        ({"to": "20200101T000000000000-00000000"}, "not kept"),
        ({"from": "2025-07-01", "to": "2025-04-01"}, "from lies after to"),
        ({"since": "2025-07-01"}, "no such parameter"),
    ],
)
def test_times_that_are_none_are_refused(client, vendor, query, message):
    answer = client.get(f"/v1/accounts/{MINE}/changes", params=query, headers=vendor)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"/query/{next(iter(query))}"
    assert message in error["message"] and error["message"].isprintable()


def test_what_if_is_answered_and_noted(client, app, partner, vendor):
    for headers in (partner, vendor):
        answer = client.post(f"/v1/accounts/{MINE}/what-if", json={"features": {"open_tickets": 4}}, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["asked"][0]["value"] == 4
    assert len(journal(app, account_id=MINE, action="what-if", outcome="read")) == 2
    refused = [
        client.post(f"/v1/accounts/{one}/what-if", json={"features": {"open_tickets": 4}}, headers=partner) for one in (OTHERS, "nobody")
    ]
    assert {answer.status_code for answer in refused} == {404}
    assert refused[0].json()["detail"] == refused[1].json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"features": {"open_tickets": -1}},
        {"features": {"open_tickets": True}},
        {"features": {"open_tickets": [1]}},
        {"features": {"discount": 0.2}},
        {"features": {}},
        {"features": {"open_tickets": 1}, "account": "x"},
        {},
    ],
)
def test_impossible_what_ifs_are_refused_field_by_field(client, partner, body):
    answer = client.post(f"/v1/accounts/{MINE}/what-if", json=body, headers=partner)
    assert answer.status_code == 422
    assert all(error["pointer"].startswith("/body") for error in answer.json()["errors"])
    assert answer.json()["errors"]


def test_a_policy_can_close_what_if(tmp_path):
    workspace = make_scored_thrice(tmp_path)
    (workspace.folder / "policy.toml").write_text('[actions]\nwhat_if = "vendor"\n')
    app = create_app(workspace)
    with TestClient(app) as client:
        asked = [
            client.post(f"/v1/accounts/{MINE}/what-if", json={"features": {"open_tickets": 4}}, headers=as_caller(app, caller))
            for caller in (VENDOR, Caller("p1"))
        ]
        assert [answer.status_code for answer in asked] == [200, 403]


def test_the_feed_is_followed_with_its_cursor(client, app, partner, vendor):
    managed = {account["account_id"] for account in client.get("/v1/accounts", params={"limit": 200}, headers=partner).json()["accounts"]}
    told, cursor = [], None
    while True:
        query = {"limit": 7} | ({"since": cursor} if cursor else {})
        answer = client.get("/v1/changes", params=query, headers=partner).json()
        told += answer["changes"]
        cursor = answer["cursor"]
        if not answer["more"]:
            break
    assert {change["account_id"] for change in told} - {None} <= managed
    assert [change["kinds"] for change in told if change["account_id"] is None] == [["model"]]
    assert len({(change["score_set"], change["account_id"]) for change in told}) == len(told) > 7
    assert client.get("/v1/changes", params={"since": cursor}, headers=partner).json()["changes"] == []
    assert client.get("/v1/changes", params={"since": cursor}, headers=vendor).status_code == 422
    assert {line["account_id"] for line in journal(app, action="follow changes", outcome="read")} <= managed


@pytest.mark.parametrize("query", [{"since": "nonsense"}, {"since": ""}, {"limit": 0}, {"limit": 1001}, {"after": "x"}])
def test_a_cursor_that_is_none_is_refused(client, vendor, query):
    assert client.get("/v1/changes", params=query, headers=vendor).status_code == 422
