"""What a simulated book's models know of the truth behind it: most of what could be known, for the right reasons, and nothing of noise."""

import shutil

import numpy as np
import pytest

from features.simulate import WorldSettings, simulate
from tests.planted import agreement, first_drivers, judged, prepared, recovery, trained
from training.pipeline import train_workspace


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    workspace = prepared(simulate(WorldSettings(accounts=1200)), tmp_path_factory.mktemp("recovery") / "book")
    return judged(workspace, *trained(workspace))


def test_the_churn_model_recovers_most_of_what_could_be_known(rows):
    # of 10,000 accounts it recovers more: see tests/benchmarks/recovery.py
    found = recovery(rows, resamples=0)
    assert found.oracle > 0.8
    assert found.share > 0.72


def test_what_was_planted_shows_in_its_own_drivers_most(rows):
    agreed = agreement(rows)
    for cause in ("health", "support", "value", "partner", "training"):
        assert agreed.loc[cause].idxmax() == cause
        assert agreed.loc[cause, cause] > 0.3


def test_the_strongest_cause_of_a_high_score_is_among_its_first_drivers(rows):
    first = first_drivers(rows)
    assert np.average(first["two"], weights=first["rows"]) > 0.65
    common = first[first["rows"] >= 20].drop("price")
    assert (common["two"] > common["elsewhere"] + 0.1).all()


def test_a_world_without_signal_yields_no_promoted_model(tmp_path, empty_mlflow_store):
    workspace = prepared(simulate(WorldSettings(accounts=400, months=20, signal=0)), tmp_path / "noise")
    shutil.copy(empty_mlflow_store, workspace.mlflow_db)
    trained_targets = [target.to_json() for target in train_workspace(workspace).targets]
    judged_targets = [target for target in trained_targets if target["status"] == "trained"]
    assert judged_targets
    assert all(target["role"] != "champion" for target in judged_targets), [target["decision"] for target in judged_targets]
    assert all(target["metrics"]["auc"]["low"] < 0.5 for target in judged_targets)
