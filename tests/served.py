"""A served workspace for the tests: the command itself, in processes of its own on loopback, and clients that keep it busy."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from serving.callers.credentials import opened_identity
from serving.permissions.caller import VENDOR
from tests.ports import free_port

__all__ = ["ROOT", "Load", "Service", "ask", "configure", "kept_busy", "raw_connection", "serving", "vendor_key", "wait_until"]

ROOT = Path(__file__).parent.parent

SETTINGS = """
[serving]
workers = {workers}
drain_seconds = {drain}
{more}
trusted_proxies = ["192.0.2.1"]
[serving.limits]
body_megabytes = 2
header_seconds = 3
body_seconds = 3
request_seconds = 20
in_flight = 6
requests_per_minute = 10_000_000
failures_per_minute = 10_000_000
"""


def wait_until(condition, seconds=120.0):
    """Return what the condition gives as soon as it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds: {condition}")


def vendor_key(workspace, scopes=None):
    with opened_identity(workspace) as identity:
        return identity.issue_key(VENDOR, label="test", role="administrator", scopes=scopes or ("accounts:read", "predict", "metrics"))


def ask(port, path, *, key=None, body=None, timeout=60.0, headers=None):
    """Send one request on a connection of its own, and return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        return send(connection, path, key=key, body=body, headers=headers)
    finally:
        connection.close()


def send(connection, path, *, key=None, body=None, headers=None):
    headers = dict(headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection.request("GET" if body is None else "POST", path, body=None if body is None else json.dumps(body), headers=headers)
    answer = connection.getresponse()
    return answer.status, {name.casefold(): value for name, value in answer.getheaders()}, answer.read()


@contextmanager
def raw_connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


@dataclass
class Service:
    """A service that runs: where it listens, its supervisor, and the file that takes its log."""

    port: int
    process: subprocess.Popen
    log: Path

    def workers(self):
        with suppress(psutil.NoSuchProcess):
            return [child for child in psutil.Process(self.process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]
        return []

    def ready(self):
        with suppress(OSError, http.client.HTTPException):
            return ask(self.port, "/readyz")[0] == 200
        return False

    def alive(self):
        with suppress(OSError, http.client.HTTPException):
            return ask(self.port, "/livez")[0] == 200
        return False

    def lines(self):
        """Return the whole lines of the log that are JSON."""
        written = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]


def configure(folder, *, workers, drain=1, more=""):
    """Write short limits into a workspace's config, so that tests need not wait for long ones."""
    config = folder / "renewcast.toml"
    plain = re.sub(r"\n\[serving.*", "", config.read_text(), flags=re.DOTALL)
    config.write_text(plain + SETTINGS.format(workers=workers, drain=drain, more=more))


@contextmanager
def serving(workspace, *, log, workers=2, ready=True, drain=1, environ=None, more=""):
    """Serve a workspace while the block runs; the block may end the service itself. `more` is added to its config in `[serving]`."""
    configure(workspace.folder, workers=workers, drain=drain, more=more)
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from serving.commands.cli import main; main()",
        "serve",
        "--workspace",
        workspace.folder,
        "--port",
        str(port),
    ]
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}, stdout=subprocess.DEVNULL, stderr=sink
        )
    service = Service(port, process, log)
    try:
        wait_until(lambda: process.poll() is not None or (service.ready() if ready else service.alive()))
        assert process.poll() is None, log.read_text()[-2000:]
        yield service
    finally:
        end(service)


def end(service):
    """End what is left of a service, gently at first."""
    left = [*service.workers()]
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(60)
    for process in [*left, service.process]:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.kill()
    service.process.wait(10)


def close(connections):
    while connections:
        connections.popitem()[1].close()


@dataclass
class Load:
    """What clients got while they kept a service busy."""

    answers: list = field(default_factory=list)
    failures: list = field(default_factory=list)


@contextmanager
def kept_busy(client, *, clients=4):
    """Call `client(connections)` again and again in so many threads while the block runs: it returns answers, and raises failures.

    `connections` is a dict in which a client keeps its connections from one call to the next.
    """
    load, ending = Load(), threading.Event()

    def work():
        connections = {}
        while not ending.is_set():
            try:
                load.answers.append(client(connections))
            except (OSError, http.client.HTTPException) as error:
                load.failures.append(error)
                close(connections)
        close(connections)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ending.set()
        for thread in threads:
            thread.join(20)
