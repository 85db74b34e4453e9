from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.permissions.assignments import Assignments, Term

START = datetime(2025, 1, 1)
days = st.integers(0, 12).map(lambda day: START + timedelta(days=day))
IDS = ["a0", "a1", "a2", "a3"]


@st.composite
def terms(draw):
    """Draw terms that overlap, touch, repeat and stay open, of known accounts and of one that is not scored."""
    start, length = draw(days), draw(st.none() | st.integers(1, 6))
    end = None if length is None else start + timedelta(days=length)
    return Term(account_id=draw(st.sampled_from([*IDS, "gone"])), partner_id=draw(st.sampled_from("pqr")), valid_from=start, valid_to=end)


histories = st.lists(terms(), max_size=14)
instants = st.integers(-1, 20 * 24).map(lambda hour: START + timedelta(hours=hour))


def slow_partner_of(history, account_id, instant):
    """Go through all terms, as the definition says."""
    running = [
        term
        for term in history
        if term.account_id == account_id and term.valid_from <= instant and (term.valid_to is None or instant < term.valid_to)
    ]
    return max(running, key=lambda term: (term.valid_from, term.partner_id)).partner_id if running else None


@given(histories, st.lists(instants, min_size=1, max_size=6))
def test_the_timeline_says_what_going_through_all_terms_says(history, asked):
    assignments = Assignments.of(history, IDS)
    for instant in asked:
        expected = [slow_partner_of(history, account_id, instant) for account_id in IDS]
        assert [assignments.partner_of(row, instant) for row in range(len(IDS))] == expected
        assert assignments.partners(instant).tolist() == expected
        for partner in "pqr":
            assert assignments.rows_of(partner, instant).tolist() == [row for row in range(4) if expected[row] == partner]
        assert len(assignments.rows_of("nobody", instant)) == 0


@given(histories, instants)
def test_it_survives_its_file(history, instant):
    assignments = Assignments.of(history, IDS)
    again = Assignments.from_columns(assignments.columns(), len(IDS))
    assert again.partners(instant).tolist() == assignments.partners(instant).tolist()
    assert [again.partner_of(row, instant) for row in range(4)] == [assignments.partner_of(row, instant) for row in range(4)]


@given(histories, instants, instants)
def test_within_a_period_nothing_changes_hands(history, one, other):
    assignments = Assignments.of(history, IDS)
    if assignments.period(one) == assignments.period(other):
        assert assignments.partners(one).tolist() == assignments.partners(other).tolist()
    else:
        columns = assignments.columns()
        between = (np.datetime64(min(one, other)) < columns["changed_at"]) & (columns["changed_at"] <= np.datetime64(max(one, other)))
        assert between.any()


@given(histories)
def test_every_change_of_hands_is_one(history):
    columns = Assignments.of(history, IDS).columns()
    for row in range(len(IDS)):
        mine = columns["row"] == row
        assert (np.diff(columns["changed_at"][mine]) > np.timedelta64(0)).all()
        partners = [None, *columns["partner_id"][mine]]
        assert all(before != after for before, after in pairwise(partners))


def test_an_account_changes_hands_with_the_instant_and_not_a_microsecond_before():
    noon, tick = datetime(2025, 6, 1, 12), timedelta(microseconds=1)
    first = Term(account_id="a0", partner_id="p", valid_from=START, valid_to=noon)
    then = Term(account_id="a0", partner_id="q", valid_from=noon)
    assignments = Assignments.of([then, first], IDS)
    assert [assignments.partner_of(0, instant) for instant in (START - tick, START, noon - tick, noon)] == [None, "p", "p", "q"]
    assert assignments.rows_of("p", noon - tick).tolist() == [0]
    assert assignments.rows_of("p", noon).tolist() == []


def test_the_last_assigned_counts_and_hands_back_what_it_got():
    long = Term(account_id="a0", partner_id="p", valid_from=START)
    short = Term(account_id="a0", partner_id="q", valid_from=START + timedelta(days=2), valid_to=START + timedelta(days=4))
    assignments = Assignments.of([long, short], IDS)
    assert [assignments.partner_of(0, START + timedelta(days=day)) for day in range(6)] == ["p", "p", "q", "q", "p", "p"]


def test_without_any_assignment_nobody_manages_anything():
    assignments = Assignments.of([], IDS)
    assert assignments.partners(START).tolist() == [None] * 4
    assert assignments.partner_of(0, START) is None
