import stat
from asyncio import run

import pytest
import sqlalchemy as sa

from serving.identity import LINK_SECONDS, Identity, RefusedError, read_secret
from serving.sharing import VENDOR, Caller
from serving.store import SERVICE, open_store
from serving.tables import API_KEYS


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "renewcast.db")
    yield store
    store.dispose()


@pytest.fixture
def identity(store):
    return Identity(store, b"s" * 32)


@pytest.mark.parametrize("caller", [VENDOR, Caller("p1")])
def test_a_key_says_whose_it_is_and_what_it_may(identity, caller):
    principal = identity.check_key(identity.issue_key(caller, label="crm", scopes=["predict"]))
    assert principal.caller == caller
    assert principal.scopes == {"predict"}


def test_the_store_holds_no_key(identity, store):
    key = identity.issue_key(VENDOR, label="crm")
    with store.tenant(SERVICE) as connection:
        row = connection.execute(sa.select(API_KEYS)).one()
    assert not any(key.split("_", 2)[2] in str(value) for value in row)


@pytest.mark.parametrize("key", ["", "rk_", "rk_x", "rk_x_y", "sk_000000000000_abc", "Bearer rk_1_2", "rk_é_ü"])
def test_keys_that_were_never_issued_are_refused(identity, key):
    with pytest.raises(RefusedError):
        identity.check_key(key)


def test_wrong_revoked_and_foreign_keys_are_refused(identity, store):
    key = identity.issue_key(VENDOR, label="crm")
    key_id = key.split("_")[1]
    with pytest.raises(RefusedError, match="wrong secret"):
        identity.check_key(key + "x")
    with pytest.raises(RefusedError, match="wrong secret"):
        Identity(store, b"t" * 32).check_key(key)
    assert identity.revoke_key(key_id)
    assert not identity.revoke_key(key_id)
    with pytest.raises(RefusedError, match="revoked"):
        identity.check_key(key)


def test_a_link_opens_for_one_browser_as_often_as_it_likes(identity):
    token = identity.sign_in_token(Caller("p1"))
    assert identity.redeem_token(token, browser="a") == Caller("p1")
    assert identity.redeem_token(token, browser="a") == Caller("p1")
    with pytest.raises(RefusedError, match="another browser"):
        identity.redeem_token(token, browser="b")


def test_links_expire_and_cannot_be_forged(identity, monkeypatch):
    token = identity.sign_in_token(VENDOR)
    with pytest.raises(RefusedError):
        identity.redeem_token(token[:-2], browser="a")
    with pytest.raises(RefusedError):
        identity.redeem_token(identity.session_cookie(VENDOR), browser="a")
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4_000_000_000 + LINK_SECONDS)
    with pytest.raises(RefusedError, match="age"):
        identity.redeem_token(token, browser="a")


def test_a_session_says_whose_it_is_and_a_forged_one_nothing(identity):
    assert run(identity.check_session(identity.session_cookie(Caller("p2")))).caller == Caller("p2")
    for forged in ("", "x", identity.sign_in_token(VENDOR), Identity(identity.store, b"t" * 32).session_cookie(VENDOR)):
        with pytest.raises(RefusedError):
            run(identity.check_session(forged))


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "state" / "secret.key"
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_store_opens_again_with_what_was_in_it(tmp_path, identity):
    key = identity.issue_key(VENDOR, label="crm")
    again = open_store(tmp_path / "renewcast.db")
    assert Identity(again, b"s" * 32).check_key(key).caller == VENDOR
    again.dispose()
