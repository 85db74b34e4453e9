import json
from dataclasses import replace
from datetime import datetime

import pandas as pd
import pytest

from training.logbook import Rows, training_run
from training.versions import FoldModel, LoggedModel


@pytest.fixture
def model(synthetic_package):
    fold = FoldModel(
        package=synthetic_package,
        test_from=datetime(2023, 1, 1),
        test_to=datetime(2023, 2, 1),
        rows=100,
        positives=9,
        metrics={"auc": 0.7},
    )
    return LoggedModel(
        target="churn",
        shipped=synthetic_package,
        folds=(fold, fold),
        example=pd.DataFrame(),
        parameters={"rounds": 40},
        metrics={"auc": 0.8},
        figures={"a.png": b"png"},
        card="# Card",
        role="champion",
        decision="It is the first.",
        report={"rows": 900, "test_from": "2023-01-01", "verdict": "fine"},
    )


def test_a_training_has_a_run_for_each_target_and_fold(model):
    run = training_run("run", [model], tags={"by": "me"}, data_fingerprint="f" * 64)
    assert (run.tags["by"], run.tags["data_fingerprint"], run.model) == ("me", "f" * 64, None)
    (target,) = run.children
    assert [child.name for child in target.children] == ["run churn fold 1", "run churn fold 2"]
    assert [one.tags["kind"] for one in (run, target, target.children[0])] == ["training", "target", "fold"]
    assert run.metrics == {"churn/auc": 0.8}


def test_a_target_s_files_are_there_to_be_read(model, synthetic_package):
    (target,) = training_run("run", [model], tags={}, data_fingerprint="f" * 64).children
    assert target.files["figures/a.png"] == b"png"
    assert target.files["model_card.md"] == b"# Card"
    assert json.loads(target.files["features.json"])["hash"] == synthetic_package.catalogue.hash
    assert json.loads(target.files["report.json"])["verdict"] == "fine"


def test_a_digest_stands_for_snapshots_and_rows():
    rows = Rows("churn", "f" * 64, {"rows": 1})
    assert rows.digest == Rows("other name", "f" * 64, {"rows": 1}).digest
    assert rows.digest not in {Rows("churn", "e" * 64, {"rows": 1}).digest, Rows("churn", "f" * 64, {"rows": 2}).digest}


def test_what_the_report_does_not_say_is_not_made_up(model):
    (target,) = training_run("run", [replace(model, report={})], tags={}, data_fingerprint="f" * 64).children
    assert (target.rows["training"].facts, target.rows["test"].facts) == ({}, {})
