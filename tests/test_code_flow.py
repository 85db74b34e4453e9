"""Signing in at an identity provider, from the first page to the last, over HTTP where it goes over HTTP."""

import http.client
import re
import shutil
from collections import Counter
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from features.workspace import load_workspace
from serving.app import create_app
from serving.callers import code_flow
from serving.permissions.caller import Caller
from tests.calls import journal
from tests.issuer import CLIENT, FOREIGN_KEY, OIDC, Issuer
from tests.serving_book import CONFIG, TestClient

HTML = {"accept": "text/html"}
STAFF = {"groups": "staff", "roles": "analysts"}


@pytest.fixture(scope="module")
def shared_issuer():
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def issuer(shared_issuer, monkeypatch):
    monkeypatch.setattr(shared_issuer, "person", STAFF)
    monkeypatch.setattr(shared_issuer, "asked", Counter())
    return shared_issuer


@pytest.fixture(scope="module")
def make_app(shared_issuer, scored_book, tmp_path_factory):
    made, folders = [], tmp_path_factory.mktemp("books")

    def make(*, client=f'client_id = "{CLIENT}"', serving=""):
        folder = folders / f"book-{len(made)}"
        shutil.copytree(scored_book, folder)
        oidc = OIDC.format(address=shared_issuer.address).replace("[serving.oidc]\n", f"[serving.oidc]\n{client}\n")
        (folder / "renewcast.toml").write_text(f"{CONFIG}[serving]\n{serving}\n{oidc}")
        made.append(create_app(load_workspace(folder, {})))
        return made[-1]

    yield make
    for app in made:
        app.state.desk.store.dispose()


@pytest.fixture(scope="module")
def app(make_app):
    return make_app()


def browser_of(app, **options):
    return TestClient(app, headers=HTML, follow_redirects=False, **options)


