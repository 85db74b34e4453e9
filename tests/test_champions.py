import errno
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from features.errors import ConfigError, PackageError, RegistryError, WorkspaceError
from tests.feature_files import write_features
from training.champions import history, list_versions, promote, rollback
from training.copies import champion_folder
from training.dataset import encode_features, load_dataset
from training.model import Problem, fit_booster, make_recipe
from training.package import load_package
from training.registry import workspace_registry
from training.versions import FoldModel, LoggedModel

BLOCKS = (datetime(2022, 10, 1), datetime(2022, 12, 1)), (datetime(2023, 1, 1), datetime(2023, 4, 1))
GAIN = {"value": 0.05, "low": 0.02, "high": 0.08}
REPORT = {"baselines": {"recency": {"auc": GAIN, "gain": GAIN}}, "audit": {"findings": []}}
LEAK = {"severity": "leak", "subject": "seats", "message": "it knows the end"}


@pytest.fixture(scope="module")
def fitted(synthetic_snapshots, synthetic_catalogue, synthetic_package):
    """Fit packages on the rows up to a cutoff; `noise` is the share of the outcomes that are drawn anew."""
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    matrix = encode_features(data.features, features=synthetic_catalogue.names, categories=synthetic_package.categories)
    made = {}

    def fit(until, noise):
        if (until, noise) not in made:
            rows = data.cutoff <= np.datetime64(until)
            rng = np.random.default_rng(1)
            target = np.where(rng.random(rows.sum()) < noise, rng.permutation(data.target[rows]), data.target[rows])
            recipe = make_recipe({"num_leaves": 7, "learning_rate": 0.2}, seed=0, threads=1)
            problem = Problem(matrix=matrix[rows], target=target, target_name="churn", catalogue=synthetic_catalogue, recipe=recipe)
            made[until, noise] = replace(synthetic_package, model=fit_booster(problem, 15), cutoff=until, horizon_days=60)
        return made[until, noise]

    return fit


@pytest.fixture
def workspace(make_workspace):
    return make_workspace()


@pytest.fixture
def train(workspace, fitted):
    """Register a version of churn, trained in one of several ways, as a training would."""
    registry = workspace_registry(workspace)

    def make(role, *, noise=0.0, report=REPORT, ahead=False, **changes):
        folds = [
            FoldModel(
                package=replace(fitted(datetime(2023, 4, 1) if ahead else first - pd.Timedelta(days=62), noise), **changes),
                test_from=first,
                test_to=last,
                rows=600,
                positives=90,
                metrics={},
            )
            for first, last in BLOCKS
        ]
        shipped = replace(fitted(datetime(2023, 4, 1), noise), **changes)
        logged = LoggedModel(
            target="churn",
            shipped=shipped,
            folds=folds,
            example=pd.DataFrame({"days_since_last_event": [1.0]}).reindex(columns=shipped.features).astype({"partner_tier": object}),
            parameters={},
            metrics={"auc": 0.8 - noise / 10},
            role=role,
            card=f"# The {role}'s card",
            decision=f"Trained as {role}.",
            report=report,
        )
        return registry.log_training("run", [logged], tags={}, data_fingerprint="f" * 64)["churn"]

    return make


def copied(workspace):
    folder = champion_folder(workspace, "churn")
    return load_package(folder).hash if folder.exists() else None


def hash_of(workspace, version):
    return workspace_registry(workspace).load("churn", version).shipped.hash


def aliases(workspace):
    return {alias: found.version for found in list_versions(workspace, "churn") for alias in found.aliases}


def test_a_better_challenger_is_promoted_and_copied_and_the_record_says_why(workspace, train):
    train("champion", noise=0.9)
    train("challenger")
    change = promote(workspace, "churn")
    assert (change.moved, change.version, change.champion, change.replaced) == (True, "2", "2", "1")
    assert "It beats the previous champion: on the same 2,100 rows the gain in AUC is +0." in change.reason
    assert aliases(workspace) == {"champion": "2", "previous": "1"}
    assert copied(workspace) == hash_of(workspace, "2")
    last = history(workspace, "churn")[-1]
    assert (last.version, last.way, last.reason, last.replaced) == ("2", "comparison", change.reason, "1")


