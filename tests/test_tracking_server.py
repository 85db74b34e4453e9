"""The registry over a real MLflow server on PostgreSQL: what holds for a file holds there, and what the page says of a server is so."""

import configparser
import importlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
import yaml

from features.errors import RegistryError
from tests.ports import free_port
from tests.test_champions import (  # noqa: F401
    fitted,
    test_a_better_challenger_is_promoted_and_copied_and_the_record_says_why,
    test_going_back_walks_to_the_first_champion_and_no_further,
    train,
)
from tests.test_registry import (  # noqa: F401
    aliases_of,
    example,
    fail_half_way,
    log,
    logged,
    statuses_of,
    test_a_challenger_leaves_the_champion_where_it_is,
    test_a_champion_comes_back_as_it_was_registered,
    test_a_fold_s_run_says_on_what_it_was_judged,
    test_a_promotion_is_recorded_and_can_be_gone_back_on_to_the_first,
    test_a_target_s_run_holds_all_that_its_reader_needs,
    test_a_training_is_one_run_with_children_for_targets_and_folds,
    test_a_version_that_is_not_there_is_named_with_those_that_are,
    test_versions_say_what_they_are_and_were,
    test_what_is_logged_can_be_loaded_by_mlflow,
    versions_of,
)
from training import lifecycle
from training.registry import open_registry

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "mlflow" / "README.md").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "mlflow" / "compose.yaml").read_text(encoding="utf-8"))
SERVER = COMPOSE["services"]["server"]
STEPS = next(block for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "createuser" in block)
COMMAND = next(shlex.split(line) for line in STEPS.splitlines() if " mlflow server " in line)


def options(command):
    """Return the options of a command and their values."""
    return dict(zip(command[::2], command[1::2], strict=True))


