import ast
import errno
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from features.errors import PackageError, RegistryError
from features.workspace import load_workspace
from tests.ports import free_port
from training import lifecycle
from training import registry as module
from training.dataset import load_dataset
from training.registry import open_registry, workspace_registry
from training.versions import FoldModel, LoggedModel, Period, history

ROOT = Path(__file__).parents[1]
FIRST, SECOND = (Period(datetime(2023, month, 1), datetime(2023, month + 1, 1)) for month in (1, 3))
PNG = b"\x89PNG\r\n\x1a\n and so on"


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


@pytest.fixture
def logged(synthetic_package, example):
    """Make a model to log; `changes` are to its package."""

    def make(*, role="champion", auc=0.8, parameters=None, **changes):
        package = replace(synthetic_package, **changes)
        folds = [
            FoldModel(
                package=replace(package, base_rate=0.1 * number),
                test_from=period.first,
                test_to=period.last,
                rows=100 * number,
                positives=10 * number,
                metrics={"auc": 0.7 + number / 100},
            )
            for number, period in enumerate((FIRST, SECOND), start=1)
        ]
        return LoggedModel(
            target=package.target,
            shipped=package,
            folds=folds,
            example=example,
            parameters=parameters or {"rounds": 40},
            metrics={"auc": auc, "auc_low": auc - 0.1, "auc_high": auc + 0.1, "arr caught: top 10 %": 0.5},
            figures={"calibration.png": PNG},
            card=f"# Model card of {package.target}",
            role=role,
            decision=f"AUC {auc}",
            report={"rows": 4800, "positives": 700, "test_from": "2023-01-01", "test_to": "2023-04-01", "test_rows": 300},
        )

    return make


def log(registry, *models):
    return registry.log_training("run", models, tags={"code_version": "test"}, data_fingerprint="f" * 64)


def runs_of(registry):
    """Return the runs by name."""
    return {run.info.run_name: run for run in registry._client.search_runs([registry._experiment], max_results=1000)}


def statuses_of(registry):
    return Counter(run.info.status for run in registry._client.search_runs([registry._experiment], max_results=1000))


def versions_of(registry):
    """Return all that is registered, finished or not."""
    found = registry._client.search_model_versions("name LIKE 'renewcast-%'")
    return sorted((version.name, int(version.version)) for version in found)


def aliases_of(registry, target="churn"):
    return {alias: version.version for version in registry.versions(target) for alias in version.aliases}


# From here on: what holds for every store, a file or a server (see test_tracking_server.py).


def test_a_champion_comes_back_as_it_was_registered(registry, logged, synthetic_package, example):
    assert registry.champion("churn") is None
    assert log(registry, logged()) == {"churn": "1"}
    champion = registry.champion("churn")
    assert (champion.version, champion.shipped.hash, champion.decision) == ("1", synthetic_package.hash, "AUC 0.8")
    assert [package.base_rate for package in champion.folds] == [0.1, 0.2]
    assert champion.periods == (FIRST, SECOND)
    np.testing.assert_array_equal(champion.shipped.score_rows(example).raw, synthetic_package.score_rows(example).raw)
    assert registry.card("churn", "1") == "# Model card of churn"
    assert registry.report("churn", "1")["rows"] == 4800


def test_a_challenger_leaves_the_champion_where_it_is(registry, logged):
    log(registry, logged())
    assert log(registry, logged(role="challenger", code_version="later")) == {"churn": "2"}
    assert registry.champion("churn").version == "1"
    assert registry.champion("expansion") is None
    assert aliases_of(registry) == {"champion": "1", "challenger": "2"}


