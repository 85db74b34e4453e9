from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.past_book import make_history
from training.coverage import Rank, backtest_forecasts, measure_coverage, weigh_periods, what_happened


def backtest(history, *, draws=300):
    evidence, models = weigh_periods(history)
    return backtest_forecasts(history, evidence, models, draws=draws, seed=0)


@pytest.fixture(scope="module")
def past():
    """Forecasts from the past of nine worlds, each with shocks of its own."""
    worlds = [make_history(accounts=400, quarters=10, spread=0.25, partners=4, seed=seed) for seed in range(9)]
    return [one for world in worlds for one in backtest(world)]


def test_intervals_hold_as_often_as_they_say(past):
    for found in measure_coverage(past):
        if found.days == 90:
            chance = 0.15 if found.kind == "book" else 0.1
            assert (found.ndr80, found.grr80) == pytest.approx((0.8, 0.8), abs=chance)
        assert found.ndr95 >= 0.88
        assert found.grr95 >= 0.88


def test_shares_below_what_came_are_spread_evenly(past):
    below = np.array([one.ndr_rank.below + one.ndr_rank.equal / 2 for one in past if one.outlook.days == 90])
    counts, _ = np.histogram(below, bins=5, range=(0, 1))
    assert counts.min() > 0.6 * len(below) / 5


def test_without_shocks_in_the_forecast_the_intervals_would_not_hold(monkeypatch):
    """What the shocks are for: a book's intervals from independent draws alone are too narrow by far."""
    worlds = [make_history(accounts=1500, quarters=6, spread=0.8, seed=seed) for seed in range(5)]
    honest = [one for world in worlds for one in backtest(world, draws=150) if one.outlook.kind == "book"]
    monkeypatch.setattr("training.shocks.Shocks.draw_periods", lambda self, rng, draws, periods: np.zeros((periods, draws, 3)))
    naive = [one for world in worlds for one in backtest(world, draws=150) if one.outlook.kind == "book"]
    covered = [np.mean([one.grr_rank.inside(0.8) for one in found if one.outlook.days == 90]) for found in (honest, naive)]
    assert covered[0] > covered[1] + 0.2
    assert covered[1] < 0.65


def test_forecasts_are_made_from_the_test_period_where_the_end_is_known():
    history = make_history(quarters=10)
    found = {(one.cutoff, one.outlook.days) for one in backtest(history, draws=50) if one.outlook.kind == "book"}
    cutoffs = [cutoff.item() for cutoff in history.cutoffs]
    assert {cutoff for cutoff, days in found if days == 90} == set(cutoffs[5:9])
    assert {cutoff for cutoff, days in found if days == 360} == {cutoffs[5]}


def test_what_happened_in_a_year_is_what_four_quarters_made_of_it():
    history = make_history(quarters=6)
    rows = history.rows(1)
    paid = dict(zip(history.account[rows].tolist(), history.arr[rows].tolist(), strict=True))
    for quarter in range(1, 5):
        at = history.period == quarter
        moved = dict(zip(history.account[at].tolist(), (history.arr[at] * history.ratio[at]).tolist(), strict=True))
        paid = {account: moved.get(account, 0.0) for account in paid}
    end = np.array(list(paid.values()))
    parts = what_happened(history, 1, 4)
    assert parts is not None
    np.testing.assert_allclose(history.arr[rows] - parts[:, 0] - parts[:, 1] + parts[:, 2], end)
    assert (parts >= 0).all()
    assert (((parts[:, 0] > 0).astype(int) + (parts[:, 1] > 0) + (parts[:, 2] > 0)) <= 1).all()


def test_what_has_not_happened_yet_is_not_known():
    history = make_history(quarters=6)
    assert what_happened(history, 5, 1) is None
    assert what_happened(history, 3, 4) is None


def test_what_came_is_the_sum_of_groups(past):
    one = next(found for found in past if found.outlook.kind == "book")
    same = [found for found in past if (found.cutoff, found.outlook.days) == (one.cutoff, one.outlook.days)][:7]
    partners = [found for found in same if found.outlook.kind == "partner"]
    assert sum(found.ndr * found.outlook.arr for found in partners) == pytest.approx(one.ndr * one.outlook.arr)


@given(draws=st.lists(st.integers(0, 6), min_size=1, max_size=60), level=st.sampled_from([0.8, 0.95]))
def test_outcomes_drawn_from_the_forecast_itself_are_held_as_often_as_it_says(draws, level):
    """However few different outcomes there are, and only because ties count in part."""
    values = np.array(draws)
    ranks = [Rank(below=float((values < one).mean()), equal=float((values == one).mean())) for one in values]
    assert np.mean([rank.inside(level) for rank in ranks]) == pytest.approx(level, abs=1e-9)


def test_an_outcome_that_no_draw_ties_with_is_inside_or_not():
    assert [Rank(below=below, equal=0.0).inside(0.8) for below in (0.0, 0.09, 0.1, 0.5, 0.9, 0.91, 1.0)] == [0, 0, 1, 1, 1, 0, 0]


def test_small_groups_are_not_counted(past):
    whole = {(one.kind, one.days): one.forecasts for one in measure_coverage(past)}
    tiny = [replace(one, outlook=replace(one.outlook, accounts=3)) if one.outlook.kind == "segment" else one for one in past]
    kept = {(one.kind, one.days): one.forecasts for one in measure_coverage(tiny)}
    assert kept == {key: count for key, count in whole.items() if key[0] != "segment"}
    assert measure_coverage([]) == ()


def test_a_past_without_closed_scores_has_no_evidence():
    history = make_history(quarters=3)
    unscored = replace(history, log_odds=np.where((history.period < 2)[:, None], np.nan, history.log_odds))
    evidence, models = weigh_periods(unscored)
    assert (evidence, list(models)) == ({}, [2])
    assert backtest_forecasts(unscored, evidence, models, draws=10, seed=0) == ()
