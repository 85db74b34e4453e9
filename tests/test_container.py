"""What leaves the project: a bento that serves, and an image, whose steps are read, and done as far as they go without a container."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from typer.main import get_command

from serving.commands.cli import app
from serving.scores.batch import score_workspace
from tests.containerfile import build, steps
from tests.ports import free_port
from tests.served import ROOT, Service, ask, end, vendor_key, wait_until
from tests.serving_book import make_workspace

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
STEPS = steps()


def of(word, stage=None):
    return [step for step in STEPS if step.word == word and stage in (None, step.stage)]


def test_the_base_has_a_python_that_the_project_takes():
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    versions = {re.search(r"/python:(\d+\.\d+)-slim", step.rest)[1] for step in of("FROM")}
    assert len(versions) == 1 and allowed.contains(versions.pop())


def test_what_is_copied_is_all_that_the_build_needs():
    copied = {word for step in of("COPY", 0) for word in step.words[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    needed = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"}
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert copied == needed | packages


def test_what_is_installed_holds_every_file_that_is_read():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.partition('.')[2]}/{pattern}" for package, patterns in data.items() for pattern in patterns]
    files = [
        path.relative_to(ROOT / "serving") for path in (ROOT / "serving").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    others = [file for file in files if file.suffix not in {".py", ".md"} or "migrations" in file.parts]
    assert len(others) > 20
    assert [file for file in others if not any(file.match(pattern) for pattern in patterns)] == []


def test_the_environment_is_the_one_that_is_copied_and_on_the_path():
    (made,) = [step for step in of("ENV", 0) if "UV_PROJECT_ENVIRONMENT" in step.rest]
    place = dict(word.split("=", 1) for word in made.words)["UV_PROJECT_ENVIRONMENT"]
    (copied,) = of("COPY", 1)
    assert copied.words == ["--from=build", place, place]
    assert f"PATH={place}/bin:" in of("ENV", 1)[0].rest


def test_extras_that_are_installed_exist():
    (sync,) = [step for step in of("RUN", 0) if step.rest.startswith("uv sync")]
    extras = {word for before, word in zip(sync.words, sync.words[1:], strict=False) if before == "--extra"}
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    assert {"--no-dev", "--no-editable"} <= set(sync.words), "no tools, and no folder that is not in the last stage"


def test_it_runs_as_nobody_in_particular_a_command_that_there_is():
    user = of("USER", 1)[0].rest
    assert user != "0" and any(f"--uid {user} " in step.rest for step in of("RUN", 1))
    (command,) = of("CMD", 1)
    name, leaf, *options = command.words
    assert name in PROJECT["project"]["scripts"]
    known = {option for parameter in get_command(app).commands[leaf].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert options[options.index("--workspace") + 1] == of("VOLUME", 1)[0].rest == of("WORKDIR", 1)[0].rest
    assert options[options.index("--port") + 1] == of("EXPOSE", 1)[0].rest


def test_it_is_stopped_gently_and_looked_after():
    assert of("STOPSIGNAL", 1)[0].rest == "SIGTERM"
    program = of("HEALTHCHECK", 1)[0].words[-1]
    ast.parse(program)
    assert f":{of('EXPOSE', 1)[0].rest}/livez" in program


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image's steps, done; gone afterwards, because an environment is large."""
    root = tmp_path_factory.mktemp("image")
    for folder in (root, *root.parents[:3]):
        folder.chmod(0o755)
    yield build(root)
    shutil.rmtree(root)


def test_the_environment_that_the_steps_make_is_whole_and_leans_on_nothing_else(image):
    code = "import features, training, serving.service; print(features.__file__, training.__file__, serving.__file__, sep='\\n')"
    status, said = image.run(["python", "-c", code])
    assert status == 0, said
    assert all(Path(line).is_relative_to(image.root / "opt") for line in said.split())
    status, said = image.run(["python", "-c", "import psycopg, opentelemetry.exporter.otlp.proto.http; import pytest"])
    assert status != 0 and "No module named 'pytest'" in said, "the extras are there, and no tools"
    assert image.run(["renewcast", "--help"])[0] == 0


