import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from features.catalogue import Catalogue
from features.errors import ConfigError
from features.feature import Feature
from training.baseline import HEALTH_SCORE, BaselineScores, Rule, fit_logistic, fit_rules, judge_baselines, score_baselines
from training.dataset import encode_features, learn_categories, load_dataset
from training.evaluation import TestRows, auc_within, compare, estimate
from training.splits import ForwardSplit


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


def rules_by_name(frame, target, catalogue, name="churn"):
    return {rule.name: rule for rule in fit_rules(frame, target, catalogue=catalogue, target_name=name)}


def test_rules_are_those_that_the_catalogue_has_a_feature_for(data, synthetic_catalogue):
    rules = rules_by_name(data.features, data.target, synthetic_catalogue)
    assert {name: rule.feature for name, rule in rules.items()} == {
        "recency": "days_since_last_event",
        "active users": "active_users_28d",
        "users trend": "users_trend_28d",
        "days to renewal": "days_to_renewal",
        "ARR": "arr",
    }


def test_a_fixed_direction_is_kept_even_where_the_rows_say_otherwise(data, synthetic_catalogue):
    upside_down = rules_by_name(data.features, 1 - data.target, synthetic_catalogue)
    assert (upside_down["recency"].sign, upside_down["active users"].sign) == (1, -1)


def test_an_open_direction_is_learnt_from_the_rows(data, synthetic_catalogue):
    by_arr = (data.arr > np.median(data.arr)).astype(float)
    assert rules_by_name(data.features, by_arr, synthetic_catalogue)["ARR"].sign == 1
    assert rules_by_name(data.features, 1 - by_arr, synthetic_catalogue)["ARR"].sign == -1


@pytest.mark.parametrize(("outcome", "end"), [(1.0, np.inf), (0.0, -np.inf)])
def test_accounts_without_a_value_go_to_the_end_where_they_belong(synthetic_catalogue, data, outcome, end):
    frame = data.features.head(400).copy()
    target = (frame["days_since_last_event"] > 8).to_numpy(dtype=float)
    frame.iloc[:60, frame.columns.get_loc("days_since_last_event")] = np.nan
    target[:60] = outcome
    rule = rules_by_name(frame, target, synthetic_catalogue)["recency"]
    assert rule.missing == end
    assert roc_auc_score(target, np.nan_to_num(rule.score(frame), posinf=1e9, neginf=-1e9)) == 1


def test_logistic_regression_finds_the_truth_of_the_synthetic_book(data, synthetic_catalogue):
    categories = learn_categories(data.features, synthetic_catalogue)
    matrix = encode_features(data.features, features=synthetic_catalogue.names, categories=categories)
    earlier, later = data.cutoff < data.cutoffs[10], data.cutoff >= data.cutoffs[10]
    model = fit_logistic(matrix[earlier], data.target[earlier], catalogue=synthetic_catalogue)
    found = roc_auc_score(data.target[later], model.decision_function(matrix[later]))
    best = max(
        roc_auc_score(data.target[later], rule.score(data.features[later]))
        for rule in fit_rules(data.features[earlier], data.target[earlier], catalogue=synthetic_catalogue, target_name="churn")
    )
    assert found > best + 0.02


def test_logistic_regression_bears_numbers_beyond_single_precision(data, synthetic_catalogue):
    wild = data.features.assign(noise=np.where(np.arange(len(data)) % 3 == 0, 1e300, -1e300))
    categories = learn_categories(wild, synthetic_catalogue)
    matrix = encode_features(wild, features=synthetic_catalogue.names, categories=categories)
    model = fit_logistic(matrix, data.target, catalogue=synthetic_catalogue)
    assert np.isfinite(model.decision_function(matrix)).all()


def test_logistic_regression_bears_empty_columns_and_unseen_levels(data, synthetic_catalogue):
    categories = learn_categories(data.features, synthetic_catalogue)
    frame = data.features.assign(noise=np.nan, discount=1.0)
    model = fit_logistic(
        encode_features(frame, features=synthetic_catalogue.names, categories=categories), data.target, catalogue=synthetic_catalogue
    )
    other = pd.DataFrame(frame.head(3)).assign(partner_tier="platinum", noise=3.0)
    assert np.isfinite(model.decision_function(encode_features(other, features=synthetic_catalogue.names, categories=categories))).all()


