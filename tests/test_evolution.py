from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from tests.past_book import make_history
from training.evolution import fit_evolution


@pytest.fixture(scope="module")
def history():
    """Scores that come back towards -3 by half in each quarter, with noise of their own."""
    plain = make_history(accounts=1500, quarters=8)
    rng = np.random.default_rng(0)
    state = rng.normal(-3, 1.2, (1500, 3))
    log_odds = np.empty_like(plain.log_odds)
    for quarter in range(8):
        rows = plain.period == quarter
        log_odds[rows] = state[plain.account[rows]]
        state = -1.5 + 0.5 * state + 0.3 * rng.standard_normal(state.shape)
    return replace(plain, log_odds=log_odds)


def everything(history):
    return np.ones(len(history.cutoffs), dtype=bool)


def test_today_is_taken_as_it_is(history):
    now = history.log_odds[:10]
    found = fit_evolution(history, steps=3, known=everything(history)).log_odds(now, np.full(10, np.nan))
    assert found.shape == (3, 10, 3)
    np.testing.assert_array_equal(found[0], now)


@pytest.mark.parametrize("step", [1, 2])
def test_later_chances_are_right_on_average_and_less_unusual(history, step):
    rows = np.flatnonzero((history.period == 3) & (history.later(step) >= 0))
    found = fit_evolution(history, steps=3, known=everything(history)).log_odds(history.log_odds[rows], history.renewal_days[rows])[step]
    actual = history.log_odds[history.later(step)[rows]]
    for part in range(3):
        for some in np.array_split(np.argsort(found[:, part]), 3):
            assert expit(found[some, part]).mean() == pytest.approx(expit(actual[some, part]).mean(), rel=0.1)
    assert found.std() == pytest.approx(0.5**step * history.log_odds[rows].std(), rel=0.25)


def test_what_is_not_known_yet_is_not_used(history):
    known = np.arange(8) <= 4
    later = np.where((history.period > 4)[:, None], 9.0, history.log_odds)
    one, other = (fit_evolution(world, steps=4, known=known) for world in (history, replace(history, log_odds=later)))
    np.testing.assert_array_equal(one.weights, other.weights)


def test_a_renewal_raises_the_chance_of_the_quarter_that_it_falls_into(history):
    quarter_of_renewal = (history.account - history.period) % 4  # 0: within the coming quarter
    log_odds = np.where((quarter_of_renewal == 0)[:, None], -1.0, -4.0) + 0.01 * history.log_odds
    world = replace(history, log_odds=log_odds, renewal_days=90.0 * quarter_of_renewal + 45)
    rows = world.rows(5)
    found = fit_evolution(world, steps=4, known=everything(world)).log_odds(log_odds[rows], world.renewal_days[rows])
    for step in range(1, 4):
        falls = quarter_of_renewal[rows] == step
        assert expit(found[step][falls, 0]).mean() == pytest.approx(expit(-1.03), rel=0.15)
        assert expit(found[step][quarter_of_renewal[rows] == 0, 0]).mean() < 0.06


def test_where_nothing_is_known_so_far_apart_the_step_before_stands_in(history):
    found = fit_evolution(history, steps=4, known=np.arange(8) >= 6)
    assert found.measured == (True, True, False, False)
    np.testing.assert_array_equal(found.weights[3], found.weights[1])
    nothing = fit_evolution(history, steps=4, known=np.zeros(8, dtype=bool))
    assert nothing.measured == (True, False, False, False)
    now = history.log_odds[:5]
    np.testing.assert_array_equal(nothing.log_odds(now, np.full(5, np.nan))[3], now)


def test_base_rates_stay_what_they_are(history):
    world = replace(history, log_odds=np.full_like(history.log_odds, -2.0))
    found = fit_evolution(world, steps=2, known=everything(world)).log_odds(np.full((4, 3), -2.0), np.full(4, np.nan))
    np.testing.assert_allclose(found, -2.0, atol=1e-3)
