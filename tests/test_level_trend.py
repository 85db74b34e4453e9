"""Levels of worlds whose drift is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training import level_trend
from training.calibration import level_at, share
from training.level_trend import level_shift, recent_rows


def world(levels, *, accounts=600, start="2020-01", seed=0):
    """Return what a model without a sense of time says of each month, and what happens at the given levels."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(-2.0, 1.0, size=(len(levels), accounts))
    target = (rng.random(trait.shape) < expit(trait + np.asarray(levels)[:, None])).astype(float).ravel()
    cutoff = np.repeat(np.datetime64(start, "M") + np.arange(len(levels)), accounts).astype("datetime64[us]")
    log_odds = trait.ravel() + level_at(trait.ravel(), share(target))
    return {"log_odds": log_odds, "target": target, "account_id": np.arange(len(target)), "cutoff": cutoff}


def shift(rows, *, horizon_days=30):
    return level_shift(**rows, horizon_days=horizon_days)


def test_months_that_differ_by_chance_alone_move_the_level_by_less_than_their_noise():
    found = np.array([shift(world(np.zeros(18), seed=seed)) for seed in range(30)])
    last = 1 / np.sqrt(600 * 0.13)  # the standard error of one month's shift
    assert np.sqrt(np.mean(found**2)) < 0.5 * last
    assert abs(found.mean()) < 0.03


@pytest.mark.parametrize("drift", [-0.8, 0.8])
def test_a_drift_is_followed_most_of_the_way(drift):
    rows = world(np.linspace(0, drift, 18), accounts=1500)
    newest = rows["cutoff"] == rows["cutoff"].max()
    missed = level_at(rows["log_odds"][newest], share(rows["target"][newest]))
    assert shift(rows) / missed == pytest.approx(0.85, abs=0.2)


def test_following_a_drift_lowers_the_loss_of_the_next_months():
    gains = []
    for seed in range(12):
        steps = np.cumsum(np.random.default_rng(seed).normal(0, 0.12, 21))
        rows = world(steps, seed=seed)
        learnt = rows["cutoff"] < np.unique(rows["cutoff"])[-3]
        known = {name: values[learnt] for name, values in rows.items()}
        centred = level_at(known["log_odds"], share(known["target"]))
        later, target = rows["log_odds"][~learnt] + centred, rows["target"][~learnt]
        moved = later + shift(known | {"log_odds": known["log_odds"] + centred})
        gains.append(np.mean(np.logaddexp(0, later) - target * later) - np.mean(np.logaddexp(0, moved) - target * moved))
    assert np.mean(gains) > 0


def test_rows_of_one_account_whose_windows_overlap_count_for_less():
    rows = world([0.0] * 9 + [0.6] * 3, accounts=200)
    same = rows | {"account_id": np.tile(np.arange(200), 12)}
    assert 0 < shift(same, horizon_days=180) < shift(rows, horizon_days=180)


def test_the_filter_agrees_with_the_joint_normal_distribution_of_all_levels():
    rng = np.random.default_rng(3)
    seen, noise, gaps = rng.normal(0, 0.3, 7), rng.uniform(0.01, 0.1, 7), np.array([0, 1, 1, 3, 1, 2, 1])
    levels, _ = level_trend._filter(seen, noise, gaps)
    since = np.cumsum(gaps)
    for spread, level in zip(level_trend._STEPS, levels, strict=True):
        prior = level_trend._START_SCALE**2 + spread**2 * np.minimum.outer(since, since)
        assert level == pytest.approx(prior[-1] @ np.linalg.solve(prior + np.diag(noise), seen))


@given(st.integers(1, 60))
def test_the_latest_two_years_are_looked_at(months):
    cutoff = (np.datetime64("2020-01", "M") + np.arange(months)).astype("datetime64[us]")
    assert recent_rows(cutoff).tolist() == list(range(max(0, months - 24), months))


def test_months_without_any_or_with_nothing_but_positives_have_a_level_too():
    rows = world(np.zeros(6), accounts=50)
    for outcome in (0.0, 1.0):
        target = np.where(rows["cutoff"] == rows["cutoff"].max(), outcome, rows["target"])
        assert np.sign(shift(rows | {"target": target})) == (1 if outcome else -1)
    assert np.isfinite(shift({name: values[:1] for name, values in rows.items()}))
