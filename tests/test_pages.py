import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from serving import wording
from serving.app import create_app, sign_in_links
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.web.charts import over_time
from tests.serving_book import CATALOGUE, CUTOFF, TestClient, make_workspace

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    return workspace


@pytest.fixture(scope="module")
def app(workspace):
    app = create_app(workspace)
    with TestClient(app):
        yield app


@pytest.fixture(scope="module")
def score_set(workspace):
    return load_score_set(workspace.scores)


def signed_in(app, caller, **who):
    client = TestClient(app, headers=HTML)
    client.get("/sign-in", params={"token": app.state.desk.identity.sign_in_token(caller, **who)})
    return client


@pytest.fixture(scope="module")
def vendor(app):
    with signed_in(app, VENDOR) as client:
        yield client


@pytest.fixture(scope="module")
def partner(app):
    with signed_in(app, Caller("p1")) as client:
        yield client


class Elements(HTMLParser):
    """Collects start tags and complains about elements that are not closed in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text))


@pytest.mark.parametrize(
    "path",
    ["/", "/?view=growth", "/?band=red", "/?search=zzz", "/?page=99", "/accounts/acc-0100", "/accounts/acc-0000", "/sign-in", "/nothing"],
)
def test_pages_are_well_formed_small_and_without_inline_script_or_style(vendor, path):
    page = vendor.get(path)
    elements = Elements(page.text)
    assert len(page.content) < 300_000
    for tag, attributes in elements.tags:
        assert tag not in ("style", "iframe")
        assert tag != "script" or attributes["src"].startswith("/static/")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        address = attributes.get("href") or attributes.get("src") or ""
        assert address.startswith(("/", "#")) or not address


def test_the_page_shows_the_numbers_of_the_file(vendor, score_set):
    account = score_set.account(100)
    shown = text_of(vendor.get(f"/accounts/{account.account_id}"))
    assert f"About {wording.chance(account.probability['churn'])} in the next 90 days" in shown
    assert f" {account.health} {account.band.capitalize()}" in shown
    for words in (wording.money(account.arr, "USD"), wording.money(account.arr_at_risk, "USD"), wording.day(account.renewal_at)):
        assert words in shown


def test_the_book_names_the_riskiest_first_with_a_reason(vendor, score_set):
    page = vendor.get("/")
    first = score_set.accounts["account_id"][score_set.accounts["arr_at_risk"].argmax()]
    assert re.search(r'href="/accounts/([^"]+)"', page.text).group(1) == first
    assert "Page 1 of 5" in page.text


def test_filters_stay_when_the_order_or_the_page_changes(vendor):
    page = vendor.get("/", params={"segment": "Small business", "sort": "name"})
    assert "/?segment=Small+business&amp;sort=name&amp;page=2" in page.text
    assert "/?segment=Small+business&amp;sort=health" in page.text
    assert "/?view=growth&amp;segment=Small+business" in page.text
    assert '<option value="Small business" selected>' in page.text


def test_too_little_data_and_silent_sources_are_said(vendor):
    assert "A customer for 12 days" in vendor.get("/accounts/acc-0000").text
    assert "No telemetry has ever arrived" in vendor.get("/accounts/acc-0005").text
    assert "Nothing has arrived in tickets since 22 May 2025" in vendor.get("/").text


def test_empty_books_say_why(vendor, app):
    assert "No account matches these filters" in vendor.get("/?search=zzz").text
    assert "There is no page 99" in vendor.get("/?page=99").text
    with signed_in(app, Caller("nobody")) as nobody:
        assert "None is assigned to nobody today" in nobody.get("/").text


def test_a_partner_sees_its_accounts_and_nothing_of_the_vendor_s(partner):
    page = partner.get("/")
    assert "Your accounts" in page.text
    assert "Kestrel Systems" not in page.text
    account = partner.get("/accounts/acc-0001")
    assert account.status_code == 200
    for feature in CATALOGUE:
        if feature.sensitivity == "vendor":
            assert feature.name not in account.text
    assert "discount" not in account.text


def test_somebody_else_s_account_and_no_account_look_alike(partner):
    foreign, unknown = partner.get("/accounts/acc-0002"), partner.get("/accounts/acc-9999")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text == unknown.text
    assert "There is no such account" in foreign.text


def test_nobody_sees_a_page_without_signing_in(app):
    client = TestClient(app, headers=HTML)
    for path in ("/", "/accounts/acc-0001"):
        page = client.get(path)
        assert page.status_code == 401
        assert "Sign in" in page.text
        assert "acc-" not in page.text


def test_a_link_is_exchanged_for_a_cookie_that_script_cannot_read(app):
    client = TestClient(app, headers=HTML)
    token = app.state.desk.identity.sign_in_token(VENDOR)
    answer = client.get("/sign-in", params={"token": token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("renewcast_session="))
    assert "httponly" in cookie.lower() and "samesite=lax" in cookie.lower()
    assert client.get("/sign-in", params={"token": token}, follow_redirects=False).status_code == 303
    stranger = TestClient(app, headers=HTML).get("/sign-in", params={"token": token})
    assert stranger.status_code == 401
    assert "does not open any more" in stranger.text


def test_signing_out_ends_the_session(app):
    client = signed_in(app, VENDOR)
    assert client.get("/").status_code == 200
    token = re.search(r'name="csrf" value="(\w+)"', client.get("/").text).group(1)
    assert "You sign in with a link" in client.post("/sign-out", data={"csrf": token}).text
    assert client.get("/").status_code == 401


def form_token(client):
    return re.search(r'name="csrf" value="(\w+)"', client.get("/").text).group(1)


def test_a_copied_cookie_opens_nothing_after_signing_out(app):
    client, thief = signed_in(app, VENDOR), TestClient(app, headers=HTML)
    thief.cookies.update({"renewcast_session": client.cookies["renewcast_session"]})
    assert thief.get("/").status_code == 200
    client.post("/sign-out", data={"csrf": form_token(client)})
    assert thief.get("/").status_code == 401


def test_a_form_of_another_site_or_another_session_is_refused(app):
    client, other = signed_in(app, VENDOR), signed_in(app, Caller("p1"))
    for data in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": form_token(other)}):
        refused = client.post("/sign-out", data=data)
        assert refused.status_code == 403
        assert "Load it again" in refused.text
    assert client.get("/").status_code == 200
    assert client.post("/sign-out", headers={"X-CSRF-Token": form_token(client)}).status_code == 200
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("path", ["/sign-out", "/appearance"])
def test_a_form_of_which_the_browser_says_that_another_site_sent_it_is_refused(app, path):
    client = signed_in(app, VENDOR)
    data = {"csrf": form_token(client), "theme": "dark"}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        answer = client.post(path, data=data, headers={"Sec-Fetch-Site": site}, follow_redirects=False)
        assert answer.status_code == status


def test_over_https_cookies_are_for_this_host_and_https_alone(app):
    client = TestClient(app, headers=HTML, base_url="https://testserver")
    answer = client.get("/sign-in", params={"token": app.state.desk.identity.sign_in_token(VENDOR)}, follow_redirects=False)
    session, browser = answer.headers.get_list("set-cookie")
    assert session.startswith("__Host-renewcast_session=")
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(session.lower().split("; "))
    assert {"secure", "httponly", "path=/sign-in"} <= set(browser.lower().split("; "))
    assert "domain" not in answer.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200


def test_signing_in_again_ends_the_earlier_session(app):
    client = signed_in(app, VENDOR)
    earlier = client.cookies["renewcast_session"]
    client.get("/sign-in", params={"token": app.state.desk.identity.sign_in_token(VENDOR)})
    assert client.cookies["renewcast_session"] != earlier
    thief = TestClient(app, headers=HTML)
    thief.cookies.update({"renewcast_session": earlier})
    assert thief.get("/").status_code == 401


@pytest.mark.parametrize("path", ["/?band=blue", "/?sort=luck", "/?page=0", "/?page=-1", "/?page=x"])
def test_addresses_that_ask_for_what_there_is_not_are_answered_with_a_page(vendor, path):
    page = vendor.get(path)
    assert page.status_code == 422
    assert page.headers["content-type"].startswith("text/html")


def test_names_are_shown_as_text(vendor, app, score_set, monkeypatch):
    names = score_set.accounts["name"].copy()
    names[:] = "<b>&\"'"
    changed = type(score_set)(
        **{name: getattr(score_set, name) for name in score_set.__dataclass_fields__}
        | {"accounts": dict(score_set.accounts) | {"name": names}, "memory": {}, "fragments": None}
    )
    monkeypatch.setattr(app.state.desk.live, "_score_set", changed)
    assert "<b>&" not in vendor.get("/").text
    assert "&lt;b&gt;" in vendor.get("/accounts/acc-0001").text


def test_links_for_the_vendor_and_the_partner_with_most_accounts(workspace, app):
    links = sign_in_links(workspace, address="http://127.0.0.1:3000")
    assert links.partner_name == "Northwind Consulting"
    client = TestClient(app, headers=HTML)
    assert "Signed in as</span> Vendor" in client.get(links.vendor.removeprefix("http://127.0.0.1:3000")).text
    assert "Northwind Consulting" in client.get(links.partner.removeprefix("http://127.0.0.1:3000")).text


@pytest.mark.parametrize("caller", [VENDOR, Caller("p1")])
def test_a_provisional_model_is_said_to_be_one(app, score_set, monkeypatch, caller):
    client = signed_in(app, caller)
    said = "The model of churn has not yet been shown to beat a simpler one"
    assert said not in client.get("/").text
    models = dict(score_set.manifest.models)
    manifest = replace(score_set.manifest, models=models | {"churn": replace(models["churn"], provisional=True)})
    monkeypatch.setattr(app.state.desk.live, "_score_set", replace(score_set, manifest=manifest, memory={}))
    assert said in client.get("/").text
    account = re.search(r"/accounts/acc-\d+", client.get("/").text).group()
    assert said in client.get(account).text


def test_the_renewal_window_begins_with_the_scores(vendor, score_set):
    wanted = score_set.accounts["renewal_at"] <= score_set.manifest.cutoff + timedelta(days=30)
    assert f">{wanted.sum()}<" in vendor.get("/?renewal=30").text


def test_the_other_side_of_the_book_leads_with_who_may_grow(vendor, score_set):
    page = vendor.get("/?view=growth")
    first = score_set.accounts["account_id"][score_set.accounts["expansion_probability"].argmax()]
    assert re.search(r'href="/accounts/([^"]+)"', page.text).group(1) == first
    assert "What speaks for growth" in page.text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_remembered_and_can_be_left_to_the_system(app, theme):
    client = signed_in(app, VENDOR)
    back = client.post("/appearance", data={"theme": theme, "back": "/?band=red"}, follow_redirects=False)
    assert back.headers["location"] == "/?band=red"
    assert f'data-theme="{theme}"' in client.get("/").text
    client.post("/appearance", data={"theme": "", "back": "/"})
    assert "data-theme" not in client.get("/").text


def test_colours_lead_nowhere_else(app):
    client = signed_in(app, VENDOR)
    for back in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)"):
        answer = client.post("/appearance", data={"theme": "dark", "back": back}, follow_redirects=False)
        assert answer.headers["location"] == "/"


def test_pages_live_with_whatever_a_policy_keeps_back(tmp_path):
    workspace = make_workspace(tmp_path)
    lines = [
        (record, name) for record, fields in default_policy().fields.items() for name, audience in fields.items() if audience == "shared"
    ]
    (workspace.folder / "policy.toml").write_text("".join(f'[fields.{record}]\n{name} = "vendor"\n' for record, name in _grouped(lines)))
    score_workspace(workspace)
    app = create_app(workspace)
    with TestClient(app):
        client = signed_in(app, Caller("p1"), role="analyst")
        for path in (
            "/",
            "/accounts/acc-0004",
            "/accounts/acc-0004/what-if",
            "/track-record",
            "/retention",
            "/partners/p1",
        ):
            page = client.get(path)
            assert page.status_code == 200, path
            Elements(page.text)
            assert not re.search(r"\bNone\b", re.sub("None (is|of)", "", text_of(page))), path


def _grouped(lines):
    """Return each record once, with its other fields below its first."""
    found = {}
    for record, name in lines:
        found.setdefault(record, []).append(name)
    return [(record, ' = "vendor"\n'.join(names)) for record, names in found.items()]


def test_no_line_leads_over_years_of_which_nothing_is_known():
    days = (0, 30, 60, 2000, 2030)
    course = over_time([(CUTOFF + timedelta(days=day), 50, True) for day in days])
    assert [line.count(",") for line in course.lines] == [3, 2]
    assert len(course.dots) == len(days)
    assert over_time([(CUTOFF, 50, True)]) is None
