import json

import numpy as np
import pytest

from features.config import ServingLimits
from serving.answers.account_answers import book_answer, book_bytes
from serving.answers.portfolio import total_up
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.batch import score_workspace
from serving.scores.sharing import View
from tests.calls import as_caller, journal
from tests.serving_book import ACCOUNTS, CATALOGUE, TestClient, make_workspace

LARGEST_BODY = ServingLimits().body_megabytes * 1024**2


def features_of(score_set, row):
    values = {name: column[row] for name, column in score_set.values.items()}
    return {
        name: None if value is None or value != value else value if isinstance(value, str) else float(value)
        for name, value in values.items()
    }


def test_the_number_in_the_file_is_the_number_in_the_answer(client, vendor, score_set):
    for row in range(0, ACCOUNTS, 60):
        account_id = score_set.accounts["account_id"][row]
        answer = client.get(f"/v1/accounts/{account_id}", headers=vendor).json()
        predicted = client.post("/v1/predict", json={"accounts": [account_id]}, headers=vendor).json()["results"][0]
        assert answer["scores"] == predicted["scores"]
        assert answer["health"] == predicted["health"] == score_set.accounts["health"][row]
        for score in answer["scores"]:
            assert score["probability"] == score_set.accounts[f"{score['target']}_probability"][row]
            assert score["raw_score"] == score_set.accounts[f"{score['target']}_raw"][row]
            total = score["base"] + sum(driver["part"] for driver in score["drivers"]) + score["other_factors"]["part"]
            assert total == pytest.approx(score["raw_score"], abs=1e-6)


def test_rows_scored_on_the_fly_score_as_the_batch_did(client, vendor, score_set):
    rows = [{"id": f"row {row}", "features": features_of(score_set, row)} for row in range(40)]
    results = client.post("/v1/predict", json={"rows": rows}, headers=vendor).json()["results"]
    assert [result["id"] for result in results] == [row["id"] for row in rows]
    for row, result in enumerate(results):
        by_target = {score["target"]: score for score in result["scores"]}
        assert by_target["churn"]["raw_score"] == score_set.accounts["churn_raw"][row]
        assert by_target["churn"]["probability"] == pytest.approx(score_set.accounts["churn_probability"][row], rel=1e-14)
        assert result["health"] == score_set.accounts["health"][row]


def test_a_level_that_the_model_has_not_seen_is_said(client, vendor, score_set):
    features = features_of(score_set, 0) | {"partner_tier": "platinum"}
    result = client.post("/v1/predict", json={"rows": [{"id": "x", "features": features}]}, headers=vendor).json()["results"][0]
    assert "platinum" in result["notes"][0]


def test_the_book_is_ranked_by_arr_at_risk_and_adds_up(client, vendor, score_set):
    book = client.get("/v1/accounts", params={"limit": 500}, headers=vendor).json()
    risks = [account["arr_at_risk"] for account in book["accounts"]]
    assert risks == sorted(risks, reverse=True)
    assert book["totals"]["accounts"] == ACCOUNTS == sum(book["totals"]["bands"].values())
    assert book["totals"]["arr_at_risk"] == pytest.approx(sum(risks))


@pytest.mark.parametrize(
    ("params", "meets"),
    [
        ({"band": "red"}, lambda account: account["band"] == "red"),
        ({"segment": "Enterprise"}, lambda account: account["segment"] == "Enterprise"),
        ({"partner": "p2"}, lambda account: account["partner_id"] == "p2"),
        ({"csm": "Ada Moreau", "band": "green"}, lambda account: account["csm"] == "Ada Moreau" and account["band"] == "green"),
        ({"search": "oPaL"}, lambda account: "opal" in account["name"].lower()),
        ({"min_arr": 20_000, "max_arr": 60_000}, lambda account: 20_000 <= account["arr"] <= 60_000),
        ({"min_churn_probability": 0.2}, lambda account: account["churn_probability"] >= 0.2),
        (
            {"max_churn_probability": 0.05, "csm": "Ben Okafor"},
            lambda account: account["churn_probability"] <= 0.05 and account["csm"] == "Ben Okafor",
        ),
        ({"renewal_from": "2025-08-01"}, lambda account: account["renewal_at"] >= "2025-08-01"),
        ({"renewal_until": "2025-08-01"}, lambda account: account["renewal_at"] < "2025-08-02"),
    ],
)
def test_filters_leave_what_meets_them_and_nothing_else(client, vendor, params, meets):
    everything = client.get("/v1/accounts", params={"limit": 500}, headers=vendor).json()["accounts"]
    found = client.get("/v1/accounts", params=params | {"limit": 500}, headers=vendor).json()
    assert found["accounts"] == [account for account in everything if meets(account)]
    assert 0 < found["totals"]["accounts"] < ACCOUNTS


