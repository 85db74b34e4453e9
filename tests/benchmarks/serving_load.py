"""How a service holds out: stalls at one connection, memory over many requests, series over many made-up addresses.

Three questions, each answered by processes of their own on loopback:

    stalls    the 99th percentile beside the median of one explained account, asked again and again over one connection: once of a plain
              BentoML service with the same application mounted in it, once of `renewcast serve`; and of a server that sends back one line,
              which shows what the machine itself adds
    memory    what the workers hold after 20,000 requests and after all of them
    series    how many series `/metrics` shows after so many addresses that there are not

Run from the project's folder, on the simulated book of `renewcast up` or on another workspace with scores:

    uv run python tests/benchmarks/serving_load.py .demo
    uv run python tests/benchmarks/serving_load.py .demo --requests 200000 --addresses 10000
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from features.workspace import load_workspace  # noqa: E402
from serving.scores.scoring import load_score_set  # noqa: E402
from tests.ports import free_port  # noqa: E402
from tests.served import Service as Served  # noqa: E402
from tests.served import configure, end, serving, vendor_key, wait_until  # noqa: E402

PLAIN = """
import gc, time
import bentoml
from serving.app import create_app
from serving.settings import read_settings

@bentoml.service(name="plain", metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Plain:
    pass

Plain.mount_asgi_app(create_app(read_settings().load_workspace()), path="/")
"""


class Client:
    """One connection that is kept; it reads no more of an answer than it must."""

    def __init__(self, port, key):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")
        self.key = key

    def get(self, path):
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n\r\n"
        self.socket.sendall(head.encode())
        status, length = self.reader.readline().split()[1], 0
        while (line := self.reader.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return int(status), self.reader.read(length)

    def close(self):
        self.reader.close()
        self.socket.close()


@contextmanager
def plainly_served(workspace, log):
    """Serve the same application as BentoML does by itself."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plain.py").write_text(PLAIN)
        port = free_port()
        own = {"PYTHONPATH": f"{ROOT}:{folder}", "RENEWCAST_WORKSPACE": str(workspace.folder), "BENTOML_HOME": folder}
        environ = {**os.environ, **own, "BENTOML_DO_NOT_TRACK": "1"}
        command = [sys.executable, "-m", "bentoml", "serve", "plain:Plain", "--host", "127.0.0.1", "--port", str(port)]
        with log.open("w") as sink:
            process = subprocess.Popen(command, cwd=folder, env=environ, stdout=sink, stderr=sink)
        service = Served(port, process, log)
        try:
            wait_until(service.ready)
            yield service
        finally:
            end(service)


def stalls(port, key, accounts, requests):
    client = Client(port, key)
    for account in accounts[:200]:
        assert client.get(f"/v1/accounts/{account}")[0] == 200
    seconds = np.empty(requests)
    for number in range(requests):
        started = time.perf_counter()
        status, _ = client.get(f"/v1/accounts/{accounts[number % len(accounts)]}")
        seconds[number] = time.perf_counter() - started
        assert status == 200
    client.close()
    median, high, highest = (1000 * value for value in (*np.percentile(seconds, [50, 99]), seconds.max()))
    over = int((seconds > 0.05).sum())
    return f"median {median:.2f} ms, 99th percentile {high:.2f} ms ({high / median:.1f} times), slowest {highest:.0f} ms, {over} over 50 ms"


ECHO = """
import asyncio, sys

async def answer(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 1\\r\\n\\r\\n.")

async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def echo(accounts, requests):
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port))
        return stalls(port, "", accounts, requests)
    finally:
        process.kill()
        process.wait()


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def memory(service, key, accounts, requests):
    clients = [Client(service.port, key) for _ in range(4)]  # some for each worker
    told, started = [], time.monotonic()
    for number in range(1, requests + 1):
        assert clients[number % 4].get(f"/v1/accounts/{accounts[number % len(accounts)]}")[0] == 200
        if number == 1 or number == min(20_000, requests // 2) or number == requests:
            held = sum(worker.memory_info().rss for worker in service.workers()) / 1024**2
            told.append(f"{held:.0f} MiB after {number:,}")
    for client in clients:
        client.close()
    return f"{', '.join(told)} requests ({requests / (time.monotonic() - started):,.0f} a second)"


def series(service, key, addresses):
    client = Client(service.port, key)
    assert client.get("/made-up")[0] == 404
    before = client.get("/metrics")[1].count(b"\n")
    for number in range(addresses):
        assert client.get(f"/v1/accounts/a{number}/made-up/{number}")[0] == 404
    after, size = client.get("/metrics")[1].count(b"\n"), len(client.get("/metrics")[1])
    client.close()
    return f"{before} lines before, {after} after {addresses:,} made-up addresses, {size / 1024:.0f} KiB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--addresses", type=int, default=2_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "workspace"
        ignored = shutil.ignore_patterns("snapshots", "training", "tables", "rollups", "mlflow*", "*.log")
        shutil.copytree(asked.workspace, copy, ignore=ignored)
        configure(copy, workers=2)
        workspace = load_workspace(copy, dict(os.environ))
        key = vendor_key(workspace)
        accounts = load_score_set(workspace.scores).accounts["account_id"].tolist()
        print(f"stalls   the machine        {echo(accounts, min(asked.requests, 20_000))}", flush=True)
        with plainly_served(workspace, Path(folder) / "plain.log") as service:
            print(f"stalls   BentoML by itself  {stalls(service.port, key, accounts, min(asked.requests, 20_000))}", flush=True)
        with serving(workspace, log=Path(folder) / "log", workers=2) as service:
            print(f"stalls   renewcast serve    {stalls(service.port, key, accounts, min(asked.requests, 20_000))}", flush=True)
            print(f"series   {series(service, key, asked.addresses)}", flush=True)
            print(f"memory   {memory(service, key, accounts, asked.requests)}", flush=True)
            print(f"load     of the machine {os.getloadavg()[0]:.1f}, of {psutil.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main()
