from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from features.catalogue import Catalogue
from features.errors import NotEnoughDataError
from training.dataset import load_dataset
from training.model import make_recipe
from training.procedure import Assignment, judge_package, split_rows, train_package
from training.splits import LabelWindow

WINDOW = LabelWindow(horizon_days=60, lead_days=0, grace_days=0)


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, WINDOW, test_from=None, test_to=None, minimum=20)


@pytest.fixture(scope="module")
def assignment(synthetic_catalogue):
    recipe = make_recipe({"num_leaves": 7, "learning_rate": 0.15, "max_rounds": 80}, seed=0, threads=1)
    return Assignment(
        target="churn", catalogue=synthetic_catalogue, window=WINDOW, recipe=recipe, data_fingerprint="0" * 64, code_version="test"
    )


@pytest.fixture(scope="module")
def trained(data, split, assignment):
    return train_package(data.at(split.train), assignment)


def test_a_package_carries_what_it_was_trained_on(trained, data, split, assignment):
    train = data.at(split.train)
    assert trained.package.cutoff == train.cutoffs[-1].item()
    assert trained.package.base_rate == pytest.approx(train.target.mean())
    assert (trained.package.horizon_days, trained.package.code_version) == (60, "test")
    assert lgb.Booster(model_str=trained.package.model).num_trees() == trained.rounds
    assert trained.note == ""


def test_the_same_rows_give_the_same_package(trained, data, split, assignment):
    assert train_package(data.at(split.train), assignment).package.hash == trained.package.hash


def test_probabilities_keep_the_level_of_the_training_rows(trained, data, split):
    train = data.at(split.train)
    assert trained.package.score_rows(train.features).probability.mean() == pytest.approx(train.target.mean(), rel=0.1)


def test_a_level_of_only_the_test_period_is_no_level_of_the_model(trained, data, split):
    test = data.at(split.test)
    assert "platinum" not in trained.package.categories["partner_tier"]
    unseen = test.features.assign(partner_tier="platinum")
    np.testing.assert_array_equal(
        trained.package.score_rows(unseen).raw, trained.package.score_rows(test.features.assign(partner_tier=None)).raw
    )


def test_the_gain_is_the_difference_to_the_best_rule_and_surer_than_its_parts(trained, data, split):
    judgement = judge_package(trained.package, data.at(split.train), data.at(split.test), seed=0, threads=1)
    test = data.at(split.test)
    assert judgement.metrics["auc"].value == pytest.approx(roc_auc_score(test.target, trained.package.score_rows(test.features).raw))
    best = judgement.baselines[judgement.best_baseline].auc
    assert best.value == max(rule.auc.value for rule in judgement.baselines.values())
    assert judgement.gain.value == pytest.approx(judgement.metrics["auc"].value - best.value)
    widths = [measured.high - measured.low for measured in (judgement.gain, judgement.metrics["auc"], best)]
    assert widths[0] < widths[1] + widths[2]
    assert judgement.logistic_regression.value > best.value


def test_without_any_rule_the_gain_is_over_chance(data, split, assignment, synthetic_catalogue):
    few = Catalogue(tuple(feature for feature in synthetic_catalogue if feature.name in {"discount", "partner_tier", "noise"}))
    kept = [replace(part, features=part.features[list(few.names)]) for part in (data.at(split.train), data.at(split.test))]
    trained = train_package(kept[0], replace(assignment, catalogue=few))
    judgement = judge_package(trained.package, *kept, seed=0, threads=1)
    assert (judgement.baselines, judgement.best_baseline) == ({}, None)
    assert judgement.gain.value == pytest.approx(judgement.metrics["auc"].value - 0.5)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_too_few_of_either_kind_say_how_many_there_are_and_are_needed(data, outcome):
    rare = np.where(np.arange(len(data)) % 400 == 0, 1 - outcome, outcome)
    with pytest.raises(NotEnoughDataError) as caught:
        split_rows(replace(data, target=rare), WINDOW, test_from=None, test_to=None, minimum=20)
    assert "at least 20 of each kind on both sides" in str(caught.value)
    assert "minimum_positives" in str(caught.value)


def test_no_labels_at_all_are_said_to_be_none(data):
    with pytest.raises(NotEnoughDataError, match="no row has a label"):
        split_rows(data.at(np.zeros(len(data), dtype=bool)), WINDOW, test_from=None, test_to=None, minimum=20)
