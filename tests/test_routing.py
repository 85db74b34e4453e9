"""What holds for every route of the API, whatever it is about."""

import pytest

from serving.permissions.caller import VENDOR, Caller


def test_a_parameter_that_there_is_not_is_refused_with_the_one_that_was_meant(client, vendor):
    answer = client.get("/v1/accounts", params={"bnad": "red", "limt": 1}, headers=vendor)
    assert answer.status_code == 422
    assert {error["pointer"]: error["message"] for error in answer.json()["errors"]} == {
        "/query/bnad": "there is no such parameter here; did you mean 'band'?",
        "/query/limt": "there is no such parameter here; did you mean 'limit'?",
    }


def test_a_parameter_that_is_given_twice_is_refused(client, vendor):
    answer = client.get("/v1/accounts?band=red&band=green", headers=vendor)
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"pointer": "/query/band", "message": "is given more than once"}])


def test_who_has_not_shown_who_it_is_learns_nothing_about_the_request(client):
    assert client.get("/v1/accounts?nonsense=1").status_code == 401
    assert client.post("/v1/predict", content=b"{" * 100_000).status_code == 401


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/merge-patch+json"]
)
def test_bodies_are_json_and_say_so(client, vendor, kind):
    headers = vendor | ({"content-type": kind} if kind else {})
    assert client.post("/v1/predict", content=b'{"accounts": ["acc-0001"]}', headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"rows": [{"id": "x", "features": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}]}",
        b'{"accounts": ["a\\u0000b"]}',
        b'{"accounts": ["\\ud800"]}',
        b'{"accounts": ["\xff\xfe"]}',
        b'{"accounts": ["a"], "\\ud800": 1}',
        b'{"accounts": ["a"], "' + b"x" * 100_000 + b'": 1}',
        b"\xef\xbb\xbf",
        b"NaN",
    ],
    ids=["nothing", "broken", "deep", "deep features", "NUL", "surrogate", "not UTF-8", "surrogate as a name", "long name", "BOM", "NaN"],
)
def test_bodies_of_another_form_are_problems(client, vendor, body):
    answer = client.post("/v1/predict", content=body, headers=vendor | {"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 10_000
    assert answer.json()["errors"][0]["pointer"].startswith("/body")


def test_what_is_wrong_with_a_field_is_said_once_and_in_plain_words(client, vendor):
    body = '{"rows": [{"id": "x", "features": {"seats": NaN, "discount": [1]}}]}'
    answer = client.post("/v1/predict", content=body, headers=vendor | {"content-type": "application/json"})
    assert {error["pointer"]: error["message"] for error in answer.json()["errors"]} == {
        "/body/rows/0/features/seats": "Input should be a finite number, or: Input should be a valid string",
        "/body/rows/0/features/discount": "Input should be a valid number, or: Input should be a valid string",
    }
    opinion = {"target": "churn", "agrees": False, "score_set": "x"}
    answer = client.post("/v1/accounts/acc-0004/feedback", json=opinion, headers=vendor)
    assert [error["message"] for error in answer.json()["errors"]] == ["say why you disagree: give a reason"]


@pytest.mark.parametrize("account_id", ["a%00b", "%0A", "x" * 201, "%ff", "%ED%A0%80"])
def test_ids_that_cannot_be_one_are_refused(client, vendor, account_id):
    assert client.get(f"/v1/accounts/{account_id}", headers=vendor).status_code in (404, 422)


@pytest.mark.parametrize(
    ("accept", "status"), [("application/json", 200), ("*/*", 200), ("text/html, application/*;q=0.5", 200), ("text/csv", 406)]
)
def test_an_answer_that_is_not_wanted_is_not_given(client, vendor, accept, status):
    assert client.get("/v1/models", headers=vendor | {"accept": accept}).status_code == status


def test_head_is_get_without_the_body(client, vendor):
    got, headed = (client.request(method, "/v1/accounts", headers=vendor) for method in ("GET", "HEAD"))
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert headed.headers["etag"] == got.headers["etag"]
    assert client.head("/v1/accounts").status_code == 401


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/accounts", "GET, HEAD, OPTIONS"),
        ("/v1/predict", "OPTIONS, POST"),
        ("/v1/accounts/acc-0001/plays", "GET, HEAD, OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
def test_an_address_tells_the_methods_that_it_takes(client, path, allowed):
    options, other = client.options(path), client.request("DELETE", path)
    assert (options.status_code, options.headers["allow"]) == (204, allowed)
    assert (other.status_code, other.headers["allow"]) == (405, allowed)
    assert other.json()["type"] == "/docs#method-not-allowed"


def test_an_address_that_there_is_not_is_a_problem_with_a_request_id(client):
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        answer = client.request(method, "/v1/nothing")
        assert answer.status_code == 404
    problem = client.get("/v1/nothing").json()
    assert problem["type"] == "/docs#not-found" and problem["request_id"]


def test_a_tag_is_one_caller_s_and_what_has_not_changed_is_not_sent_again(client, vendor):
    other = {"Authorization": f"Bearer {client.app.state.desk.identity.issue_key(VENDOR, label='test')}"}
    first = client.get("/v1/accounts/acc-0001", headers=vendor)
    tag = first.headers["etag"]
    again = client.get("/v1/accounts/acc-0001", headers=vendor | {"if-none-match": f'"x", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert first.headers["vary"] == "Authorization" and "private" in first.headers["cache-control"]
    assert client.get("/v1/accounts/acc-0001", headers=vendor | {"if-none-match": '"other"'}).status_code == 200
    assert client.get("/v1/accounts/acc-0001", headers=other).headers["etag"] == tag  # the same caller by another key
    issue = client.app.state.desk.identity.issue_key
    partner = {"Authorization": f"Bearer {issue(Caller('p1'), label='test')}"}
    assert client.get("/v1/accounts/acc-0001", headers=partner | {"if-none-match": tag}).status_code == 200
    assert client.get("/v1/accounts/acc-0002", headers=partner | {"if-none-match": tag}).status_code == 404
