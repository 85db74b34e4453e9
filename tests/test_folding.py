from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import folding
from features.clock import MICROSECONDS_PER_DAY as DAY
from features.folding import extracts
from features.forms import CARRYING, FOLDED, WHOLE, MonthRows
from tests.numbered_books import make_all_forms

TIMES = st.integers(-3 * 8, 3 * 8).map(lambda eighth: eighth * DAY // 8)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "time": TIMES,
            "late": st.sampled_from([0, 0, 0, 0, 1, DAY // 8, DAY, -DAY]),
            "account": st.integers(0, 2),
            "event": st.integers(0, 2),
            "user_id": st.integers(-1, 2),
            "quantity": st.sampled_from([None, None, None, 0.5]),
        }
    ),
    min_size=1,
    max_size=40,
)


def blocks_of(rows, size):
    """Return the rows in the order of time, so many in a block."""
    rows = sorted(rows, key=lambda row: row["time"])
    found = []
    for first in range(0, len(rows), size):
        block = rows[first : first + size]
        columns = {name: np.array([row[name] for row in block], dtype=np.int32) for name in ("account", "event", "user_id")}
        columns["time"] = np.array([row["time"] for row in block], dtype=np.int64)
        columns["known"] = columns["time"] + np.array([row["late"] for row in block], dtype=np.int64)
        columns["quantity"] = np.array([np.nan if row["quantity"] is None else row["quantity"] for row in block])
        found.append(MonthRows(columns["time"], columns))
    return found


def day(time):
    return -(-time // DAY)


def unfolded(rows, by):
    """Return, by day on which rows happened, day from which they are known, and key: their number, the newest and the oldest."""
    found = defaultdict(list)
    for row in rows:
        known = max(day(row["time"]), day(row["time"] + row["late"]))
        found[day(row["time"]), known, *(row[name] for name in by)].append(row["time"])
    return {key: (len(times), max(times), min(times)) for key, times in found.items()}


def summed(blocks, by):
    """Do as `unfolded` for rows that stand for several."""
    found = {}
    for rows in blocks:
        for i, time in enumerate(rows.time.tolist()):
            known = max(day(time), day(int(rows.columns["known"][i])))
            key = (day(time), known, *(int(rows.columns[name][i]) for name in by))
            n, newest, oldest = found.get(key, (0, time, time))
            found[key] = n + int(rows.weights[i]), max(newest, time), min(oldest, int(rows.oldest[i]))
    return found


@given(rows=ROWS, size=st.integers(1, 50), at_once=st.integers(1, 50), by=st.sampled_from(list(FOLDED.values())))
def test_folded_rows_stand_for_the_rows_of_a_day_that_are_known_from_the_same_day(rows, size, at_once, by):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "_AT_ONCE", at_once)
        blocks = blocks_of(rows, size)
        sizes = folding._sizes(blocks)
        found = folding._folded(blocks, by, sizes)
        again = folding._folded(found, by[:1], sizes)
    assert summed(found, by) == unfolded(rows, by)
    assert summed(again, by[:1]) == unfolded(rows, by[:1]), "what was folded may be folded further"
    times = np.concatenate([part.time for part in found])
    assert np.all(np.diff(times) >= 0)


@pytest.mark.parametrize("folded", [True, False], ids=["from days", "from rows"])
@pytest.mark.parametrize("form", list(WHOLE))
@given(rows=ROWS, size=st.integers(1, 50), at_once=st.integers(1, 50))
def test_a_row_of_a_whole_piece_stands_for_all_of_its_rows(form, folded, rows, size, at_once):
    with pytest.MonkeyPatch.context() as patch:
        make_all_forms(patch)
        patch.setattr(folding, "_AT_ONCE", at_once)
        patch.setattr(folding, "FOLDED", FOLDED if folded else {})
        (found,) = extracts(blocks_of(rows, size), [], are_single=True)[form]
    times_of = defaultdict(list)
    for row in rows:
        times_of[tuple(row[name] for name in WHOLE[form])].append(row["time"])
    keys = zip(*(found.columns[name].tolist() for name in WHOLE[form]), strict=True)
    facts = zip(*(column.tolist() for column in (found.weights, found.time, found.oldest)), strict=True)
    assert dict(zip(keys, facts, strict=True)) == {key: (len(times), max(times), min(times)) for key, times in times_of.items()}
    if form == "kinds":
        assert np.all(np.diff(found.columns["account"]) >= 0)


def test_users_of_an_account_lie_together_in_the_form_of_a_whole_piece():
    row = {"late": 0, "event": 0, "quantity": None}
    rows = [row | {"time": time, "account": time % 3, "user_id": time % 12} for time in range(1, 100)]
    with pytest.MonkeyPatch.context() as patch:
        make_all_forms(patch)
        (found,) = extracts(blocks_of(rows, 7), [], are_single=True)["users"]
    assert (found.columns["user_id"] % 3).tolist() == [0] * 4 + [1] * 4 + [2] * 4


@given(rows=ROWS, size=st.integers(1, 50))
def test_rows_that_carry_an_amount_are_all_there(rows, size):
    with pytest.MonkeyPatch.context() as patch:
        make_all_forms(patch)
        found = extracts(blocks_of(rows, size), ["quantity"], are_single=False)
    assert found.keys() == {CARRYING["quantity"]}
    carrying = [(i, q) for part in found[CARRYING["quantity"]] for i, q in zip(part.time.tolist(), part.columns["quantity"], strict=True)]
    assert sorted(carrying) == sorted((row["time"], row["quantity"]) for row in rows if row["quantity"] is not None)


def test_a_form_is_there_only_where_it_is_much_shorter():
    row = {"time": DAY // 2, "late": 0, "account": 0, "event": 0, "user_id": 0, "quantity": None}
    many = [row | {"time": row["time"] + i} for i in range(9)]
    assert extracts(blocks_of(many, 4), [], are_single=True).keys() == FOLDED.keys()
    for_days = [row | {"time": (day * 9 + i) * DAY // 9 + 1} for day in range(9) for i in range(9)]
    assert extracts(blocks_of(for_days, 81), [], are_single=True).keys() == {*FOLDED, *WHOLE}
    assert not extracts(blocks_of(many, 4), [], are_single=False)
    apart = [row | {"account": i, "user_id": i} for i in range(9)]
    assert not extracts(blocks_of(apart, 4), [], are_single=True)
    of_one_user = [row | {"account": i} for i in range(9)]
    assert extracts(blocks_of(of_one_user, 4), [], are_single=True).keys() == {"days-of-users"}
    many_accounts = [row | {"account": 99 * i} for i in (0, 1)] * 9
    assert extracts(blocks_of(many_accounts, 4), [], are_single=True).keys() == {"days-of-users"}, "a place for each would not pay"
