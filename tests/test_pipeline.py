import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_info, threadpool_limits

from features.catalogue import Catalogue
from features.errors import ConfigError, NotEnoughDataError, RegistryError, WorkspaceError
from features.workspace import load_workspace
from tests.feature_files import write_features
from training import pipeline
from training.backtest import read_backtest
from training.copies import champion_folder, load_champion, provisional_reason, sync_champions
from training.dataset import load_dataset
from training.package import load_package
from training.pipeline import train_workspace
from training.promotion import Decision
from training.registry import open_registry
from training.report import read_report

FAST = """
[training]
minimum_positives = 30
[training.parameters.churn]
rounds = 40
num_leaves = 7
learning_rate = 0.15
[training.parameters.expansion]
rounds = 40
num_leaves = 7
learning_rate = 0.15
"""


@pytest.fixture
def workspace(make_workspace):
    return make_workspace(config=FAST)


def train(workspace, **options):
    return train_workspace(workspace, code_version="test", threads=1, **options)


def test_training_leaves_packages_a_report_and_champions(workspace, synthetic_catalogue, capfd):
    steps = []
    summary = train(workspace, on_progress=lambda *step: steps.append(step))
    assert capfd.readouterr() == ("", "")
    report = read_report(workspace.training)
    assert report == json.loads(json.dumps(summary.to_json()))
    assert {name: part["status"] for name, part in report["targets"].items()} == {
        "churn": "trained",
        "contraction": "skipped",
        "expansion": "trained",
    }
    churn = report["targets"]["churn"]
    assert set(churn["metrics"]) >= {"auc", "lift_top_10", "recall_top_20", "brier_skill", "ece", "ece_expected", "arr_caught_top_5"}
    assert all(found["low"] <= found["value"] <= found["high"] for name, found in churn["metrics"].items() if not name.startswith("ece"))
    assert churn["role"] == "champion"
    best = churn["baselines"][churn["best_baseline"]]["auc"]["value"]
    assert best == max(rule["auc"]["value"] for rule in churn["baselines"].values())
    assert all(rule["gain"]["low"] > 0 for rule in churn["baselines"].values())
    assert "logistic regression" in churn["baselines"]
    assert churn["train_rows"] + churn["test_rows"] < churn["rows"]
    assert f"{best:.3f} of {churn['best_baseline']}" in churn["verdict"]
    assert sum(fold["rows"] for fold in churn["folds"]) == churn["test_rows"]
    assert sum(level["rows"] for level in churn["slices"]["segment"].values()) == churn["test_rows"]
    for target in ("churn", "expansion"):
        package = load_package(summary.folder / target)
        assert package.hash == load_package(champion_folder(workspace, target)).hash == report["targets"][target]["package_hash"]
        assert package.catalogue.hash == synthetic_catalogue.hash
    assert not champion_folder(workspace, "contraction").exists()
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert steps[-1][1] == steps[-1][2]


