import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from training.shocks import (
    PARTS,
    SHIFTS,
    GroupOutcomes,
    PeriodTotal,
    Shocks,
    fit_correlation,
    fit_level,
    fit_spread,
)


def total(log_odds, arr, shift, rng, *, weight=1.0):
    """A period in which every account's log-odds were shifted."""
    probability = expit(log_odds[:, None] + SHIFTS)
    happened = rng.random(len(arr)) < expit(log_odds + shift)
    return PeriodTotal(float(arr[happened].sum()), arr @ probability, arr**2 @ (probability * (1 - probability)), weight)


def periods(shifts, rng, *, accounts=3000, **options):
    log_odds, arr = rng.normal(-3.2, 0.8, accounts), rng.lognormal(8, 1, accounts)
    return [total(log_odds, arr, shift, rng, **options) for shift in shifts]


def shocks(totals, **groups):
    return Shocks(dict.fromkeys(PARTS, fit_level(totals)), np.eye(3), groups)


@pytest.mark.parametrize(("level", "spread"), [(0.0, 0.0), (0.0, 0.4), (-0.4, 0.1), (0.3, 0.25)])
def test_level_and_spread_are_found_again(level, spread):
    rng = np.random.default_rng(1)
    found = fit_level(periods(level + spread * rng.standard_t(4, 60), rng))
    assert found.level == pytest.approx(level, abs=0.16)
    assert found.spread == pytest.approx(spread, abs=0.12)


def test_the_shifts_of_past_periods_are_found_again():
    rng = np.random.default_rng(0)
    true = np.array([-0.5, 0.0, 0.6, 0.1])
    found = fit_level(periods(true, rng, accounts=20_000)).shifts
    np.testing.assert_allclose(found, true, atol=0.15)