def test_a_worse_challenger_stays_one_and_is_told_why(workspace, train):
    train("champion")
    train("challenger", noise=0.9)
    promote(workspace, "churn", version="1")
    change = promote(workspace, "churn")
    assert (change.moved, change.version, change.champion) == (False, "2", "1")
    assert "The champion stays: on the same 2,100 rows the gain in AUC is -0." in change.reason
    assert aliases(workspace) == {"champion": "1", "challenger": "2"}
    assert len(history(workspace, "churn")) == 1


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (REPORT | {"audit": {"findings": [LEAK]}}, "The audit found a leak: seats: it knows the end"),
        (REPORT | {"baselines": {"recency": {"auc": GAIN, "gain": GAIN | {"low": -0.01}}}}, "It does not beat recency"),
        ({}, "made by an earlier version"),
    ],
)
def test_a_better_model_that_a_training_would_not_take_is_not_taken_here(workspace, train, report, said):
    train("champion", noise=0.9)
    train("challenger", report=report)
    change = promote(workspace, "churn")
    assert not change.moved
    assert said in change.reason
    assert aliases(workspace)["champion"] == "1"


def test_a_champion_that_has_seen_the_rows_cannot_be_compared_with(workspace, train):
    train("champion", noise=0.9, ahead=True)
    train("challenger")
    change = promote(workspace, "churn")
    assert not change.moved
    assert "cannot be compared: the champion has already seen labels of the test period" in change.reason
    assert promote(workspace, "churn", reason="Only this one is monitored").moved


def test_rows_that_are_gone_cannot_be_compared_on(workspace, train):
    train("champion", noise=0.9)
    train("challenger")
    features, labels = (pd.read_parquet(workspace.snapshots / f"{name}.parquet") for name in ("features", "labels"))
    write_features(workspace.snapshots, features[features["cutoff"] < pd.Timestamp("2022-10-01")])
    labels[labels["cutoff"] < pd.Timestamp("2022-10-01")].to_parquet(workspace.snapshots / "labels.parquet", index=False)
    change = promote(workspace, "churn")
    assert not change.moved
    assert "no longer in the snapshots" in change.reason


def test_a_first_champion_needs_nobody_to_beat(workspace, train):
    train("challenger")
    change = promote(workspace, "churn")
    assert (change.moved, change.replaced) == (True, None)
    assert "first model" in change.reason
    assert aliases(workspace) == {"champion": "1"}


def test_a_damaged_champion_makes_way(workspace, train):
    train("champion")
    train("challenger", noise=0.9)
    damage(workspace, "1")
    change = promote(workspace, "churn")
    assert change.moved
    assert "can no longer be used" in change.reason


def test_a_promotion_by_hand_asks_for_a_reason_and_nothing_else(workspace, train):
    train("champion")
    train("challenger", noise=0.9, report=REPORT | {"audit": {"findings": [LEAK]}})
    change = promote(workspace, "churn", version="2", reason="The auditors\n asked  for it")
    assert (change.moved, change.replaced, change.reason) == (True, "1", "The auditors asked for it")
    assert copied(workspace) == hash_of(workspace, "2")
    assert history(workspace, "churn")[-1].way == "hand"
    with pytest.raises(ConfigError, match="the reason is empty"):
        promote(workspace, "churn", version="1", reason=" \n")
    assert aliases(workspace) == {"champion": "2", "previous": "1"}


def test_the_champion_itself_is_left_where_it_is(workspace, train):
    train("champion")
    change = promote(workspace, "churn", version="1", reason="once more")
    assert (change.moved, change.champion, change.replaced) == (False, "1", "1")
    assert len(history(workspace, "churn")) == 1


