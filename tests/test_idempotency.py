import asyncio
import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from features.errors import StoreDownError
from serving.answers.problems import ProblemError
from serving.api.idempotency import OnlyOnce, fingerprint_of
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import SERVICE
from serving.records.tables import ANSWERS, now
from tests.calls import as_caller
from tests.served import wait_until

P1 = Caller("p1")


def answering(content, calls, *, status=201):
    async def work():
        calls.append(content)
        return Response(content, status_code=status, media_type="application/json")

    return work


def ask(store, caller, key, fingerprint, work):
    return asyncio.run(OnlyOnce(store).answer(caller, key, fingerprint, work))


def test_a_write_is_done_once_and_answered_alike(store):
    calls = []
    first = ask(store, P1, "k", "f", answering(b"one", calls))
    second = ask(store, P1, "k", "f", answering(b"two", calls))
    assert calls == [b"one"]
    assert (second.status_code, second.body, second.media_type) == (first.status_code, first.body, first.media_type)
    assert second.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers


def test_a_key_is_its_caller_s_own(store):
    calls = []
    ask(store, P1, "k", "f", answering(b"one", calls))
    ask(store, VENDOR, "k", "g", answering(b"two", calls))
    assert calls == [b"one", b"two"]


def test_a_key_is_good_for_one_request(store):
    ask(store, P1, "k", "f", answering(b"one", []))
    with pytest.raises(ProblemError) as refused:
        ask(store, P1, "k", "another", answering(b"two", []))
    assert (refused.value.status, refused.value.kind) == (422, "key-reused")


def test_while_it_is_being_done_the_same_waits(store):
    entered, done = threading.Event(), threading.Event()

    async def slow():
        entered.set()
        await asyncio.to_thread(done.wait, 60)
        return Response(b"one")

    thread = threading.Thread(target=ask, args=(store, P1, "k", "f", slow))
    thread.start()
    assert entered.wait(60)
    with pytest.raises(ProblemError) as refused:
        ask(store, P1, "k", "f", answering(b"two", []))
    done.set()
    thread.join()
    assert refused.value.status == 409 and refused.value.headers["Retry-After"] == "1"
    assert ask(store, P1, "k", "f", answering(b"two", [])).body == b"one"


@pytest.mark.parametrize("status", [None, 404, 500])
def test_what_was_not_done_may_be_tried_again_with_its_key(store, status):
    async def failing():
        if status is None:
            raise ProblemError(422, "no")
        return Response(b"no", status_code=status)

    if status is None:
        with pytest.raises(ProblemError):
            ask(store, P1, "k", "f", failing)
    else:
        ask(store, P1, "k", "f", failing)
    assert ask(store, P1, "k", "f", answering(b"done", [])).body == b"done"


class Failing:
    """A store that can be put out of reach."""

    def __init__(self, store):
        self.store, self.down = store, False

    @contextmanager
    def tenant(self, tenant):
        if self.down:
            raise StoreDownError("away")
        with self.store.tenant(tenant) as connection:
            yield connection


def test_a_write_that_fails_with_the_database_may_be_sent_again_as_soon_as_it_is_back(store):
    failing = Failing(store)
    once, calls = OnlyOnce(failing), []

    async def written():
        failing.down = True
        raise StoreDownError("away")

    for work in (written, answering(b"no", calls)):
        with pytest.raises(StoreDownError):
            asyncio.run(once.answer(P1, "k", "f", work))
    failing.down = False
    with pytest.raises(ProblemError) as refused:
        ask(store, P1, "k", "f", answering(b"of another process", calls))
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (409, "1")
    with once.settling():
        wait_until(lambda: ask_again(store, calls) == b"done")
    assert calls == [b"done"]
    assert asyncio.run(once.answer(P1, "k", "f", answering(b"twice", calls))).body == b"done"


def ask_again(store, calls):
    try:
        return ask(store, P1, "k", "f", answering(b"done", calls)).body
    except ProblemError as error:
        assert error.status == 409


