import socket
import subprocess
import sys

import pytest

from features.errors import ServiceError
from serving.service import serve
from serving.settings import Settings, read_settings
from tests.serving_book import make_workspace


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path)


def scored(workspace):
    workspace.scores.mkdir()
    (workspace.scores / "CURRENT").write_text("v1")
    return workspace


def test_a_port_in_use_says_how_to_choose_another(workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port}: Address already in use\n.*--port {port + 1}"):
            serve(scored(workspace), host="127.0.0.1", port=port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_there_is_not_is_said(workspace, port):
    with pytest.raises(ServiceError, match="cannot listen"):
        serve(scored(workspace), host="127.0.0.1", port=port)


def test_settings_reach_the_workers_through_the_environment(workspace):
    environ = {}
    Settings(workspace.folder).export(environ)
    assert read_settings(environ).load_workspace(environ) == workspace


def test_a_service_that_was_not_told_what_to_serve_says_so():
    with pytest.raises(ServiceError, match="renewcast serve"):
        read_settings({})


def test_a_worker_loads_none_of_the_heavy_libraries():
    """MLflow, SHAP and the query engine cost a worker seconds and hundreds of megabytes, and it needs none of them."""
    code = "import sys, serving.service; print(sorted({'mlflow', 'shap', 'duckdb', 'ibis', 'optuna', 'matplotlib'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


RETAINED = """
import asyncio, gc, sys
import bentoml
from serving.service import Renewcast
from serving.settings import Settings
from pathlib import Path

@bentoml.service(name="plain")
class Plain:
    pass

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

Plain.mount_asgi_app(answer, path="/")

async def ask(app):
    scope = {"type": "http", "method": "GET", "path": "/livez", "raw_path": b"/livez", "query_string": b"", "headers": [],
             "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("x", 1), "root_path": "", "asgi": {"version": "3.0"}}
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    await asyncio.create_task(app(scope, receive, send))
    assert sent[0]["status"] == 200

async def kept(app, requests):
    for _ in range(200):
        await ask(app)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(requests):
        await ask(app)
    gc.collect()
    return len(asyncio.get_running_loop()._scheduled), (len(gc.get_objects()) - before) / requests

Settings(Path(sys.argv[1])).export()
for service in (Plain, Renewcast):
    timers, objects = asyncio.run(kept(service.to_asgi(is_main=True), 500))
    print(service.name, timers, round(objects, 1))
"""


def test_a_request_leaves_nothing_behind(workspace):
    """What BentoML's own layers keep of each request, for a minute, is what makes the garbage collector look through the whole heap."""
    ran = subprocess.run([sys.executable, "-c", RETAINED, workspace.folder], capture_output=True, text=True, check=True)
    kept = {name: (int(timers), float(objects)) for name, timers, objects in map(str.split, ran.stdout.splitlines())}
    timers, objects = kept["renewcast"]
    assert timers < 250, "cancelled timers are cleared by the hundred"
    assert objects < 2
    timers, objects = kept["plain"]
    assert timers >= 700 and objects > 5, "BentoML has changed: its layers could be used again"
