"""A database that takes connections and says nothing: nobody waits for it for long, and all is well once it speaks again."""

import shutil
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
import sqlalchemy as sa

from features.errors import StoreDownError
from features.workspace import load_workspace
from serving.app import create_app
from serving.callers.credentials import opened_identity
from serving.permissions.caller import VENDOR
from serving.records import silence
from serving.records.silence import Rest
from serving.records.store import SERVICE, open_store
from serving.records.tables import JOURNAL, NOTES
from tests.ports import free_port
from tests.served import wait_until
from tests.serving_book import TestClient

HTML = {"Accept": "text/html"}
ACCOUNT = "/v1/accounts/acc-0004"


class Line:
    """A line to a database that can fall silent: what is sent is taken and goes nowhere, also on connections that are new."""

    def __init__(self, host):
        self._to = tuple(host.split(":"))
        self._door = socket.create_server(("127.0.0.1", free_port()))
        self._ends = []
        self.host = f"127.0.0.1:{self._door.getsockname()[1]}"
        self.taken = 0
        self.speaks = threading.Event()
        self.speaks.set()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with suppress(OSError):
            while True:
                near = self._door.accept()[0]
                self.taken += 1
                far = socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                self.speaks.wait()
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self):
        self.speaks.set()
        for end in (self._door, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def line(postgres_server):
    line = Line(postgres_server)
    yield line
    line.close()


@pytest.fixture
def address(line, postgres_store, postgres_server):
    return postgres_store.replace(postgres_server, line.host)


@contextmanager
def silent(line):
    line.speaks.clear()
    try:
        yield
    finally:
        line.speaks.set()


def asked(store):
    with store.tenant(SERVICE) as connection:
        return connection.scalar(sa.text("SELECT 1"))


def test_who_asks_a_silent_database_is_told_and_the_next_at_once(line, address):
    store = open_store(address, seconds=0.5)
    assert asked(store) == 1
    with silent(line):
        for _ in range(2):  # on the connection that it has, and on a new one if it were to make it
            with pytest.raises(StoreDownError, match=r"said nothing for|timeout"):
                asked(store)
        taken = line.taken
        with pytest.raises(StoreDownError):
            asked(store)
        assert line.taken == taken, "it did not even try"
    assert wait_until(lambda: answers(store))
    store.dispose()


def answers(store):
    try:
        return asked(store) == 1
    except StoreDownError:
        return False


def test_a_statement_in_the_middle_of_a_transaction_is_given_up(line, address):
    store = open_store(address, seconds=0.5)
    with pytest.raises(StoreDownError, match=r"said nothing for 0\.5 seconds"), store.tenant(SERVICE) as connection, silent(line):
        connection.scalar(sa.text("SELECT 1"))
    assert wait_until(lambda: answers(store))
    store.dispose()


def test_an_answer_that_comes_piece_by_piece_is_waited_for(monkeypatch):
    at = [0.0]
    monkeypatch.setattr(silence.time, "monotonic", lambda: at[0])

    def pieces():
        return [(yield "more"), (yield "more"), (yield "more")]

    waiting = silence._bounded(pieces(), 1.0)
    assert next(waiting) == "more"
    for seconds, ready in ((0.9, 0), (0.9, 1)):
        at[0] = seconds
        assert waiting.send(ready) == "more"
    at[0] = 1.8
    with pytest.raises(StopIteration) as end:
        waiting.send(1)
    assert end.value.value == [0, 1, 1]


def test_silence_is_not_waited_for(monkeypatch):
    at = [0.0]
    monkeypatch.setattr(silence.time, "monotonic", lambda: at[0])
    waiting = silence._bounded((word for word in ["more", "more"]), 1.0)
    next(waiting)
    at[0] = 1.1
    with pytest.raises(TimeoutError, match="nothing for 1 seconds"):
        waiting.send(0)


def test_one_at_a_time_tries_whether_it_still_hangs():
    at = [0.0]
    rest = Rest(5.0, clock=lambda: at[0])
    with pytest.raises(StoreDownError, match="silent"), rest.asking():
        at[0] += 2
        raise StoreDownError("silent")
    with pytest.raises(StoreDownError, match="silent"), rest.asking():
        raise AssertionError("nobody is let in")
    at[0] += 6
    with rest.asking() as answered:
        with pytest.raises(StoreDownError), rest.asking():
            raise AssertionError("one is trying")
        answered()
        with rest.asking() as also:
            also()
    with rest.asking():
        pass


def test_a_database_that_refuses_at_once_is_asked_every_time():
    rest = Rest(5.0, clock=lambda: 0.0)
    for _ in range(3):
        with pytest.raises(StoreDownError, match="refused"), rest.asking():
            raise StoreDownError("refused")


@pytest.fixture
def workspace(scored_book, tmp_path, address):
    folder = shutil.copytree(scored_book, tmp_path / "book")
    config = folder / "renewcast.toml"
    limits = f'[serving]\ndatabase = "{address}"\n[serving.limits]\ndatabase_seconds = 0.5\n'
    config.write_text(config.read_text().replace("[serving.limits]\n", limits))
    return load_workspace(folder, {})


def failing(client):
    answer = client.get("/readyz").json()
    return {check["name"] for check in answer["checks"] if not check["good"]}


def test_the_service_answers_while_the_database_is_silent_and_recovers_alone(workspace, line, postgres_store):
    with opened_identity(workspace) as identity:
        headers = {"Authorization": f"Bearer {identity.issue_key(VENDOR, label='crm', role='administrator')}"}
        token = identity.sign_in_token(VENDOR)
    with TestClient(create_app(workspace)) as client:
        before = client.get(ACCOUNT, headers=headers)
        assert before.status_code == 200
        assert client.post(f"{ACCOUNT}/notes", json={"text": "before"}, headers=headers).status_code == 201
        assert client.get("/sign-in", params={"token": token}, headers=HTML).status_code == 200
        with silent(line):
            wait_until(lambda: {"database", "keys", "journal"} <= failing(client))
            assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
            for _ in range(5):
                assert client.get(ACCOUNT, headers=headers).content == before.content
                assert client.get("/", headers=HTML).status_code == 200, "who is signed in reads on"
                written = client.post(f"{ACCOUNT}/notes", json={"text": "x"}, headers=headers | {"Idempotency-Key": "one"})
                assert (written.status_code, written.json()["type"]) == (503, "/docs#not-ready")
        wait_until(lambda: failing(client) == set())
        once = headers | {"Idempotency-Key": "one"}
        wait_until(lambda: client.post(f"{ACCOUNT}/notes", json={"text": "x"}, headers=once).status_code == 201)
        assert client.post(f"{ACCOUNT}/notes", json={"text": "x"}, headers=once).headers["idempotent-replayed"] == "true"
    store = open_store(postgres_store)
    with store.tenant(SERVICE) as connection:
        assert sorted(connection.scalars(sa.select(NOTES.c.text))) == ["before", "x"]
        assert connection.scalar(sa.select(sa.func.count()).select_from(JOURNAL).where(JOURNAL.c.action == "read account")) >= 6
    store.dispose()


def test_a_service_begins_while_the_database_is_silent(workspace, line):
    with opened_identity(workspace) as identity:
        headers = {"Authorization": f"Bearer {identity.issue_key(VENDOR, label='crm')}"}
    with TestClient(create_app(workspace)) as client:
        assert client.get(ACCOUNT, headers=headers).status_code == 200
    with silent(line), TestClient(create_app(workspace)) as client:
        assert client.get(ACCOUNT, headers=headers).status_code == 200, "by the keys that were mirrored"
        assert client.get("/readyz").json()["status"] == "degraded"