def test_the_book_as_bytes_is_the_book(score_set):
    rows = [5, 3, 8]
    for caller in (VENDOR, Caller("p1")):
        view = View(caller, None, default_policy(), score_set.manifest.scored_at)
        totals = total_up(score_set, np.array(rows))
        book = book_answer(score_set, rows, totals, view, next_cursor='a"b')
        assert json.loads(book_bytes(score_set, rows, totals, view, next_cursor='a"b')) == json.loads(book.model_dump_json())


def everything(client, headers, **params):
    """Follow the cursors to the end."""
    accounts, cursor = [], None
    while True:
        page = client.get("/v1/accounts", params=params | ({"cursor": cursor} if cursor else {}), headers=headers).json()
        accounts += page["accounts"]
        cursor = page["next_cursor"]
        if cursor is None:
            return accounts


@pytest.mark.parametrize("order", [None, "ascending", "descending"])
@pytest.mark.parametrize("sort", ["arr_at_risk", "churn_probability", "health", "arr", "renewal_at", "name", "expansion_probability"])
def test_cursors_cover_the_book_once_in_every_order(client, vendor, sort, order):
    accounts = everything(client, vendor, sort=sort, limit=70, **({"order": order} if order else {}))
    assert len({account["account_id"] for account in accounts}) == ACCOUNTS == len(accounts)
    values = [account[sort].casefold() if sort == "name" else account[sort] for account in accounts]
    descending = order == "descending" if order else sort not in ("health", "renewal_at", "name")
    assert values == sorted(values, reverse=descending)


def test_a_cursor_is_good_for_one_caller_and_one_question(client, vendor, partner):
    cursor = client.get("/v1/accounts", params={"limit": 5}, headers=vendor).json()["next_cursor"]
    for params, headers in (({"sort": "name"}, vendor), ({"band": "red"}, vendor), ({}, partner)):
        assert_problem(client.get("/v1/accounts", params=params | {"cursor": cursor}, headers=headers), status=422)
    assert_problem(client.get("/v1/accounts", params={"cursor": cursor[:-2] + "xx"}, headers=vendor), status=422)
    assert client.get("/v1/accounts", params={"cursor": cursor, "limit": 9}, headers=vendor).status_code == 200


def test_a_partner_sees_its_accounts_and_no_other(client, partner, score_set):
    book = client.get("/v1/accounts", params={"limit": 500}, headers=partner).json()
    mine = {
        account for account, owner in zip(score_set.accounts["account_id"], score_set.accounts["partner_id"], strict=True) if owner == "p1"
    }
    assert {account["account_id"] for account in book["accounts"]} == mine
    assert book["totals"]["accounts"] == len(mine)
    assert client.get("/v1/accounts", params={"partner": "p2"}, headers=partner).json()["totals"]["accounts"] == 0


def test_somebody_else_s_account_and_no_account_are_answered_alike(client, app, partner):
    foreign, unknown = (client.get(f"/v1/accounts/{account}", headers=partner) for account in ("acc-0002", "acc-9999"))
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert {name for name in foreign.headers if foreign.headers[name] != unknown.headers[name]} <= {"date", "x-request-id"}
    reasons = {line["account_id"]: line["reason"] for line in journal(app, caller="partner:p1", outcome="refused", action="read account")}
    assert reasons == {"acc-0002": "assigned to somebody else", "acc-9999": "no such account"}


