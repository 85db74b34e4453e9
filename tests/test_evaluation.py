"""Every measure against a slow twin written from its definition, with ties, and with whole weights against repeated rows."""

import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from training.evaluation import (
    CAPACITIES,
    Estimate,
    TestRows,
    auc,
    auc_within,
    average_precision,
    brier,
    brier_skill,
    compare,
    estimate,
    judge,
    lift,
    log_loss,
    recall,
    resample,
    single,
    value_caught,
)
from training.reliability import ece, ece_expected

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=30)
MEASURES = {
    "auc": auc,
    "average_precision": average_precision,
    "lift_top_10": partial(lift, capacity=0.1),
    "recall_top_20": partial(recall, capacity=0.2),
    "brier": brier,
    "brier_skill": brier_skill,
    "ece": ece,
}
RANKING = ("auc", "average_precision", "lift_top_10", "recall_top_20")


def as_arrays(rows):
    target, score, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return target, score / 6, weight


def slow_auc(target, score):
    pairs = [(p, n) for p in score[target == 1] for n in score[target == 0]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


def slow_caught(value, score, capacity):
    room, caught = capacity * len(score), 0.0
    for level in sorted(set(score), reverse=True):
        tied = score == level
        taken = min(room, tied.sum()) / tied.sum()
        caught += taken * value[tied].sum()
        room -= taken * tied.sum()
    return caught / value.sum()


def slow_ece(target, probability):
    edges = np.quantile(probability, np.linspace(0, 1, 11)[1:-1])
    error = 0.0
    for part in range(10):
        chosen = [i for i, p in enumerate(probability) if sum(p >= edge for edge in edges) == part]
        if chosen:
            error += len(chosen) / len(target) * abs(np.mean([target[i] for i in chosen]) - np.mean([probability[i] for i in chosen]))
    return error


def once(measure, target, score):
    return single(lambda weights: measure(target, score, weights), len(target))


@given(rows)
def test_measures_agree_with_their_definitions(rows):
    target, score, _ = as_arrays(rows)
    assert once(brier, target, score) == pytest.approx(brier_score_loss(target, score))
    assert once(ece, target, score) == pytest.approx(slow_ece(target, score), abs=1e-12)
    if 0 < target.sum() < len(target):
        assert once(auc, target, score) == pytest.approx(slow_auc(target, score))
        assert once(auc, target, score) == pytest.approx(roc_auc_score(target, score))
        assert once(average_precision, target, score) == pytest.approx(average_precision_score(target, score))
        assert once(log_loss, target, 0.05 + 0.9 * score) == pytest.approx(sklearn_log_loss(target, 0.05 + 0.9 * score))
        for capacity in CAPACITIES:
            caught = slow_caught(target, score, capacity)
            assert once(partial(recall, capacity=capacity), target, score) == pytest.approx(caught)
            assert once(partial(lift, capacity=capacity), target, score) == pytest.approx(caught / capacity)
        assert once(brier_skill, target, score) == pytest.approx(1 - np.mean((score - target) ** 2) / target.var())


@given(rows)
@pytest.mark.parametrize("name", [name for name in MEASURES if name != "ece"])
def test_a_weight_counts_as_so_many_rows(name, rows):
    target, score, weight = as_arrays(rows)
    repeated = np.repeat(np.arange(len(target)), weight.astype(int))
    if not 0 < target[repeated].sum() < len(repeated):
        return
    weighted = MEASURES[name](target, score, np.column_stack([np.ones(len(target)), weight]))[1]
    assert weighted == pytest.approx(once(MEASURES[name], target[repeated], score[repeated]))


@given(rows)
@pytest.mark.parametrize("name", RANKING)
def test_a_rising_map_of_the_score_changes_no_ranking_measure(name, rows):
    target, score, _ = as_arrays(rows)
    np.testing.assert_equal(once(MEASURES[name], target, score), once(MEASURES[name], target, np.exp(3 * score) - 7))


@pytest.mark.parametrize("name", ["auc", "average_precision", "lift_top_10", "brier_skill"])
def test_what_has_no_answer_is_not_a_number(name):
    negative, positive = once(MEASURES[name], np.zeros(5), np.arange(5.0)), once(MEASURES["auc"], np.ones(5), np.arange(5.0))
    assert np.isnan(negative)
    assert np.isnan(positive)


def test_a_perfect_list_catches_all_that_fits():
    target = np.zeros(100)
    target[:5] = 1
    assert once(partial(lift, capacity=0.1), target, -np.arange(100.0)) == pytest.approx(10)
    assert once(partial(lift, capacity=0.1), target, np.zeros(100)) == pytest.approx(1)
    value = np.where(target == 1, 1000.0, 0.0)
    assert single(lambda weights: value_caught(value, -np.arange(100.0), weights, capacity=0.1), 100) == pytest.approx(1)


values = st.lists(st.tuples(st.integers(0, 3).map(float), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=30)


@given(values, st.sampled_from(CAPACITIES))
def test_value_is_caught_as_the_definition_says_with_ties_and_weights(rows, capacity):
    value, score, weight = as_arrays(rows)
    repeated = np.repeat(np.arange(len(value)), weight.astype(int))
    if value[repeated].sum() > 0:
        found = value_caught(value, score, np.column_stack([np.ones(len(value)), weight]), capacity=capacity)
        expected = [slow_caught(value, score, capacity), slow_caught(value[repeated], score[repeated], capacity)]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(rows, st.lists(st.integers(0, 2), min_size=30, max_size=30), st.tuples(*[st.integers(-5, 5)] * 3))
def test_pairs_within_strata_know_nothing_of_what_is_added_to_a_stratum(rows, strata, shifts):
    target, score, weight = as_arrays(rows)
    stratum = np.array(strata[: len(target)])
    found = auc_within(target, score, stratum, np.column_stack([np.ones(len(target)), weight]))
    pairs = [(i, j) for i in np.flatnonzero(target == 1) for j in np.flatnonzero(target == 0) if stratum[i] == stratum[j]]
    for column, counted in enumerate((np.ones(len(target)), weight)):
        total = sum(counted[i] * counted[j] for i, j in pairs)
        right = sum(counted[i] * counted[j] * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0) for i, j in pairs)
        assert found[column] == pytest.approx(right / total if total else np.nan, nan_ok=True)
    moved = score + np.array(shifts, dtype=float)[stratum]
    np.testing.assert_allclose(auc_within(target, moved, stratum, np.ones((len(target), 1))), found[:1])


def test_one_stratum_is_all_pairs():
    target, score = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.3])
    weights = np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 3.0], [1.0, 1.0]])
    np.testing.assert_allclose(auc_within(target, score, np.zeros(4), weights), auc(target, score, weights))


