"""Calibration errors in worlds whose probabilities are true, or are known not to be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm

from training.evaluation import single
from training.reliability import calibration_curve, ece, ece_expected

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 19), st.integers(0, 5)), min_size=1, max_size=40)


def exchangeable(rng, accounts=250, months=12):
    """Return accounts, true probabilities and outcomes that an unseen trait of the account makes alike."""
    trait = rng.normal(-1.6, 0.6, size=(accounts, 1)) + 0.3 * rng.normal(size=(accounts, months))
    shared = np.sqrt(0.4) * rng.normal(size=(accounts, 1)) + np.sqrt(0.6) * rng.normal(size=(accounts, months))
    return np.repeat(np.arange(accounts), months), norm.cdf(trait).ravel(), (shared < trait).astype(float).ravel()


def overlapping(rng, accounts=250, months=12):
    """Return the same of accounts that leave for good, where three months' label windows overlap."""
    trait = 0.9 * rng.normal(size=(accounts, 1)) + 0.4 * rng.normal(size=(accounts, months + 3))
    hazard = expit(-4 + trait)
    left = rng.random(hazard.shape) < hazard
    there = np.cumsum(left, axis=1) - left == 0
    probability = np.stack([1 - np.prod(1 - hazard[:, m : m + 3], axis=1) for m in range(months)], axis=1)
    outcome = np.stack([left[:, m : m + 3].any(axis=1) for m in range(months)], axis=1)
    account, month = np.nonzero(there[:, :months])
    return account, probability[account, month], outcome[account, month].astype(float)


def error(target, probability):
    return single(lambda weights: ece(target, probability, weights), len(target))


@pytest.mark.parametrize("world", [exchangeable, overlapping])
def test_true_probabilities_stay_below_the_error_expected_by_chance(world):
    below = 0
    for seed in range(80):
        account, probability, target = world(np.random.default_rng(seed))
        below += error(target, probability) <= ece_expected(target, probability, account, seed=0)
    assert below >= 72  # of 80; the 2 % quantile of the binomial distribution with 0.95


@pytest.mark.parametrize("world", [exchangeable, overlapping])
def test_wrong_probabilities_do_not(world):
    above = 0
    for seed in range(20):
        account, probability, target = world(np.random.default_rng(seed), accounts=800)
        too_sure = expit(1.8 * logit(probability) + 0.8)
        above += error(target, too_sure) > ece_expected(target, too_sure, account, seed=0)
    assert above >= 19


def test_rows_of_an_account_that_come_true_together_raise_what_chance_may_do():
    account, probability, target = exchangeable(np.random.default_rng(1))
    apart = ece_expected(target, probability, np.arange(len(target)), seed=0)
    assert ece_expected(target, probability, account, seed=0) > 1.2 * apart


def test_less_is_expected_of_more_rows():
    expected = []
    for accounts in (100, 400, 1600):
        account, probability, target = exchangeable(np.random.default_rng(2), accounts=accounts)
        expected.append(ece_expected(target, probability, account, seed=0))
    assert expected[0] / expected[1] == pytest.approx(2, rel=0.3)
    assert expected[1] / expected[2] == pytest.approx(2, rel=0.3)


def test_intervals_of_the_curve_hold_the_true_frequencies():
    inside = total = 0
    for seed in range(40):
        account, probability, target = exchangeable(np.random.default_rng(seed))
        for part in calibration_curve(target, probability, account):
            inside += part.low <= part.probability <= part.high
            total += 1
    assert 0.92 <= inside / total <= 0.99


@given(rows)
def test_the_curve_holds_every_row_once_and_adds_up_to_the_error(rows):
    target, twentieths, account = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    probability = twentieths / 20
    curve = calibration_curve(target, probability, account)
    assert sum(part.rows for part in curve) == len(target)
    assert sum(part.positives for part in curve) == target.sum()
    gap = sum(part.rows * abs(part.frequency - part.probability) for part in curve) / len(target)
    assert gap == pytest.approx(error(target, probability))
    for part in curve:
        assert 0 <= part.low <= part.frequency + 1e-12
        assert part.frequency - 1e-12 <= part.high <= 1
    assert [part.probability for part in curve] == sorted(part.probability for part in curve)
    assert np.isfinite(ece_expected(target, probability, account, seed=0))


def test_certain_probabilities_leave_nothing_to_chance():
    target = np.array([0.0, 0.0, 1.0])
    assert ece_expected(target, target, np.arange(3), seed=0) == 0
    assert [part.frequency for part in calibration_curve(target, target, np.arange(3))] == [0.0, 1.0]
