import hashlib
import json
import os
import stat
import time
from asyncio import run
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Thread

import pytest
import sqlalchemy as sa

from features.errors import ConfigError, StoreDownError
from serving.callers.identity import RefusedError
from serving.callers.keys import OFFLINE_SECONDS, REFRESH_SECONDS, ApiKeys, KeyRing
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE
from serving.records.tables import API_KEYS, now


def hashed(text):
    return hashlib.sha256(f"secret {text}".encode()).hexdigest()


@pytest.fixture
def keys(store):
    return ApiKeys(store, hashed)


class Clock:
    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


class Source:
    """Where a ring reads keys from: it counts, and is down when told so."""

    def __init__(self, keys):
        self.keys, self.down, self.reads = keys, False, 0

    def __call__(self):
        self.reads += 1
        if self.down:
            raise StoreDownError("the store is away")
        return self.keys.known()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source(keys):
    return Source(keys)


@pytest.fixture
def ring(source, tmp_path, clock):
    return KeyRing(source, hashed, tmp_path / "keys.json", clock=clock)


ONE_DATABASE = pytest.mark.parametrize("store_address", ["sqlite"], indirect=True)
"""What does not depend on the kind of database is tried on one."""


def check(ring, key):
    return run(ring.check(key))


@pytest.mark.parametrize("caller", [VENDOR, Caller("p1")])
def test_a_key_says_whose_it_is_and_what_it_may(keys, ring, caller):
    key = keys.issue(caller, label="crm", role="csm", scopes=["predict"])
    principal = check(ring, key)
    assert (principal.caller, principal.scopes, principal.role, principal.subject) == (caller, {"predict"}, "csm", "crm")
    assert principal.credential == f"key:{key.split('_')[1]}"


def test_a_role_brings_its_scopes_and_a_partner_never_gets_the_vendor_s(keys, ring):
    assert "export" in check(ring, keys.issue(VENDOR, label="a", role="analyst")).scopes
    ring.forget()
    assert "export" not in check(ring, keys.issue(VENDOR, label="b", role="csm")).scopes
    ring.forget()
    assert not check(ring, keys.issue(Caller("p1"), label="c", role="administrator")).scopes & {"admin", "metrics"}
    with pytest.raises(ConfigError, match="vendor's alone"):
        keys.issue(Caller("p1"), label="d", scopes=["metrics"])


def test_scopes_that_a_partner_s_key_has_by_mistake_are_worth_nothing(keys, ring, store):
    key = keys.issue(Caller("p1"), label="crm")
    with store.tenant(SERVICE) as connection:
        connection.execute(sa.update(API_KEYS).values(scopes="admin metrics predict something:else"))
    assert check(ring, key).scopes == {"predict"}


@ONE_DATABASE
def test_neither_the_store_nor_the_mirror_holds_a_key(keys, ring, store, tmp_path):
    key = keys.issue(VENDOR, label="crm")
    check(ring, key)
    with store.tenant(SERVICE) as connection:
        row = connection.execute(sa.select(API_KEYS)).one()
    secret = key.split("_", 2)[2]
    assert not any(secret in str(value) for value in row)
    assert secret not in (tmp_path / "keys.json").read_text()
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@ONE_DATABASE
@pytest.mark.parametrize("key", ["", "rk_", "rk_x", "rk_x_y", "sk_000000000000_abc", "Bearer rk_1_2", "rk_é_ü"])
def test_keys_that_were_never_issued_are_refused(ring, key):
    with pytest.raises(RefusedError):
        check(ring, key)


def test_wrong_revoked_and_foreign_keys_are_refused(keys, ring, source, tmp_path):
    key = keys.issue(VENDOR, label="crm")
    with pytest.raises(RefusedError, match="wrong secret"):
        check(ring, key + "x")
    with pytest.raises(RefusedError, match="wrong secret"):
        check(KeyRing(source, lambda text: hashed(text + "other"), tmp_path / "other.json"), key)
    assert keys.revoke(key.split("_")[1])
    assert not keys.revoke(key.split("_")[1])
    ring.forget()
    with pytest.raises(RefusedError, match="revoked"):
        check(ring, key)