def test_a_write_that_was_done_is_answered_and_kept_though_the_database_goes_then(store):
    failing = Failing(store)
    once, calls = OnlyOnce(failing), []

    async def done():
        failing.down = True
        return Response(b"done", status_code=201, media_type="application/json")

    assert asyncio.run(once.answer(P1, "k", "f", done)).body == b"done"
    with pytest.raises(StoreDownError):
        asyncio.run(once.answer(P1, "k", "f", answering(b"twice", calls)))
    failing.down = False
    assert asyncio.run(once.answer(P1, "k", "f", answering(b"twice", calls))).body == b"done"
    assert calls == []


@pytest.mark.parametrize(("age", "status"), [(timedelta(days=1, seconds=1), 201), (timedelta(minutes=6), None)])
def test_old_answers_and_dead_requests_are_forgotten(store, age, status):
    row = {"caller": P1.name, "key": "k", "fingerprint": "f", "begun_at": now() - age, "status": status, "body": b"old"}
    with store.tenant(SERVICE) as connection:
        connection.execute(sa.insert(ANSWERS).values(row))
    assert ask(store, P1, "k", "f", answering(b"new", [])).body == b"new"


def request_of(body, kind="application/json", path="/v1/x", query=b""):
    headers = [(b"content-type", kind.encode()), (b"host", b"x")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query,
        "headers": headers,
        "server": ("x", 80),
        "scheme": "http",
    }
    return fingerprint_of(Request(scope), body)


def test_a_fingerprint_tells_requests_apart_and_not_the_boundaries_of_forms():
    assert len({request_of(b"a"), request_of(b"b"), request_of(b"a", path="/v1/y"), request_of(b"a", query=b"z=1")}) == 4
    forms = [request_of(b"--%s\r\nfile\r\n--%s--" % (b, b), f"multipart/form-data; boundary={b.decode()}") for b in (b"xyz123", b"abc987")]
    assert forms[0] == forms[1]


PLAY = {"play": "Training", "performed_at": "2025-06-30T09:00:00Z", "category": "Adoption"}
ROWS = [{"account_id": "acc-0004", "occurred_at": "2025-06-12T09:00:00Z", "channel": "training"}]
FILE = {"file": ("june.csv", b"account_id,occurred_at,channel\r\nacc-0004,2025-06-20T10:00:00Z,meeting\r\n")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/accounts/acc-0004/plays", {"json": PLAY}),
        ("/v1/contributions", {"json": {"rows": ROWS}}),
        ("/v1/contributions/file", {"files": FILE}),
    ],
)
def test_over_http_a_write_that_is_sent_again_is_not_done_again(client, path, body):
    headers = as_caller(client.app, P1) | {"Idempotency-Key": path}
    first, second = (client.post(path, headers=headers, **body) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"


def test_over_http_a_key_is_good_for_one_request(client):
    headers = as_caller(client.app, P1) | {"Idempotency-Key": "one-request"}
    path = "/v1/accounts/acc-0004/plays"
    assert client.post(path, headers=headers, json=PLAY).status_code == 201
    other = client.post(path, headers=headers, json=PLAY | {"play": "Another"})
    assert (other.status_code, other.json()["type"]) == (422, "/docs#key-reused")


def test_a_key_that_cannot_be_one_is_refused(client):
    headers = as_caller(client.app, P1)
    for key in ("", "x" * 201, "a b"):
        assert client.post("/v1/accounts/acc-0004/plays", json=PLAY, headers=headers | {"Idempotency-Key": key}).status_code == 422


def test_after_a_hand_over_an_answer_is_not_repeated(client, monkeypatch):
    headers = as_caller(client.app, P1) | {"Idempotency-Key": "hand-over"}
    path = "/v1/accounts/acc-0001/plays"
    assert client.post(path, json=PLAY, headers=headers).status_code == 201
    monkeypatch.setattr("serving.scores.sharing.View.manages", lambda *_: False)
    assert client.post(path, json=PLAY, headers=headers).status_code == 404