def test_a_training_is_one_run_with_children_for_targets_and_folds(registry, logged):
    log(registry, logged(), logged(target="expansion"))
    runs = runs_of(registry)
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    identifiers = {run.info.run_id: name for name, run in runs.items()}
    assert {name: identifiers.get(parent) for name, parent in parents.items()} == {
        "run": None,
        **{f"run {target}": "run" for target in ("churn", "expansion")},
        **{f"run {target} fold {number}": f"run {target}" for target in ("churn", "expansion") for number in (1, 2)},
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["run"].data.tags["code_version"] == "test"
    assert runs["run"].data.metrics["expansion/auc"] == 0.8


def test_a_target_s_run_holds_all_that_its_reader_needs(registry, logged, synthetic_package):
    log(registry, logged())
    client, run = registry._client, runs_of(registry)["run churn"]
    assert run.data.params == {"rounds": "40"}
    assert run.data.metrics == {"auc": 0.8, "auc_low": 0.8 - 0.1, "auc_high": 0.8 + 0.1, "arr caught: top 10 _": 0.5}
    assert run.data.tags["catalogue_hash"] == synthetic_package.catalogue.hash
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"features.json", "figures", "model_card.md", "report.json"}
    assert [file.file_size for file in client.list_artifacts(run.info.run_id, "figures")] == [len(PNG)]
    data = {context(used): (json.loads(used.dataset.profile), json.loads(used.dataset.source)) for used in run.inputs.dataset_inputs}
    assert data["training"] == ({"rows": 4800, "positives": 700}, {"snapshots": "f" * 64})
    assert data["test"][0] == {"test_from": "2023-01-01", "test_to": "2023-04-01", "test_rows": 300}
    (model,) = run.outputs.model_outputs
    described = client.get_logged_model(model.model_id)
    assert (described.status, {metric.key: metric.value for metric in described.metrics}["auc"]) == ("READY", 0.8)


def test_a_fold_s_run_says_on_what_it_was_judged(registry, logged, synthetic_package):
    log(registry, logged())
    run = runs_of(registry)["run churn fold 2"]
    assert run.data.params == {
        "test_from": "2023-03-01T00:00:00",
        "test_to": "2023-04-01T00:00:00",
        "trained_until": synthetic_package.cutoff.isoformat(),
    }
    assert run.data.metrics == {"rows": 200, "positives": 20, "auc": 0.72}
    assert [context(used) for used in run.inputs.dataset_inputs] == ["test"]


def context(used):
    return next(tag.value for tag in used.tags if tag.key == "mlflow.data.context")


def test_other_rows_have_another_digest(registry, logged):
    log(registry, logged(), logged(target="expansion"))
    runs = runs_of(registry)
    digests = [used.dataset.digest for run in runs.values() for used in run.inputs.dataset_inputs]
    assert all(len(digest) == 36 for digest in digests)
    by_rows = {used.dataset.profile: used.dataset.digest for run in runs.values() for used in run.inputs.dataset_inputs}
    assert len(set(by_rows.values())) == len(by_rows) == 4


def test_versions_say_what_they_are_and_were(registry, logged):
    log(registry, logged())
    log(registry, logged(auc=0.9))
    log(registry, logged(auc=0.85, role="challenger"))
    third, second, first = registry.versions("churn")
    assert [version.version for version in (third, second, first)] == ["3", "2", "1"]
    assert [version.aliases for version in (third, second, first)] == [("challenger",), ("champion",), ("previous",)]
    assert (second.auc.value, second.auc.low, second.auc.high) == (0.9, 0.9 - 0.1, 0.9 + 0.1)
    assert [(promotion.version, promotion.way, promotion.replaced) for promotion in second.promotions] == [("2", "training", "1")]
    assert (first.decision, third.promotions) == ("AUC 0.8", ())
    assert abs((second.made_at - second.promotions[0].at).total_seconds()) < 60
    assert registry.versions("contraction") == ()


