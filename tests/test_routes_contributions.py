from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.app import create_app
from serving.permissions.caller import Caller
from serving.scores import worth
from serving.scores.batch import score_workspace
from serving.scores.scoring import current_version
from serving.scores.worth import FILE, AccountWorth, MovedFeature, TargetWorth
from tests.calls import as_caller, journal
from tests.serving_book import TestClient, make_workspace

ADDRESS = "/v1/contributions"
OWN, THEIRS = "acc-0004", "acc-0007"  # of p1 and of p2
MANAGED = 90
"""How many accounts p1 manages now."""


@pytest.fixture(scope="module")
def p1(app):
    return as_caller(app, Caller("p1"), label="crm")


def row(account_id=OWN, day=1, **more):
    return {"account_id": account_id, "occurred_at": f"2025-06-{day:02d}T10:00:00Z", "channel": "training"} | more


def test_rows_are_checked_one_by_one_kept_and_told_with_their_numbers(client, app, p1, workspace):
    rows = [row(), row(THEIRS), row("acc-9999"), row(day=2, channel="health_note"), row(day=3, channel="health_note", note="Calm")]
    answer = client.post(ADDRESS, json={"rows": rows}, headers=p1)
    assert answer.status_code == 201
    found = answer.json()
    assert (found["given"], found["accepted"], found["quarantined"], found["duplicates"]) == (5, 2, 3, 0)
    unknown = ["account_id: unknown account"]
    assert [(one["row"], one["reasons"]) for one in found["broken"]] == [(2, unknown), (3, unknown), (4, ["note: empty"])]
    assert (found["partner_id"], found["subject"], found["file_name"], found["status"]) == ("p1", "crm", None, "waiting")
    assert found["text"].startswith("2 rows kept, known since 20")
    kept = pq.read_table(workspace.contributions / f"{found['contribution_id']}.parquet").to_pylist()
    assert {(one["account_id"], one["source"]) for one in kept} == {(OWN, "p1")}
    assert client.post(ADDRESS, json={"rows": rows}, headers=p1).json() == found
    assert client.get(f"{ADDRESS}/{found['contribution_id']}", headers=p1).json() == found
    assert [line["outcome"] for line in journal(app, action="contribute")] == ["refused", "written"] * 2
    notes = client.get(f"/v1/accounts/{OWN}/notes", headers=p1).json()["notes"]
    assert [(one["text"], one["contribution_id"]) for one in notes] == [("Calm", found["contribution_id"])]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_file_is_taken_as_rows_are(client, p1, form, tmp_path):
    day = {"csv": 11, "jsonl": 12, "parquet": 13}[form]
    path = tmp_path / f"june.{form}"
    if form == "csv":
        path.write_text(f"account_id,occurred_at,channel,colour\n{OWN},2025-06-{day},qbr,red\nnobody,2025-06-{day},qbr,red\n")
    elif form == "jsonl":
        path.write_text(
            "".join(f'{{"account_id": "{name}", "occurred_at": "2025-06-{day}", "channel": "qbr", "colour": 1}}\n' for name in (OWN, "x"))
        )
    else:
        columns = {"account_id": [OWN, "x"], "occurred_at": [datetime(2025, 6, day)] * 2, "channel": ["qbr"] * 2, "colour": [1, 2]}
        pq.write_table(pa.table(columns), path)
    found = client.post(f"{ADDRESS}/file", files={"file": (f"C:\\data\\june.{form}", path.read_bytes())}, headers=p1).json()
    assert (found["accepted"], found["quarantined"], found["ignored"]) == (1, 1, ["colour"])
    assert found["file_name"].endswith(f"june.{form}")
    named = client.post(f"{ADDRESS}/file", files={"file": ("june", path.read_bytes())}, data={"format": form}, headers=p1)
    assert named.json()["contribution_id"] == found["contribution_id"]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"account_id,channel\nA,qbr\n", "a.csv", "lacks a column: it needs occurred_at"),
        (b"account_id,occurred_at,channel\nA,01/02/2025,qbr\n", "a.csv", "can be read in two ways"),
        (b"", "a.csv", "empty"),
        (b"PAR1", "a.parquet", "cannot be read as parquet"),
        (b"{", "a.jsonl", "no line of the file is a JSON object"),
        (b"x", "a.xlsx", "does not tell its format"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole_and_names_no_path_of_ours(client, p1, content, name, said):
    answer = client.post(f"{ADDRESS}/file", files={"file": (name, content)}, headers=p1)
    assert answer.status_code == 422, answer.text
    assert said.casefold() in answer.text.casefold()
    assert "/tmp" not in answer.text
    assert "renewcast" not in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"rows": []},
        {},
        {"rows": [row() | {"source": "vendor"}]},
        {"rows": [row() | {"recorded_at": "2020-01-01T00:00:00Z"}]},
        {"rows": [row() | {"value": "7"}]},
        {"rows": [row() | {"account_id": 7}]},
    ],
)
def test_what_is_no_row_is_refused(client, p1, body):
    assert client.post(ADDRESS, json=body, headers=p1).status_code == 422


