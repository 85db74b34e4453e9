"""The service goes on answering, whatever breaks around it: each test breaks something for real, on processes of their own."""

import dataclasses
import http.client
import json
import random
import resource
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from serving.app import create_app
from serving.callers.credentials import opened_identity
from serving.permissions.caller import VENDOR
from serving.scores.batch import score_workspace
from tests.served import ROOT, ask, kept_busy, raw_connection, send, serving, vendor_key, wait_until
from tests.serving_book import CATALOGUE, TestClient, make_workspace, packages
from training.calibration import PlattCalibrator

ACCOUNTS = [f"acc-{number:04d}" for number in range(0, 240, 24)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with scores of two models, `first` and `second`; the first is served."""
    workspace = make_workspace(tmp_path_factory.mktemp("served"))
    first = score_workspace(workspace).version
    changed = dataclasses.replace(packages()["churn"], calibrator=PlattCalibrator(slope=0.5, intercept=-1.0))
    shutil.rmtree(workspace.training / "champion" / "churn")
    changed.save(workspace.training / "champion" / "churn")
    second = score_workspace(workspace).version
    switch(workspace, first)
    return workspace, first, second


def switch(workspace, version):
    temporary = workspace.scores / ".CURRENT"
    temporary.write_text(version)
    temporary.replace(workspace.scores / "CURRENT")


@pytest.fixture(scope="module")
def key(workspace):
    return vendor_key(workspace[0])


@pytest.fixture(scope="module")
def service(workspace, key, tmp_path_factory):
    """Two workers; there is no registry anywhere near."""
    environ = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    with serving(workspace[0], log=tmp_path_factory.mktemp("log") / "log", environ=environ) as service:
        yield service


@pytest.fixture
def first(workspace, service, key):
    """The first scores are served by both workers, and all is well."""
    workspace, first, _second = workspace
    wait_until(lambda: len(service.workers()) == 2)
    switch_all(service, workspace, first)
    wait_until(lambda: all(served(service, key) == first and service.ready() for _ in range(12)))
    return first


def switch_all(service, workspace, version):
    """Switch, and return when both workers have said that they serve it: one alone could answer any number of requests in a row."""

    def said():
        return sum(line["message"] == f"now serving score set {version}" for line in service.lines())

    before = said()
    switch(workspace, version)
    wait_until(lambda: said() >= before + 2)


def served(service, key):
    """Return the version that one request got, from whichever worker."""
    return json.loads(ask(service.port, f"/v1/accounts/{ACCOUNTS[0]}", key=key)[2])["as_of"]["score_set"]


ROW = {"id": "x", "features": {feature.name: 1.0 if feature.kind == "number" else "gold" for feature in CATALOGUE}}


def questions():
    return [(f"/v1/accounts/{account}", None) for account in ACCOUNTS] + [
        ("/v1/predict", {"rows": [ROW]}),
        ("/v1/predict", {"accounts": ACCOUNTS}),
        ("/v1/accounts", None),
    ]


def asking(service, key):
    """Return a client that asks a random question on a connection that it keeps, again if the service is busy."""

    def client(connections):
        if "one" not in connections:
            connections["one"] = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        path, body = random.choice(questions())
        status, headers, content = send(connections["one"], path, key=key, body=body)
        if headers.get("connection") == "close":
            connections.pop("one").close()
        return path, json.dumps(body), status, content

    return client


def version_of(answer):
    return json.loads(answer[3])["as_of"]["score_set"]


def test_scores_change_under_load_without_a_failure_or_a_mixed_answer(workspace, service, key, first):
    workspace, first, second = workspace
    expected = {}
    for version in (second, first):
        switch_all(service, workspace, version)
        for path, body in questions():
            expected[version, path, json.dumps(body)] = ask(service.port, path, key=key, body=body)[2]
    assert all(expected[first, path, json.dumps(body)] != expected[second, path, json.dumps(body)] for path, body in questions())
    with kept_busy(asking(service, key)) as load:
        for turn in range(6):
            asked = len(load.answers)
            switch(workspace, new := (second, first)[turn % 2])
            # the answers that were on their way may be of the one before
            wait_until(lambda new=new, asked=asked: sum(version_of(answer) == new for answer in load.answers[asked:]) > 20)
    assert load.failures == []
    assert {status for _, _, status, _ in load.answers} == {200}
    seen = set()
    for path, body, _, content in load.answers:
        version = json.loads(content)["as_of"]["score_set"]
        assert content == expected[version, path, body], "an answer that neither version gives"
        seen.add(version)
    assert seen == {first, second}


def test_damaged_scores_are_refused_and_taken_when_they_are_whole(workspace, service, key, first):
    workspace, first, second = workspace
    file = workspace.scores / second / "packages" / "churn" / "model.txt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        with kept_busy(asking(service, key), clients=2) as load:
            switch(workspace, second)
            told = wait_until(lambda: json.loads(ask(service.port, "/readyz")[2])["status"] == "degraded")
            assert told
        assert load.failures == []
        assert {json.loads(content)["as_of"]["score_set"] for _, _, _, content in load.answers} == {first}
    finally:
        file.write_bytes(whole)
    wait_until(lambda: all(served(service, key) == second for _ in range(12)))
    assert any("damaged" in line.get("detail", "") for line in service.lines())


def test_a_killed_worker_costs_at_most_its_requests_in_flight(service, key, first):
    victim, survivor = service.workers()
    clients = 4
    with kept_busy(asking(service, key), clients=clients) as load:
        wait_until(lambda: len(load.answers) > 20)
        victim.kill()
        wait_until(lambda: len(service.workers()) == 2 and victim not in service.workers())
        before = len(load.answers)
        wait_until(lambda: len(load.answers) > before + 20)
    assert len(load.failures) <= clients, load.failures
    assert {status for _, _, status, _ in load.answers} == {200}
    assert survivor.is_running()


def test_a_service_that_leaves_says_so_first_and_fails_nobody(workspace, service, key, first, tmp_path):
    """Two services and whoever spreads requests over those that are ready; one of them is told to stop under load."""
    ready = {service.port}
    with serving(workspace[0], log=tmp_path / "log", workers=1, drain=5) as leaving:
        ready.add(leaving.port)
        ending = threading.Event()

        def watch():
            while not ending.is_set():
                for one in (service, leaving):
                    (ready.add if one.ready() else ready.discard)(one.port)
                time.sleep(0.1)

        def client(connections):
            port = random.choice(sorted(ready))
            if port not in connections:
                connections[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            status, headers, body = send(connections[port], f"/v1/accounts/{random.choice(ACCOUNTS)}", key=key)
            if headers.get("connection") == "close":
                connections.pop(port).close()
            return port, status, body if status != 200 else b""

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with kept_busy(client) as load:
            wait_until(lambda: {port for port, *_ in load.answers} == {service.port, leaving.port})
            leaving.process.send_signal(signal.SIGTERM)
            wait_until(lambda: leaving.port not in ready)
            assert leaving.alive(), "it still answers while it is no longer ready"
            assert leaving.process.wait(120) == 0
            before = len(load.answers)
            wait_until(lambda: len(load.answers) > before + 20)
        ending.set()
        watcher.join(5)
    assert load.failures == []
    assert [answer for answer in load.answers if answer[1] != 200] == []


def head_of_post(key):
    return f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n".encode()


def slow_body(key):
    return head_of_post(key) + b"Content-Length: 100\r\n\r\n{"


def test_when_busy_it_says_so_and_stays_alive(service, key, first):
    """Clients that dribble their bodies hold every place; others are asked to come again, and whoever watches is answered at once."""

    def crowded():
        """Return the answers to those who were asked to come again while all places were taken."""
        with raw_connections(service.port, 60) as connections:
            for connection in connections:
                connection.sendall(slow_body(key))
            answers = [ask(service.port, f"/v1/accounts/{ACCOUNTS[0]}", key=key) for _ in range(20)]
            assert all(service.alive() and service.ready() for _ in range(5))
        return [answer for answer in answers if answer[0] == 429]

    for _, headers, body in wait_until(crowded):
        assert (headers["retry-after"], json.loads(body)["type"]) == ("1", "/docs#too-many-requests")
    wait_until(lambda: all(ask(service.port, f"/v1/accounts/{ACCOUNTS[0]}", key=key)[0] == 200 for _ in range(12)))


class raw_connections:  # noqa: N801
    def __init__(self, port, count):
        self.managers = [raw_connection(port) for _ in range(count)]

    def __enter__(self):
        return [manager.__enter__() for manager in self.managers]

    def __exit__(self, *_):
        for manager in self.managers:
            manager.__exit__(None, None, None)


def received(connection):
    """Return all that comes until the other side closes, and after how many seconds it did."""
    started, parts = time.monotonic(), []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts), time.monotonic() - started


def problem_of(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("part", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "half a head"])
def test_who_never_sends_a_head_is_cut_off(service, part, first):
    with raw_connection(service.port) as connection:
        connection.sendall(part)
        answer, seconds = received(connection)
    assert answer == b""
    assert seconds > 1, "not at once"


def test_who_dribbles_a_head_is_cut_off(service, first):
    with raw_connection(service.port) as connection, pytest.raises(OSError):  # the connection is reset under its hands
        for letter in b"GET /livez HTTP/1.1\r\nHost: " + b"x" * 300:
            connection.sendall(bytes([letter]))
            time.sleep(0.1)


def test_who_dribbles_a_body_is_told(service, key, first):
    with raw_connection(service.port) as connection:
        connection.sendall(slow_body(key))
        answer, seconds = received(connection)
    status, problem = problem_of(answer)
    assert (status, problem["type"]) == (408, "/docs#too-slow")
    assert seconds > 0.5, "not at once"


def test_a_huge_body_is_cut_off_while_it_comes(service, key, first):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with raw_connection(service.port) as connection:
        connection.sendall(head_of_post(key) + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with pytest.raises(OSError):  # else it would go on for ever
            while sent < 1000:
                connection.sendall(chunk)
                sent += 1
                time.sleep(0.001)
    assert sent < 200, "twice as much as allowed, and what lies in the buffers of the sockets"


def test_large_heads_are_refused(service, first):
    status, _, body = ask(service.port, "/livez", headers={"X-Large": "x" * 40_000})
    assert (status, json.loads(body)["type"]) == (431, "/docs#head-too-large")
    with raw_connection(service.port) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-Larger: " + b"x" * 200_000)
        with suppress(ConnectionResetError):  # what was not read when it closed
            answer, _ = received(connection)
            assert answer.startswith(b"HTTP/1.1 400 ")


def test_no_layer_of_a_worker_believes_whoever_is_near(workspace, service, first):
    """The server below would believe anybody on this machine, where a proxy may well run that does not filter these headers."""
    with opened_identity(workspace[0]) as identity:
        link = f"/sign-in?token={identity.sign_in_token(VENDOR)}"
    status, headers, _ = ask(service.port, link, headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
    assert status == 303
    assert "__Host-" not in headers["set-cookie"] and "secure" not in headers["set-cookie"].lower()


def test_what_the_workers_counted_adds_up(service, key, first):
    def counted():
        text = ask(service.port, "/metrics", key=key)[2].decode()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}

    name = 'renewcast_requests_total{method="GET",route="/v1/accounts/{account_id}",status="2xx"}'
    before = counted()
    for number in range(40):
        assert ask(service.port, f"/v1/accounts/{ACCOUNTS[number % 10]}", key=key)[0] == 200
        assert ask(service.port, f"/made-up-{number}")[0] == 404
    after = counted()
    assert after[name] - before.get(name, 0) == 40
    unknown = 'renewcast_requests_total{method="GET",route="unknown",status="4xx"}'
    assert after[unknown] - before.get(unknown, 0) == 40
    assert after["renewcast_requests_in_flight"] == 1, "the one that asks"
    assert after["renewcast_ready"] == 1
    assert len(after) - len(before) <= 25, "series for routes, none for addresses"


def test_a_full_disk_does_not_stop_the_answers(service, key, first):
    """No worker can make any file longer; what must be written waits, and whoever reads is answered."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for worker in service.workers():
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        for number in range(20):
            assert ask(service.port, f"/v1/accounts/{ACCOUNTS[number % 10]}", key=key)[0] == 200
        assert service.ready()
    finally:
        for worker in service.workers():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)
    wait_until(lambda: json.loads(ask(service.port, "/readyz")[2])["status"] == "ready")