def test_a_partner_is_never_shown_what_is_the_vendor_s_alone(client, partner):
    secret = [feature.name for feature in CATALOGUE if feature.sensitivity == "vendor"]
    words = [*secret, "discount", "price per seat", "list price", "tier"]
    book = client.get("/v1/accounts", params={"limit": 500}, headers=partner)
    predictions = client.post("/v1/predict", json={"accounts": [each["account_id"] for each in book.json()["accounts"]]}, headers=partner)
    accounts = [client.get(f"/v1/accounts/{each['account_id']}", headers=partner) for each in book.json()["accounts"][:30]]
    for answer in (book, predictions, *accounts):
        assert answer.status_code == 200
        assert not [word for word in words if word in answer.text]


def test_predicting_lists_what_does_not_exist_for_the_caller(client, partner):
    answer = client.post("/v1/predict", json={"accounts": ["acc-9999", "acc-0001", "acc-0002"]}, headers=partner).json()
    assert [result["id"] for result in answer["results"]] == ["acc-0001"]
    assert answer["not_found"] == ["acc-9999", "acc-0002"]


def test_a_partner_cannot_try_values_out(client, app, partner, score_set):
    answer = client.post("/v1/predict", json={"rows": [{"id": "x", "features": features_of(score_set, 0)}]}, headers=partner)
    assert answer.status_code == 403
    assert journal(app, caller="partner:p1", outcome="refused", reason="rows of features")


def test_every_read_is_in_the_journal(client, app, vendor):
    before = len(journal(app, outcome="read"))
    read = client.get("/v1/accounts", params={"limit": 7}, headers=vendor).json()["accounts"]
    client.get("/v1/accounts/acc-0003", headers=vendor)
    lines = journal(app, outcome="read")[before:]
    assert [line["account_id"] for line in lines] == [account["account_id"] for account in read] + ["acc-0003"]
    assert {line["caller"] for line in lines} == {"vendor"}
    assert {line["score_set"] for line in lines} == {app.state.desk.live.current().manifest.version}


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer rk_nobody_nothing"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/accounts"), ("GET", "/v1/accounts/acc-0001"), ("POST", "/v1/predict")])
def test_nobody_gets_in_without_a_key(client, header, method, path):
    answer = client.request(method, path, headers=header, json={"accounts": ["acc-0001"]} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert_problem(answer)


def test_a_key_is_good_for_its_scopes_only(client, app):
    reader = as_caller(app, VENDOR, scopes=["accounts:read"])
    assert client.get("/v1/accounts", headers=reader).status_code == 200
    assert_problem(client.post("/v1/predict", json={"accounts": ["acc-0001"]}, headers=reader), status=403)


def assert_problem(answer, status=None):
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "errors", "request_id"}
    assert body["status"] == answer.status_code == (status or answer.status_code)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"accounts": []},
        {"accounts": ["a"], "rows": []},
        {"accounts": ["a"], "row": 1},
        {"accounts": [1]},
        {"accounts": ["a"] * 10_001},
        {"rows": [{"id": "x"}]},
        {"rows": [{"id": "x", "features": {"seats": [1]}}]},
        {"rows": [{"id": "x", "features": {"seats": 1.0}}]},
        {"rows": [{"id": "x", "features": {"seats": True}}]},
        [],
        None,
    ],
)
def test_requests_of_another_form_are_problems_that_name_the_field(client, vendor, body):
    answer = client.post("/v1/predict", json=body, headers=vendor)
    assert_problem(answer, status=422)
    assert answer.json()["errors"][0]["pointer"].startswith("/body")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(client, vendor, score_set, number):
    features = json.dumps(features_of(score_set, 0) | {"seats": "HERE"}).replace('"HERE"', number)
    content = f'{{"rows": [{{"id": "x", "features": {features}}}]}}'
    answer = client.post("/v1/predict", content=content, headers=vendor | {"content-type": "application/json"})
    assert_problem(answer, status=422)