def test_only_partners_contribute_and_only_those_that_may(client, app, vendor, workspace):
    assert client.post(ADDRESS, json={"rows": [row()]}, headers=vendor).status_code == 403
    csm = as_caller(app, Caller("p1"), role="csm")
    assert client.post(ADDRESS, json={"rows": [row()]}, headers=csm).status_code == 403
    stranger = as_caller(app, Caller("p99"))
    assert client.post(ADDRESS, json={"rows": [row()]}, headers=stranger).json()["accepted"] == 0
    assert client.post(ADDRESS, json={"rows": [row()]}).status_code == 401


def test_a_policy_may_let_partners_contribute_nothing(tmp_path):
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    (workspace.folder / "policy.toml").write_text('[actions]\ncontribute = "vendor"\n')
    closed = create_app(workspace)
    with TestClient(closed) as client:
        headers = as_caller(closed, Caller("p1"))
        assert client.post(ADDRESS, json={"rows": [row()]}, headers=headers).status_code == 403
        assert client.post(f"{ADDRESS}/x/withdraw", headers=headers).status_code == 403


def test_another_partner_s_contribution_is_answered_like_one_that_does_not_exist(client, app, p1, vendor):
    p2 = as_caller(app, Caller("p2"))
    theirs = client.post(ADDRESS, json={"rows": [row(THEIRS)]}, headers=p2).json()
    for method, path in (("get", ""), ("post", "/withdraw")):
        other = getattr(client, method)(f"{ADDRESS}/{theirs['contribution_id']}{path}", headers=p1)
        none = getattr(client, method)(f"{ADDRESS}/{'0' * 32}{path}", headers=p1)
        assert (other.status_code, other.json()["detail"]) == (404, none.json()["detail"])
    assert client.get(f"{ADDRESS}/{theirs['contribution_id']}", headers=vendor).json()["partner_id"] == "p2"
    own = client.get(ADDRESS, headers=p1).json()["contributions"]
    assert {one["partner_id"] for one in own} == {"p1"}
    assert client.get(ADDRESS, params={"partner": "p2"}, headers=p1).status_code == 404
    assert {one["partner_id"] for one in client.get(ADDRESS, headers=vendor).json()["contributions"]} >= {"p1", "p2"}
    assert {one["partner_id"] for one in client.get(ADDRESS, params={"partner": "p2"}, headers=vendor).json()["contributions"]} == {"p2"}


def test_pages_cover_contributions_once_and_a_cursor_is_good_for_its_question(client, app, p1, vendor):
    for day in (26, 27, 28):
        client.post(ADDRESS, json={"rows": [row(day=day)]}, headers=p1)
    everything = client.get(ADDRESS, params={"limit": 500}, headers=p1).json()
    found, cursor = [], None
    while not found or cursor is not None:
        page = client.get(ADDRESS, params={"limit": 2} | ({"cursor": cursor} if cursor else {}), headers=p1).json()
        found, cursor = [*found, *page["contributions"]], page["next_cursor"]
    assert (found, everything["next_cursor"]) == (everything["contributions"], None)
    assert [one["received_at"] for one in found] == sorted((one["received_at"] for one in found), reverse=True)
    first = client.get(ADDRESS, params={"limit": 1}, headers=vendor).json()["next_cursor"]
    for params, headers in (({"partner": "p1"}, vendor), ({}, p1)):
        assert client.get(ADDRESS, params=params | {"cursor": first}, headers=headers).status_code == 422


def test_a_contribution_can_be_taken_back(client, app, p1):
    rows = [row(day=20), row(day=20, channel="health_note", note="To be forgotten")]
    found = client.post(ADDRESS, json={"rows": rows}, headers=p1).json()
    for _ in range(2):
        taken_back = client.post(f"{ADDRESS}/{found['contribution_id']}/withdraw", headers=p1).json()
        assert (taken_back["status"], taken_back["accepted"]) == ("withdrawn", 2)
        assert taken_back["text"].startswith("Withdrawn on ")
    assert "To be forgotten" not in client.get(f"/v1/accounts/{OWN}/notes", headers=p1).text
    assert client.post(ADDRESS, json={"rows": rows}, headers=p1).json()["accepted"] == 2
    assert len(journal(app, action="withdraw contribution", outcome="written")) == 2


def one_worth(account_id, partner_id, *, health, without, learnt=True, features=()):
    targets = (TargetWorth(target="churn", probability=0.1, without=0.2, learnt=learnt),)
    return AccountWorth(
        account_id=account_id, partner_id=partner_id, rows=3, health=health, health_without=without, targets=targets, features=features
    )