def test_the_shipped_model_knows_the_test_period_and_the_measured_ones_do_not(workspace, synthetic_catalogue):
    train(workspace)
    champion = open_registry(f"sqlite:///{workspace.mlflow_db}", experiment="renewcast Synthetic", artifacts=None).champion("churn")
    data = load_dataset(workspace.snapshots, "churn", synthetic_catalogue)
    report = read_report(workspace.training)["targets"]["churn"]
    assert champion.shipped.cutoff == data.cutoffs[-1].item()
    assert len(champion.folds) == len(report["folds"]) == 4
    scored = []
    for package, block in zip(champion.folds, report["folds"], strict=True):
        assert np.datetime64(package.cutoff) + np.timedelta64(60, "D") <= np.datetime64(block["test_from"])
        inside = (data.cutoff >= np.datetime64(block["test_from"])) & (data.cutoff <= np.datetime64(block["test_to"]))
        scored.append(pd.DataFrame({"target": data.target[inside], "probability": package.score_rows(data.features[inside]).probability}))
    test = pd.concat(scored)
    assert report["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(test["target"], test["probability"]))
    kept = read_backtest(workspace.training / read_report(workspace.training)["run"], "churn")
    assert roc_auc_score(*kept[kept["stage"] == "test"][["target", "probability"]].to_numpy().T) == pytest.approx(
        report["metrics"]["auc"]["value"]
    )


def test_training_again_gives_the_same_model_and_the_next_version(workspace):
    first, second = train(workspace), train(workspace)
    assert first.run != second.run
    for one, other in zip(first.targets, second.targets, strict=True):
        if one.status == "trained":
            assert one.package_hash == other.package_hash
            assert (one.version, other.version) == ("1", "2")
            assert other.role == "champion"
            assert "no worse: on the same" in other.decision
    assert read_report(workspace.training)["run"] == second.run


def changed(workspace, old, new):
    config = workspace.folder / "renewcast.toml"
    config.write_text(config.read_text().replace(old, new))
    return load_workspace(workspace.folder, {})


def test_a_search_is_reported_and_never_worse_than_the_recipe_that_was_given(make_workspace):
    workspace = make_workspace(config=FAST.replace("[training]", "[training]\ntrials = 3"))
    steps = []
    churn = train(workspace, on_progress=lambda *step: steps.append(step)).targets[0].to_json()
    assert len(churn["search"]["trials"]) == 3
    assert 0 <= churn["search"]["best"] < 3
    assert churn["parameters"]["num_leaves"] == 7, "a parameter that the workspace sets is not searched"
    assert any("searching for a recipe (1 of 3)" in what for what, _, _ in steps)


def test_a_worse_model_does_not_replace_the_champion(workspace):
    first = train(workspace).targets[0]
    second = train(changed(workspace, "rounds = 40", "rounds = 15")).targets[0]
    assert all(gain.low > 0 for gain in second.judgement.gains.values())
    assert (first.role, second.role) == ("champion", "challenger")
    assert load_package(champion_folder(workspace, "churn")).hash == first.package_hash


def test_a_promotion_by_hand_reaches_the_workspace(workspace):
    train(workspace)
    second = train(changed(workspace, "rounds = 40", "rounds = 15")).targets[0]
    registry = open_registry(f"sqlite:///{workspace.mlflow_db}", experiment="renewcast Synthetic", artifacts=None)
    registry._client.set_registered_model_alias("renewcast-churn", "champion", "2")
    assert sync_champions(workspace)["churn"] == "2"
    assert load_package(champion_folder(workspace, "churn")).hash == second.package_hash


@pytest.mark.parametrize(
    ("old", "new", "role", "said"),
    [
        ("horizon_days = 60", "horizon_days = 30", "champion", "it predicts 60 days ahead"),
        ("[training]", "[training]\ntest_from = 2022-07-01\ntest_to = 2022-10-01", "challenger", "already seen labels of the test period"),
    ],
)
def test_a_champion_that_cannot_be_compared_is_said_to_be_so(workspace, old, new, role, said):
    train(workspace)
    second = train(changed(workspace, old, new)).targets[0]
    assert second.role == role
    assert said in second.decision


def test_a_champion_whose_features_are_gone_makes_way(workspace, synthetic_catalogue):
    train(workspace)
    fewer = Catalogue(tuple(feature for feature in synthetic_catalogue if feature.name != "noise"))
    write_features(workspace.snapshots, pd.read_parquet(workspace.snapshots / "features.parquet").drop(columns="noise"))
    (workspace.snapshots / "catalogue.json").write_text(fewer.to_json())
    second = train(workspace).targets[0]
    assert second.role == "champion"
    assert "missing: noise" in second.decision


def test_a_model_that_learnt_nothing_is_only_a_challenger(make_workspace):
    workspace = make_workspace(config=FAST, signal=0.0, base=-1.0, seed=3)
    churn = train(workspace).targets[0]
    assert churn.role == "challenger"
    assert "It does not beat" in churn.decision
    assert not champion_folder(workspace, "churn").exists()


def test_until_there_is_a_champion_a_model_that_is_not_surely_better_is_used_provisionally(make_workspace, monkeypatch):
    workspace = make_workspace(config=FAST)
    unsure = Decision("challenger", "Not surely better.", provisional=True)
    monkeypatch.setattr(pipeline, "decide", lambda *_, **__: unsure)
    summary = train(workspace)
    assert load_champion(workspace, "churn").hash == summary.targets[0].package_hash
    assert provisional_reason(workspace, "churn") == "Not surely better."
    monkeypatch.setattr(pipeline, "decide", lambda *_, **__: replace(unsure, provisional=False))
    train(workspace)
    assert not champion_folder(workspace, "churn").exists()
    monkeypatch.undo()
    train(workspace)
    assert champion_folder(workspace, "churn").exists()
    assert provisional_reason(workspace, "churn") == ""


def test_too_few_positives_say_how_many_there_are_and_are_needed(make_workspace):
    workspace = make_workspace(config="[training]\nminimum_positives = 5000\n")
    with pytest.raises(NotEnoughDataError) as caught:
        train(workspace)
    message = str(caught.value)
    assert "no target has enough data" in message
    assert "at least 5000 of each kind" in message
    assert re.search(
        r"churn: too few positives or negatives: \d+ of \d+ rows to train on are positive, and \d+ of \d+ to judge on", message
    )
    assert not (workspace.training / "CURRENT").exists()


def test_a_period_without_data_is_said_for_each_target(make_workspace):
    workspace = make_workspace(config="[training]\ntest_from = 2030-01-01\n")
    with pytest.raises(NotEnoughDataError, match="no cutoff to judge on"):
        train(workspace)


def test_missing_snapshots_say_what_to_run(workspace):
    (workspace.snapshots / "labels.parquet").unlink()
    with pytest.raises(WorkspaceError, match="renewcast features"):
        train(workspace)


def test_an_unknown_parameter_is_refused_before_anything_is_trained(make_workspace):
    workspace = make_workspace(config="[training.parameters.churn]\nlearning_rat = 0.1\n")
    with pytest.raises(ConfigError, match="learning_rate"):
        train(workspace)


def test_linear_algebra_keeps_to_the_threads_of_a_training_and_is_then_as_it_was(workspace, monkeypatch):
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def stop(*_):
        assert threads() == {1}
        raise WorkspaceError("far enough")

    monkeypatch.setattr(pipeline, "_train_targets", stop)
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with pytest.raises(WorkspaceError, match="far enough"):
            train(workspace)
        assert threads() == before


def test_a_registry_that_is_down_stops_the_training_and_changes_no_champion(workspace):
    train(workspace)
    before = load_package(champion_folder(workspace, "churn")).hash
    with pytest.raises(RegistryError):
        train(workspace, tracking_uri="http://127.0.0.1:9")
    assert load_package(champion_folder(workspace, "churn")).hash == before


def test_a_report_before_any_training_says_what_to_run(workspace):
    with pytest.raises(WorkspaceError, match="renewcast train"):
        read_report(workspace.training)