FEATURE = Feature(name="arr", family="commercial", unit="USD", meaning="", sentence="", expression=len)
outcomes = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.one_of(st.none(), st.integers(-3, 3))), min_size=2, max_size=25)


@settings(deadline=None)
@given(outcomes)
def test_no_other_direction_or_end_of_the_list_would_have_done_better(rows):
    target, values = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if not 0 < target.sum() < len(target):
        return
    frame = pd.DataFrame({"arr": values})
    (rule,) = fit_rules(frame, target, catalogue=Catalogue((FEATURE,)), target_name="churn")
    reached = {
        (sign, missing): roc_auc_score(target, np.nan_to_num(Rule("", "arr", sign, missing).score(frame), posinf=9, neginf=-9))
        for sign in (1, -1)
        for missing in (-np.inf, np.inf)
    }
    assert reached[rule.sign, rule.missing] == pytest.approx(max(reached.values()))


def test_a_health_score_is_a_rule_of_its_own(data, synthetic_catalogue):
    rules = {
        rule.name: rule
        for rule in fit_rules(
            data.features, data.target, catalogue=synthetic_catalogue, target_name="churn", health_score="days_since_last_event"
        )
    }
    assert rules[HEALTH_SCORE].score(data.features) == pytest.approx(rules["recency"].score(data.features))


def test_a_health_score_in_words_counts_for_what_its_levels_meant_so_far(synthetic_catalogue):
    frame = pd.DataFrame(
        {"partner_tier": ["gold", "gold", "blue", "blue", None, None], **dict.fromkeys(synthetic_catalogue.names[:6], 1.0)}
    )
    target = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    *_, rule = fit_rules(frame, target, catalogue=synthetic_catalogue, target_name="churn", health_score="partner_tier")
    assert (rule.name, rule.levels, rule.missing) == (HEALTH_SCORE, {"gold": 0.5, "blue": 0.0}, np.inf)
    np.testing.assert_array_equal(rule.score(pd.DataFrame({"partner_tier": ["blue", "new", "gold"]})), [0.0, np.inf, 0.5])


def test_a_health_score_that_is_no_feature_is_refused(data, synthetic_catalogue):
    with pytest.raises(ConfigError, match=re.escape("health_score in [training] names no feature")) as refused:
        fit_rules(data.features, data.target, catalogue=synthetic_catalogue, target_name="churn", health_score="discuont")
    assert "discount" in str(refused.value)


def sorted_splits(data):
    cutoffs = data.cutoffs
    blocks = (cutoffs[10:12], cutoffs[12:14])
    return [ForwardSplit(data.cutoff < block[0], np.isin(data.cutoff, block), block[0]) for block in blocks]


def scored(data, catalogue, target=None):
    changed = data if target is None else type(data)(**(vars(data) | {"target": target}))
    matrix = encode_features(data.features, features=catalogue.names, categories=learn_categories(data.features, catalogue))
    return score_baselines(changed, matrix, sorted_splits(data), catalogue=catalogue, target_name="churn", health_score="noise")


def test_baselines_are_fitted_on_what_came_before_each_block(data, synthetic_catalogue):
    splits = sorted_splits(data)
    found = scored(data, synthetic_catalogue)
    assert set(found) == {"recency", "active users", "users trend", "days to renewal", "ARR", HEALTH_SCORE, "logistic regression"}
    assert found["recency"].feature == "days_since_last_event"
    assert found["logistic regression"].feature is None
    rule = {rule.name: rule for rule in fit_rules(data.features, data.target, catalogue=synthetic_catalogue, target_name="churn")}[
        "recency"
    ]
    expected = np.concatenate([rule.score(data.features[split.test]) for split in splits])
    np.testing.assert_array_equal(found["recency"].score, expected)
    last = data.cutoff >= splits[1].first_test
    blind = scored(data, synthetic_catalogue, target=np.where(last, 1 - data.target, data.target))
    for name, baseline in found.items():
        np.testing.assert_array_equal(blind[name].score, baseline.score)


def test_starting_where_the_block_before_ended_changes_no_regression(data, synthetic_catalogue):
    splits, catalogue = sorted_splits(data), synthetic_catalogue
    matrix = encode_features(data.features, features=catalogue.names, categories=learn_categories(data.features, catalogue))
    alone = [
        fit_logistic(matrix[split.train], data.target[split.train], catalogue=catalogue).decision_function(matrix[split.test])
        for split in splits
    ]
    np.testing.assert_allclose(scored(data, catalogue)["logistic regression"].score, np.concatenate(alone), atol=0.03)


