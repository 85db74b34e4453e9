from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from tests.past_book import CHANGES, make_history
from training.evidence import changes_of, fit_changes, fit_shocks, weigh_evidence
from training.history import Groups
from training.shocks import PARTS, SHIFTS

NONE = int(np.argmin(np.abs(SHIFTS)))


@pytest.fixture(scope="module")
def history():
    return make_history()


def gathered(history, until):
    return {period: weigh_evidence(history, period, fit_changes(history, period, step=0)) for period in range(1, until)}


def test_sizes_of_changes_are_those_that_were_seen(history):
    contraction, expansion, neither = fit_changes(history, 6, step=0)
    for model, seen in zip((contraction, expansion), CHANGES, strict=True):
        assert np.isin(model.atoms[0], seen).mean() > 0.99  # but for the one share that holds both
    assert set(neither.atoms[0]) == {1.0}


def test_sizes_are_those_of_the_last_closed_year(history):
    counted = [np.isin(history.period, range(2, 6)) & (history.outcome[:, part] == 1) for part in (1, 2)]
    contraction, expansion, _ = fit_changes(history, 6, step=0)
    assert [contraction.rows, expansion.rows] == [rows.sum() for rows in counted]


@pytest.mark.parametrize("step", [0, 2])
def test_nothing_is_learnt_from_what_had_not_closed(history, step):
    later = history.period >= 5
    ratio = np.where(later & (history.ratio > 0), history.ratio * 3, history.ratio)
    told = replace(history, ratio=ratio, outcome=np.where(later[:, None], np.roll(history.outcome, 1, axis=0), history.outcome))
    for one, other in zip(fit_changes(history, 5, step=step), fit_changes(told, 5, step=step), strict=True):
        assert one.to_json() == other.to_json()
    assert fit_changes(history, 6, step=0)[1].to_json() != fit_changes(told, 6, step=0)[1].to_json()


def test_sizes_in_a_later_step_are_learnt_from_what_was_known_before():
    """Who renews in the second quarter from now is charged 10 % more then: known today from the days to renewal, and from nothing else."""
    history = make_history(accounts=800, quarters=8)
    renews = (history.period + history.account) % 4
    ratio = np.where((renews == 0) & (history.outcome.sum(axis=1) == 0), 1.1, history.ratio)
    known = replace(history, ratio=ratio, matrix=np.column_stack([90.0 * ((4 - renews) % 4), history.matrix[:, 1]]))
    rows = known.rows(7)
    for step in (0, 1):
        neither = fit_changes(known, 7, step=step)[2]
        expected = np.where((renews[rows] + step) % 4 == 0, 1.1, 1.0)
        np.testing.assert_allclose(neither.mean(known.matrix[rows]), expected, atol=0.01)


def test_an_outcome_that_was_never_seen_changes_nothing(history):
    never = history.outcome * np.array([1, 0, 1])
    models = fit_changes(replace(history, outcome=never), 6, step=0)
    assert models[0].atoms == ((1.0,),)
    assert models[0].rows == 0


def test_who_did_both_goes_by_the_arr(history):
    both = history.outcome.copy()
    both[(both[:, 1] == 1) | (both[:, 2] == 1), 1:] = 1.0
    contraction, expansion, _ = fit_changes(replace(history, outcome=both), 6, step=0)
    assert max(contraction.atoms[0]) < 1 < min(expansion.atoms[0])


def test_expected_totals_are_those_of_drawing_each_account(history):
    models = fit_changes(history, 4, step=0)
    evidence = weigh_evidence(history, 4, models)
    rows = evidence.rows
    chance, arr = expit(history.log_odds[rows]), history.arr[rows]
    fallen, risen = 1 - np.mean(CHANGES[0]), np.mean(CHANGES[1]) - 1
    means = [arr @ chance[:, 0], arr @ chance[:, 1] * fallen, arr @ chance[:, 2] * risen]
    squares = [1.0, np.mean((1 - np.array(CHANGES[0])) ** 2), np.mean((np.array(CHANGES[1]) - 1) ** 2)]
    sizes = [1.0, fallen, risen]
    for part, total in enumerate(evidence.totals):
        assert total.mean[NONE] == pytest.approx(means[part], rel=0.05)
        variance = np.sum(arr**2 * (chance[:, part] * squares[part] - (chance[:, part] * sizes[part]) ** 2))
        assert total.variance[NONE] == pytest.approx(variance, rel=0.1)
        assert (np.diff(total.mean) > 0).all()


def test_actual_totals_are_what_came(history):
    evidence = weigh_evidence(history, 4, fit_changes(history, 4, step=0))
    rows = np.flatnonzero(history.period == 4)
    arr, end = history.arr[rows], history.arr[rows] * history.ratio[rows]
    expected = [arr[end == 0].sum(), np.maximum(arr - end, 0)[end > 0].sum(), np.maximum(end - arr, 0).sum()]
    assert [total.actual for total in evidence.totals] == pytest.approx(expected)


def test_a_world_without_shocks_shows_small_ones_and_a_shocked_one_large_ones():
    calm, shocked = (make_history(accounts=2000, quarters=10, spread=spread, seed=2) for spread in (0.0, 0.6))
    spreads = [fit_shocks(world, gathered(world, 9), 9).levels["expansion"].spread for world in (calm, shocked)]
    assert spreads[0] < 0.14
    assert spreads[1] > 0.2


def test_only_closed_periods_speak_and_recent_ones_more(history):
    evidence = gathered(history, 7)
    shocks = fit_shocks(history, evidence, 4)
    assert shocks.levels["churn"].weight.tolist() == pytest.approx([0.25**0.5, 0.5**0.5, 1.0])  # half after 180 days
    assert fit_shocks(history, {}, 4).levels["churn"].shifts.size == 0


def test_periods_that_overlap_count_by_their_own_share(history):
    evidence = gathered(history, 7)
    wider = replace(history, window=replace(history.window, horizon_days=180))
    assert wider.overlap == 2
    assert fit_shocks(wider, evidence, 6).levels["churn"].weight.max() == pytest.approx(0.5)


def test_groups_that_differ_are_found():
    history = make_history(accounts=2000, quarters=6, partners=20)
    rng = np.random.default_rng(0)
    worse = 0.8 * rng.standard_normal(20)[history.groups["partner"].code]
    apart = replace(history, log_odds=history.log_odds - worse[:, None])
    spreads = [fit_shocks(world, gathered(world, 5), 5).groups["partner"]["churn"].spread for world in (history, apart)]
    assert spreads[0] < 0.2 < 0.35 < spreads[1]


def test_shocks_are_had_for_every_part_and_kind_of_group(history):
    shocks = fit_shocks(
        replace(history, groups={"segment": Groups(("one",), np.zeros(len(history.arr), dtype=int))}), gathered(history, 7), 7
    )
    assert set(shocks.levels) == set(PARTS)
    assert {kind: set(parts) for kind, parts in shocks.groups.items()} == {"segment": set(PARTS)}
    assert shocks.persistence == pytest.approx(0.5)


def test_leaves_of_rows_are_looked_up_once_for_each_outcome(history):
    rows = history.rows(6)
    assert changes_of(history, fit_changes(history, 6, step=0), rows).leaf.shape == (3, len(rows))