def test_what_the_image_runs_serves_says_that_it_is_alive_and_ends_gently(image, tmp_path):
    """The command, the health check and the signal as they stand in the file, by its user, on the folder that it works in."""
    workspace = make_workspace(image.where)
    score_workspace(workspace)
    image.give(image.where)
    status, said = image.run(["renewcast", "keys", "issue", "--as", "vendor", "--label", "crm"])
    key = said.splitlines()[-1]
    assert status == 0 and key.startswith("rk_"), said
    port = str(free_port())
    given = {"/workspace": str(image.where), of("EXPOSE", 1)[0].rest: port}
    command = [given.get(word, word) for word in of("CMD", 1)[0].words]
    check = [word.replace(f":{of('EXPOSE', 1)[0].rest}/", f":{port}/") for word in of("HEALTHCHECK", 1)[0].words]
    assert image.run(check)[0] != 0, "nothing is alive yet"
    with (tmp_path / "log").open("w") as sink:
        service = Service(int(port), image.start(command, stdout=sink, stderr=sink), tmp_path / "log")
    try:
        wait_until(lambda: service.process.poll() is not None or service.ready(), 120)
        assert image.run(check)[0] == 0, service.log.read_text()[-2000:]
        status, _, body = ask(service.port, "/v1/accounts/acc-0100", key=key)
        assert (status, b'"account_id":"acc-0100"' in body) == (200, True)
        if os.geteuid() == 0:
            assert {worker.uids().effective for worker in service.workers()} == {image.user}
        service.process.send_signal(getattr(signal, of("STOPSIGNAL", 1)[0].rest))
        assert service.process.wait(60) == 0
        assert image.run(check)[0] != 0
    finally:
        end(service)


@pytest.fixture(scope="module")
def bento(tmp_path_factory):
    """A bento of a copy of the project, in a store of its own."""
    project, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("bentoml")
    for name in ("features", "training", "serving"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run([sys.executable, "-m", "bentoml", "build", "-o", "tag"], cwd=project, env=environ, check=True, capture_output=True)
    shutil.rmtree(project)
    (built,) = [folder for folder in (home / "bentos" / "renewcast").iterdir() if folder.is_dir()]
    return environ, built


def test_a_bento_holds_the_code_and_nothing_else(bento):
    _, built = bento
    source = built / "src"
    assert {path.name for path in source.iterdir()} == {
        "features",
        "training",
        "serving",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "bentofile.yaml",
    }
    assert (source / "serving" / "web" / "templates").is_dir() and (source / "serving" / "permissions" / "policy.toml").is_file()
    listed = (built / "env" / "python" / "requirements.txt").read_text()
    assert all(requirement in listed for requirement in PROJECT["project"]["dependencies"])


def test_a_bento_serves(bento, tmp_path):
    environ, built = bento
    workspace = make_workspace(tmp_path / "workspace")
    score_workspace(workspace)
    key, port, log = vendor_key(workspace), free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "bentoml", "serve", "renewcast:latest", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environ | {"RENEWCAST_WORKSPACE": str(workspace.folder)}, stdout=sink, stderr=sink
        )
    service = Service(port, process, log)
    try:
        wait_until(lambda: process.poll() is not None or service.ready())
        status, _, body = ask(port, "/v1/accounts/acc-0100", key=key)
        assert (status, b'"account_id":"acc-0100"' in body) == (200, True), log.read_text()[-2000:]
        assert ask(port, "/docs.json")[0] == ask(port, "/schema.json")[0] == 404, "what BentoML brings along is closed"
        assert ask(port, "/metrics")[0] == 401
        assert list(Path(built, "src", "serving").rglob("*.pyc")), "it runs from the bento"
    finally:
        end(service)
