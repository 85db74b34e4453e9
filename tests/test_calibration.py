import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss

from features.errors import NotEnoughDataError
from training.calibration import BetaCalibrator, PlattCalibrator, calibrator_from_json, choose_calibrator, fit_beta, fit_platt, log_loss

slopes = st.floats(0.01, 5)
calibrators = st.one_of(
    st.builds(PlattCalibrator, slope=slopes, intercept=st.floats(-5, 5)),
    st.builds(BetaCalibrator, low=slopes, high=slopes, intercept=st.floats(-5, 5)),
)


def draw(raw, truth, seed=0):
    return (np.random.default_rng(seed).random(len(raw)) < truth.probability(raw)).astype(float)


@given(calibrators)
def test_probability_rises_strictly_and_stays_within_bounds(calibrator):
    raw = np.linspace(-6, 3, 500)
    probability = calibrator.probability(raw)
    assert np.all(np.diff(probability) > 0) or calibrator.probability(np.array([-6.0]))[0] > 0.999
    assert np.all((probability >= 0) & (probability <= 1))


@given(calibrators)
def test_extreme_scores_stay_finite(calibrator):
    assert np.all(np.isfinite(calibrator.probability(np.array([-745.0, -40.0, 40.0, 745.0]))))


@given(calibrators)
def test_json_round_trip_is_exact(calibrator):
    assert calibrator_from_json(json.loads(json.dumps(calibrator.to_json()))) == calibrator


@pytest.mark.parametrize("data", [{"kind": "isotonic"}, {"kind": "platt", "slope": 1.0}, {}])
def test_unknown_calibrators_are_refused(data):
    with pytest.raises(KeyError):
        calibrator_from_json(data)


def test_the_identity_is_both_calibrators_neutral_case():
    raw = np.linspace(-5, 5, 50)
    np.testing.assert_allclose(PlattCalibrator(1, 0).probability(raw), expit(raw))
    np.testing.assert_allclose(BetaCalibrator(1, 1, 0).probability(raw), expit(raw))


def one_fold(raw):
    return np.zeros(len(raw), dtype=int)


def test_platts_slope_is_that_of_the_greatest_likelihood():
    raw = np.random.default_rng(1).normal(-2, 1.5, 4000)
    target = draw(raw, PlattCalibrator(0.6, -0.4))
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(raw[:, None], target)
    assert fit_platt(raw, target, one_fold(raw)).slope == pytest.approx(expected.coef_[0, 0], abs=1e-4)


def test_betas_slopes_are_those_of_a_regression_on_its_two_logarithms():
    raw = np.random.default_rng(2).normal(-1, 1.5, 20_000)
    target = draw(raw, BetaCalibrator(low=0.5, high=2.0, intercept=-0.3))
    terms = np.column_stack([np.log(expit(raw)), -np.log1p(-expit(raw))])
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(terms, target)
    found = fit_beta(raw, target, one_fold(raw))
    np.testing.assert_allclose([found.low, found.high], expected.coef_[0], atol=2e-3)


@pytest.mark.parametrize("fit", [fit_platt, fit_beta])
def test_a_fold_that_became_more_common_moves_neither_slope_nor_level(fit):
    raw = np.random.default_rng(3).normal(-2, 1, 60_000)
    folds = np.repeat([0, 1], 30_000)
    truth = np.where(folds == 0, -1.0, 1.5)
    target = (np.random.default_rng(4).random(len(raw)) < expit(0.7 * raw + truth)).astype(float)
    found = fit(raw, target, folds)
    straight = found.probability(np.array([-3.0, -1.0]))
    assert np.diff(np.log(straight / (1 - straight)))[0] / 2 == pytest.approx(0.7, abs=0.04)
    assert found.probability(raw).mean() == pytest.approx(expit(raw).mean(), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_fits_rise_even_where_scores_point_the_wrong_way(seed):
    raw = np.random.default_rng(seed).normal(size=200)
    target = draw(-3 * raw, PlattCalibrator(1, 0), seed)
    for fit in (fit_platt, fit_beta):
        assert np.all(np.diff(fit(raw, target, one_fold(raw)).probability(np.sort(raw))) > 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-8, 4))
def test_the_mean_probability_stays_as_it_was(seed, level):
    raw = np.random.default_rng(seed).normal(level, 1, 300)
    target = draw(raw, PlattCalibrator(0.4, 0.8), seed)
    for fit in (fit_platt, fit_beta):
        assert fit(raw, target, one_fold(raw)).probability(raw).mean() == pytest.approx(expit(raw).mean(), rel=1e-6)


def test_the_choice_is_the_bent_curve_where_the_truth_is_bent_and_the_line_where_it_is_straight():
    raw = np.random.default_rng(4).normal(0, 2, 20_000)
    accounts, folds = np.repeat(np.arange(2000), 10), np.tile([0, 1], 10_000)
    bent = choose_calibrator(raw, draw(raw, BetaCalibrator(0.2, 3.0, 0.0)), folds=folds, accounts=accounts)
    assert isinstance(bent, BetaCalibrator)
    few, straight = slice(2000), PlattCalibrator(0.7, -1)
    chosen = [choose_calibrator(raw[few], draw(raw[few], straight, seed), folds=folds[few], accounts=accounts[few]) for seed in range(10)]
    assert sum(isinstance(calibrator, PlattCalibrator) for calibrator in chosen) >= 6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_outcome_alone_cannot_be_calibrated_on(value):
    with pytest.raises(NotEnoughDataError, match="nothing to calibrate on"):
        choose_calibrator(np.zeros(10), np.full(10, value), folds=np.zeros(10), accounts=np.arange(10))


def test_log_loss_is_the_usual_one():
    rng = np.random.default_rng(5)
    target, probability = (rng.random(200) < 0.3).astype(float), rng.random(200)
    assert log_loss(target, probability) == pytest.approx(reference_log_loss(target, probability))
    assert np.isfinite(log_loss(np.array([0.0, 1.0]), np.array([1.0, 0.0])))
