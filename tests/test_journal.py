import errno
import os
import signal
import stat
import subprocess
import sys
from asyncio import run
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import StoreDownError
from serving.callers.background import repeating
from serving.callers.identity import Principal
from serving.callers.journal import REQUEST_ID, Journal
from serving.callers.spool import Segment, Segments
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE, open_store
from serving.records.tables import JOURNAL
from tests.served import wait_until

VENDOR_KEY = Principal(VENDOR, "key:1", frozenset(), "analyst", "crm")
PARTNER_KEY = Principal(Caller("p1"), "key:2", frozenset(), "csm", "portal")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


ONE_DATABASE = pytest.mark.parametrize("store_address", ["sqlite"], indirect=True)
"""What does not depend on the kind of database is tried on one."""


@pytest.fixture
def journal(store, folder):
    return Journal(store, folder)


def lines(store, *columns):
    with store.tenant(SERVICE) as connection:
        found = connection.execute(sa.select(JOURNAL).order_by(JOURNAL.c.line)).mappings().all()
    return [tuple(line[column] for column in columns) for line in found]


def read(journal, *accounts, principal=VENDOR_KEY):
    run(journal.read(accounts, principal=principal, action="list accounts", score_set="v1"))


def test_a_line_says_who_did_what_when_in_which_request(journal, store):
    started = datetime.now(UTC).replace(tzinfo=None)
    token = REQUEST_ID.set("request-1")
    read(journal, "a", "b")
    REQUEST_ID.reset(token)
    run(journal.refused("assigned to somebody else", principal=PARTNER_KEY, action="read account", accounts=["a"]))
    run(journal.refused("malformed key", credential="key", action="authenticate"))
    assert journal.ship() == 4
    columns = ("caller", "credential", "role", "subject", "action", "outcome", "account_id", "reason", "score_set", "request_id")
    assert lines(store, *columns) == [
        ("vendor", "key:1", "analyst", "crm", "list accounts", "read", "a", None, "v1", "request-1"),
        ("vendor", "key:1", "analyst", "crm", "list accounts", "read", "b", None, "v1", "request-1"),
        ("partner:p1", "key:2", "csm", "portal", "read account", "refused", "a", "assigned to somebody else", None, ""),
        ("unknown", "key", None, None, "authenticate", "refused", None, "malformed key", None, ""),
    ]
    assert all(started <= at <= datetime.now(UTC).replace(tzinfo=None) for (at,) in lines(store, "at"))


@ONE_DATABASE
def test_a_request_is_one_write_to_a_file_of_the_service_alone(journal, folder, monkeypatch):
    writes, write = [], os.write
    monkeypatch.setattr(os, "write", lambda handle, data: writes.append(data) or write(handle, data))
    read(journal, *(f"a{number}" for number in range(500)))
    assert [data.count(b"\n") for data in writes] == [500]
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert journal.backlog() == 500


def test_shipped_lines_are_gone_from_the_disk_and_stay_in_the_store(journal, store, folder):
    for number in range(3):
        read(journal, f"a{number}", f"b{number}")
        assert journal.ship() == 2
    assert journal.ship() == 0
    assert list(folder.iterdir()) == []
    assert journal.backlog() == 0
    assert lines(store, "account_id") == [("a0",), ("b0",), ("a1",), ("b1",), ("a2",), ("b2",)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_whatever_an_account_is_called_its_line_arrives(journal, store, accounts):
    before = len(lines(store, "line"))
    read(journal, *accounts)
    assert journal.ship() == len(accounts)
    shown = [account.replace("\0", "�").encode("utf-8", "replace").decode() for account in accounts]
    assert [account for (account,) in lines(store, "account_id")][before:] == shown


def test_a_crash_between_the_store_and_the_disk_doubles_no_line(journal, store, folder, monkeypatch):
    read(journal, "a", "b")

    def crash(segment):
        segment.close()  # as the lock of a process that ends
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Segment, "remove", crash)
        journal.ship()
    assert len(lines(store, "line")) == 2
    assert Journal(store, folder).ship() == 0
    assert len(lines(store, "line")) == 2
    assert list(folder.iterdir()) == []


WORKERS = """
import asyncio, os, sys
from pathlib import Path
from serving.callers.background import repeating
from serving.callers.identity import Principal
from serving.callers.journal import Journal
from serving.permissions.caller import VENDOR
from serving.records.store import open_store

principal = Principal(VENDOR, "key:1", frozenset(), "analyst", "crm")

async def serve(journal, name):
    number = 0
    while True:
        accounts = [f"{name}-{number}-{part}" for part in range(5)]
        await journal.read(accounts, principal=principal, action="predict", score_set="v1")
        os.write(1, f"{name} {number}\\n".encode())  # the answer is handed over
        number += 1
        if number % 50 == 0:
            await asyncio.sleep(0.002)

for name in ("one", "two", "three"):
    if os.fork() == 0:
        journal = Journal(open_store(sys.argv[2] if "://" in sys.argv[2] else Path(sys.argv[2])), Path(sys.argv[1]))
        with repeating(journal.ship, seconds=0.01, name="test"):
            asyncio.run(serve(journal, name))
os.wait()
"""


