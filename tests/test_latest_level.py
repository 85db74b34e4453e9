"""Levels of worlds whose drift is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training import latest_level
from training.calibration import level_at, share
from training.latest_level import level_shift, recent_rows


def world(levels, *, accounts=600, start="2020-01", seed=0):
    """Return what a model without a sense of time says of each month, and what happens at the given levels."""
    rng = np.random.default_rng(seed)
    trait = rng.normal(-2.0, 1.0, size=(len(levels), accounts))
    target = (rng.random(trait.shape) < expit(trait + np.asarray(levels)[:, None])).astype(float).ravel()
    cutoff = np.repeat(np.datetime64(start, "M") + np.arange(len(levels)), accounts).astype("datetime64[us]")
    log_odds = trait.ravel() + level_at(trait.ravel(), share(target))
    return {"log_odds": log_odds, "target": target, "account_id": np.arange(len(target)), "cutoff": cutoff}


def latest(rows):
    """Return the rows that are looked at."""
    recent = recent_rows(rows["cutoff"])
    return {name: values[recent] for name, values in rows.items()}


def shift(rows, *, horizon_days=30):
    return level_shift(**rows, horizon_days=horizon_days)


def test_a_book_of_a_year_and_a_half_is_at_its_own_level():
    assert shift(latest(world(np.linspace(0, 0.8, 18)))) == pytest.approx(0, abs=0.01)


def test_chance_moves_the_level_of_the_latest_months_by_less_than_their_noise():
    found = np.array([shift(latest(world(np.zeros(48), seed=seed))) for seed in range(20)])
    noise = 1 / np.sqrt(18 * 600 * 0.11)
    assert np.sqrt(np.mean(found**2)) < 1.5 * noise
    assert abs(found.mean()) < noise


@pytest.mark.parametrize("drift", [-0.8, 0.8])
def test_what_the_latest_months_lie_off_is_corrected(drift):
    rows = latest(world([0.0] * 30 + [drift] * 18))
    assert shift(rows) == pytest.approx(level_at(rows["log_odds"], share(rows["target"])), rel=0.02)
    assert shift(rows) == pytest.approx(drift * 30 / 48, abs=0.1)


def test_a_level_that_has_changed_for_long_lowers_the_loss_of_the_next_months():
    rows = world([0.0] * 24 + [0.5] * 21, seed=1)
    learnt = rows["cutoff"] < np.unique(rows["cutoff"])[-3]
    known = {name: values[learnt] for name, values in rows.items()}
    centred = level_at(known["log_odds"], share(known["target"]))
    later, target = rows["log_odds"][~learnt] + centred, rows["target"][~learnt]
    moved = later + shift(latest(known | {"log_odds": known["log_odds"] + centred}))
    assert np.mean(np.logaddexp(0, moved) - target * moved) < np.mean(np.logaddexp(0, later) - target * later)


def test_the_shift_is_the_posterior_mean_of_a_normal_prior():
    rows = latest(world([0.0] * 30 + [0.6] * 18, accounts=40))
    probability = expit(rows["log_odds"])
    precision = np.array([1 / latest_level._SCALE**2, np.sum(probability * (1 - probability))])
    seen = level_at(rows["log_odds"], share(rows["target"]))
    assert shift(rows) == pytest.approx(precision @ [0, seen] / precision.sum())


def test_rows_of_one_account_whose_windows_overlap_count_for_less():
    rows = latest(world([0.0] * 30 + [0.6] * 18, accounts=60))
    same = rows | {"account_id": np.tile(np.arange(60), 18)}
    assert 0 < shift(same, horizon_days=180) < shift(rows, horizon_days=180)


@given(st.integers(1, 60))
def test_the_latest_year_and_a_half_is_looked_at(months):
    cutoff = (np.datetime64("2020-01", "M") + np.arange(months)).astype("datetime64[us]")
    assert recent_rows(cutoff).tolist() == list(range(max(0, months - 18), months))


def test_rows_without_any_or_with_nothing_but_positives_have_a_level_too():
    rows = world(np.zeros(6), accounts=50)
    for outcome in (0.0, 1.0):
        assert np.sign(shift(rows | {"target": np.full_like(rows["target"], outcome)})) == (1 if outcome else -1)
    assert np.isfinite(shift({name: values[:1] for name, values in rows.items()}))
