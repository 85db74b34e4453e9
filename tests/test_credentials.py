"""The three kinds of credentials through the whole application."""

import re
from dataclasses import replace

import pytest
import sqlalchemy as sa

from features.errors import StoreDownError
from features.workspace import Workspace, load_workspace
from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE
from serving.records.tables import JOURNAL
from serving.scores.batch import score_workspace
from tests.issuer import FOREIGN_KEY, OIDC, Issuer
from tests.serving_book import CONFIG, TestClient, make_workspace


@pytest.fixture(scope="module")
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, issuer):
    folder = tmp_path_factory.mktemp("book")
    score_workspace(make_workspace(folder))
    (folder / "renewcast.toml").write_text(CONFIG + OIDC.format(address=issuer.address))
    app = create_app(load_workspace(folder, {}))
    yield app
    app.state.desk.store.dispose()


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def journal(app):
    app.state.desk.journal.ship()
    with app.state.desk.store.tenant(SERVICE) as connection:
        return connection.execute(sa.select(JOURNAL).order_by(JOURNAL.c.line)).mappings().all()


def test_a_token_of_the_vendor_and_one_of_a_partner_see_what_their_keys_would(app, client, issuer):
    for groups, caller in (("staff", VENDOR), ("northwind", Caller("p1"))):
        key = app.state.desk.identity.issue_key(caller, label="crm")
        by_key = client.get("/v1/accounts", headers=bearer(key))
        by_token = client.get("/v1/accounts", headers=bearer(issuer.token(groups=groups, jti="t-1")))
        assert by_token.status_code == 200
        assert by_token.json()["accounts"] == by_key.json()["accounts"]
        line = journal(app)[-1]
        assert (line["caller"], line["credential"], line["subject"], line["role"]) == (caller.name, "token:t-1", "ada", "analyst")


@pytest.mark.parametrize("claims", [{"groups": "nobody"}, {"exp": 1}, {"aud": "elsewhere"}, {"roles": "visitor"}, {"key": FOREIGN_KEY}])
def test_a_token_that_is_no_good_is_answered_like_any_other_and_its_reason_is_in_the_journal(app, client, issuer, claims):
    refused = client.get("/v1/accounts", headers=bearer(issuer.token(**claims)))
    unknown = client.get("/v1/accounts", headers=bearer("rk_0_0"))
    assert refused.status_code == unknown.status_code == 401
    assert refused.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    *_, of_token, of_key = journal(app)
    assert of_token["outcome"] == of_key["outcome"] == "refused"
    assert of_key["reason"] == "unknown key"
    assert "token" in of_token["reason"]


def test_a_role_that_may_not_export_is_told_so(client, issuer):
    token = issuer.token(roles="managers")
    assert client.get("/v1/accounts", headers=bearer(token)).status_code == 200
    answer = client.get("/v1/export/accounts", headers=bearer(token))
    assert answer.status_code == 403
    assert "export" in answer.json()["detail"]


def test_a_session_is_for_the_pages_and_opens_nothing_of_the_api(app):
    client = TestClient(app, headers={"accept": "text/html"})
    token = app.state.desk.identity.sign_in_token(Caller("p1"), role="csm", subject="ada")
    client.get("/sign-in", params={"token": token})
    assert client.get("/").status_code == 200
    line = journal(app)[-1]
    assert (line["caller"], line["subject"], line["role"]) == ("partner:p1", "ada", "csm")
    assert line["credential"].startswith("session:")
    assert client.get("/v1/accounts").status_code == 401
    assert client.get("/v1/accounts", headers=bearer(client.cookies["renewcast_session"])).status_code == 401


def test_signing_in_and_out_and_failing_to_are_in_the_journal_and_no_secret_is(app):
    identity = app.state.desk.identity
    before, secrets = len(journal(app)), []

    def sign_in(browser, token):
        status = browser.get("/sign-in", params={"token": token}, follow_redirects=False).status_code
        secrets.extend([token, *browser.cookies.values()])
        return status

    browser, other = (TestClient(app, headers={"accept": "text/html"}) for _ in range(2))
    first, second = (identity.sign_in_token(Caller("p1"), role="analyst", subject="ada") for _ in range(2))
    assert [sign_in(browser, token) for token in (first, second, "made up")] == [303, 303, 401], "the second ends the first session"
    assert sign_in(other, second) == 401
    form = {"csrf": identity.sessions.form_token(browser.cookies["renewcast_session"])}
    browser.post("/sign-out", data={"csrf": "made up"})
    browser.post("/sign-out", data=form)
    browser.post("/sign-out", data=form)

    lines = journal(app)[before:]
    one, two = (identity.sessions.link_name(token) for token in (first, second))
    sessions = [line["credential"] for line in lines if line["action"] == "sign in" and line["outcome"] == "written"]
    assert [(line["action"], line["outcome"], line["caller"], line["credential"], line["reason"]) for line in lines] == [
        ("make link", "written", "vendor", "command", f"{one} of partner:p1 as analyst for ada"),
        ("make link", "written", "vendor", "command", f"{two} of partner:p1 as analyst for ada"),
        ("sign in", "written", "partner:p1", sessions[0], f"by {one}"),
        ("sign in", "written", "partner:p1", sessions[1], f"by {two}"),
        ("sign out", "written", "partner:p1", sessions[0], "its session"),
        ("sign in", "refused", "unknown", "link", "sign-in link: it was not signed here"),
        ("sign in", "refused", "unknown", two, "sign-in link: it was used in another browser"),
        ("authenticate", "refused", "unknown", "session", "a form without the token of its session"),
        ("sign out", "written", "partner:p1", sessions[1], "its session"),
    ]
    assert {line["subject"] for line in lines if line["caller"] == "partner:p1"} == {"ada"}
    assert len(set(sessions)) == 2 and all(re.fullmatch(r"session:[0-9a-f]{12}", session) for session in sessions)
    told = str(lines)
    assert not [secret for secret in secrets if secret in told]