def test_a_promotion_is_recorded_and_can_be_gone_back_on_to_the_first(registry, logged):
    for auc in (0.7, 0.8, 0.9):
        log(registry, logged(auc=auc, role="champion" if auc < 0.9 else "challenger"))
    registry.move_champion("churn", "3", way="hand", reason="The sales team asked for it")
    assert aliases_of(registry) == {"champion": "3", "previous": "2"}
    registry.move_champion("churn", "2", way="rollback", reason="It was wrong")
    assert aliases_of(registry) == {"champion": "2", "previous": "1"}
    registry.move_champion("churn", "1", way="rollback", reason="So was that")
    assert aliases_of(registry) == {"champion": "1"}
    found = history(registry.versions("churn"))
    assert [(one.version, one.way, one.replaced) for one in found] == [
        ("1", "training", None),
        ("2", "training", "1"),
        ("3", "hand", "2"),
        ("2", "rollback", "3"),
        ("1", "rollback", "2"),
    ]
    assert found[2].reason == "The sales team asked for it"


def test_a_version_that_is_not_there_is_named_with_those_that_are(registry, logged):
    log(registry, logged())
    for ask in (registry.load, registry.card, lambda *known: registry.move_champion(*known, way="hand", reason="why not")):
        with pytest.raises(RegistryError, match=r"renewcast-churn has no such version\n  given:   7\n  allowed: 1\n"):
            ask("churn", "7")
    with pytest.raises(RegistryError, match="none yet"):
        registry.load("expansion", "1")
    assert aliases_of(registry) == {"champion": "1"}


@pytest.mark.parametrize(
    ("step", "failing"),
    [
        ("create_run", 6),
        ("log_model_artifacts", 2),
        ("log_batch", 4),
        ("create_model_version", 2),
        ("set_terminated", 3),
        ("delete_model_version_tag", 2),
        ("set_model_version_tag", 2),
        ("set_registered_model_alias", 2),
        ("set_registered_model_alias", 3),
    ],
)
def test_a_failure_half_way_leaves_no_version_and_no_alias_moved(registry, logged, step, failing, monkeypatch):
    log(registry, logged(), logged(target="expansion"))
    fail_half_way(registry, logged, step, failing, monkeypatch)
    assert aliases_of(registry) == aliases_of(registry, "expansion") == {"champion": "1"}
    assert versions_of(registry) == [("renewcast-churn", 1), ("renewcast-expansion", 1)]
    assert statuses_of(registry).keys() == {"FINISHED", "FAILED"}
    assert statuses_of(registry)["FINISHED"] == 7
    assert len(history(registry.versions("churn"))) == 1


def fail_half_way(registry, logged, step, failing, monkeypatch):
    """Log a training of two targets in which one call of a step fails."""
    from mlflow.exceptions import MlflowException

    calls, original = Counter(), getattr(registry._client, step)

    def fail(*arguments, **options):
        calls[step] += 1
        if calls[step] == failing:
            raise MlflowException("lightning struck")
        return original(*arguments, **options)

    monkeypatch.setattr(registry._client, step, fail)
    with pytest.raises(RegistryError, match="lightning struck"):
        log(registry, logged(code_version="later"), logged(target="expansion", code_version="later"))
    monkeypatch.undo()


def test_a_first_training_that_fails_leaves_nothing_registered(registry, logged, monkeypatch):
    from mlflow.exceptions import MlflowException

    def fail(*_arguments):
        raise MlflowException("lightning struck")

    monkeypatch.setattr(registry._client, "set_registered_model_alias", fail)
    with pytest.raises(RegistryError, match="lightning struck"):
        log(registry, logged())
    assert registry._client.search_registered_models("name LIKE 'renewcast-%'") == []


def test_a_server_that_dies_half_way_leaves_what_is_never_used_and_cleared_away_later(registry, logged, monkeypatch):
    """All calls fail from some point on, those that would take back what was done too."""
    from mlflow.exceptions import MlflowException

    log(registry, logged())
    client, original = registry._client, registry._client.set_terminated

    class Dead:
        def __getattr__(self, name):
            raise MlflowException("connection refused")

    def die(*arguments):
        registry._client = Dead()
        raise MlflowException("connection refused")

    monkeypatch.setattr(client, "set_terminated", die)
    monkeypatch.setattr(client, "delete_model_version", die)
    with pytest.raises(RegistryError, match="connection refused"):
        log(registry, logged(code_version="later"))
    monkeypatch.undo()
    registry._client = client
    assert client.set_terminated == original
    assert versions_of(registry) == [("renewcast-churn", 1), ("renewcast-churn", 2)]
    assert [version.version for version in registry.versions("churn")] == ["1"]
    assert registry.champion("churn").version == "1"
    with pytest.raises(RegistryError, match="has no such version"):
        registry.move_champion("churn", "2", way="hand", reason="why not")
    monkeypatch.setattr(lifecycle, "_DEAD_AFTER", -1.0)
    assert log(registry, logged(code_version="later"))["churn"] in {"2", "3"}
    assert len(versions_of(registry)) == 2
    assert statuses_of(registry) == {"FINISHED": 8, "FAILED": 4}


