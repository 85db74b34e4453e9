import pytest

from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from serving.scores.scoring import current_version
from tests.calls import as_caller, journal
from tests.serving_book import TestClient, make_workspace

OWN, THEIRS = "acc-0004", "acc-0007"  # of p1 and of p2
PLAY = {
    "play": "Executive call",
    "performed_at": "2025-06-30T11:00:00+02:00",
    "category": "Experience",
    "cost": 120.0,
    "note": "Plan wanted",
}
NOTE = {"text": "A new director", "occurred_at": "2025-06-30T09:00:00Z"}


@pytest.fixture(scope="module")
def callers(app):
    return {name: as_caller(app, Caller(None if name == "vendor" else name), label="ada", role="csm") for name in ("vendor", "p1", "p2")}


def opinion(workspace, **more):
    version = current_version(workspace.scores)
    return {"target": "churn", "agrees": False, "reason": "renewal_agreed", "words": "Signed", "score_set": version} | more


def said(client, headers, kind, account=OWN):
    return client.get(f"/v1/accounts/{account}/{kind}", headers=headers).json()[kind]


def test_a_play_is_kept_with_who_did_it_and_told_to_whom_it_may_be(client, app, callers):
    answer = client.post(f"/v1/accounts/{OWN}/plays", json=PLAY, headers=callers["p1"])
    assert answer.status_code == 201
    play = answer.json()
    assert (play["partner_id"], play["subject"], play["role"], play["performed_at"]) == ("p1", "ada", "csm", "2025-06-30T09:00:00Z")
    assert said(client, callers["p1"], "plays") == [play] == said(client, callers["vendor"], "plays")
    client.post(f"/v1/accounts/{OWN}/plays", json=PLAY | {"play": "Discount"}, headers=callers["vendor"])
    newest = said(client, callers["p1"], "plays")[0]
    assert (newest["play"], newest["partner_id"]) == ("Discount", None)
    assert [newest[name] for name in ("subject", "role", "cost", "note")] == [None] * 4
    assert said(client, callers["vendor"], "plays")[0]["cost"] == 120.0
    assert [line["account_id"] for line in journal(app, action="record play", outcome="written")] == [OWN] * 2


def test_feedback_is_kept_with_what_the_score_said(client, callers, workspace):
    given = client.post(f"/v1/accounts/{OWN}/feedback", json=opinion(workspace), headers=callers["p1"]).json()
    account = client.get(f"/v1/accounts/{OWN}", headers=callers["p1"]).json()
    assert given["probability"] == account["churn_probability"]
    assert given["score_set"] == account["as_of"]["score_set"]
    client.post(f"/v1/accounts/{OWN}/feedback", json=opinion(workspace, agrees=True), headers=callers["vendor"])
    assert said(client, callers["p1"], "feedback") == [given]
    assert [one["partner_id"] for one in said(client, callers["vendor"], "feedback")] == [None, "p1"]