@pytest.fixture(scope="module")
def address(postgres, tmp_path_factory):
    """The server as the page starts it, but for authentication: with one worker, at a free port, over the tests' database."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    written = options(COMMAND[4:]) | {"--port": str(port), "--workers": "1"}
    assert written.pop("--app-name") == "basic-auth"
    environ = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": postgres.replace("postgresql://", "postgresql+psycopg://"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    call = [sys.executable, "-m", *COMMAND[2:4], *(word for option in written.items() for word in option)]
    with (folder / "log").open("w") as log_file:
        server = subprocess.Popen(call, env=environ, cwd=folder, stdout=log_file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def wait_for(page, server, log_file):
    for _ in range(900):
        with suppress(OSError), urllib.request.urlopen(page, timeout=5):
            return
        assert server.poll() is None, log_file.read_text()
        time.sleep(0.2)
    raise AssertionError(f"{page} does not answer: {log_file.read_text()}")


@pytest.fixture
def registry(address):
    """A registry without models, and with an experiment of its own."""
    opened = open_registry(address, experiment=f"test {uuid4().hex}", artifacts=None)
    for model in opened._client.search_registered_models("name LIKE 'renewcast-%'"):
        opened._client.delete_registered_model(model.name)
    return opened


@pytest.fixture
def workspace(make_workspace, registry, address):
    return make_workspace(config=f'[mlflow]\ntracking_uri = "{address}"\n')


@pytest.mark.parametrize(("step", "failing"), [("log_model_artifacts", 2), ("create_model_version", 2), ("set_registered_model_alias", 4)])
def test_a_failure_half_way_leaves_no_version_and_no_alias_moved(registry, logged, step, failing, monkeypatch):  # noqa: F811
    log(registry, logged(), logged(target="expansion"))
    fail_half_way(registry, logged, step, failing, monkeypatch)
    assert aliases_of(registry) == aliases_of(registry, "expansion") == {"champion": "1"}
    assert versions_of(registry) == [("renewcast-churn", 1), ("renewcast-expansion", 1)]
    assert statuses_of(registry)["FINISHED"] == 7


class Line:
    """A line to the server that can be cut."""

    def __init__(self, address):
        self._to = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
        self._door = socket.create_server(("127.0.0.1", 0))
        self._ends = []
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with suppress(OSError):
            while True:
                near, far = self._door.accept()[0], socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def cut(self):
        for end in (self._door, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.parametrize(("step", "at", "left"), [("log_model_artifacts", 1, 0), ("set_terminated", 1, 1)])
def test_a_server_that_dies_half_way_leaves_no_version_that_is_used(registry, address, logged, step, at, left, monkeypatch):  # noqa: F811
    log(registry, logged())
    line = Line(address)
    far = open_registry(line.address, experiment=registry._client.get_experiment(registry._experiment).name, artifacts=None)
    calls, original = Counter(), getattr(far._client, step)

    def cut(*arguments, **named):
        calls[step] += 1
        if calls[step] == at:
            line.cut()
        return original(*arguments, **named)

    monkeypatch.setattr(far._client, step, cut)
    started = time.monotonic()
    with pytest.raises(RegistryError, match="See that the MLflow server runs"):
        log(far, logged(code_version="later"))
    assert time.monotonic() - started < 60
    assert aliases_of(registry) == {"champion": "1"}
    assert len(versions_of(registry)) == 1 + left
    assert [version.version for version in registry.versions("churn")] == ["1"]
    assert statuses_of(registry)["RUNNING"] > 0
    monkeypatch.setattr(lifecycle, "_DEAD_AFTER", -1.0)
    log(registry, logged(code_version="later", role="challenger"))
    assert len(versions_of(registry)) == 2
    assert "RUNNING" not in statuses_of(registry)


# From here on: the compose file and the page.


def test_no_secret_is_written_down_and_none_has_a_default():
    secret = re.compile(r"PASSWORD|SECRET|TOKEN")
    found = [(name, str(value)) for service in COMPOSE["services"].values() for name, value in service.get("environment", {}).items()]
    secrets = {name: value for name, value in found if secret.search(name)}
    assert secrets.keys() >= {"POSTGRES_PASSWORD", "PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value) for value in secrets.values())
    asked_for = {re.match(r"\$\{([A-Z_]+):", value)[1] for value in secrets.values()}
    assert asked_for == set(re.findall(r"export ([A-Z_]+)=\"\$\(openssl", PAGE))
    auth = configparser.ConfigParser()
    auth.read_string(COMPOSE["configs"]["auth"]["content"])
    assert auth["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert not {name for name in auth["mlflow"] if secret.search(name.upper())}


def test_the_parts_of_the_compose_file_refer_to_each_other():
    assert set(COMPOSE) == {"name", "services", "configs", "volumes"}
    for service in COMPOSE["services"].values():
        assert set(service) <= {
            "image", "build", "restart", "environment", "volumes", "healthcheck", "depends_on", "command", "configs", "ports"
        }  # fmt: skip
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])
        assert service["healthcheck"]["test"][0] == "CMD"
    assert SERVER["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert SERVER["environment"]["MLFLOW_BACKEND_STORE_URI"].split("@")[1].split("/")[0] in COMPOSE["services"]
    assert [use["target"] for use in SERVER["configs"]] == [SERVER["environment"]["MLFLOW_AUTH_CONFIG_PATH"]]
    assert [volume.split(":")[1] for volume in SERVER["volumes"]] == [SERVER["environment"]["MLFLOW_ARTIFACTS_DESTINATION"]]
    assert all(port.startswith("127.0.0.1:") for port in SERVER["ports"])
    assert "ports" not in COMPOSE["services"]["database"]


def test_the_server_has_the_versions_of_the_project():
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["constraint-dependencies"]
    installed = re.findall(r'"([a-z]+)(?:\[\w+\])?==([\d.]+)"', SERVER["build"]["dockerfile_inline"])
    assert [name for name, _ in installed] == ["mlflow", "psycopg"]
    assert {f"{name}=={version}" for name, version in installed} <= set(pins)


def test_the_written_steps_are_those_of_the_compose_file():
    assert COMMAND[2:4] == SERVER["command"][:2]
    by_hand, in_container = options(COMMAND[4:]), options(SERVER["command"][2:])
    assert by_hand | {"--host": "0.0.0.0"} == in_container
    exported = set(re.findall(r"^export ([A-Z_]+)=", PAGE, re.MULTILINE))
    assert set(SERVER["environment"]) - exported == {"MLFLOW_SERVER_ALLOWED_HOSTS"}
    written = re.search(r"^cat > auth.ini <<END\n(.*?)^END", STEPS, re.MULTILINE | re.DOTALL)[1]
    assert written == COMPOSE["configs"]["auth"]["content"].replace("@database/", "@127.0.0.1/")


def test_what_the_page_names_in_python_exists():
    names, place = re.search(r"The same from\s+Python: (.*?) in `([a-z.]+)`", PAGE, re.DOTALL).groups()
    named = re.findall(r"`(\w+)`", names)
    assert {"promote", "rollback"} <= set(named)
    assert set(named) <= set(importlib.import_module(place).__all__)


def test_mlflow_knows_the_options_and_variables():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        from mlflow import environment_variables
        from mlflow.cli import cli

    server = cli.commands["server"]
    known = {option for parameter in server.params for option in parameter.opts}
    read = {parameter.envvar for parameter in server.params} | set(dir(environment_variables))
    assert set(options(SERVER["command"][2:])) <= known
    assert {name for name in SERVER["environment"] if name.startswith("MLFLOW_")} <= read