def test_what_is_logged_can_be_loaded_by_mlflow(registry, logged, synthetic_package, example, tmp_path):
    from mlflow import pyfunc
    from mlflow.artifacts import download_artifacts

    log(registry, logged())
    source = registry._version("churn", "1").source
    folder = Path(download_artifacts(artifact_uri=source, dst_path=str(tmp_path / "fetched"), tracking_uri=registry._uri))
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {"", ".json", ".txt", ".yaml"}, "no pickle"
    assert (folder / "input_example.json").exists()
    model = pyfunc.load_model(str(folder))
    assert model.metadata.get_input_schema().input_names() == list(synthetic_package.features)
    assert model.metadata.metadata["package_hash"] == synthetic_package.hash
    np.testing.assert_array_equal(model.predict(example)["probability"], synthetic_package.score_rows(example).probability)


# From here on: what can be broken in a store of one's own.


def test_a_version_of_before_folds_can_be_read(registry, logged, tmp_path):
    log(registry, logged())
    (periods,) = tmp_path.rglob("folds.json")
    (periods.parent / "folds" / "1").rename(periods.parent / "judged")
    periods.unlink()
    champion = registry.champion("churn")
    assert [package.base_rate for package in champion.folds] == [0.1]
    assert champion.periods == ()


@pytest.mark.parametrize("file", ["package/model.txt", "folds/2/model.txt", "folds/1/manifest.json", "folds.json"])
def test_damaged_files_are_not_believed(registry, logged, tmp_path, file):
    log(registry, logged())
    (place,) = [path for path in tmp_path.rglob(Path(file).name) if path.as_posix().endswith(file)]
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(PackageError, match="damaged"):
        registry.champion("churn")


def test_lost_files_of_a_champion_are_an_error_that_says_so(registry, logged, tmp_path):
    log(registry, logged())
    (tmp_path / "artifacts").rename(tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match=r"the files of renewcast-churn version 1 cannot be fetched"):
        registry.champion("churn")
    with pytest.raises(RegistryError, match=r"the model card of renewcast-churn version 1 cannot be fetched"):
        registry.card("churn", "1")


def test_a_server_that_is_down_is_an_error_within_seconds(empty_mlflow_store, unused_port):
    start = time.monotonic()
    with pytest.raises(RegistryError, match="See that the MLflow server runs"):
        open_registry(f"http://127.0.0.1:{unused_port}", experiment="test", artifacts=None)
    assert time.monotonic() - start < 60


def test_a_server_that_hangs_is_an_error_within_seconds(empty_mlflow_store, monkeypatch):
    monkeypatch.setattr(module, "_KNOCK_SECONDS", 1)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as hanging, pytest.raises(RegistryError, match="See that the MLflow server runs"):
        open_registry(f"http://127.0.0.1:{hanging.getsockname()[1]}", experiment="test", artifacts=None)
    assert time.monotonic() - start < 60


@pytest.fixture
def unused_port():
    return free_port()


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("ffffffffffff", ["made by a newer MLflow", "revision ffffffffffff"]),
        ("90e64c465722", ["made by an older MLflow", "mlflow db upgrade"]),
    ],
)
def test_a_store_of_another_version_is_said_to_be_one(store, tmp_path, revision, said):
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
    with pytest.raises(RegistryError) as raised:
        open_registry(store, experiment="test", artifacts=tmp_path / "artifacts")
    assert all(words in str(raised.value) for words in said)


