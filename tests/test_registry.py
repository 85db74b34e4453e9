import ast
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.errors import RegistryError
from training.dataset import load_dataset
from training.registry import LoggedModel, open_registry

ROOT = Path(__file__).parents[1]


@pytest.fixture
def store(tmp_path, empty_mlflow_store):
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow_store.read_bytes())
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def registry(store, tmp_path):
    return open_registry(store, experiment="test", artifacts=tmp_path / "artifacts")


@pytest.fixture
def example(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features.head(3)


def logged(package, example, *, role="champion", **changes):
    changed = replace(package, **changes)
    judged = replace(changed, base_rate=0.125)
    return LoggedModel(
        target=changed.target,
        shipped=changed,
        judged=judged,
        example=example,
        parameters={"rounds": 40},
        metrics={"auc": 0.8},
        role=role,
        decision="It is the first.",
    )


def log(registry, *models):
    return registry.log_training("run", models, tags={"code_version": "test"}, data_fingerprint="f" * 64)


def rows(store, sql):
    with sqlite3.connect(store.removeprefix("sqlite:///")) as connection:
        return connection.execute(sql).fetchall()


def test_a_champion_comes_back_as_it_was_registered(registry, synthetic_package, example):
    assert registry.champion("churn") is None
    assert log(registry, logged(synthetic_package, example)) == {"churn": "1"}
    champion = registry.champion("churn")
    assert (champion.version, champion.shipped.hash) == ("1", synthetic_package.hash)
    assert champion.judged.base_rate == 0.125
    np.testing.assert_array_equal(champion.shipped.score_rows(example).raw, synthetic_package.score_rows(example).raw)


def test_a_challenger_leaves_the_champion_where_it_is(registry, synthetic_package, example):
    log(registry, logged(synthetic_package, example))
    assert log(registry, logged(synthetic_package, example, role="challenger", code_version="later")) == {"churn": "2"}
    assert registry.champion("churn").version == "1"
    assert registry.champion("expansion") is None


def test_a_training_is_one_run_with_a_child_for_each_target(registry, store, synthetic_package, example):
    log(registry, logged(synthetic_package, example), logged(synthetic_package, example, target="expansion"))
    runs = rows(store, "select name, status from runs order by name")
    assert runs == [("run", "FINISHED"), ("run churn", "FINISHED"), ("run expansion", "FINISHED")]
    assert len(rows(store, "select * from tags where key = 'mlflow.parentRunId'")) == 2
    assert rows(store, "select distinct key, value from params") == [("rounds", "40")]
    assert rows(store, "select distinct key, value from latest_metrics") == [("auc", 0.8)]
    assert rows(store, "select digest from datasets") == [("f" * 36,)]


def test_what_is_logged_can_be_loaded_by_mlflow_and_holds_no_pickle(registry, store, tmp_path, synthetic_package, example):
    from mlflow import pyfunc

    log(registry, logged(synthetic_package, example))
    (folder,) = [path.parent for path in (tmp_path / "artifacts").rglob("MLmodel")]
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {"", ".json", ".txt", ".yaml"}
    assert (folder / "input_example.json").exists()
    model = pyfunc.load_model(str(folder))
    assert model.metadata.get_input_schema().input_names() == list(synthetic_package.features)
    found = model.predict(example)
    np.testing.assert_array_equal(found["probability"], synthetic_package.score_rows(example).probability)


@pytest.mark.parametrize("step", ["log_model_artifacts", "create_model_version", "set_registered_model_alias"])
def test_a_failure_half_way_leaves_no_version_and_no_alias_moved(registry, store, synthetic_package, example, step, monkeypatch):
    from mlflow.exceptions import MlflowException

    log(registry, logged(synthetic_package, example))
    calls, original = [], getattr(registry._client, step)

    def fail_at_the_second(*arguments, **options):
        calls.append(step)
        if len(calls) == 2:
            raise MlflowException("the disk is full")
        return original(*arguments, **options)

    monkeypatch.setattr(registry._client, step, fail_at_the_second)
    later = {"code_version": "later"}
    with pytest.raises(RegistryError, match="the disk is full"):
        log(registry, logged(synthetic_package, example, **later), logged(synthetic_package, example, target="expansion", **later))
    monkeypatch.undo()
    assert registry.champion("churn").version == "1"
    assert registry.champion("expansion") is None
    names = [model.name for model in registry._client.search_registered_models()]
    versions = [(version.name, version.version) for version in registry._client.search_model_versions()]
    assert (names, versions) == (["renewcast-churn"], [("renewcast-churn", 1)])
    runs = rows(store, "select status, count(*) from runs group by status order by status")
    assert runs == [("FAILED", 3), ("FINISHED", 2)]


def test_lost_files_of_a_champion_are_an_error_that_says_so(registry, tmp_path, synthetic_package, example):
    log(registry, logged(synthetic_package, example))
    (tmp_path / "artifacts").rename(tmp_path / "elsewhere")
    with pytest.raises(RegistryError):
        registry.champion("churn")


def test_a_server_that_is_down_is_an_error_within_seconds(empty_mlflow_store, unused_port):
    start = time.monotonic()
    with pytest.raises(RegistryError, match="See that the MLflow server runs"):
        open_registry(f"http://127.0.0.1:{unused_port}", experiment="test", artifacts=None)
    assert time.monotonic() - start < 10


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_only_the_registry_imports_mlflow_and_only_when_it_is_opened():
    code = "import sys, training.registry, training.pipeline; print([name for name in sys.modules if name.startswith('mlflow')])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    for path in [*ROOT.glob("features/*.py"), *ROOT.glob("training/*.py"), *ROOT.glob("serving/*.py")]:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = [node.module or "" for node in tree if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import) for alias in node.names]
        assert path.name == "registry.py" or not any(name.split(".")[0] == "mlflow" for name in names), path