def at_provider(address):
    """Go to the provider as a browser does, and return where it sends the browser back to."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 302
    return answer.headers["Location"]


def leave(browser, to="/"):
    departure = browser.get("/sign-in/account", params={"to": to})
    assert departure.status_code == 303
    return departure.headers["location"]


def sign_in(browser, to="/"):
    return browser.get(at_provider(leave(browser, to)))


def changed(address, **answer):
    parts = urlsplit(address)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()} | answer
    return f"{parts.path}?{urlencode({name: value for name, value in asked.items() if value is not None})}"


def is_refused(browser, answer, *, says):
    assert answer.status_code == 401 and says in answer.text and "Sign in with your company" in answer.text
    assert "renewcast_session" not in answer.cookies and browser.get("/").status_code == 401
    return True


@pytest.mark.parametrize(("groups", "caller"), [("staff", "vendor"), ("northwind", "partner:p1")])
def test_a_person_signs_in_reads_the_page_that_was_wanted_and_signs_out(app, issuer, groups, caller):
    issuer.person = {"groups": groups, "roles": "managers", "sub": "Grace"}
    browser = browser_of(app)
    asked = browser.get("/?band=red&sort=name")
    assert asked.status_code == 401
    link = re.search(r'href="(/sign-in/account[^"]+)"', asked.text)[1].replace("&amp;", "&")
    answer = browser.get(at_provider(browser.get(link).headers["location"]))
    assert (answer.status_code, answer.headers["location"]) == (303, "/?band=red&sort=name")
    page = browser.get("/?band=red&sort=name")
    assert page.status_code == 200
    assert browser.get("/partners").status_code == (200 if caller == "vendor" else 404)
    assert browser.get("/v1/accounts").status_code == 401, "a session is for the pages"
    line = journal(app, action="sign in")[-1]
    assert (line["caller"], line["subject"], line["role"], line["outcome"]) == (caller, "Grace", "csm", "written")
    cookie = dict(browser.cookies)
    form = {"csrf": re.search(r'name="csrf" value="([^"]+)"', page.text)[1]}
    assert browser.post("/sign-out", data=form).status_code == 303
    assert browser.get("/").status_code == browser_of(app, cookies=cookie).get("/").status_code == 401


def test_what_the_browser_carries_tells_nothing_and_no_script_reads_it(app):
    browser = browser_of(app)
    departure = browser.get("/sign-in/account")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(departure.headers["location"]).query).items()}
    assert asked["redirect_uri"] == "http://testserver/sign-in/back" and asked["scope"] == "openid"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    cookie = departure.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/sign-in/back" in cookie
    assert not any(asked[name] in cookie for name in ("state", "nonce", "code_challenge"))
    over_https = TestClient(app, base_url="https://testserver", headers=HTML, follow_redirects=False).get("/sign-in/account")
    assert "Secure" in over_https.headers["set-cookie"]


@pytest.mark.parametrize(
    "answer", [{"state": "x"}, {"state": None}, {"iss": "https://elsewhere.example"}], ids=["other state", "no state", "other issuer"]
)
def test_an_answer_of_another_sign_in_is_not_taken(app, issuer, answer):
    browser = browser_of(app)
    back = changed(at_provider(leave(browser)), **answer)
    assert is_refused(browser, browser.get(back), says="Please sign in again")
    assert issuer.asked["/token"] == 0
    line = journal(app, action="sign in")[-1]
    assert (line["outcome"], line["reason"].partition(":")[0]) == ("refused", "sign-in")


def test_nobody_can_be_signed_in_with_somebody_else_s_answer(app):
    attacker, victim = browser_of(app), browser_of(app)
    theirs = at_provider(leave(attacker))
    assert is_refused(victim, victim.get(theirs), says="Please sign in again")  # without a sign-in of its own
    own = leave(victim)
    assert is_refused(victim, victim.get(theirs), says="Please sign in again")  # and during one
    own = parse_qs(urlsplit(leave(victim)).query)
    code = parse_qs(urlsplit(theirs).query)["code"][0]
    injected = victim.get("/sign-in/back", params={"code": code, "state": own["state"][0]})
    assert is_refused(victim, injected, says="opens nothing here"), "the code is bound to the attacker's verifier"


def test_an_answer_is_good_once(app):
    browser = browser_of(app)
    cookies = {}
    back = at_provider(leave(browser))
    cookies = dict(browser.cookies)
    assert browser.get(back).status_code == 303
    copy = browser_of(app, cookies=cookies)
    assert is_refused(copy, copy.get(back), says="opens nothing here")


def test_an_answer_that_comes_too_late_is_not_taken(app, monkeypatch):
    browser = browser_of(app)
    back = at_provider(leave(browser))
    monkeypatch.setattr(code_flow, "FLOW_SECONDS", -1)
    assert is_refused(browser, browser.get(back), says="Please sign in again")


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        (None, "access_denied"),
        (STAFF | {"groups": "visitors"}, "nobody who is known"),
        (STAFF | {"groups": ["staff", "northwind"]}, "several callers"),
        (STAFF | {"roles": "visitor"}, "without a role"),
        (STAFF | {"nonce": "another"}, "another sign-in"),
        (STAFF | {"nonce": None}, "another sign-in"),
        (STAFF | {"aud": "renewcast"}, "Audience"),
        (STAFF | {"azp": "elsewhere"}, "another client"),
        (STAFF | {"iss": "https://elsewhere.example"}, "Invalid issuer"),
        (STAFF | {"exp": 1}, "expired"),
        (STAFF | {"key": FOREIGN_KEY}, "Signature"),
        (STAFF | {"sub": None}, "no subject"),
    ],
)
def test_who_is_nobody_here_is_told_so_and_the_journal_knows_why(app, issuer, person, reason):
    issuer.person = person
    browser = browser_of(app)
    assert is_refused(browser, sign_in(browser), says="Your account opens nothing here")
    line = journal(app, action="sign in")[-1]
    assert line["outcome"] == "refused" and reason.casefold() in line["reason"].casefold()


def test_who_signs_in_again_leaves_the_earlier_session(app, issuer):
    browser = browser_of(app)
    sign_in(browser)
    earlier = browser_of(app, cookies=dict(browser.cookies))
    assert earlier.get("/").status_code == 200
    issuer.person = {"groups": "northwind", "roles": "analysts"}
    sign_in(browser)
    assert browser.get("/partners").status_code == 404
    assert earlier.get("/").status_code == 401


def test_links_go_on_working_beside_it(app):
    browser = browser_of(app)
    assert browser.get("/sign-in", params={"token": app.state.desk.identity.sign_in_token(Caller("p1"))}).status_code == 303
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("to", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "x"])
def test_nobody_is_led_elsewhere_after_signing_in(app, to):
    assert sign_in(browser_of(app), to).headers["location"] == "/"


def test_a_client_with_a_secret_shows_it(app, make_app, issuer, monkeypatch):
    monkeypatch.setattr(issuer, "secret", "s3cret")
    browser = browser_of(app)
    assert is_refused(browser, sign_in(browser), says="opens nothing here")
    monkeypatch.setenv("RENEWCAST_OIDC_CLIENT_SECRET", "s3cret")
    assert sign_in(browser_of(make_app())).status_code == 303
    monkeypatch.setitem(issuer.discovery, "token_endpoint_auth_methods_supported", ["client_secret_post"])
    monkeypatch.setattr(issuer, "secret", None)
    app = make_app()
    redeemed, redeem = [], issuer.redeem
    monkeypatch.setattr(issuer, "redeem", lambda form, shown: redeemed.append((form["client_secret"], shown)) or redeem(form, shown))
    assert sign_in(browser_of(app)).status_code == 303
    assert redeemed == [("s3cret", "")]


def test_the_provider_away_is_said_and_over_when_it_is_back(make_app, issuer, monkeypatch):
    monkeypatch.setattr(issuer, "away", True)
    browser = browser_of(make_app())
    answer = browser.get("/sign-in/account")
    assert (answer.status_code, "retry-after" in answer.headers, "<h1>" in answer.text) == (503, True, True)
    assert browser.get("/sign-in/account").status_code == 503
    assert sum(issuer.asked.values()) == 1, "made-up visits cannot be turned against the provider"
    issuer.away = False
    monkeypatch.setattr(code_flow, "RETRY_SECONDS", -1.0)
    back = at_provider(leave(browser))
    issuer.away = True
    assert browser.get(back).status_code == 503
    issuer.away = False
    assert sign_in(browser).status_code == 303


def test_the_token_of_a_sign_in_opens_nothing_of_the_api(app, issuer):
    token = issuer.token(**STAFF, aud=CLIENT, nonce="n")
    assert TestClient(app).get("/v1/accounts", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_the_address_of_the_config_is_the_one_that_the_provider_knows(make_app, issuer, monkeypatch):
    monkeypatch.setattr(issuer, "registered", "https://renewcast.example.com/sign-in/back")
    app = make_app(serving='address = "https://renewcast.example.com"')
    browser = TestClient(app, base_url="https://somewhere.example", headers=HTML, follow_redirects=False)
    back = at_provider(leave(browser))
    assert back.startswith(issuer.registered)
    assert browser.get(changed(back)).status_code == 303


def test_without_a_client_there_is_no_such_way(make_app):
    browser = browser_of(make_app(client=""))
    assert browser.get("/sign-in/account").status_code == browser.get("/sign-in/back").status_code == 404
    assert "company" not in browser.get("/sign-in").text