def test_a_key_expires(keys, ring, monkeypatch):
    key = keys.issue(VENDOR, label="crm", lifetime=timedelta(days=30))
    assert check(ring, key).caller == VENDOR
    later = now() + timedelta(days=30, seconds=1)
    monkeypatch.setattr("serving.callers.keys.now", lambda: later)
    with pytest.raises(RefusedError, match="expired"):
        check(ring, key)


def test_a_rotated_key_is_good_for_the_overlap_and_its_successor_beyond(keys, ring, monkeypatch):
    old = keys.issue(Caller("p1"), label="crm", role="csm", lifetime=timedelta(days=90))
    new = keys.rotate(old.split("_")[1], overlap=timedelta(hours=24))
    assert old != new
    both = [check(ring, key) for key in (old, new)]
    assert both[0].caller == both[1].caller == Caller("p1")
    assert both[0].scopes == both[1].scopes
    first, second = keys.known()
    assert first.replaced_by == second.key_id
    assert second.expires_at - second.created_at == timedelta(days=90)
    later = now() + timedelta(hours=25)
    monkeypatch.setattr("serving.callers.keys.now", lambda: later)
    assert check(ring, new).role == "csm"
    with pytest.raises(RefusedError, match="expired"):
        check(ring, old)


@ONE_DATABASE
def test_rotating_does_not_lengthen_a_life(keys):
    key = keys.issue(VENDOR, label="crm", lifetime=timedelta(hours=1))
    keys.rotate(key.split("_")[1], overlap=timedelta(hours=24))
    old = keys.known()[0]
    assert old.expires_at - old.created_at == timedelta(hours=1)


def test_of_two_who_rotate_at_once_one_gets_a_key(keys):
    key_id = keys.issue(VENDOR, label="crm").split("_")[1]

    def rotate(_):
        try:
            return keys.rotate(key_id, overlap=timedelta(hours=1))
        except ConfigError:
            return None

    with ThreadPoolExecutor(4) as pool:
        made = [key for key in pool.map(rotate, range(4)) if key]
    old, *new = keys.known()
    assert [key.split("_")[1] for key in made] == [key.key_id for key in new] == [old.replaced_by]


def test_keys_that_are_over_cannot_be_rotated(keys):
    revoked, replaced = (keys.issue(VENDOR, label="crm").split("_")[1] for _ in range(2))
    keys.revoke(revoked)
    keys.rotate(replaced, overlap=timedelta(hours=1))
    for key_id, why in ((revoked, "revoked"), (replaced, "replaced by"), ("none", "there is none")):
        with pytest.raises(ConfigError, match=why):
            keys.rotate(key_id, overlap=timedelta(hours=1))


@ONE_DATABASE
def test_checking_asks_the_store_once_in_a_while_and_not_per_request(keys, ring, source, clock):
    key = keys.issue(VENDOR, label="crm")
    for _ in range(1000):
        check(ring, key)
    assert source.reads == 1
    clock.at += REFRESH_SECONDS + 1
    check(ring, key)
    assert source.reads == 2


@ONE_DATABASE
def test_made_up_keys_cannot_be_turned_against_the_store(ring, source, clock):
    for number in range(200):
        with pytest.raises(RefusedError):
            check(ring, f"rk_{number}_x")
    assert source.reads == 1 + 3
    clock.at += 3.5
    for number in range(200):
        with pytest.raises(RefusedError):
            check(ring, f"rk_{number}_y")
    assert source.reads == 1 + 3 + 3


@ONE_DATABASE
def test_a_key_that_was_just_issued_and_one_that_was_just_revoked_elsewhere(keys, ring, clock):
    first = keys.issue(VENDOR, label="crm")
    check(ring, first)
    ring.refresh()  # a moment before the next is issued
    second = keys.issue(VENDOR, label="crm")
    assert check(ring, second).caller == VENDOR  # at once
    keys.revoke(first.split("_")[1])
    clock.at += REFRESH_SECONDS + 0.1
    with pytest.raises(RefusedError, match="revoked"):
        check(ring, first)


