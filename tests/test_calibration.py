import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss

from features.errors import NotEnoughDataError
from training.calibration import (
    BetaCalibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    calibrator_from_json,
    choose_calibrator,
    clustered_mean,
    fit_beta,
    fit_isotonic,
    fit_platt,
    level_at,
    level_folds,
    log_loss,
    refit_calibrator,
    row_losses,
    share,
)

slopes = st.floats(0.01, 5)
steps = st.lists(st.tuples(slopes, slopes), min_size=1, max_size=6)


def broken_line(first, steps, slope):
    """Return a curve through a point and others that are each so much further right and higher."""
    raw, at = np.cumsum([first, *steps], axis=0).T
    return IsotonicCalibrator(raw=tuple(raw.tolist()), at=tuple(at.tolist()), slope=slope)


calibrators = st.one_of(
    st.builds(broken_line, st.tuples(st.floats(-5, 0), st.floats(-5, 5)), steps, slopes),
    st.builds(PlattCalibrator, slope=slopes, intercept=st.floats(-5, 5)),
    st.builds(BetaCalibrator, low=slopes, high=slopes, intercept=st.floats(-5, 5)),
)


FITS = (fit_platt, fit_beta, fit_isotonic)


def draw(raw, truth, seed=0):
    return (np.random.default_rng(seed).random(len(raw)) < truth.probability(raw)).astype(float)


@given(calibrators)
def test_probability_rises_strictly_and_stays_within_bounds(calibrator):
    raw = np.linspace(-6, 3, 500)
    probability = calibrator.probability(raw)
    assert np.all(np.diff(calibrator.log_odds(raw)) > 0)
    assert np.all(np.diff(probability) >= 0)
    assert np.all((probability >= 0) & (probability <= 1))


@given(calibrators)
def test_extreme_scores_stay_finite(calibrator):
    assert np.all(np.isfinite(calibrator.probability(np.array([-745.0, -40.0, 40.0, 745.0]))))


@given(calibrators, st.floats(-3, 3))
def test_a_shift_is_added_to_the_log_odds(calibrator, shift):
    raw = np.linspace(-6, 3, 20)
    np.testing.assert_allclose(calibrator.shifted(shift).log_odds(raw), calibrator.log_odds(raw) + shift, atol=1e-12)
    np.testing.assert_allclose(calibrator.probability(raw), expit(calibrator.log_odds(raw)))


@given(calibrators)
def test_json_round_trip_is_exact(calibrator):
    assert calibrator_from_json(json.loads(json.dumps(calibrator.to_json()))) == calibrator


@pytest.mark.parametrize("data", [{"kind": "isotonic"}, {"kind": "spline"}, {"kind": "platt", "slope": 1.0}, {}])
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


def test_a_fold_that_became_more_common_does_not_bend_the_isotonic_curve():
    raw = np.random.default_rng(3).normal(-2, 1, 60_000)
    folds = np.repeat([0, 1], 30_000)
    outcome = np.random.default_rng(4).random(len(raw))
    even, moved = (outcome < expit(0.7 * raw + shift) for shift in (0.0, np.where(folds == 0, -1.0, 1.5)))
    found = [fit_isotonic(raw, target.astype(float), folds) for target in (even, moved)]
    at = np.linspace(-4, 0, 30)
    assert np.abs(found[0].log_odds(at) - found[1].log_odds(at)).mean() < 0.09


