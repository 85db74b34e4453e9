from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.past_book import make_history
from training.coverage import weigh_periods
from training.forecast import FEW_ACCOUNTS, forecast_retention, measure, retention


@pytest.fixture(scope="module")
def history():
    return make_history(accounts=800, quarters=7, partners=6)


@pytest.fixture(scope="module")
def projection(history):
    evidence, _ = weigh_periods(history)
    return forecast_retention(history, 6, evidence, steps=(1, 4), draws=1000, seed=0)


def test_the_book_comes_first_and_groups_by_arr(projection):
    for days in (90, 360):
        outlooks = [outlook for outlook in projection.outlooks if outlook.days == days]
        assert outlooks[0].kind == "book"
        assert [outlook.kind for outlook in outlooks[1:]] == ["partner"] * 6 + ["segment"] * 2
        for kind in ("partner", "segment"):
            arr = [outlook.arr for outlook in outlooks if outlook.kind == kind]
            assert arr == sorted(arr, reverse=True)
    assert projection.days == (90, 360)


def test_the_parts_add_up_to_ndr_on_average_and_groups_to_the_book(projection):
    for outlook in projection.outlooks:
        moved = outlook.expanded.mean - outlook.contracted.mean - outlook.churned.mean
        assert outlook.ndr.mean == pytest.approx(1 + moved / outlook.arr)
        assert outlook.grr.mean == pytest.approx(1 - (outlook.contracted.mean + outlook.churned.mean) / outlook.arr)
        assert outlook.grr.high95 <= 1
        assert outlook.grr.mean <= outlook.ndr.mean
    for days in projection.days:
        book, *groups = [outlook for outlook in projection.outlooks if outlook.days == days]
        for kind in ("partner", "segment"):
            of_kind = [outlook for outlook in groups if outlook.kind == kind]
            for name in ("churned", "contracted", "expanded"):
                assert sum(getattr(outlook, name).mean for outlook in of_kind) == pytest.approx(getattr(book, name).mean)
            assert sum(outlook.accounts for outlook in of_kind) == book.accounts
            assert sum(outlook.arr for outlook in of_kind) == pytest.approx(book.arr)


def test_the_mean_is_near_what_the_chances_add_up_to(history, projection):
    rows = history.rows(6)
    chance = 1 / (1 + np.exp(-history.log_odds[rows]))
    expected = history.arr[rows] @ (-chance[:, 0] - 0.3 * chance[:, 1] + 0.35 * chance[:, 2]) / history.arr[rows].sum()
    book = projection.outlooks[0]
    assert book.ndr.mean == pytest.approx(1 + expected, abs=0.015)


def test_a_year_is_less_sure_than_a_quarter_and_a_group_less_than_the_book(projection):
    widths = {(outlook.kind, outlook.group, outlook.days): outlook.ndr.high80 - outlook.ndr.low80 for outlook in projection.outlooks}
    assert widths["book", None, 360] > widths["book", None, 90]
    assert min(width for (kind, _, days), width in widths.items() if (kind, days) == ("partner", 90)) > widths["book", None, 90]


def test_nothing_after_the_cutoff_is_used(history):
    """What happened from the fifth quarter on is changed in every way: a forecast from its beginning stays the same to the last bit."""
    later = history.period >= 4
    told = replace(
        history,
        outcome=np.where(later[:, None], 1 - history.outcome, history.outcome),
        ratio=np.where(later, 0.1, history.ratio),
        log_odds=np.where((history.period > 4)[:, None], 3.0, history.log_odds),
    )
    one, other = (
        forecast_retention(world, 4, weigh_periods(world)[0], steps=(1, 4), draws=200, seed=0).outlooks for world in (history, told)
    )
    assert one == other


def test_the_same_seed_gives_the_same_forecast(history, projection):
    again = forecast_retention(history, 6, weigh_periods(history)[0], steps=(1, 4), draws=1000, seed=0)
    assert again.outlooks == projection.outlooks


def test_groups_of_few_accounts_are_flagged(projection):
    book = projection.outlooks[0]
    assert not book.few
    assert replace(book, accounts=FEW_ACCOUNTS - 1).few


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50))
def test_intervals_are_in_order_and_hold_the_middle(values):
    found = measure(np.array(values))
    assert found.low95 <= found.low80 <= found.median <= found.high80 <= found.high95
    assert found.covers80(found.median)
    assert not found.covers95(found.high95 + 1)


@given(st.floats(1, 1e6), st.floats(0, 1), st.floats(0, 1), st.floats(0, 3))
def test_gross_is_never_above_net_or_one(arr, churned, contracted, expanded):
    parts = arr * np.array([churned / 2, contracted / 2, expanded])
    net, gross = retention(parts, np.array(arr))
    assert gross <= min(1.0, net)
