import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from features.findings import Audit
from training.dataset import load_dataset
from training.judgement import judge_training
from training.model import make_recipe
from training.procedure import Assignment, split_rows, train_target
from training.splits import LabelWindow

WINDOW = LabelWindow(horizon_days=60, lead_days=0, grace_days=0)


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def trained(data, synthetic_catalogue):
    splits = split_rows(data, WINDOW, test_from=None, test_to=None, minimum=20, folds=2)
    recipe = make_recipe({"num_leaves": 7, "learning_rate": 0.15, "rounds": 40}, seed=0, threads=1)
    assignment = Assignment(
        target="churn",
        catalogue=synthetic_catalogue,
        window=WINDOW,
        recipe=recipe,
        trials=0,
        fixed=(),
        data_fingerprint="0" * 64,
        code_version="test",
    )
    return train_target(data, assignment, splits, advance=lambda what: None)


@pytest.fixture(scope="module")
def judgement(data, trained):
    return judge_training(data, trained, tables=Audit(), plausible_auc=0.95, seed=0)


def test_every_measure_is_of_the_rows_that_no_model_had_seen(judgement, data, trained):
    target, probability = data.target[trained.test.rows], trained.test.probability
    assert judgement.metrics["auc"].value == pytest.approx(roc_auc_score(target, probability))
    assert judgement.metrics["brier"].value == pytest.approx(np.mean((target - probability) ** 2))
    assert {"empc", "empb", "arr_caught_top_10", "ece_expected"} <= set(judgement.metrics)
    for number, block in enumerate(judgement.blocks):
        inside = trained.test.fold == number
        assert block.metrics["auc"].value == pytest.approx(roc_auc_score(target[inside], probability[inside]))
        assert (block.rows, block.positives) == (inside.sum(), target[inside].sum())
        assert block.trained_until < block.test_from <= block.test_to
    assert sum(bin.rows for bin in judgement.calibration_curve) == len(target)


def test_a_gain_is_over_a_baseline_on_pairs_of_one_block(judgement, data, trained):
    rule = judgement.baselines["recency"]
    pairs, right, better = 0, 0.0, 0.0
    for number in range(len(trained.folds)):
        inside = trained.test.fold == number
        rows = trained.test.rows[inside]
        weight = data.target[rows].sum() * (1 - data.target[rows]).sum()
        pairs += weight
        right += weight * roc_auc_score(data.target[rows], data.features["days_since_last_event"].iloc[rows])
        better += weight * roc_auc_score(data.target[rows], trained.test.probability[inside])
    assert rule.auc.value == pytest.approx(right / pairs)
    assert rule.gain.value == pytest.approx((better - right) / pairs)
    assert judgement.gains["recency"] == rule.gain
    assert judgement.best_baseline == max(judgement.baselines, key=lambda name: judgement.baselines[name].auc.value)


def test_what_the_book_is_made_of_is_found_again(judgement):
    causes = {"days_since_last_event", "active_users_28d", "days_to_renewal", "partner_tier"}
    assert {found.feature for found in judgement.importance[:4]} == causes
    assert [gain.family for gain in judgement.ablation][:1] == ["usage"]
    assert judgement.stability.models == 4
    assert set(judgement.slices) >= {"segment", "partner type", "account size", "quarter"}


def test_how_well_renewals_are_told_is_measured_on_those_that_were_due(judgement, data, trained):
    due = data.context["nonrenewal"].notna().to_numpy()[trained.test.rows]
    assert 0 < due.sum() < len(due)
    assert judgement.renewal["auc"].value > 0.6


def test_a_judgement_is_plain_json(judgement):
    found = json.loads(json.dumps(judgement.to_json(), allow_nan=False))
    assert found["folds"][0]["rows"] == judgement.blocks[0].rows
    assert found["audit"]["probes"]
    (name, *_) = found["slices"]["segment"]
    assert {"rows", "positives", "metrics", "reason"} <= set(found["slices"]["segment"][name])
