from asyncio import run
from datetime import timedelta

import pytest
import sqlalchemy as sa

from features.errors import StoreDownError
from serving.callers.identity import RefusedError, default_scopes
from serving.callers.sessions import CACHE_SECONDS, IDLE_SECONDS, LINK_SECONDS, SESSION_SECONDS, Sessions
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE
from serving.records.tables import SESSIONS, SIGN_IN_LINKS, now


class Clock:
    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(store, clock):
    return Sessions(store, b"s" * 32, clock=clock)


ONE_DATABASE = pytest.mark.parametrize("store_address", ["sqlite"], indirect=True)
"""What does not depend on the kind of database is tried on one."""


def signed_in(sessions, caller=VENDOR, *, role="analyst", subject="ada", browser="a"):
    return run(sessions.sign_in(sessions.link_token(caller, role=role, subject=subject), browser=browser))


def later(monkeypatch, clock, seconds):
    clock.at += seconds
    at = now() + timedelta(seconds=clock.at - 1000.0)
    monkeypatch.setattr("serving.callers.sessions.now", lambda: at)


@pytest.mark.parametrize("caller", [VENDOR, Caller("p2")])
@pytest.mark.parametrize("role", ["administrator", "csm"])
def test_a_session_says_who_reads_in_which_role(sessions, caller, role):
    principal = run(sessions.check(signed_in(sessions, caller, role=role)))
    assert (principal.caller, principal.role, principal.subject) == (caller, role, "ada")
    assert principal.scopes == default_scopes(role, caller)
    assert principal.credential.startswith("session:")


def test_the_store_holds_nothing_that_opens_a_session(sessions, store):
    cookie = signed_in(sessions)
    with store.tenant(SERVICE) as connection:
        row = connection.execute(sa.select(SESSIONS)).one()
    assert cookie not in map(str, row)
    for held in map(str, row):
        with pytest.raises(RefusedError):
            run(sessions.check(held))


@ONE_DATABASE
def test_forged_cookies_open_nothing(sessions, store):
    cookie = signed_in(sessions)
    token = sessions.link_token(VENDOR, role="csm", subject="")
    for forged in ("", "x", token, cookie + "x", cookie[:-1], "é"):
        with pytest.raises(RefusedError):
            run(sessions.check(forged))
    with pytest.raises(RefusedError, match="unknown"):
        run(Sessions(store, b"t" * 32).check(cookie))


def test_each_sign_in_opens_a_session_of_its_own(sessions):
    token = sessions.link_token(VENDOR, role="csm", subject="")
    first, second = (run(sessions.sign_in(token, browser="a")) for _ in range(2))
    assert first != second
    run(sessions.end(first))
    assert run(sessions.check(second)).caller == VENDOR


def test_a_link_opens_for_one_browser(sessions):
    token = sessions.link_token(Caller("p1"), role="csm", subject="")
    run(sessions.sign_in(token, browser="a"))
    with pytest.raises(RefusedError, match="another browser"):
        run(sessions.sign_in(token, browser="b"))


@ONE_DATABASE
def test_links_expire_and_cannot_be_forged(sessions, monkeypatch):
    token = sessions.link_token(VENDOR, role="csm", subject="")
    with pytest.raises(RefusedError):
        run(sessions.sign_in(token[:-2], browser="a"))
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4_000_000_000 + LINK_SECONDS)
    with pytest.raises(RefusedError, match="older than 24 hours"):
        run(sessions.sign_in(token, browser="a"))


def test_signing_out_ends_the_session_wherever_its_cookie_is(sessions, store, clock):
    cookie = signed_in(sessions)
    other = Sessions(store, b"s" * 32, clock=clock)
    assert run(other.check(cookie)).caller == VENDOR
    run(sessions.end(cookie))
    with pytest.raises(RefusedError, match="ended"):
        run(sessions.check(cookie))
    clock.at += CACHE_SECONDS + 0.1
    with pytest.raises(RefusedError, match="ended"):
        run(other.check(cookie))


def test_an_unused_session_expires_and_a_used_one_lives_on_but_not_for_ever(sessions, monkeypatch, clock):
    idle, used = signed_in(sessions), signed_in(sessions)
    for _ in range(SESSION_SECONDS * 4 // IDLE_SECONDS - 1):
        later(monkeypatch, clock, IDLE_SECONDS / 4)
        assert run(sessions.check(used)).caller == VENDOR
    with pytest.raises(RefusedError, match="expired"):
        run(sessions.check(idle))
    later(monkeypatch, clock, IDLE_SECONDS / 4 + 1)
    with pytest.raises(RefusedError, match="expired"):
        run(sessions.check(used))


def test_what_could_open_nothing_any_more_is_removed(sessions, store, monkeypatch, clock):
    signed_in(sessions)
    later(monkeypatch, clock, LINK_SECONDS + 10)
    signed_in(sessions)
    with store.tenant(SERVICE) as connection:
        assert len(connection.execute(sa.select(SESSIONS)).all()) == 1
        assert len(connection.execute(sa.select(SIGN_IN_LINKS)).all()) == 1


@ONE_DATABASE
def test_pages_ask_the_store_once_in_a_while(sessions, monkeypatch, clock):
    cookie, asked = signed_in(sessions), []
    find = sessions._find
    monkeypatch.setattr(sessions, "_find", lambda session: asked.append(session) or find(session))
    for _ in range(100):
        run(sessions.check(cookie))
    assert len(asked) == 1
    clock.at += CACHE_SECONDS + 0.1
    run(sessions.check(cookie))
    assert len(asked) == 2


@ONE_DATABASE
def test_while_the_store_is_down_readers_read_on_until_their_session_ends(sessions, monkeypatch, clock):
    known, unknown = signed_in(sessions), signed_in(sessions)
    run(sessions.check(known))

    def down(_session):
        raise StoreDownError("away")

    monkeypatch.setattr(sessions, "_find", down)
    clock.at += IDLE_SECONDS - 10
    assert run(sessions.check(known)).caller == VENDOR
    with pytest.raises(StoreDownError):
        run(sessions.check(unknown))
    clock.at += 20
    with pytest.raises(StoreDownError):
        run(sessions.check(known))


@ONE_DATABASE
def test_a_form_is_good_for_its_session_alone(sessions):
    mine, other = signed_in(sessions), signed_in(sessions, Caller("p1"))
    token = sessions.form_token(mine)
    sessions.check_form(mine, token)
    for cookie, given in (
        (mine, ""),
        (mine, sessions.form_token(other)),
        (other, token),
        ("", sessions.form_token("")),
        (mine, "é"),
        (mine, mine),
    ):
        with pytest.raises(RefusedError, match="form"):
            sessions.check_form(cookie, given)


@ONE_DATABASE
def test_memory_for_sessions_is_bounded(sessions, monkeypatch):
    monkeypatch.setattr("serving.callers.sessions._CACHED_AT_MOST", 3)
    for _ in range(5):
        run(sessions.check(signed_in(sessions)))
    assert len(sessions._known) == 3