def test_killed_workers_lose_no_answered_request_and_double_none(store, store_address, folder):
    command = [sys.executable, "-c", WORKERS, str(folder), str(store_address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as workers:
        said = b"".join(workers.stdout.readline() for _ in range(40))
        os.killpg(workers.pid, signal.SIGKILL)
        said += workers.stdout.read()
    answered = {name: int(number) for name, number in (line.split() for line in said.decode().splitlines())}
    Journal(store, folder).ship()
    found = [account for (account,) in lines(store, "account_id")]
    assert len(found) == len(set(found))
    expected = {f"{name}-{number}-{part}" for name, last in answered.items() for number in range(last + 1) for part in range(5)}
    assert len(expected) > 50
    assert expected <= set(found)
    assert len(found) <= len(expected) + 5 * 3  # requests that were killed before their answer
    assert list(folder.iterdir()) == []


@ONE_DATABASE
def test_what_a_running_process_writes_is_left_to_it(store, folder):
    mine, other = Journal(store, folder), Journal(store, folder)
    read(mine, "a")
    assert other.ship() == 0
    assert other.backlog() == 1
    assert mine.ship() == 1


def test_lines_wait_while_the_store_is_down_and_arrive_when_it_is_back(tmp_path, folder):
    file = tmp_path / "renewcast.db"
    file.mkdir()
    store = open_store("postgresql://nobody@127.0.0.1:1/none")
    journal = Journal(store, folder)
    for number in range(20):
        read(journal, f"a{number}")
        with pytest.raises(StoreDownError):
            journal.ship()
    assert journal.backlog() == 20
    assert "connection" in journal.fault()
    assert len(list(folder.iterdir())) == 1
    store.dispose()
    file.rmdir()
    store = open_store(file)
    again = Journal(store, folder)
    journal._segments.close()  # its process ended
    assert again.ship() == 20
    assert again.fault() is None
    store.dispose()


def full_disk(_handle, _data):
    raise OSError(errno.ENOSPC, "No space left on device")


@ONE_DATABASE
def test_a_full_disk_is_bridged_by_memory_up_to_a_bound_and_then_refuses(store, folder, monkeypatch):
    journal = Journal(store, folder, segments=Segments(folder, held_at_most=3000))
    read(journal, "before")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full_disk)
        held = 0
        with pytest.raises(StoreDownError, match="cannot be kept"):
            for held in range(100):
                read(journal, f"a{held}")
        assert 5 < held < 15
        assert "memory" in journal.fault()
    read(journal, "after")
    journal.ship()
    assert [account for (account,) in lines(store, "account_id")] == ["before", *(f"a{number}" for number in range(held)), "after"]
    assert journal.fault() is None


def test_what_is_in_memory_is_shipped_while_the_disk_is_full(store, folder, monkeypatch):
    journal = Journal(store, folder)
    monkeypatch.setattr("serving.callers.spool.os.open", full_disk)
    monkeypatch.setattr("serving.callers.spool.Segments._begin", lambda _self: full_disk(0, b""))
    read(journal, "a")
    read(journal, "b")
    assert journal.backlog() == 2
    assert journal.ship() == 2
    assert journal.backlog() == 0
    assert lines(store, "account_id") == [("a",), ("b",)]


@ONE_DATABASE
def test_half_a_write_is_taken_back(store, folder, monkeypatch):
    journal = Journal(store, folder)
    read(journal, "a")
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
        read(journal, "b")
    read(journal, "c")
    assert journal.ship() == 3
    assert lines(store, "account_id") == [("a",), ("b",), ("c",)]


@ONE_DATABASE
def test_lines_that_a_disk_has_spoilt_are_set_aside_and_hold_up_nothing(store, folder, caplog):
    journal = Journal(store, folder)
    read(journal, "secret-account")
    (file,) = folder.iterdir()
    journal._segments.close()
    whole = file.read_bytes()
    file.write_bytes(b"\0" * 50 + b"\n" + whole + b'{"line_id": "torn')
    assert journal.ship() == 1
    assert [path.suffix for path in folder.iterdir()] == [".damaged"]
    assert "1 lines" in caplog.text
    assert "secret-account" not in caplog.text


@ONE_DATABASE
def test_large_segments_are_ended(store, folder, monkeypatch):
    monkeypatch.setattr("serving.callers.spool.LARGEST_SEGMENT", 1000)
    journal = Journal(store, folder)
    for number in range(20):
        read(journal, f"a{number}")
    assert len(list(folder.iterdir())) > 3
    assert journal.ship() == 20
    assert [account for (account,) in lines(store, "account_id")] == [f"a{number}" for number in range(20)]


def test_lines_are_shipped_while_the_block_runs_and_when_it_ends(journal, store, monkeypatch):
    monkeypatch.setattr("serving.callers.journal._SHIPPED_EVERY", 0.01)
    with journal.shipping():
        read(journal, "a")
        wait_until(lambda: not journal.backlog())
        assert lines(store, "account_id") == [("a",)]
        read(journal, "b")
    assert lines(store, "account_id") == [("a",), ("b",)]


def test_background_work_goes_on_after_errors_and_rests_while_the_store_is_down(caplog):
    seen = []

    def work():
        seen.append(len(seen))
        if len(seen) < 4:
            raise StoreDownError("the store is away")
        if len(seen) == 4:
            raise ZeroDivisionError

    with repeating(work, seconds=0.01, name="test", slowest=0.05):
        wait_until(lambda: len(seen) >= 6)
    assert len(seen) >= 7  # and once at the end
    assert caplog.text.count("waits for the store") == 1
    assert "ZeroDivisionError" in caplog.text