def test_what_an_earlier_score_set_said_can_be_judged_as_well(client, callers, workspace):
    earlier = current_version(workspace.scores)
    before = client.get(f"/v1/accounts/{OWN}", headers=callers["p1"]).json()["churn_probability"]
    score_workspace(workspace)
    assert current_version(workspace.scores) != earlier
    given = client.post(f"/v1/accounts/{OWN}/feedback", json=opinion(workspace, score_set=earlier), headers=callers["p1"]).json()
    assert (given["score_set"], given["probability"]) == (earlier, before)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("plays", {"category": "Sales"}),
        ("plays", {"performed_at": "2999-01-01T00:00:00Z"}),
        ("plays", {"performed_at": "0001-01-01T00:00:00+14:00"}),
        ("plays", {"cost": -1}),
        ("plays", {"play": "a\u0000b"}),
        ("plays", {"play": ""}),
        ("plays", {"by": "me"}),
        ("feedback", {"reason": None}),
        ("feedback", {"reason": "other", "words": None}),
        ("feedback", {"target": "contraction"}),
        ("feedback", {"score_set": "20200101T000000000000-00000000"}),
        ("feedback", {"score_set": "../../secret"}),
        ("notes", {"text": "  "}),
        ("notes", {"text": "x" * 4001}),
        ("notes", {"text": "a\u0000b"}),
        ("notes", {"occurred_at": "2999-01-01T00:00:00Z"}),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_that_is_wrong(client, callers, workspace, kind, change):
    body = {"plays": PLAY, "feedback": opinion(workspace), "notes": NOTE}[kind] | change
    answer = client.post(f"/v1/accounts/{OWN}/{kind}", json=body, headers=callers["p1"])
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize("kind", ["plays", "feedback", "notes"])
def test_an_account_of_another_partner_is_answered_like_one_that_does_not_exist(client, callers, workspace, kind):
    body = {"plays": PLAY, "feedback": opinion(workspace), "notes": NOTE}[kind]
    for account in (THEIRS, "acc-9999"):
        for answer in (
            client.post(f"/v1/accounts/{account}/{kind}", json=body, headers=callers["p1"]),
            client.get(f"/v1/accounts/{account}/{kind}", headers=callers["p1"]),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such account.")


def test_notes_of_either_side_stay_with_it_and_the_vendor_sees_all(client, callers):
    for name in ("p1", "vendor"):
        assert client.post(f"/v1/accounts/{OWN}/notes", json=NOTE | {"text": f"By {name}"}, headers=callers[name]).status_code == 201
    assert [one["text"] for one in said(client, callers["p1"], "notes")] == ["By p1"]
    assert [one["text"] for one in said(client, callers["vendor"], "notes")] == ["By vendor", "By p1"]
    now = client.post(f"/v1/accounts/{OWN}/notes", json={"text": "Without a time"}, headers=callers["p1"]).json()
    assert now["occurred_at"] == now["recorded_at"]


@pytest.mark.parametrize("kind", ["plays", "feedback", "notes"])
def test_pages_cover_what_was_said_once_and_a_cursor_is_good_for_its_list(client, callers, workspace, kind):
    body = {"plays": PLAY, "feedback": opinion(workspace), "notes": NOTE}[kind]
    own = "acc-0001"
    for _ in range(5):
        assert client.post(f"/v1/accounts/{own}/{kind}", json=body, headers=callers["p1"]).status_code == 201
    everything, pages, cursor = said(client, callers["p1"], kind, own), [], None
    while not pages or cursor is not None:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/accounts/{own}/{kind}", params=params, headers=callers["p1"]).json()
        pages, cursor = [*pages, page], page["next_cursor"]
    assert [len(page[kind]) for page in pages] == [2, 2, 1]
    assert [one for page in pages for one in page[kind]] == everything
    first = pages[0]["next_cursor"]
    for account, who in ((own, "vendor"), (OWN, "p1")):
        refused = client.get(f"/v1/accounts/{account}/{kind}", params={"cursor": first}, headers=callers[who])
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/cursor")
    for account in (THEIRS, "acc-9999"):
        assert client.get(f"/v1/accounts/{account}/{kind}", params={"cursor": first}, headers=callers["p1"]).status_code == 404


def test_who_may_not_say_anything_is_told_so(client, app, tmp_path):
    reader = as_caller(app, VENDOR, scopes=["accounts:read"])
    assert client.post(f"/v1/accounts/{OWN}/notes", json=NOTE, headers=reader).status_code == 403
    workspace = make_workspace(tmp_path)
    score_workspace(workspace)
    (workspace.folder / "policy.toml").write_text('[actions]\nfeedback = "vendor"\n')
    closed = create_app(workspace)
    with TestClient(closed) as quiet:
        headers = as_caller(closed, Caller("p1"))
        assert quiet.post(f"/v1/accounts/{OWN}/notes", json=NOTE, headers=headers).status_code == 403
        assert quiet.get(f"/v1/accounts/{OWN}/notes", headers=headers).json() == {"notes": [], "next_cursor": None}