def test_features_that_are_wrong_are_named_with_what_is_near(client, vendor, score_set):
    features = features_of(score_set, 0) | {"seat": 3.0, "seats": "many"}
    del features["last_nps"]
    errors = client.post("/v1/predict", json={"rows": [{"id": "x", "features": features}]}, headers=vendor).json()["errors"]
    said = {error["pointer"]: error["message"] for error in errors}
    assert said["/body/rows/0/features/seat"] == "no model knows this feature; did you mean 'seats'?"
    assert said["/body/rows/0/features"] == "missing, write null if not known: last_nps"
    assert said["/body/rows/0/features/seats"] == "must be a number or null"


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 501},
        {"limit": "one"},
        {"band": "blue"},
        {"sort": "luck"},
        {"order": "up"},
        {"min_arr": "nan"},
        {"max_arr": "inf"},
        {"min_churn_probability": 1.1},
        {"renewal_from": "tomorrow"},
        {"csm": "a\x00b"},
        {"cursor": "nonsense"},
    ],
)
def test_queries_of_another_form_are_problems(client, vendor, params):
    assert_problem(client.get("/v1/accounts", params=params, headers=vendor), status=422)


def test_other_addresses_and_methods_are_problems(client, vendor):
    assert_problem(client.get("/v1/nothing", headers=vendor), status=404)
    assert_problem(client.delete("/v1/accounts", headers=vendor), status=405)


def test_a_body_that_is_too_large_is_refused(client, vendor):
    assert_problem(client.post("/v1/predict", content=b"x", headers=vendor | {"content-length": str(LARGEST_BODY + 1)}), status=413)
    chunks = (b" " * 1_000_000 for _ in range(LARGEST_BODY // 1_000_000 + 2))
    assert_problem(client.post("/v1/predict", content=chunks, headers=vendor | {"content-type": "application/json"}), status=413)


def test_an_error_of_ours_is_a_problem_that_gives_nothing_away(client, vendor, monkeypatch):
    monkeypatch.setattr("serving.api.routes_accounts.account_bytes", lambda *_: 1 / 0)
    answer = client.get("/v1/accounts/acc-0001", headers=vendor)
    assert_problem(answer, status=500)
    assert "division" not in answer.text


def test_alive_and_ready(client, app):
    assert client.get("/livez").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["score_set"]) == ("ready", app.state.desk.live.current().manifest.version)
    assert {check["name"] for check in ready["checks"]} >= {"scores", "newest scores", "policy", "disk"}
    assert all(check == {"name": check["name"], "good": True, "detail": ""} for check in ready["checks"])


def test_every_answer_carries_the_headers_that_browsers_obey(client):
    for path in ("/livez", "/v1/accounts", "/nothing", "/static/renewcast.css"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_new_score_set_is_served_without_a_restart_and_a_damaged_one_is_not(tmp_path):
    workspace = make_workspace(tmp_path)
    first = score_workspace(workspace).version
    app = create_app(workspace)
    with TestClient(app) as client:
        key = as_caller(app, VENDOR)

        def served():
            return client.get("/v1/accounts/acc-0001", headers=key).json()["as_of"]["score_set"]

        assert served() == first
        second = score_workspace(workspace).version
        app.state.desk.live.refresh()
        assert served() == second != first
        third = score_workspace(workspace)
        (third.folder / "manifest.json").write_text("{")
        app.state.desk.live.refresh()
        assert served() == second


def test_a_business_without_arr_is_ranked_by_the_chance_of_leaving(client, app, vendor, score_set, monkeypatch):
    accounts = dict(score_set.accounts) | {"arr": np.full(ACCOUNTS, np.nan), "arr_at_risk": np.full(ACCOUNTS, np.nan)}
    without = type(score_set)(
        **{name: getattr(score_set, name) for name in score_set.__dataclass_fields__} | {"accounts": accounts, "fragments": None}
    )
    monkeypatch.setattr(app.state.desk.live, "_score_set", without)
    book = client.get("/v1/accounts", headers=vendor).json()
    chances = [account["churn_probability"] for account in book["accounts"]]
    assert chances == sorted(chances, reverse=True)
    assert book["totals"]["arr"] is None and book["accounts"][0]["arr_at_risk"] is None