def steps_by_hand(raw, target, fewest):
    """Return the centres and log-odds of an isotonic regression's steps by the max-min formula, small ones joined to the next."""
    order = np.argsort(raw)
    raw, target = raw[order], target[order]
    n, total = len(raw), np.concatenate([[0], np.cumsum(target)])
    heights = [max(min((total[j + 1] - total[i]) / (j + 1 - i) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]
    groups, group = [], []
    for k in range(n):
        group.append(k)
        last = k + 1 == n
        if last or heights[k + 1] > heights[k] + 1e-12:
            if min(target[group].sum(), (1 - target[group]).sum()) >= fewest:
                groups.append(group)
                group = []
            elif last:
                groups[-1] += group
    rates = np.array([target[group].mean() for group in groups])
    return [raw[group].mean() for group in groups], np.log(rates / (1 - rates))


@pytest.mark.parametrize("seed", range(3))
def test_the_isotonic_curve_goes_through_the_centres_of_its_steps(seed):
    raw = np.random.default_rng(seed).normal(0, 2, 250)
    target = draw(raw, PlattCalibrator(1.0, 0.0), seed)
    centres, heights = steps_by_hand(raw, target, fewest=20)
    assert len(centres) > 1
    found = fit_isotonic(raw, target, one_fold(raw))
    np.testing.assert_allclose(found.raw, centres)
    np.testing.assert_allclose(np.diff(found.at), np.diff(heights))
    assert found.slope == fit_platt(raw, target, one_fold(raw)).slope


def test_the_isotonic_curve_is_platts_line_where_there_is_one_step():
    raw = np.random.default_rng(6).normal(0, 1, 60)
    target = draw(raw, PlattCalibrator(1.0, 0.0))
    found, line = fit_isotonic(raw, target, one_fold(raw)), fit_platt(raw, target, one_fold(raw))
    np.testing.assert_allclose(found.log_odds(raw), line.log_odds(raw), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_neither_ties_nor_the_order_of_rows_matter_to_a_fit(seed):
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 2, 500).round(1)
    target, other = draw(raw, PlattCalibrator(1.0, 0.0), seed), rng.permutation(500)
    for fit in FITS:
        one, two = fit(raw, target, one_fold(raw)), fit(raw[other], target[other], one_fold(raw))
        np.testing.assert_allclose(one.log_odds(raw), two.log_odds(raw), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_fits_rise_even_where_scores_point_the_wrong_way(seed):
    raw = np.random.default_rng(seed).normal(size=200)
    target = draw(-3 * raw, PlattCalibrator(1, 0), seed)
    for fit in FITS:
        assert np.all(np.diff(fit(raw, target, one_fold(raw)).probability(np.sort(raw))) > 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-8, 4))
def test_the_mean_probability_stays_as_it_was(seed, level):
    raw = np.random.default_rng(seed).normal(level, 1, 300)
    target = draw(raw, PlattCalibrator(0.4, 0.8), seed)
    for fit in FITS:
        assert fit(raw, target, one_fold(raw)).probability(raw).mean() == pytest.approx(expit(raw).mean(), rel=1e-6)


def test_the_choice_is_the_bent_curve_where_the_truth_is_bent_and_the_line_where_it_is_straight():
    raw = np.random.default_rng(4).normal(0, 2, 20_000)
    accounts, folds = np.repeat(np.arange(2000), 10), np.tile([0, 1], 10_000)
    bent = choose_calibrator(raw, draw(raw, BetaCalibrator(0.2, 3.0, 0.0)), folds=folds, accounts=accounts)
    assert isinstance(bent, BetaCalibrator)
    few, straight = slice(2000), PlattCalibrator(0.7, -1)
    chosen = [choose_calibrator(raw[few], draw(raw[few], straight, seed), folds=folds[few], accounts=accounts[few]) for seed in range(10)]
    assert sum(isinstance(calibrator, PlattCalibrator) for calibrator in chosen) >= 6


def test_the_choice_is_isotonic_only_where_no_smooth_curve_will_do():
    raw = np.random.default_rng(7).uniform(-4, 4, 20_000)
    accounts, folds = np.repeat(np.arange(2000), 10), np.tile([0, 1], 10_000)
    stairs = broken_line((-2.0, -4.0), [(0.2, 3.0), (2.0, 0.1), (0.2, 3.0)], 0.05)
    assert isinstance(choose_calibrator(raw, draw(raw, stairs), folds=folds, accounts=accounts), IsotonicCalibrator)
    smooth = [choose_calibrator(raw, draw(raw, BetaCalibrator(0.5, 1.5, 0.0), seed), folds=folds, accounts=accounts) for seed in range(4)]
    assert sum(isinstance(calibrator, IsotonicCalibrator) for calibrator in smooth) <= 1


def test_the_right_curve_is_not_far_from_any_truth():
    raw = np.random.default_rng(8).normal(-3, 1.5, 40_000)
    accounts, folds = np.arange(len(raw)) // 8, np.arange(len(raw)) % 3
    for truth in (PlattCalibrator(1.4, 1.0), BetaCalibrator(1.5, 0.3, 0.5), broken_line((-4.0, -6.0), [(1.0, 2.0), (3.0, 0.5)], 0.5)):
        target = draw(raw, truth)
        found = choose_calibrator(raw, target, folds=folds, accounts=accounts)
        levelled = level_folds(found.log_odds(raw), target, one_fold(raw))
        assert np.abs(expit(levelled) - truth.probability(raw)).mean() < 0.006


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=50), st.floats(0.001, 0.999))
def test_a_level_brings_the_mean_probability_where_it_is_asked_to_be(log_odds, mean):
    level = level_at(np.array(log_odds), mean)
    assert expit(np.array(log_odds) + level).mean() == pytest.approx(mean, rel=1e-6)