@ONE_DATABASE
def test_while_the_store_is_down_known_keys_go_on_and_the_time_that_they_do_is_bounded(keys, ring, source, clock):
    key = keys.issue(VENDOR, label="crm")
    check(ring, key)
    assert ring.fault() is None
    source.down = True
    clock.at += OFFLINE_SECONDS / 2
    assert check(ring, key).caller == VENDOR
    assert "12.0 hours old" in ring.fault()
    clock.at += OFFLINE_SECONDS / 2 + 1
    with pytest.raises(StoreDownError):
        check(ring, key)
    source.down = False
    clock.at += REFRESH_SECONDS + 1
    assert check(ring, key).caller == VENDOR
    assert ring.fault() is None


@ONE_DATABASE
def test_a_service_starts_while_the_store_is_down(keys, ring, source, tmp_path):
    key = keys.issue(Caller("p1"), label="crm", lifetime=timedelta(days=1))
    check(ring, key)
    source.down = True
    started = KeyRing(source, hashed, tmp_path / "keys.json")
    assert check(started, key) == check(ring, key)
    with pytest.raises(RefusedError, match="wrong secret"):
        check(started, key + "x")


@ONE_DATABASE
@pytest.mark.parametrize("spoilt", ["old", "missing", "text", "shape"])
def test_a_mirror_that_is_too_old_or_cannot_be_read_opens_nothing(keys, ring, source, tmp_path, spoilt):
    key = keys.issue(VENDOR, label="crm")
    check(ring, key)
    source.down = True
    mirror = tmp_path / "keys.json"
    if spoilt == "old":
        os.utime(mirror, (time.time(), time.time() - OFFLINE_SECONDS - 10))
    elif spoilt == "missing":
        mirror.unlink()
    else:
        mirror.write_text("{" if spoilt == "text" else json.dumps([{"key_id": "x"}]))
    started = KeyRing(source, hashed, mirror)
    with pytest.raises(StoreDownError):
        check(started, key)
    assert "no key can be checked" in started.fault() or spoilt == "old"


@ONE_DATABASE
def test_nobody_waits_for_a_store_that_hangs_once_the_keys_are_known(keys, ring, source, clock):
    key = keys.issue(VENDOR, label="crm")
    check(ring, key)
    hanging, load = Event(), ring._load
    ring._load = lambda: (hanging.wait(), load())[1]
    refreshing = Thread(target=ring.refresh)
    refreshing.start()
    clock.at += REFRESH_SECONDS + 1
    assert check(ring, key).caller == VENDOR
    assert refreshing.is_alive()
    hanging.set()
    refreshing.join()


@ONE_DATABASE
def test_a_disk_that_takes_no_mirror_is_told_and_stops_nothing(keys, source, tmp_path):
    key = keys.issue(VENDOR, label="crm")
    ring = KeyRing(source, hashed, tmp_path / "no such folder" / "keys.json")
    assert check(ring, key).caller == VENDOR
    assert "mirrored" in ring.fault()


@ONE_DATABASE
def test_who_comes_while_the_first_list_is_read_waits_for_it(keys, source, tmp_path):
    """A worker that has just begun has no list to go on with, and none of its first callers is turned away."""
    key = keys.issue(VENDOR, label="crm")
    began, may_end = Event(), Event()

    def slow():
        began.set()
        assert may_end.wait(60)
        return source()

    ring = KeyRing(slow, hashed, tmp_path / "new.json")
    with ThreadPoolExecutor(3) as callers:
        answers = [callers.submit(lambda: run(ring.check(key))) for _ in range(2)]
        assert began.wait(60)
        answers.append(callers.submit(lambda: run(ring.check(key))))
        time.sleep(0.05)
        may_end.set()
        assert len({answer.result(60).credential for answer in answers}) == 1