def test_the_log_holds_requests_and_nothing_of_accounts(service, key, first):
    """Runs last: all that this file asked is in the log by now."""
    ask(service.port, f"/v1/accounts/{ACCOUNTS[0]}?token=canary-query", key=key, headers={"X-Request-ID": "my-request.1"})
    text = "".join(line for line in service.log.read_text().splitlines() if line.startswith("{"))
    requests = [line for line in service.lines() if line["logger"] == "renewcast.access"]
    assert {"request_id", "route", "status", "milliseconds", "caller", "method", "at"} <= set(requests[0])
    templates = {"/v1/accounts/{account_id}", "/v1/accounts", "/v1/predict", "/livez", "/readyz", "/metrics", "/sign-in", "unknown"}
    assert {line["route"] for line in requests} <= templates
    assert any(line["request_id"] == "my-request.1" and line["caller"] == "vendor" for line in requests)
    for canary in (*ACCOUNTS, "acc-", "canary", "made-up", key, key.split("_", 2)[2], "Northwind", "Aster"):
        assert canary not in text, canary
    assert "Traceback" not in text
    assert not [line for line in service.lines() if line["level"] == "error" and "cannot be read" not in line["message"]]


def shifted(seconds):
    """Return a class like `datetime` of a clock that is so many seconds ahead; what it makes are plain times."""

    class OfDatetime(type):
        def __instancecheck__(cls, value):
            return isinstance(value, datetime)

    class Shifted(datetime, metaclass=OfDatetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=seconds)

    return Shifted


