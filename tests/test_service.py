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