@given(rows)
def test_a_score_is_no_better_than_itself(rows):
    target, score, _ = as_arrays(rows)
    account = np.arange(len(target)).astype(str).astype(object)
    if 0 < target.sum() < len(target):
        found = compare(lambda s, weights: brier(target, s, weights), score, score, account, resamples=10, seed=0)
        assert found == Estimate(0.0, 0.0, 0.0)


def test_a_paired_interval_is_narrower_than_those_of_what_it_compares():
    rng = np.random.default_rng(5)
    target = (rng.random(600) < 0.2).astype(float)
    score = target + rng.normal(size=600)
    account = np.arange(600).astype(str).astype(object)

    def measure(s, weights):
        return auc(target, s, weights)

    gain = compare(measure, score, score + rng.normal(0, 0.3, 600), account, seed=0)
    alone = estimate(lambda weights: measure(score, weights), account, seed=0)
    assert gain.high - gain.low < (alone.high - alone.low) / 2
    assert gain.low < gain.value < gain.high


def test_a_bootstrap_equals_one_that_repeats_the_accounts_rows():
    rng = np.random.default_rng(0)
    account = np.array([f"a{i}" for i in rng.integers(0, 12, 60)], dtype=object)
    score = rng.normal(size=60)
    target = (rng.random(60) < 0.4).astype(float)
    found = estimate(lambda weights: auc(target, score, weights), account, resamples=50, seed=7)
    names, again = np.unique(account), np.random.default_rng(7)
    slow = []
    for _ in range(50):
        draw = again.integers(len(names), size=len(names))
        chosen = np.concatenate([np.flatnonzero(account == names[i]) for i in draw])
        slow.append(roc_auc_score(target[chosen], score[chosen]))
    assert found == Estimate(
        pytest.approx(roc_auc_score(target, score)), *(pytest.approx(bound) for bound in np.quantile(slow, [0.025, 0.975]))
    )


