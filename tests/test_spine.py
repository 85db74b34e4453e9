from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.config import Cutoffs
from features.engine import Engine
from features.errors import NotEnoughDataError
from features.spine import EARLIER_DAYS, earlier_rows, every_pair, existing, renewal_pairs, scoring_cutoff, shared_cutoffs
from tests.random_worlds import as_arrow, as_spine

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

FROM, UNTIL = datetime(2024, 1, 10, 5), datetime(2024, 6, 15, 12)


def day(n):
    return datetime(2024, 1, 1) + timedelta(days=n)


@pytest.mark.parametrize(
    ("cutoffs", "expected"),
    [
        pytest.param(
            Cutoffs(every="month"), [datetime(2024, month, 1) for month in (3, 4, 5, 6)], id="months, a lookback after the first event"
        ),
        pytest.param(
            Cutoffs(every="month", first=datetime(2024, 5, 1)), [datetime(2024, 5, 1), datetime(2024, 6, 1)], id="from a month on"
        ),
        pytest.param(Cutoffs(every="month", last=datetime(2024, 4, 1)), [datetime(2024, 3, 1), datetime(2024, 4, 1)], id="up to a month"),
        pytest.param(
            Cutoffs(every="month", first=datetime(2024, 6, 1), last=datetime(2030, 1, 1)),
            [datetime(2024, 6, 1)],
            id="never beyond the data",
        ),
        pytest.param(
            Cutoffs(every="week", first=datetime(2024, 5, 30)),
            [datetime(2024, 5, 30), datetime(2024, 6, 6), datetime(2024, 6, 13)],
            id="weeks",
        ),
        pytest.param(
            Cutoffs(every=30, first=datetime(2024, 5, 1, 9)),
            [datetime(2024, 5, 2), datetime(2024, 6, 1)],
            id="days, never before the first",
        ),
        pytest.param(Cutoffs(every=365), [datetime(2024, 2, 7)], id="one only"),
    ],
)
def test_shared_cutoffs(cutoffs, expected):
    assert shared_cutoffs(cutoffs, FROM, UNTIL) == expected


def test_no_cutoff_within_the_data():
    with pytest.raises(
        NotEnoughDataError, match=r"no cutoff lies within the data\n.*cutoffs from 2024-02-07 to 2024-02-01, data from 2024-01-10"
    ) as error:
        shared_cutoffs(Cutoffs(every="month"), FROM, datetime(2024, 2, 1))
    assert "Give more history" in str(error.value)


def test_accounts_are_scored_at_the_last_midnight():
    assert scoring_cutoff(UNTIL) == datetime(2024, 6, 15)
    assert scoring_cutoff(datetime(2024, 6, 15)) == datetime(2024, 6, 15)


def test_every_pair_goes_cutoff_by_cutoff():
    spine = every_pair(pa.array(["a", "b"]), [day(0), day(31)])
    assert spine.account_id.to_pylist() == ["a", "b", "a", "b"]
    assert spine.cutoff.to_pylist() == [day(0), day(0), day(31), day(31)]


def test_accounts_exist_from_their_creation_on():
    spine = as_spine([("a", day(0)), ("a", day(1)), ("b", day(0)), ("c", day(0))])
    accounts = pa.table({"account_id": ["c", "a", "b"], "created_at": pa.array([day(1), day(1), None], pa.timestamp("us"))})
    assert existing(spine, accounts).tolist() == [False, True, True, False]
    assert existing(spine, accounts.drop("created_at")).tolist() == [True] * 4


def term(start, end, account="a", **columns):
    found = {
        "account_id": account,
        "subscription_id": "s",
        "start_date": day(start),
        "end_date": end if end is None else day(end),
        "arr": 1.0,
    }
    return found | columns


def pairs_of(*terms, before=90, until=None):
    with Engine(threads=1) as engine:
        table = engine.hold(as_arrow({"subscriptions": list(terms)}, "subscriptions"), name="terms")
        spine = renewal_pairs(engine, table, before, until or day(2000))
    return [
        (account, (cutoff - day(0)) / timedelta(days=1))
        for account, cutoff in zip(*(c.to_pylist() for c in (spine.account_id, spine.cutoff)), strict=True)
    ]


def test_accounts_are_looked_at_before_their_renewals_in_the_order_of_time():
    terms = (term(0, 365), term(365, 730), term(-10, 300, "b"), term(-10, 300, "b", subscription_id="t"), term(0, None, "c"))
    assert pairs_of(*terms) == [("b", 210), ("a", 275), ("a", 640)]
    assert pairs_of(*terms, until=day(275)) == [("b", 210), ("a", 275)]
    assert pairs_of(*terms, before=0) == [("b", 300), ("a", 365), ("a", 730)]


def test_cutoffs_before_renewals_lie_at_midnight():
    noon = term(0, 0) | {"end_date": day(365) + timedelta(hours=12)}
    assert pairs_of(noon) == [("a", 275)]


def test_nobody_is_looked_at_before_a_term_that_was_not_known_yet():
    """Monthly terms: a look 90 days before the last of them would tell that the two before were renewed."""
    monthly = [term(30 * i, 30 * i + 30) for i in range(12)]
    assert pairs_of(*monthly, before=28)[0] == ("a", 2)
    with pytest.raises(NotEnoughDataError, match="no renewal was known 90 days before it") as error:
        pairs_of(*monthly)
    assert "before_renewal_days" in str(error.value)
    assert pairs_of(term(0, 365, recorded_at=None), term(0, 300, "b", recorded_at=day(209)), term(0, 300, "c", recorded_at=day(211))) == [
        ("b", 210),
        ("a", 275),
    ]


def test_a_corrected_renewal_date_counts_from_its_correction_on():
    first = term(0, 365, recorded_at=day(0))
    assert pairs_of(first, term(0, 400, recorded_at=day(250))) == [("a", 310)]
    assert pairs_of(first, term(0, 400, recorded_at=day(280))) == [("a", 275), ("a", 310)]


def test_nobody_is_looked_at_before_a_renewal_that_can_no_longer_come():
    assert pairs_of(term(0, 365, ended_at=day(300)), term(0, 365, "b", ended_at=day(275)), term(0, 365, "c", ended_at=None)) == [
        ("a", 275),
        ("c", 275),
    ]


def test_a_spine_of_unequal_parts_is_refused():
    spine = as_spine([("a", day(0))])
    with pytest.raises(ValueError, match="1 accounts, 2 cutoffs"):
        type(spine)(spine.account_id, pa.array(np.array([day(0), day(1)], dtype="datetime64[us]")))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 220)), unique=True, max_size=25))
def test_the_present_is_held_against_the_row_nearest_to_a_quarter_before(pairs):
    end = day(220)
    spine = as_spine([(account, day(n)) for account, n in pairs] or [("a", day(1))])
    expected = []
    for account in {name for name, n in pairs if n == 220}:
        before = [(abs(220 - n - EARLIER_DAYS), n) for name, n in pairs if name == account and 28 <= 220 - n < 182]
        expected += [pairs.index((account, min(before)[1]))] if before else []
    assert earlier_rows(spine, end).tolist() == sorted(expected)
