from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.past_book import make_history
from training.history import Groups, History, realised_ratio
from training.splits import LabelWindow


def monthly(months, **options):
    """Two accounts at the firsts of months; the second is not there in the third."""
    cutoffs = np.array([np.datetime64("2024-01-01", "us") + np.timedelta64(round(30.44 * month), "D") for month in range(months)])
    rows = [(month, account) for month in range(months) for account in range(2) if (month, account) != (2, 1)]
    period, account = np.array(rows).T
    n = len(rows)
    fields = {
        "cutoffs": cutoffs,
        "test": np.zeros(months, dtype=bool),
        "period": period,
        "account": account,
        "account_id": np.array(["a", "b"], dtype=object),
        "arr": np.ones(n),
        "log_odds": np.zeros((n, 3)),
        "outcome": np.zeros((n, 3)),
        "ratio": np.ones(n),
        "renewal_days": np.full(n, np.nan),
        "matrix": np.zeros((n, 1)),
        "categories": (),
        "groups": {},
        "window": LabelWindow(horizon_days=90, lead_days=0, grace_days=30),
    }
    return History(**fields | options)


def test_the_same_account_a_horizon_later():
    history = monthly(8)
    at = {(period, account): row for row, (period, account) in enumerate(zip(history.period, history.account, strict=True))}
    later = history.later(1)
    assert later[at[0, 0]] == at[3, 0]
    assert later[at[0, 1]] == at[3, 1]
    assert later[at[5, 0]] == -1  # nothing so late
    assert history.later(2)[at[1, 0]] == at[7, 0]
    lost = monthly(8, window=LabelWindow(horizon_days=61, lead_days=0, grace_days=0))
    assert lost.later(1)[at[0, 1]] == -1  # not there in the third month


def test_windows_of_a_quarter_on_monthly_cutoffs_overlap_threefold_and_four_make_a_year():
    history = monthly(8)
    assert (history.overlap, history.steps) == (3, 4)
    assert history.spacing_days == pytest.approx(30.5, abs=1)


@pytest.mark.parametrize(("horizon_days", "steps"), [(30, 12), (90, 4), (180, 2), (365, 1), (700, 1)])
def test_as_many_horizons_as_make_about_a_year(horizon_days, steps):
    assert monthly(3, window=LabelWindow(horizon_days=horizon_days, lead_days=0, grace_days=0)).steps == steps


def test_what_had_closed_by_a_cutoff():
    history = monthly(8)
    assert history.closed(5).tolist() == [True, True, False, False, False, False, False, False]  # 90 days and 30 of grace
    assert not history.closed(3).any()


def test_a_row_without_every_score_is_not_forecast_from():
    log_odds = np.zeros((15, 3))
    log_odds[0, 1] = np.nan
    log_odds[2:4] = np.nan
    history = monthly(8, log_odds=log_odds)
    assert history.rows(0).tolist() == [1]
    assert history.scored.tolist() == [True, False, *[True] * 6]


def test_a_book_of_one_cutoff():
    history = monthly(1)
    assert (history.overlap, history.spacing_days) == (1, 90.0)
    assert history.later(1).tolist() == [-1, -1]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), min_size=1, max_size=50))
def test_sums_of_groups_add_up(rows):
    code, values = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    groups = Groups(("a", "b", "c", "d", None), code)
    assert groups.sums(values).sum() == pytest.approx(values.sum(), abs=1e-3)
    np.testing.assert_allclose(groups.sums(np.column_stack([values, values]))[:, 1], groups.sums(values))


def test_groups_of_some_rows_are_those_that_occur():
    part = Groups(("a", "b", None), np.array([2, 0, 2, 1])).at(np.array([0, 1, 2]))
    assert part.names == ("a", None)
    assert part.code.tolist() == [1, 0, 1]


def test_no_label_has_no_ratio_and_a_gap_between_terms_is_no_change():
    ratio = realised_ratio(np.array([2.0, 2.0, 2.0, 2.0]), np.array([np.nan, 0.0, 0.0, 3.0]), np.array([np.nan, 0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(ratio, [np.nan, 1.0, 0.0, 1.5])


def test_ages_are_days_before_a_cutoff():
    history = make_history(quarters=3)
    assert history.age_days(2).tolist() == [180.0, 90.0, 0.0]
    assert replace(history, assumed=("churn",)).assumed == ("churn",)