def jump(monkeypatch, seconds):
    """Set the wall clock of all modules of the service; the monotonic one goes on."""
    monkeypatch.undo()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + seconds)
    for name, module in list(sys.modules.items()):
        if name.startswith("serving.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", shifted(seconds))


def test_a_clock_that_jumps_by_an_hour_stops_nothing(workspace, key, monkeypatch):
    app = create_app(workspace[0])
    with TestClient(app) as client:
        token = app.state.desk.identity.sign_in_token(VENDOR)
        assert client.get("/sign-in", params={"token": token}, follow_redirects=False).status_code in (200, 303)
        client.post("/sign-in", data={"token": token})
        for seconds in (0, 3600, -3600, 3600, 0):
            jump(monkeypatch, seconds)
            for account in ACCOUNTS:
                assert client.get(f"/v1/accounts/{account}", headers={"Authorization": f"Bearer {key}"}).status_code == 200
            assert client.get("/", headers={"Accept": "text/html"}).status_code == 200, "the session holds"
            assert client.get("/readyz").json()["status"] == "ready"
        monkeypatch.undo()


def test_durations_are_not_taken_from_the_wall_clock():
    own = {file.name for file in (ROOT / "serving").rglob("*.py") if "time.time(" in file.read_text(encoding="utf-8")}
    assert own <= {"keys.py"}, "there it is compared with the time of a file, which is the wall clock's"