def test_going_back_walks_to_the_first_champion_and_no_further(workspace, train):
    for noise in (0.0, 0.2, 0.4):
        train("champion", noise=noise)
    for expected in ("2", "1"):
        change = rollback(workspace, "churn", reason="It was wrong")
        assert (change.moved, change.version) == (True, expected)
        assert copied(workspace) == hash_of(workspace, expected)
    with pytest.raises(RegistryError, match="has no champion to go back to"):
        rollback(workspace, "churn", reason="It was wrong")
    assert aliases(workspace) == {"champion": "1"}
    assert [(one.version, one.way) for one in history(workspace, "churn")][-2:] == [("2", "rollback"), ("1", "rollback")]


def test_what_is_not_there_is_named(workspace, train):
    with pytest.raises(RegistryError, match="renewcast-churn has no challenger to promote"):
        promote(workspace, "churn")
    train("champion")
    with pytest.raises(RegistryError, match=r"no challenger to promote\n  given:   champion: version 1"):
        promote(workspace, "churn")
    with pytest.raises(RegistryError, match="has no such version"):
        promote(workspace, "churn", version="9", reason="why not")


def damage(workspace, version):
    source = workspace_registry(workspace)._version("churn", version).source
    (model,) = [path for path in workspace.artifacts.rglob("package/model.txt") if path.is_relative_to(source.removeprefix("file://"))]
    model.write_text("no tree")


@pytest.mark.parametrize("reason", [None, "by hand"])
def test_a_damaged_or_lost_version_is_refused_and_the_champion_stays(workspace, train, reason):
    train("champion", noise=0.9)
    promoted = promote(workspace, "churn", version=train("challenger"))
    train("challenger")
    damage(workspace, "3")
    with pytest.raises(PackageError, match="damaged"):
        promote(workspace, "churn", reason=reason)
    (workspace.artifacts / "models").rename(workspace.folder / "elsewhere")
    with pytest.raises(RegistryError, match="the files of renewcast-churn version 3 cannot be fetched"):
        promote(workspace, "churn", reason=reason)
    with pytest.raises(RegistryError, match="the files of renewcast-churn version 1 cannot be fetched"):
        rollback(workspace, "churn", reason="why not")
    (workspace.folder / "elsewhere").rename(workspace.artifacts / "models")
    assert promoted.moved
    assert aliases(workspace) == {"champion": "2", "previous": "1", "challenger": "3"}
    assert copied(workspace) == hash_of(workspace, "2")


def test_a_version_that_reads_what_is_no_longer_there_is_refused(workspace, train):
    train("champion")
    train("challenger")
    write_features(workspace.snapshots, pd.read_parquet(workspace.snapshots / "features.parquet").drop(columns="noise"))
    with pytest.raises(PackageError, match="features that the model reads are missing: noise"):
        promote(workspace, "churn", reason="by hand")
    assert aliases(workspace)["champion"] == "1"


def test_alias_and_copy_move_together_or_not_at_all(workspace, train, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    promote(workspace, "churn", version=train("challenger"), reason="first")
    train("challenger", noise=0.9)
    before = copied(workspace)

    def fail(*_arguments):
        raise MlflowException("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", fail)
        with pytest.raises(RegistryError, match="connection refused"):
            promote(workspace, "churn", reason="by hand")
    assert (copied(workspace), aliases(workspace)) == (before, {"champion": "1", "challenger": "2"})
    assert len(history(workspace, "churn")) == 1

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.package.Package.save", full)
        with pytest.raises(WorkspaceError, match="cannot be copied into the workspace: No space left"):
            promote(workspace, "churn", reason="by hand")
    assert (copied(workspace), aliases(workspace)) == (before, {"champion": "1", "challenger": "2"})


def test_nobody_else_may_be_writing(workspace, train):
    train("challenger")
    with workspace.lock("renewcast train"), pytest.raises(WorkspaceError, match="another process is writing"):
        promote(workspace, "churn")