MOVED = (MovedFeature(feature="trainings_182d", value=3.0, without=None), MovedFeature(feature="discount", value=0.3, without=0.2))


def keep(workspace, *found):
    table = pa.Table.from_pylist([worth._to_row(one) for one in found], schema=worth._SCHEMA)
    pq.write_table(table, workspace.scores / current_version(workspace.scores) / FILE)


def worth_for(client, headers, **params):
    answer = client.get(f"{ADDRESS}/worth", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_worth_is_told_in_words_and_numbers_to_its_partner_and_the_vendor(client, app, p1, vendor, workspace):
    other, third = "acc-0005", "acc-0006"
    keep(
        workspace,
        one_worth(OWN, "p1", health=50, without=44, features=MOVED),
        one_worth(other, "p1", health=30, without=33),
        one_worth(third, "p1", health=30, without=30),
        one_worth(THEIRS, "p2", health=30, without=90),
        one_worth(THEIRS, "p1", health=31, without=32),  # it was p1's before
    )
    found = worth_for(client, p1)
    assert [(one["account_id"], one["points"]) for one in found["accounts"]] == [(OWN, 6), (other, -3), (third, 0)]
    assert (found["accounts_managed"], found["accounts_with_data"], found["accounts_changed"], found["mean_points"]) == (MANAGED, 3, 2, 4.5)
    name = found["accounts"][0]["name"]
    assert found["text"] == (
        f"Your data changed the health of 2 of your {MANAGED} accounts, by 4.5 points on average. The most: {name}, from 44 to 50."
    )
    assert [one["feature"] for one in found["accounts"][0]["features"]] == ["trainings_182d"]  # the discount is the vendor's
    assert [one["without"] for one in found["accounts"][0]["features"]] == [None]  # what the vendor knows by itself
    assert found["accounts"][0]["targets"] == [{"target": "churn", "probability": 0.1, "without": 0.2}]
    seen = worth_for(client, vendor, partner="p1")
    assert [one["feature"] for one in seen["accounts"][0]["features"]] == ["trainings_182d", "discount"]
    assert seen["accounts"][0]["features"][1]["without"] == 0.2
    assert seen["text"].startswith("Its data changed the health of 2 of its")
    assert client.get(f"{ADDRESS}/worth", headers=vendor).status_code == 422
    assert client.get(f"{ADDRESS}/worth", params={"partner": "p2"}, headers=p1).status_code == 404
    assert {line["account_id"] for line in journal(app, action="read worth", caller="partner:p1")} == {OWN, other, third}


def test_worth_is_honest_where_nothing_changed_or_nothing_was_learnt(client, p1, workspace):
    keep(workspace)
    nothing = worth_for(client, p1)
    assert nothing["text"] == f"Your scores rest on no such data: none about your {MANAGED} accounts were known at 2025-07-01."
    assert (nothing["mean_points"], nothing["accounts"]) == (None, [])
    keep(workspace, one_worth(OWN, "p1", health=50, without=50, learnt=False, features=MOVED))
    same = worth_for(client, p1)
    assert same["text"] == f"Your data about 1 of your {MANAGED} accounts were used, and changed the health of none of them."
    assert any("trained before the first of these data" in note for note in same["notes"])
    keep(workspace, one_worth(OWN, "p1", health=50, without=50))
    assert any("look at nothing" in note for note in worth_for(client, p1)["notes"])


def test_rows_that_came_after_the_cutoff_are_counted_as_waiting(client, app, workspace):
    fresh = as_caller(app, Caller("p3"))
    account = next(one["account_id"] for one in client.get("/v1/accounts", headers=fresh).json()["accounts"])
    (workspace.scores / current_version(workspace.scores) / FILE).unlink(missing_ok=True)
    assert worth_for(client, fresh)["rows_waiting"] == 0
    given = client.post(ADDRESS, json={"rows": [row(account), row(account, day=2)]}, headers=fresh).json()
    found = worth_for(client, fresh)
    assert (found["rows_waiting"], found["rows"]) == (2, 0)
    assert found["notes"][0].startswith("2 rows came after the cutoff")
    client.post(f"{ADDRESS}/{given['contribution_id']}/withdraw", headers=fresh)
    assert worth_for(client, fresh)["rows_waiting"] == 0


def test_the_time_of_receipt_is_ours(client, p1):
    found = client.post(ADDRESS, json={"rows": [row(day=25)]}, headers=p1).json()
    received = datetime.fromisoformat(found["received_at"]).replace(tzinfo=None)
    assert abs(received - datetime.now().astimezone().astimezone(tz=None).replace(tzinfo=None)) < timedelta(days=1)
