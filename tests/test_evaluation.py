"""Every measure against a slow twin written from its definition, with ties, and with whole weights against repeated rows."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from training.evaluation import (
    Estimate,
    TestRows,
    auc,
    average_precision,
    brier,
    brier_skill,
    ece,
    estimate,
    judge,
    lift,
    single,
    value_caught,
)

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=30)
MEASURES = {"auc": auc, "average_precision": average_precision, "lift": lift, "brier": brier, "brier_skill": brier_skill, "ece": ece}


def as_arrays(rows):
    target, score, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return target, score / 6, weight


def slow_auc(target, score):
    pairs = [(p, n) for p in score[target == 1] for n in score[target == 0]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


def slow_caught(value, score):
    room, caught = 0.1 * len(score), 0.0
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
        assert once(lift, target, score) == pytest.approx(10 * slow_caught(target, score))
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
@pytest.mark.parametrize("name", ["auc", "average_precision", "lift"])
def test_a_rising_map_of_the_score_changes_no_ranking_measure(name, rows):
    target, score, _ = as_arrays(rows)
    np.testing.assert_equal(once(MEASURES[name], target, score), once(MEASURES[name], target, np.exp(3 * score) - 7))


@pytest.mark.parametrize("name", ["auc", "average_precision", "lift", "brier_skill"])
def test_what_has_no_answer_is_not_a_number(name):
    negative, positive = once(MEASURES[name], np.zeros(5), np.arange(5.0)), once(MEASURES["auc"], np.ones(5), np.arange(5.0))
    assert np.isnan(negative)
    assert np.isnan(positive)


def test_a_perfect_list_catches_all_that_fits():
    target = np.zeros(100)
    target[:5] = 1
    assert once(lift, target, -np.arange(100.0)) == pytest.approx(10)
    assert once(lift, target, np.zeros(100)) == pytest.approx(1)
    value = np.where(target == 1, 1000.0, 0.0)
    assert single(lambda weights: value_caught(value, -np.arange(100.0), weights), 100) == pytest.approx(1)


def test_a_bootstrap_equals_one_that_repeats_the_accounts_rows():
    rng = np.random.default_rng(0)
    account = np.array([f"a{i}" for i in rng.integers(0, 12, 60)], dtype=object)
    score = rng.normal(size=60)
    target = (rng.random(60) < 0.4).astype(float)
    found = estimate(lambda weights: auc(target, score, weights), account, resamples=50, seed=7)
    names, again = np.unique(account), np.random.default_rng(7)
    slow = []
    for draw in again.integers(len(names), size=(50, len(names))):
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
    found = judge(rows, np.log(probability), probability, resamples=30, seed=0)
    assert set(found) == {"auc", "average_precision", "lift_top_decile", "brier", "brier_skill", "ece", "arr_caught_top_decile"}
    for measured in found.values():
        assert measured.low <= measured.high
    without = judge(TestRows(account, target, np.full(n, np.nan)), np.log(probability), probability, resamples=0, seed=0)
    assert "arr_caught_top_decile" not in without
    assert without["auc"] == Estimate(found["auc"].value, None, None)


def test_two_hundred_resamples_of_a_large_book_take_seconds():
    rng = np.random.default_rng(3)
    n = 30_000
    probability = rng.uniform(0, 0.2, n)
    rows = TestRows(rng.integers(0, 3000, n).astype(str).astype(object), (rng.random(n) < probability).astype(float), np.ones(n))
    start = time.process_time()
    judge(rows, probability, probability, resamples=200, seed=0)
    assert time.process_time() - start < 20