@pytest.mark.parametrize("known", [1, 5])
def test_intervals_of_the_next_period_cover_as_often_as_they_say(known):
    """Over worlds whose level and spread are as the priors expect, the next shift falls into an interval as often as that says."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(150):
        *past, coming = 0.2 * rng.standard_normal() + abs(0.2 * rng.standard_normal()) * rng.standard_t(4, known + 1)
        found = fit_level(periods(past, rng, accounts=1000))
        drawn = Shocks(dict.fromkeys(PARTS, found), np.eye(3), {}).draw_periods(rng, draws=400, periods=1)[0, :, 0]
        inside.append([np.quantile(drawn, low) <= coming <= np.quantile(drawn, 1 - low) for low in (0.1, 0.025)])
    covered = np.mean(inside, axis=0)
    assert covered == pytest.approx([0.8, 0.95], abs=0.07)


def test_without_evidence_the_priors_speak():
    found = fit_level([])
    assert found.level == pytest.approx(0.0)
    assert found.spread == pytest.approx(0.16, abs=0.02)  # the mean of the half-normal: 0.2 * sqrt(2 / pi)


def test_a_period_of_no_weight_tells_nothing():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(fit_level(periods([1.0], rng, weight=0.0)).probability, fit_level([]).probability)


def test_more_evidence_narrows_and_surprises_widen():
    rng = np.random.default_rng(0)
    calm = [shocks(periods(np.zeros(n), rng)).draw_periods(rng, draws=4000, periods=1)[0, :, 0].std() for n in (0, 3, 30)]
    assert calm[0] > calm[1] > calm[2]
    wild = shocks(periods([0.7, -0.6, 0.5], rng)).draw_periods(rng, draws=4000, periods=1)[0, :, 0].std()
    assert wild > 1.5 * calm[1]


def test_draws_share_level_and_spread_between_periods_but_not_the_shift():
    rng = np.random.default_rng(0)
    drawn = shocks(periods([0.4, -0.4], rng)).draw_periods(rng, draws=20_000, periods=4)[:, :, 0]
    between = np.corrcoef(drawn)[0, 1:]
    assert (between > 0.1).all()
    assert (between < 0.9).all()


def test_a_period_unlike_any_other_does_not_rule_the_rest():
    rng = np.random.default_rng(0)
    calm = fit_level(periods(np.zeros(8), rng))
    broken = fit_level([*periods(np.zeros(8), rng), *periods([-2.0], rng)])
    assert broken.spread < calm.spread + 0.2
    assert abs(broken.level) < 0.1


def test_shocks_last_as_long_as_is_said():
    rng = np.random.default_rng(0)
    sure = fit_level(periods(0.4 * rng.standard_normal(60), rng))
    drawn = {
        persistence: Shocks(dict.fromkeys(PARTS, sure), np.eye(3), {}, persistence).draw_periods(rng, draws=20_000, periods=3)[:, :, 0]
        for persistence in (0.0, 0.9)
    }
    assert np.corrcoef(drawn[0.0])[0, 1] < 0.15
    assert 0.5 < np.corrcoef(drawn[0.9])[0, 1] < 0.95
    np.testing.assert_allclose(drawn[0.9].std(axis=1), drawn[0.0].std(axis=1), rtol=0.15)


def outcomes(spread, *, groups=20, members=150, quarters=6, seed=0):
    rng = np.random.default_rng(seed)
    cell = np.repeat(np.arange(groups * quarters), members)
    period = np.repeat(np.arange(quarters), groups)
    log_odds = rng.normal(-2.5, 0.7, len(cell))
    shift = (0.3 * rng.standard_normal(quarters))[period] + spread * rng.standard_t(4, groups * quarters)
    happened = (rng.random(len(cell)) < expit(log_odds + shift[cell])).astype(float)
    return GroupOutcomes(log_odds, happened, cell, period, np.ones(quarters))


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.5])
def test_the_spread_of_groups_is_found_again(spread):
    assert fit_spread(outcomes(spread)).spread == pytest.approx(spread, abs=0.09)


def test_groups_in_which_nothing_happened_are_no_evidence_of_spread():
    assert fit_spread(outcomes(0.0, groups=40, members=10)).spread < 0.3


def test_parts_that_move_together_are_drawn_together():
    rng = np.random.default_rng(0)
    shifts = 0.5 * rng.standard_normal(40)
    levels = [fit_level(periods(values, rng)) for values in (shifts, 0.5 * rng.standard_normal(40), -shifts)]
    correlation = fit_correlation(levels)
    assert correlation[0, 2] < -0.6
    assert abs(correlation[0, 1]) < 0.35
    drawn = Shocks(dict(zip(PARTS, levels, strict=True)), correlation, {}).draw_periods(rng, draws=20_000, periods=1)[0]
    assert np.corrcoef(drawn.T)[0, 2] < -0.5


def test_a_correlation_of_two_periods_is_hardly_believed():
    rng = np.random.default_rng(0)
    levels = [fit_level(periods(values, rng)) for values in ([0.5, -0.5], [0.5, -0.5], [-0.5, 0.5])]
    assert np.abs(fit_correlation(levels) - np.eye(3)).max() < 0.25
    np.testing.assert_array_equal(fit_correlation([fit_level([])] * 3), np.eye(3))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2)), min_size=2, max_size=12))
def test_a_correlation_can_always_be_drawn_from(rows):
    shifts = np.array(rows)
    levels = [fit_level([]) for _ in PARTS]
    seen = [type(level)(level.probability, shifts[:, number], np.ones(len(shifts))) for number, level in enumerate(levels)]
    correlation = fit_correlation(seen)
    assert np.linalg.eigvalsh(correlation).min() > 0
    np.testing.assert_allclose(np.diag(correlation), 1.0)


def test_groups_are_drawn_with_their_parts_spreads():
    rng = np.random.default_rng(0)
    spreads = {part: fit_spread(outcomes(spread)) for part, spread in zip(PARTS, (0.0, 0.2, 0.5), strict=True)}
    drawn = shocks([], partner=spreads).draw_groups(rng, "partner", draws=2000, groups=15)
    assert drawn.shape == (2000, 15, 3)
    np.testing.assert_allclose(drawn.std(axis=(0, 1)), [np.sqrt(2) * spreads[part].spread for part in PARTS], rtol=0.25)


def test_the_same_seed_draws_the_same():
    one, other = (shocks([]).draw_periods(np.random.default_rng(5), draws=50, periods=2) for _ in range(2))
    np.testing.assert_array_equal(one, other)
