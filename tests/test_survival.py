import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training.survival import SurvivalModel, fit_survival, survival_from_json

FINITE = st.floats(-8, 8)


def scored(n=12_000, *, days_slope=0.0, seed=0, months=6):
    """Held-out scores of four folds, days to renewal, and non-renewal with a known chance; accounts show in several months."""
    rng = np.random.default_rng(seed)
    raw, days = rng.normal(-2.5, 1.2, n), rng.uniform(0, 90, n)
    lost = (rng.random(n) < expit(-0.3 + 0.8 * raw + days_slope * days / 30)).astype(float)
    return raw, days, lost, np.arange(n) % 4, np.arange(n) // months


def test_the_curve_is_found_again():
    model = fit_survival(*scored(days_slope=0.5))
    assert model is not None
    assert (model.intercept, model.slope, model.days_slope) == pytest.approx((-0.3, 0.8, 0.5), abs=0.15)


def test_days_that_tell_nothing_are_left_out():
    model = fit_survival(*scored())
    assert model is not None
    assert model.days_slope == 0.0
    assert (model.intercept, model.slope) == pytest.approx((-0.3, 0.8), abs=0.1)


def test_the_probability_holds_on_later_rows():
    model = fit_survival(*scored(days_slope=0.5))
    raw, days, lost, *_ = scored(days_slope=0.5, seed=1)
    kept = model.probability(raw, days)
    parts = np.array_split(np.argsort(kept), 10)
    assert np.mean([abs(kept[part].mean() - (1 - lost[part]).mean()) for part in parts]) < 0.015
    climatology = lost.mean()
    assert np.mean((1 - kept - lost) ** 2) < 0.95 * np.mean((climatology - lost) ** 2)


def test_the_mean_is_the_share_that_was_lost_even_where_folds_differ_in_level():
    raw, days, lost, folds, accounts = scored()
    model = fit_survival(raw + 0.7 * folds, days, lost, folds, accounts)
    assert (1 - model.probability(raw + 0.7 * folds, days)).mean() == pytest.approx(lost.mean())
    assert model.slope == pytest.approx(0.8, abs=0.1)


@given(FINITE, FINITE, st.floats(0, 90), st.floats(-2, 2))
def test_a_higher_churn_score_never_means_surer_survival(one, other, days, days_slope):
    model = SurvivalModel(intercept=0.2, slope=0.01, days_slope=days_slope, rows=100, lost=50)
    low, high = model.probability(np.array(sorted((one, other))), np.array([days, days]))
    assert low >= high


def test_scores_against_the_outcome_still_do_not_turn_the_curve():
    raw, days, lost, folds, accounts = scored(2000)
    model = fit_survival(-raw, days, lost, folds, accounts)
    assert model.slope == pytest.approx(0.01)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_too_few_of_either_outcome_fit_nothing(outcome):
    raw, days, _, folds, accounts = scored(1000)
    lost = np.where(np.arange(1000) < 19, 1 - outcome, outcome)
    assert fit_survival(raw, days, lost, folds, accounts) is None


def test_rows_without_a_renewal_do_not_count():
    raw, days, lost, folds, accounts = scored()
    due = np.arange(len(raw)) % 3 > 0
    part = fit_survival(raw[due], days[due], lost[due], folds[due], accounts[due])
    assert fit_survival(raw, np.where(due, days, np.nan), np.where(due, lost, np.nan), folds, accounts) == part
    assert part.rows == due.sum()


def test_an_unknown_renewal_has_no_probability():
    model = SurvivalModel(intercept=0.0, slope=1.0, days_slope=0.0, rows=100, lost=50)
    assert np.isnan(model.probability(np.array([0.0]), np.array([np.nan])))[0]


def test_text_carries_all_of_it():
    model = fit_survival(*scored(2000))
    assert survival_from_json(json.loads(json.dumps(model.to_json()))) == model
    with pytest.raises(KeyError):
        survival_from_json({name: value for name, value in replace(model).to_json().items() if name != "slope"})