def test_a_key_that_is_revoked_is_refused_at_once_here(app, client):
    key = app.state.desk.identity.issue_key(VENDOR, label="crm")
    assert client.get("/v1/accounts", headers=bearer(key)).status_code == 200
    app.state.desk.identity.revoke_key(key.split("_")[1])
    assert client.get("/v1/accounts", headers=bearer(key)).status_code == 401


def test_what_cannot_be_in_the_journal_is_not_answered(app, client, monkeypatch):
    key = bearer(app.state.desk.identity.issue_key(VENDOR, label="crm"))
    account = client.get("/v1/accounts", headers=key).json()["accounts"][0]["account_id"]
    with monkeypatch.context() as full:
        full.setattr("serving.callers.spool.Segments._write", lambda _self, _lines: False)
        full.setattr(app.state.desk.journal._segments, "_held_at_most", 0)
        answers = [client.get(path, headers=key) for path in ("/v1/accounts", f"/v1/accounts/{account}", "/v1/accounts/none")]
        answers.append(client.post("/v1/predict", headers=key, json={"accounts": [account]}))
    assert [answer.status_code for answer in answers] == [503] * 4
    assert not any(account in answer.text for answer in answers)
    assert client.get("/v1/accounts", headers=key).status_code == 200


@pytest.fixture
def away(postgres_server, postgres_store):
    """Shuts a PostgreSQL database, so that nobody is let in and whoever is in is thrown out, and opens it again."""
    import psycopg

    name = postgres_store.rsplit("/", 1)[1]

    def shut(allowed):
        with psycopg.connect(f"postgresql://reader@{postgres_server}/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    yield lambda: shut("false"), lambda: shut("true")
    shut("true")


def test_the_database_may_go_away_and_come_back_while_the_service_runs_and_before_it_starts(app, tmp_path, postgres_store, away):
    shut, open_again = away
    folder = app.state.desk.workspace.folder
    served = load_workspace(folder, {})
    config = replace(served.config, serving=replace(served.config.serving, database=postgres_store))
    (tmp_path / ".renewcast").mkdir()
    (tmp_path / ".renewcast" / "scores").symlink_to(served.scores)
    workspace = Workspace(tmp_path, config)
    running = create_app(workspace)
    desk, client = running.state.desk, TestClient(running)
    key = bearer(desk.identity.issue_key(VENDOR, label="crm"))
    pages = TestClient(running, headers={"accept": "text/html"})
    pages.get("/sign-in", params={"token": desk.identity.sign_in_token(VENDOR)})
    assert [client.get("/v1/accounts", headers=key).status_code, pages.get("/").status_code] == [200, 200]
    desk.journal.ship()

    shut()
    desk.identity.ring.forget()
    assert [client.get("/v1/accounts", headers=key).status_code, pages.get("/").status_code] == [200, 200]
    with pytest.raises(StoreDownError):
        desk.journal.ship()
    refused = client.get("/sign-in", params={"token": desk.identity.sign_in_token(VENDOR)})
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert desk.identity.fault() and desk.journal.fault()
    started = create_app(workspace)
    assert TestClient(started).get("/v1/accounts", headers=key).status_code == 200
    (tmp_path / ".renewcast" / "keys.json").unlink()
    ignorant = create_app(workspace)
    answer = TestClient(ignorant).get("/v1/accounts", headers=key)
    assert (answer.status_code, answer.json()["status"], "retry-after" in answer.headers) == (503, 503, True)
    waiting = desk.journal.backlog()
    assert waiting >= 3 * 10

    open_again()
    desk.journal._segments.close()
    assert started.state.desk.journal.ship() == waiting
    assert desk.journal.backlog() == 0
    desk.identity.ring.forget()
    assert client.get("/v1/accounts", headers=key).status_code == 200
    assert desk.identity.fault() is None
    for each in (running, started, ignorant):
        each.state.desk.store.dispose()
