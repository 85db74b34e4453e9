"""What readers say on the page of an account: kept, refused at its field, and never lost."""

import re

import pytest

from serving.app import create_app
from serving.permissions.caller import VENDOR, Caller
from serving.scores.batch import score_workspace
from serving.web.pages_forms import LARGEST_FORM
from tests.serving_book import TestClient, make_workspace

HTML = {"accept": "text/html"}
ACCOUNT = "/accounts/acc-0004"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    score_workspace(workspace)
    app = create_app(workspace)
    with TestClient(app):
        yield app


def signed_in(app, caller, **who):
    client = TestClient(app, headers=HTML)
    client.get("/sign-in", params={"token": app.state.desk.identity.sign_in_token(caller, **who)})
    return client


def token_of(client):
    return re.search(r'name="csrf" value="(\w+)"', client.get(ACCOUNT).text).group(1)


def send(client, part, **fields):
    return client.post(f"{ACCOUNT}/{part}", data={"csrf": token_of(client), **fields})


def test_a_note_is_kept_and_shown_as_text(app):
    client = signed_in(app, VENDOR)
    page = send(client, "notes", text="<script>alert(1)</script> & all")
    assert page.status_code == 200
    assert str(page.url).endswith("?sent=notes#said")
    assert "The note is kept." in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; all" in page.text
    assert "<script>alert" not in page.text


def test_a_play_and_a_judgement_are_kept_with_who_said_them(app):
    client = signed_in(app, Caller("p1"), role="analyst", subject="jo@partner.example")
    score_set = app.state.desk.live.current().manifest.version
    send(client, "plays", play="Bring open tickets to an end", category="Experience", performed_on="2025-06-30", text="Two are closed.")
    send(client, "feedback", agrees="no", reason="renewal_agreed", text="Signed on Monday.", score_set=score_set)
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", client.get(ACCOUNT).text))
    assert "Bring open tickets to an end Experience 30 Jun 2025 · jo@partner.example Two are closed." in shown
    assert re.search(r"Disagrees with [\w ]+: the renewal is agreed", shown)
    assert "Signed on Monday." in signed_in(app, VENDOR).get(ACCOUNT).text


@pytest.mark.parametrize(
    ("part", "fields", "field"),
    [
        ("notes", {"text": "  "}, "text"),
        ("plays", {"play": "", "category": "Growth", "text": "kept words"}, "play"),
        ("plays", {"play": "x", "category": "Luck", "text": "kept words"}, "category"),
        ("plays", {"play": "x", "category": "Growth", "performed_on": "2999-01-01", "text": "kept words"}, "performed_at"),
        ("feedback", {"score_set": "{current}", "text": "kept words"}, "agrees"),
        ("feedback", {"agrees": "no", "score_set": "{current}", "text": "kept words"}, ""),
        ("feedback", {"agrees": "yes", "score_set": "never", "text": "kept words"}, "score_set"),
    ],
)
def test_what_cannot_be_kept_is_shown_again_with_what_is_wrong(app, part, fields, field):
    client = signed_in(app, VENDOR)
    version = app.state.desk.live.current().manifest.version
    page = send(client, part, **{name: value.format(current=version) for name, value in fields.items()})
    assert page.status_code == 422
    assert fields["text"].strip() in page.text
    assert f'id="wrong-{part}-{field or "all"}"' in page.text or 'class="wrong"' in page.text


def test_an_ended_session_loses_nothing(app):
    client = signed_in(app, VENDOR)
    stale = token_of(client)
    typed = {"csrf": stale, "text": "A long note that took time"}
    client.cookies.clear()
    page = client.post(f"{ACCOUNT}/notes", data=typed)
    assert page.status_code == 401
    assert "Your session has ended" in page.text and "A long note that took time" in page.text
    again = signed_in(app, VENDOR)
    asked = again.post(f"{ACCOUNT}/notes", data={"csrf": "", "text": "A long note that took time"})
    assert asked.status_code == 403
    assert "Send it now?" in asked.text and "A long note that took time" in asked.text
    fresh = re.search(r'name="csrf" value="(\w+)"', asked.text).group(1)
    assert "The note is kept." in again.post(f"{ACCOUNT}/notes", data={"csrf": fresh, "text": "A long note that took time"}).text


def test_nothing_is_kept_without_the_token_of_the_session(app):
    client, other = signed_in(app, VENDOR), signed_in(app, VENDOR)
    for token in ("", "x" * 64, token_of(other)):
        assert client.post(f"{ACCOUNT}/notes", data={"csrf": token, "text": "forged words"}).status_code == 403
    assert "forged words" not in client.get(ACCOUNT).text


def test_accounts_of_others_take_no_words(app):
    client = signed_in(app, Caller("p1"))
    assert client.post("/accounts/acc-0002/notes", data={"csrf": token_of(client), "text": "x"}).status_code == 404


def test_what_is_too_long_is_refused_before_it_is_read(app):
    client = signed_in(app, VENDOR)
    assert send(client, "notes", text="x" * LARGEST_FORM).status_code == 413
    assert send(client, "notes", text="x" * 5000).status_code == 422
