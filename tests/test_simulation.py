import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import simulation
from training.change import ChangeModel
from training.history import Groups
from training.shocks import PARTS, GroupOutcomes, LevelPosterior, Shocks, SpreadPosterior, fit_level, fit_spread
from training.simulation import BOOK, Changes, Prospects, simulate_cohort

SHRINK, GROW, DRIFT = (0.6, 0.8), (1.2, 1.5), (1.0, 1.0, 1.03)


def calm():
    """No shock at all: a level of zero and the smallest spread there is."""
    free = fit_level([]).probability
    level = np.zeros_like(free)
    level[free.shape[0] // 2, 0] = 1.0
    return Shocks(dict.fromkeys(PARTS, LevelPosterior(level, np.zeros(0), np.zeros(0))), np.eye(3), {})


def certain_spread(number):
    free = fit_spread(GroupOutcomes(np.zeros(0), np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.ones(0))).probability
    return SpreadPosterior((np.arange(len(free)) == number).astype(float))


def models(drift=DRIFT):
    return tuple(ChangeModel(atoms=(atoms,), tree="", rows=len(atoms)) for atoms in (SHRINK, GROW, drift))


def prospects(log_odds, arr, *, steps=1, groups=None, drift=DRIFT):
    n = len(arr)
    changes = Changes(models(drift), np.zeros((3, n), dtype=int))
    return Prospects(np.asarray(arr, float), np.repeat(np.asarray(log_odds, float)[None], steps, axis=0), [changes] * steps, groups or {})


def ndr(draws, arr):
    churned, contracted, expanded = np.moveaxis(draws.totals[BOOK][:, 0], -1, 0)
    return 1 + (expanded - contracted - churned) / np.sum(arr)


def twin(rng, log_odds, arr, steps):
    """One draw for one account, as slowly as the definitions are written."""
    paid = arr
    for _ in range(steps):
        churn, contraction, expansion = (1 / (1 + math.exp(-value)) for value in log_odds)
        uniform = rng.random()
        if uniform < churn:
            return 0.0
        if uniform < churn + contraction:
            paid *= rng.choice(SHRINK)
        elif uniform < churn + contraction + expansion:
            paid *= rng.choice(GROW)
        else:
            paid *= rng.choice(DRIFT)
    return paid


@pytest.mark.parametrize("steps", [1, 4])
def test_mean_and_variance_are_those_of_the_slow_twin(steps):
    log_odds, arr = [-1.5, -1.8, -1.0], 700.0
    rng = random.Random(0)
    slow = np.array([twin(rng, log_odds, arr, steps) for _ in range(40_000)])
    (drawn,) = simulate_cohort(prospects([log_odds], [arr], steps=steps), calm(), reports=(steps,), draws=40_000, seed=0)
    fast = arr * ndr(drawn, [arr])
    error = slow.std() / np.sqrt(len(slow))
    assert fast.mean() == pytest.approx(slow.mean(), abs=5 * error)
    assert fast.std() == pytest.approx(slow.std(), rel=0.03)
    assert (fast == 0).mean() == pytest.approx((slow == 0).mean(), abs=0.012)
    assert drawn.expected[0] @ [-1, -1, 1] + arr == pytest.approx(fast.mean())


cohorts = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=40, deadline=None)
@given(cohorts, st.integers(1, 30), st.integers(1, 3))
def test_in_every_draw_parts_and_groups_add_up(rng, n, steps):
    arr = rng.lognormal(5, 1, n)
    groups = {"partner": Groups(("p", "q", None), rng.integers(0, 3, n)), "segment": Groups(("s", "t"), rng.integers(0, 2, n))}
    spreads = {"partner": dict.fromkeys(PARTS, certain_spread(6))}
    shocks = Shocks(dict.fromkeys(PARTS, fit_level([])), np.eye(3), spreads, 0.5)
    world = prospects(rng.normal(-1, 2, (n, 3)), arr, steps=steps, groups=groups)
    for drawn in simulate_cohort(world, shocks, reports=tuple(range(1, steps + 1)), draws=20, seed=1):
        whole = drawn.totals[BOOK][:, 0]
        for kind in groups:
            np.testing.assert_allclose(drawn.totals[kind].sum(axis=1), whole, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(drawn.expected.sum(axis=0), whole.mean(axis=0), rtol=1e-9, atol=1e-9)
        churned, contracted, expanded = whole.T
        assert (whole >= 0).all()
        gross = 1 - (contracted + churned) / arr.sum()
        assert (gross <= 1 + 1e-12).all()
        assert (gross <= 1 + (expanded - contracted - churned) / arr.sum() + 1e-12).all()
        assert (churned <= arr.sum() * (1 + 1e-12)).all()


@given(st.lists(st.sampled_from(range(4)), min_size=1, max_size=20))
def test_what_is_certain_comes_exactly(kinds):
    never, always = -np.inf, np.inf
    log_odds = np.array([[always if kind == part else never for part in range(3)] for kind in kinds])
    arr = np.arange(1.0, len(kinds) + 1)
    world = prospects(log_odds, arr, drift=(1.0,))
    fixed = Changes(tuple(ChangeModel(atoms=((ratio,),), tree="", rows=1) for ratio in (0.5, 2.0, 1.0)), np.zeros((3, len(kinds)), int))
    (drawn,) = simulate_cohort(Prospects(world.arr, world.log_odds, [fixed], {}), calm(), reports=(1,), draws=5, seed=0)
    expected = [arr[np.array(kinds) == 0].sum(), arr[np.array(kinds) == 1].sum() / 2, arr[np.array(kinds) == 2].sum()]
    np.testing.assert_array_equal(drawn.totals[BOOK][:, 0], np.tile(expected, (5, 1)))


def test_who_has_left_stays_away():
    (first, last) = simulate_cohort(prospects([[0.0, -np.inf, -np.inf]], [1.0], steps=3), calm(), reports=(1, 3), draws=4000, seed=0)
    assert (last.totals[BOOK][first.totals[BOOK][:, 0, 0] == 1, 0, 0] == 1).all()
    assert last.totals[BOOK][:, 0, 0].mean() == pytest.approx(1 - 0.5**3, abs=0.03)


def test_shared_shocks_widen_the_book_and_hardly_one_account():
    n = 3000
    log_odds, arr = np.tile([-3.0, -4.0, -4.0], (n, 1)), np.ones(n)
    shocks = Shocks(dict.fromkeys(PARTS, fit_level([])), np.eye(3), {})
    book = [ndr(simulate_cohort(prospects(log_odds, arr), s, reports=(1,), draws=1500, seed=0)[0], arr).std() for s in (calm(), shocks)]
    assert book[1] > 2 * book[0]
    one = [
        ndr(simulate_cohort(prospects(log_odds[:1], [1.0]), s, reports=(1,), draws=20_000, seed=0)[0], [1.0]).std()
        for s in (calm(), shocks)
    ]
    assert one[1] == pytest.approx(one[0], rel=0.15)


def test_a_groups_shock_moves_its_members_together():
    groups = {"partner": Groups(("p", "q"), np.repeat([0, 1], 1000))}
    shocks = Shocks(calm().levels, np.eye(3), {"partner": dict.fromkeys(PARTS, certain_spread(10))})
    log_odds, arr = np.tile([-2.0, -np.inf, -np.inf], (2000, 1)), np.ones(2000)
    (drawn,) = simulate_cohort(prospects(log_odds, arr, groups=groups), shocks, reports=(1,), draws=1000, seed=0)
    churned = drawn.totals["partner"][:, :, 0]
    assert churned.std(axis=0).min() > 3 * np.sqrt(1000 * 0.12 * 0.88)
    assert abs(np.corrcoef(churned.T)[0, 1]) < 0.15


def test_memory_is_bounded_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    log_odds, arr = rng.normal(-2, 0.5, (300, 3)), rng.lognormal(5, 1, 300)
    whole = simulate_cohort(prospects(log_odds, arr), calm(), reports=(1,), draws=2000, seed=0)[0]
    monkeypatch.setattr(simulation, "_BLOCK", 20_000)
    parts = simulate_cohort(prospects(log_odds, arr), calm(), reports=(1,), draws=2000, seed=0)[0]
    assert ndr(whole, arr).mean() == pytest.approx(ndr(parts, arr).mean(), abs=4 * ndr(whole, arr).std() / np.sqrt(2000))
    assert ndr(whole, arr).std() == pytest.approx(ndr(parts, arr).std(), rel=0.1)


def test_the_same_seed_draws_the_same_and_another_others():
    world = prospects(np.full((50, 3), -1.0), np.ones(50))
    one, again, other = (simulate_cohort(world, calm(), reports=(1,), draws=10, seed=seed)[0].totals[BOOK] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_chances_that_add_up_to_more_than_one_are_shared_out():
    (drawn,) = simulate_cohort(prospects([[5.0, 5.0, 5.0]], [1.0]), calm(), reports=(1,), draws=6000, seed=0)
    churned, contracted, expanded = (drawn.totals[BOOK][:, 0] > 0).mean(axis=0)
    assert (churned, contracted, expanded) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.03)
