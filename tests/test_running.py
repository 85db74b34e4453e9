"""Running counts are what a slow count of all rows that had come gives, in whatever order rows come."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.clock import MICROSECONDS_PER_DAY
from features.running import Extremes, Running, held_at_once

SIZE = 3
CUTOFFS = [n * MICROSECONDS_PER_DAY for n in (100, 107, 130, 131, 400)]
SPANS = {(0, 28), (7, 14), (28, 56), (0, 7)}
HOURS = st.integers(1, 420 * 24)


@st.composite
def books(draw):
    """Draw rows: (time, place, weight, number of the cutoff at which it is first seen)."""
    rows = []
    for hour, place, weight, late in draw(st.lists(st.tuples(HOURS, st.integers(0, SIZE - 1), st.integers(0, 5), st.integers(0, 3)))):
        time = hour * MICROSECONDS_PER_DAY // 24
        seen = sum(cutoff < time for cutoff in CUTOFFS) + late
        rows.append((time, place, float(weight), seen))
    return rows


def in_chunks(rows, number, *, sparse):
    """Return the rows first seen at a cutoff as chunks in ascending order of time."""
    came = sorted(row for row in rows if row[3] == number)
    chunks = [came[::2], came[1::2]] if sparse else [came]
    for chunk in chunks:
        if chunk:
            times, places, weights, _ = (np.array(column) for column in zip(*chunk, strict=True))
            yield times.astype(np.int64), places.astype(np.int64), weights.astype(np.float64)


@settings(deadline=None)
@given(rows=books(), ever=st.booleans(), sparse=st.booleans(), spare=st.sampled_from((0, 1000)))
def test_counts_are_those_of_all_rows_that_had_come(rows, ever, sparse, spare):
    spans = SPANS | ({(0, None), (28, None)} if ever else set())
    counts, weights = (Running(SIZE + spare, CUTOFFS, spans, kind) for kind in (np.int32, np.float64))
    for number, cutoff in enumerate(CUTOFFS):
        for times, places, amounts in in_chunks(rows, number, sparse=sparse):
            counts.add(times, places)
            weights.add(times, places, amounts)
        for youngest, oldest in spans:
            until = cutoff - youngest * MICROSECONDS_PER_DAY
            since = -np.inf if oldest is None else cutoff - oldest * MICROSECONDS_PER_DAY
            there = [row for row in rows if row[3] <= number and since < row[0] <= until]
            expected = [[row[2] for row in there if row[1] == place] for place in range(SIZE)]
            assert counts.between(cutoff, (youngest, oldest), np.arange(SIZE)).tolist() == [len(found) for found in expected]
            assert weights.between(cutoff, (youngest, oldest), np.arange(SIZE)).tolist() == [sum(found) for found in expected]
        counts.leave(cutoff)
        weights.leave(cutoff)
        assert len(counts._noted) < held_at_once(CUTOFFS, spans)


@settings(deadline=None)
@given(rows=books(), sparse=st.booleans())
def test_the_newest_and_oldest_are_those_of_all_rows_that_had_come(rows, sparse):
    found = Extremes(SIZE, with_oldest=True)
    for number, cutoff in enumerate(CUTOFFS):
        for times, places, _ in in_chunks(rows, number, sparse=sparse):
            found.add(times, places)
        for place in range(SIZE):
            times = [row[0] for row in rows if row[3] <= number and row[1] == place]
            assert bool(found.are_within(cutoff, (0, None))[place]) == bool(times)
            assert bool(found.are_within(cutoff, (0, 28))[place]) == any(time > cutoff - 28 * MICROSECONDS_PER_DAY for time in times)
            if times:
                assert (found.newest[place], found.oldest[place]) == (max(times), min(times))


def folded(rows):
    """Return one row for all of a day, place and cutoff at which they are first seen: its newest time, the number, and its oldest time."""
    found = {}
    for time, place, _, seen in rows:
        found.setdefault(((time - 1) // MICROSECONDS_PER_DAY, place, seen), []).append(time)
    return [(max(times), place, len(times), min(times), seen) for (_, place, seen), times in found.items()]


@settings(deadline=None)
@given(rows=books(), spare=st.sampled_from((0, 1000)))
def test_a_row_that_stands_for_several_of_a_day_is_as_good_as_they_are(rows, spare):
    spans = SPANS | {(0, None)}
    single, several = (Running(SIZE + spare, CUTOFFS, spans, np.int32) for _ in range(2))
    times_of_single, times_of_several = (Extremes(SIZE, with_oldest=True) for _ in range(2))
    for number, cutoff in enumerate(CUTOFFS):
        for times, places, _ in in_chunks(rows, number, sparse=False):
            single.add(times, places)
            times_of_single.add(times, places)
        if came := sorted(row[:4] for row in folded(rows) if row[4] == number):
            times, places, weights, oldest = (np.array(column) for column in zip(*came, strict=True))
            several.add(times, places, weights.astype(np.int32))
            times_of_several.add(times, places, oldest)
        for span in spans:
            assert single.between(cutoff, span, np.arange(SIZE)).tolist() == several.between(cutoff, span, np.arange(SIZE)).tolist()
        assert times_of_single.newest.tolist() == times_of_several.newest.tolist()
        assert times_of_single.oldest.tolist() == times_of_several.oldest.tolist()


def test_a_book_of_months_holds_few_notes():
    months = [n * 30 * MICROSECONDS_PER_DAY for n in range(24)]
    assert held_at_once(months, {(0, days) for days in (28, 91, 182, 364)}) <= 26
    assert held_at_once(months[:1], {(0, 28), (28, 56)}) <= 4


@given(blocks=st.lists(st.dictionaries(st.integers(0, SIZE - 1), st.integers(-5, 5), min_size=1), max_size=4))
def test_times_may_come_in_any_order_where_each_place_is_there_once(blocks):
    found = Extremes(SIZE, with_oldest=True)
    for block in blocks:
        places, times = np.array(list(block)), np.array(list(block.values()), dtype=np.int64)
        found.add(times, places, times - 1)
    for place in {place for block in blocks for place in block}:
        times = [block[place] for block in blocks if place in block]
        assert (found.newest[place], found.oldest[place]) == (max(times), min(times) - 1)