def test_folds_are_brought_to_their_own_shares_as_far_as_these_are_known():
    raw = np.random.default_rng(9).normal(-1, 1, 4000)
    folds = np.repeat([0, 1], 2000)
    target = (np.random.default_rng(10).random(4000) < expit(raw + folds)).astype(float)
    known = np.arange(0, 4000, 2)
    moved = level_folds(raw, target, folds, known=known)
    for fold in (0, 1):
        own = known[folds[known] == fold]
        assert expit(moved[own]).mean() == pytest.approx(share(target[own]))
        assert np.ptp((moved - raw)[folds == fold]) < 1e-12


def test_rows_of_one_account_count_as_one():
    values, accounts = np.random.default_rng(11).normal(size=300), np.arange(300)
    mean, error = clustered_mean(values, accounts)
    assert (mean, error) == pytest.approx((values.mean(), values.std() / np.sqrt(300)))
    assert clustered_mean(np.repeat(values, 4), np.repeat(accounts, 4)) == pytest.approx((mean, error))


def test_row_losses_average_to_the_log_loss():
    log_odds = np.random.default_rng(12).normal(-1, 2, 100)
    target = draw(log_odds, PlattCalibrator(1, 0))
    assert row_losses(log_odds, target).mean() == pytest.approx(log_loss(target, expit(log_odds)))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_outcome_alone_cannot_be_calibrated_on(value):
    with pytest.raises(NotEnoughDataError, match="nothing to calibrate on"):
        choose_calibrator(np.zeros(10), np.full(10, value), folds=np.zeros(10), accounts=np.arange(10))


def test_log_loss_is_the_usual_one():
    rng = np.random.default_rng(5)
    target, probability = (rng.random(200) < 0.3).astype(float), rng.random(200)
    assert log_loss(target, probability) == pytest.approx(reference_log_loss(target, probability))
    assert np.isfinite(log_loss(np.array([0.0, 1.0]), np.array([1.0, 0.0])))


@pytest.mark.parametrize("fit", FITS)
def test_a_curve_that_is_fitted_again_is_of_its_kind_and_of_the_new_rows(fit):
    rng = np.random.default_rng(5)
    raw, folds = rng.normal(-1, 1.5, 4000), np.zeros(4000)
    before, after = (draw(raw, PlattCalibrator(slope=slope, intercept=0.0), seed=1) for slope in (0.6, 1.4))
    assert refit_calibrator(fit(raw, before, folds), raw, after, folds) == fit(raw, after, folds)