def test_resampling_accounts_widens_the_interval_of_repeated_rows():
    rng = np.random.default_rng(1)
    score = np.repeat(rng.normal(size=80), 10)
    target = np.repeat((rng.random(80) < 0.3).astype(float), 10)
    measure = lambda weights: auc(target, score, weights)  # noqa: E731
    clustered = estimate(measure, np.repeat(np.arange(80).astype(str), 10).astype(object), resamples=200, seed=0)
    separate = estimate(measure, np.arange(800).astype(str).astype(object), resamples=200, seed=0)
    assert clustered.high - clustered.low > 2 * (separate.high - separate.low)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_blocks_of_resamples_change_nothing(seed):
    rng = np.random.default_rng(seed)
    account = rng.integers(0, 40, 300).astype(str).astype(object)
    target, score = (rng.random(300) < 0.3).astype(float), rng.normal(size=300)
    whole = estimate(lambda weights: auc(target, score, weights), account, resamples=40, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation._BLOCK", 900)
        assert estimate(lambda weights: auc(target, score, weights), account, resamples=40, seed=seed) == whole


def test_the_interval_covers_as_often_as_it_says():
    truth, covered = 0.7602, 0  # of N(1, 1) against N(0, 1): the normal distribution function of 1 / sqrt(2)
    for seed in range(60):
        target = np.repeat([0.0, 1.0], [150, 50])
        score = np.random.default_rng(seed).normal(size=200) + target
        account = np.arange(200).astype(str).astype(object)
        found = estimate(lambda weights, t=target, s=score: auc(t, s, weights), account, resamples=200, seed=0)
        covered += found.low <= truth <= found.high
    assert covered >= 51


def test_judging_gives_each_measure_and_arr_only_where_there_is_some():
    rng = np.random.default_rng(2)
    n = 400
    probability = rng.uniform(0.01, 0.5, n)
    target = (rng.random(n) < probability).astype(float)
    account = np.repeat([f"a{i}" for i in range(100)], 4).astype(object)
    rows = TestRows(account, target, rng.lognormal(9, 1, n))
    found = judge(rows, probability, resamples=30, seed=0)
    at_capacity = {f"{name}_top_{percent}" for name in ("lift", "recall", "arr_caught") for percent in (5, 10, 20)}
    assert set(found) == {"auc", "average_precision", "brier", "brier_skill", "ece", "ece_expected", *at_capacity}
    assert all(measured.low <= measured.high for name, measured in found.items() if name != "ece_expected")
    without = judge(TestRows(account, target, np.full(n, np.nan)), probability, resamples=0, seed=0)
    assert not any(name.startswith("arr") for name in without)
    assert without["auc"] == Estimate(found["auc"].value, None, None)


def test_judging_agrees_with_each_measure_alone():
    rng = np.random.default_rng(4)
    n = 500
    probability = rng.choice(np.linspace(0.02, 0.6, 40), n)
    target, arr = (rng.random(n) < probability).astype(float), rng.lognormal(9, 1, n)
    account = rng.integers(0, 90, n).astype(str).astype(object)
    found = judge(TestRows(account, target, arr), probability, resamples=20, seed=3)
    alone = {name: lambda weights, m=measure: m(target, probability, weights) for name, measure in MEASURES.items()}
    alone["arr_caught_top_5"] = lambda weights: value_caught(target * arr, probability * arr, weights, capacity=0.05)
    for name, measure in alone.items():
        expected = estimate(measure, account, resamples=20, seed=3)
        np.testing.assert_allclose([*vars(found[name]).values()], [*vars(expected).values()])
    assert found["ece_expected"].value == ece_expected(target, probability, account, seed=3)


def test_some_rows_keep_the_draws_of_all_rows():
    account = np.array(["b", "a", "c", "a"], dtype=object)
    drawn = resample(account, resamples=5, seed=0)
    (weights,), (some,) = drawn.weights(), drawn.at(np.array([True, False, False, True])).weights()
    np.testing.assert_array_equal(some, weights[[0, 3]])
    np.testing.assert_array_equal(weights[1], weights[3])
    np.testing.assert_array_equal(weights[:, 0], np.ones(4))
    assert (weights[:3].sum(axis=0) == 3).all()


def test_two_hundred_resamples_of_a_large_book_are_quick():
    rng = np.random.default_rng(3)
    n = 30_000
    probability = rng.uniform(0, 0.2, n)
    rows = TestRows(rng.integers(0, 3000, n).astype(str).astype(object), (rng.random(n) < probability).astype(float), np.ones(n))
    start = time.process_time()
    judge(rows, probability, resamples=200, seed=0)
    assert time.process_time() - start < 3