def test_a_store_that_is_no_database_is_said_to_be_broken(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database, but it is a file")
    with pytest.raises(RegistryError, match="not a database") as raised:
        open_registry(f"sqlite:///{tmp_path}/mlflow.db", experiment="test", artifacts=None)
    assert f"See that {tmp_path}/mlflow.db" in str(raised.value)


def model_files(folder):
    return {path for path in folder.rglob("*") if "models" in path.parts and path.is_file()}


@pytest.mark.parametrize(("part", "failed"), [("models", 2), ("artifacts", 2)])
def test_a_full_disk_while_files_are_written_is_named_and_leaves_no_half_model(registry, logged, tmp_path, monkeypatch, part, failed):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    log(registry, logged())
    before, original = model_files(tmp_path), LocalArtifactRepository.log_artifacts

    def write_half(repository, local_dir, artifact_path=None):
        place = Path(repository.artifact_dir)
        if part not in place.parts[-2:] + place.parts[-3:-2]:
            return original(repository, local_dir, artifact_path)
        place.mkdir(parents=True, exist_ok=True)
        (place / "half").write_bytes(b"0" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", write_half)
    with pytest.raises(RegistryError, match=r"the disk is full: .*No space left on device") as raised:
        log(registry, logged(code_version="later"))
    assert "Make room on it" in str(raised.value)
    monkeypatch.undo()
    assert model_files(tmp_path) == before
    assert (aliases_of(registry), versions_of(registry)) == ({"champion": "1"}, [("renewcast-churn", 1)])
    assert statuses_of(registry) == {"FINISHED": 4, "FAILED": failed}


def test_a_full_disk_under_the_database_is_named_and_no_alias_moves(registry, logged, store, tmp_path):
    from sqlalchemy import Engine, event

    log(registry, logged())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        ((pages,),) = connection.execute("pragma page_count").fetchall()

    def limit(connection, _record):
        connection.execute(f"pragma max_page_count = {pages + 2}")

    (tmp_path / "full").symlink_to(tmp_path)  # another name, so that MLflow opens it anew
    event.listen(Engine, "connect", limit)
    try:
        full = open_registry(f"sqlite:///{tmp_path}/full/mlflow.db", experiment="test", artifacts=None)
        with pytest.raises(RegistryError, match=r"the disk is full: .*database or disk is full"):
            log(full, logged(code_version="later", parameters={f"parameter {number}": "x" * 500 for number in range(90)}))
    finally:
        event.remove(Engine, "connect", limit)
    assert (aliases_of(registry), versions_of(registry)) == ({"champion": "1"}, [("renewcast-churn", 1)])
    assert registry.champion("churn").version == "1"


def test_a_workspace_has_a_store_of_its_own_unless_a_server_is_named(make_workspace, unused_port):
    workspace = make_workspace()
    assert workspace_registry(workspace).champion("churn") is None
    with pytest.raises(RegistryError, match=f"127.0.0.1:{unused_port}"):
        workspace_registry(workspace, tracking_uri=f"http://127.0.0.1:{unused_port}")
    config = workspace.folder / "renewcast.toml"
    config.write_text(f'{config.read_text()}\n[mlflow]\ntracking_uri = "http://127.0.0.1:{unused_port}"\n')
    with pytest.raises(RegistryError, match=f"127.0.0.1:{unused_port}"):
        workspace_registry(load_workspace(workspace.folder, {}))


def test_only_the_registry_imports_mlflow_and_only_when_it_is_opened():
    code = "import sys, training.registry, training.pipeline; print([name for name in sys.modules if name.startswith('mlflow')])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    for path in [*ROOT.glob("features/*.py"), *ROOT.glob("training/*.py"), *ROOT.glob("serving/**/*.py")]:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = [node.module or "" for node in tree if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import) for alias in node.names]
        assert path.name == "registry.py" or not any(name.split(".")[0] == "mlflow" for name in names), path