def test_a_feature_that_was_empty_in_training_does_no_harm(data, synthetic_catalogue):
    catalogue = synthetic_catalogue
    matrix = encode_features(data.features, features=catalogue.names, categories=learn_categories(data.features, catalogue))
    (split, *_) = sorted_splits(data)
    column = catalogue.names.index("noise")
    rng = np.random.default_rng(0)
    matrix[:, column] = np.where(split.train, 0.001 * rng.random(len(data)), 1000 * rng.random(len(data)))
    model = fit_logistic(matrix[split.train], data.target[split.train], catalogue=catalogue)
    usual = np.delete(np.arange(len(catalogue)), column)
    smaller = Catalogue(tuple(catalogue.features[place] for place in usual))
    without = fit_logistic(matrix[split.train][:, usual], data.target[split.train], catalogue=smaller)
    found = roc_auc_score(data.target[split.test], model.decision_function(matrix[split.test]))
    assert found > roc_auc_score(data.target[split.test], without.decision_function(matrix[split.test][:, usual])) - 0.01


def test_gains_are_paired_and_within_blocks(data, synthetic_catalogue):
    splits = sorted_splits(data)
    positions = np.concatenate([np.flatnonzero(split.test) for split in splits])
    fold = np.repeat([0, 1], [split.test.sum() for split in splits])
    tested = data.at(positions)
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(2 - 2 * tested.target - rng.normal(size=len(tested))))
    baselines = scored(data, synthetic_catalogue)
    found = judge_baselines(TestRows(tested.account_id, tested.target, tested.arr), probability, fold, baselines, resamples=20, seed=0)
    assert list(found) == list(baselines)
    for name, result in found.items():
        score = baselines[name].score

        def measure(scores, weights):
            return auc_within(tested.target, scores, fold, weights)

        alone = estimate(lambda weights, s=score: auc_within(tested.target, s, fold, weights), tested.account_id, resamples=20, seed=0)
        gain = compare(measure, probability, score, tested.account_id, resamples=20, seed=0)
        np.testing.assert_allclose([*vars(result.auc).values(), *vars(result.gain).values()], [*vars(alone).values(), *vars(gain).values()])
    assert found["logistic regression"].auc.value > found["recency"].auc.value
    assert json.loads(json.dumps({name: asdict(result) for name, result in found.items()}))["recency"]["feature"] == "days_since_last_event"


def test_a_block_whose_scores_are_on_another_scale_is_no_worse():
    target = np.array([0.0, 1.0, 0.0, 1.0] * 30)
    fold = np.repeat([0, 1], 60)
    rows = TestRows(np.arange(120).astype(str).astype(object), target, np.ones(120))
    score = target + np.where(fold == 1, 100.0, 0.0)
    (found,) = judge_baselines(rows, target / 2 + 0.1, fold, {"recency": BaselineScores("x", score)}, resamples=0, seed=0).values()
    assert (found.auc.value, found.gain.value) == (1, 0)


def test_the_logistic_regression_is_that_of_a_scikit_learn_pipeline():
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.lognormal(3, 2, 800), rng.normal(0, 50, 800), np.full(800, 7.0), np.full(800, np.nan)])
    target = (rng.random(800) < 1 / (1 + np.exp(1 - 0.5 * np.log1p(matrix[:, 0]) + 0.02 * matrix[:, 1]))).astype(float)
    matrix[:100, 1] = np.nan
    catalogue = Catalogue(tuple(Feature(name=f"f{i}", family="usage", unit="", meaning="", sentence="", expression=len) for i in range(4)))
    found = fit_logistic(matrix, target, catalogue=catalogue).decision_function(matrix)
    twin = make_pipeline(
        FunctionTransformer(lambda values: np.sign(values) * np.log1p(np.abs(values))),
        StandardScaler(),
        FunctionTransformer(lambda values: np.clip(values, -5, 5)),
        SimpleImputer(strategy="constant", fill_value=0, add_indicator=True, keep_empty_features=True),
        LogisticRegression(C=1 / (0.05 * 800), max_iter=2000, tol=1e-8),
    ).fit(matrix[:, :3], target)
    np.testing.assert_allclose(found, twin.decision_function(matrix[:, :3]), atol=0.01)
