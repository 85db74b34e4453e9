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


def test_platt_is_the_maximum_likelihood_line():
    raw = np.random.default_rng(1).normal(-2, 1.5, 4000)
    target = draw(raw, PlattCalibrator(0.6, -0.4))
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(raw[:, None], target)
    found = fit_platt(raw, target)
    assert found.slope == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-4)


def test_beta_is_logistic_regression_on_its_two_logarithms():
    raw = np.random.default_rng(2).normal(-1, 1.5, 20_000)
    truth = BetaCalibrator(low=0.5, high=2.0, intercept=-0.3)
    target = draw(raw, truth)
    terms = np.column_stack([np.log(expit(raw)), -np.log1p(-expit(raw))])
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(terms, target)
    found = fit_beta(raw, target)
    np.testing.assert_allclose([found.low, found.high, found.intercept], [*expected.coef_[0], expected.intercept_[0]], atol=1e-3)
    np.testing.assert_allclose(found.probability(raw), truth.probability(raw), atol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_fits_rise_even_where_scores_point_the_wrong_way(seed):
    raw = np.random.default_rng(seed).normal(size=200)
    target = draw(-3 * raw, PlattCalibrator(1, 0), seed)
    for fit in (fit_platt, fit_beta):
        assert np.all(np.diff(fit(raw, target).probability(np.sort(raw))) > 0)


def test_calibration_in_the_large_is_exact():
    raw = np.random.default_rng(3).normal(-3, 1, 5000)
    target = draw(raw, PlattCalibrator(0.4, 0.8))
    for fit in (fit_platt, fit_beta):
        assert fit(raw, target).probability(raw).mean() == pytest.approx(target.mean(), abs=1e-4)


def test_the_choice_is_the_bent_curve_where_the_truth_is_bent_and_the_line_where_it_is_straight():
    raw = np.random.default_rng(4).normal(0, 2, 20_000)
    groups = np.repeat(np.arange(2000), 10)
    assert isinstance(choose_calibrator(raw, draw(raw, BetaCalibrator(0.2, 3.0, 0.0)), groups), BetaCalibrator)
    chosen = [choose_calibrator(raw[:2000], draw(raw[:2000], PlattCalibrator(0.7, -1), seed), groups[:2000]) for seed in range(10)]
    assert sum(isinstance(calibrator, PlattCalibrator) for calibrator in chosen) >= 6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_outcome_alone_cannot_be_calibrated_on(value):
    with pytest.raises(NotEnoughDataError, match="nothing to calibrate on"):
        choose_calibrator(np.zeros(10), np.full(10, value), np.arange(10))


def test_log_loss_is_the_usual_one():
    rng = np.random.default_rng(5)
    target, probability = (rng.random(200) < 0.3).astype(float), rng.random(200)
    assert log_loss(target, probability) == pytest.approx(reference_log_loss(target, probability))
    assert np.isfinite(log_loss(np.array([0.0, 1.0]), np.array([1.0, 0.0])))
