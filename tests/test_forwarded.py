"""Whose word counts on who asks: a trusted proxy's, on a connection of its own, and nobody else's."""

import re

import pytest

from features.workspace import load_workspace
from serving.app import create_app
from serving.permissions.caller import VENDOR
from serving.scores.batch import score_workspace
from tests.serving_book import CONFIG, TestClient, make_workspace

HTML = {"accept": "text/html"}
PROXY, STRANGER = "10.0.0.7", "203.0.113.9"
SERVING = """
[serving]
trusted_proxies = ["10.0.0.0/24", "2001:db8::7"]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    plain, limits = CONFIG.split("[serving.limits]")
    (workspace.folder / "renewcast.toml").write_text(
        plain + SERVING + "[serving.limits]" + re.sub("failures_per_minute.*", "failures_per_minute = 6", limits)
    )
    return load_workspace(workspace.folder, {})


@pytest.fixture
def app(workspace):
    app = create_app(workspace)
    yield app
    app.state.desk.store.dispose()


def signing_in(app, address, **headers):
    """Sign in on a connection from an address; return the client and what the cookies were set with."""
    client = TestClient(app, client=(address, 5000), base_url="http://inside:3000", headers=HTML | headers)
    link = app.state.desk.identity.sign_in_token(VENDOR)
    answer = client.get("/sign-in", params={"token": link}, follow_redirects=False)
    assert answer.headers["location"] == "/", "relative, so that it is right behind any proxy"
    return client, answer.headers.get_list("set-cookie")


def base_of(client, cookies):
    """Return the address that the page about the API tells its readers to call."""
    held = "; ".join(cookie.partition(";")[0] for cookie in cookies)
    page = client.get("/docs", headers={"cookie": held}).text
    return re.search(r"https?://[^/\s\"<]+(?=/v1/)", page)[0]


@pytest.mark.parametrize("address", [PROXY, "2001:db8::7"])
def test_behind_a_trusted_proxy_with_tls_cookies_and_addresses_are_those_of_https(app, address):
    client, cookies = signing_in(app, address, **{"x-forwarded-proto": "https", "x-forwarded-host": "renewcast.example.com"})
    session, browser = cookies
    assert session.startswith("__Host-renewcast_session=")
    assert "secure" in session.lower().split("; ") and "secure" in browser.lower().split("; ")
    assert base_of(client, cookies) == "https://renewcast.example.com"


def test_a_proxy_that_hands_on_the_host_itself_need_not_forward_it(app):
    client, cookies = signing_in(app, PROXY, **{"x-forwarded-proto": "https", "host": "renewcast.example.com"})
    assert base_of(client, cookies) == "https://renewcast.example.com"


def test_nobody_else_is_believed(app):
    told = {"x-forwarded-proto": "https", "x-forwarded-host": "evil.example", "x-forwarded-for": PROXY, "forwarded": "proto=https"}
    client, cookies = signing_in(app, STRANGER, **told)
    assert cookies[0].startswith("renewcast_session=")
    assert not any("secure" in cookie.lower() for cookie in cookies)
    assert base_of(client, cookies) == "http://inside:3000"


@pytest.mark.parametrize("host", ["", "evil.example/path", "a b", "a@evil.example", "x" * 300, "[::1", "evil.example:99999999", "é"])
def test_what_is_no_host_is_not_taken_for_one(app, host):
    client, cookies = signing_in(app, PROXY, **{"x-forwarded-host": host.encode()})
    assert base_of(client, cookies) == "http://inside:3000"


def test_of_several_hosts_the_one_counts_that_the_nearest_proxy_wrote(app):
    client, cookies = signing_in(app, PROXY, **{"x-forwarded-host": "evil.example, renewcast.example.com:8443"})
    assert base_of(client, cookies) == "http://renewcast.example.com:8443"


def wrong(app, connection, client):
    """Send a wrong key, and return the status."""
    headers = {"authorization": "Bearer rk_0_0", "x-forwarded-for": client}
    return TestClient(app, client=(connection, 5000)).get("/v1/accounts", headers=headers).status_code


def test_wrong_credentials_are_counted_by_the_address_of_the_client(app):
    assert [wrong(app, PROXY, "198.51.100.1") for _ in range(4)] == [401, 401, 401, 429]
    assert wrong(app, PROXY, "198.51.100.2") == 401, "its neighbour behind the same proxy is not locked out"
    assert wrong(app, PROXY, "198.51.100.2, 198.51.100.1") == 429, "what the client itself put before its address changes nothing"


def test_a_stranger_cannot_spread_its_failures_over_addresses(app):
    assert [wrong(app, STRANGER, f"198.51.100.{number}") for number in range(10, 14)] == [401, 401, 401, 429]
