"""Counts of days: telemetry summed up by day or week at one cutoff after the other, without a query.

An account has a place for each of the last days that a window holds; the place of a day that has left the window is used again. So each
row is added once for all cutoffs, and the days of a cutoff are those places in another order. It takes cutoffs at midnight, when windows
hold whole days.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import clock
from features.feature import Expression, Window
from features.forms import MonthRows
from features.running import Ages
from features.slices import KnownTables, Spine
from features.use_counts import Summed, are_cutoffs_of_their_own

__all__ = ["MOST_PLACES", "DayCounts", "DayRing", "DaySums"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_PLACES = 1 << 26
"""So many accounts and days, half a gigabyte for each column of them, are counted here; beyond, the engine does it and spills."""
_PLACES_AT_ONCE = 1 << 22
"""Accounts and days of which a table is made at once."""
_NEVER = np.iinfo(np.int64).min
_DAYS_PER_WEEK = 7


class DayRing:
    """Which place belongs to which day, for as many days up to a cutoff as a window holds.

    Parameters
    ----------
    days, lag_days
        Of the window.
    """

    def __init__(self, days: int, lag_days: int) -> None:
        self.days = days
        self._lag_days = lag_days
        self._last: int | None = None

    def turn(self, cutoff: int) -> Ints:
        """Go on to a cutoff, and return the places whose days have left the window; none at the first."""
        last = clock.day_of(clock.shifted(cutoff, -self._lag_days))
        n_new = 0 if self._last is None else min(self.days, last - self._last)
        self._last = last
        return self.places_of(np.arange(last - n_new + 1, last + 1))

    def places_of(self, days: Ints) -> Ints:
        """Return the places of days, given by their numbers."""
        return days % self.days

    def stretches(self, times: Ints) -> Iterator[tuple[int, slice]]:
        """Yield the place of each day with rows and the stretch of them, for times that are ascending."""
        bounds = clock.stretches_of_days(times)
        places = self.places_of(clock.day_number_of(times[bounds[:-1]]))
        for place, (start, stop) in zip(places.tolist(), pairwise(bounds.tolist()), strict=True):
            yield place, slice(start, stop)

    @property
    def first(self) -> int:
        """The number of the oldest day."""
        assert self._last is not None
        return self._last - self.days + 1

    @property
    def by_time(self) -> Ints:
        """The places from the oldest day to the newest, shape `(days,)`."""
        return self.places_of(self.first + np.arange(self.days))

    @property
    def ages(self) -> Ints:
        """The least age in days of each day from the oldest to the newest, shape `(days,)`."""
        return np.arange(self._lag_days + self.days - 1, self._lag_days - 1, -1)


@dataclass(frozen=True, eq=False)
class DayCounts:
    """Rows of telemetry for the shared cutoffs of a spine, summed up by day or week.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    known: KnownTables
    spine: Spine

    def answer(self, window: Window, expressions: Sequence[Expression]) -> bool:
        """Tell whether the rows of this window can be counted."""
        telemetry = self.known.countable(window.table)
        return (
            telemetry is not None
            and window.by in (("day",), ("week",))
            and window.each is None
            and window.days is not None
            and not telemetry.lacks_events
            and clock.is_midnight(self.known.cutoffs)
            and "oldest_age_days" not in Summed(window, expressions).names
            and self.known.n_accounts * window.days <= MOST_PLACES
            and are_cutoffs_of_their_own(self.known, self.spine)
        )

    def tables(self, window: Window, expressions: Sequence[Expression]) -> Iterator[pa.Table | None]:
        """Yield, cutoff by cutoff, tables of the columns of `features.slices.summed` that the expressions look at, and None after them.

        A table is of some of the accounts.
        """
        telemetry, summed = self.known.telemetry, Summed(window, expressions)
        assert telemetry is not None
        weighted = summed.counts_events(telemetry)
        tables = _DayTables(self.known.n_accounts, summed, weighted=weighted)
        columns = ["account", *(["events"] if weighted else [])]
        arrivals = telemetry.arrivals(columns, self.known.cutoffs, days=window.days, lag_days=window.lag_days)
        for (cutoff, rows, accounts), arriving in zip(self.known.by_cutoff(self.spine), arrivals, strict=True):
            tables.sums.turn(cutoff)
            for found in arriving:
                tables.sums.add(found)
            yield from tables.at(cutoff, rows, accounts)
            yield None


class DaySums:
    """What is counted of each account and day, for as many days up to a cutoff as a window holds.

    Parameters
    ----------
    days, lag_days
        Of the window.
    weighted
        Whether a row stands for a number of events; else it is one.
    with_newest
        Whether the newest time of each day is asked for.

    Attributes
    ----------
    ring
        Which place belongs to which day.
    rows, events, newest
        Shape `(days, n_accounts)`, a day at its place of the ring; None for what is not asked for.
    """

    def __init__(self, n_accounts: int, *, days: int, lag_days: int, weighted: bool, with_newest: bool = False) -> None:
        self.ring = DayRing(days, lag_days)
        shape = days, n_accounts
        self.rows: npt.NDArray[np.int32] = np.zeros(shape, dtype=np.int32)
        self.events: Floats | None = np.zeros(shape) if weighted else None
        self.newest: Ints | None = np.full(shape, _NEVER) if with_newest else None

    def turn(self, cutoff: int) -> None:
        """Go on to a cutoff."""
        left = self.ring.turn(cutoff)
        self.rows[left] = 0
        if self.events is not None:
            self.events[left] = 0.0
        if self.newest is not None:
            self.newest[left] = _NEVER

    def add(self, rows: MonthRows) -> None:
        """Add rows that were not seen before."""
        for place, stretch in self.ring.stretches(rows.time):
            account = rows.columns["account"][stretch]
            ones = np.int32(1) if rows.weights is None else rows.weights[stretch]
            np.add.at(self.rows[place], account, ones)  # of another type it takes 40 times as long
            if self.events is not None:
                np.add.at(self.events[place], account, rows.columns["events"][stretch])
            if self.newest is not None:
                np.maximum.at(self.newest[place], account, rows.time[stretch])


class _DayTables:
    """Tables of what is counted of each account and day."""

    def __init__(self, n_accounts: int, summed: Summed, *, weighted: bool) -> None:
        window = summed.window
        assert window.days is not None
        self._summed = summed
        with_newest = "newest_age_days" in summed.names
        self.sums = DaySums(n_accounts, days=window.days, lag_days=window.lag_days, weighted=weighted, with_newest=with_newest)

    def at(self, cutoff: int, rows: Ints, accounts: Ints) -> Iterator[pa.Table]:
        """Yield the summed-up days or weeks of these accounts, which have these rows of the spine, at a cutoff."""
        summed_up = self._days if self._summed.window.by == ("day",) else self._weeks
        n_at_once = max(1, _PLACES_AT_ONCE // self.sums.ring.days)
        for start in range(0, len(rows), n_at_once):
            yield summed_up(cutoff, rows[start : start + n_at_once], accounts[start : start + n_at_once])

    def _days(self, cutoff: int, rows: Ints, accounts: Ints) -> pa.Table:
        sums, ring = self.sums, self.sums.ring
        number, at = np.nonzero(self._in_order(sums.rows, accounts))
        places = ring.by_time[at], accounts[number]
        ages = ring.ages[at]
        found: dict[str, pa.Array] = {"row": pa.array(rows[number].astype(np.int32))}
        for name in sorted(self._summed.names - {"row"}):
            match name:
                case "day":
                    found[name] = pa.array((ring.first + at).astype(np.int32))
                case "gap_days":
                    gaps = np.diff(at, prepend=0).astype(np.int32)
                    found[name] = pa.array(gaps, mask=np.diff(number, prepend=-1) != 0)
                case "newest_age_days":
                    assert sums.newest is not None
                    found[name] = pa.array(clock.ages_of(sums.newest[places], cutoff))
                case _:
                    n_rows = np.where(_covers(self._summed.spans[name], ages), sums.rows[places], 0)
                    events = n_rows if sums.events is None else sums.events[places]
                    found[name] = _counted(name, n_rows, events)
        return pa.table(found)

    def _weeks(self, cutoff: int, rows: Ints, accounts: Ints) -> pa.Table:
        sums = self.sums
        ages = sums.ring.ages
        week = ages // _DAYS_PER_WEEK
        starts = np.flatnonzero(np.diff(week, prepend=-1))
        n_rows = self._in_order(sums.rows, accounts)
        events = n_rows if sums.events is None else self._in_order(sums.events, accounts)
        there = np.nonzero(np.add.reduceat(n_rows, starts, axis=1))
        found: dict[str, pa.Array] = {"row": pa.array(rows[there[0]].astype(np.int32))}
        for name in sorted(self._summed.names - {"row"}):
            match name:
                case "week":
                    found[name] = pa.array(week[starts][there[1]].astype(np.int32))
                case "newest_age_days":
                    assert sums.newest is not None
                    newest = np.maximum.reduceat(self._in_order(sums.newest, accounts), starts, axis=1)
                    found[name] = pa.array(clock.ages_of(newest[there], cutoff))
                case _:
                    covered = _covers(self._summed.spans[name], ages)
                    counted = _sums(n_rows, covered, starts)[there]
                    found[name] = _counted(name, counted, counted if events is n_rows else _sums(events, covered, starts)[there])
        return pa.table(found)

    def _in_order(self, values: npt.NDArray[Any], accounts: Ints) -> npt.NDArray[Any]:
        """Return the values of these accounts from the oldest day to the newest, shape `(n, n_days)`."""
        return np.ascontiguousarray(values[np.ix_(self.sums.ring.by_time, accounts)].T)


def _sums(values: npt.NDArray[Any], covered: npt.NDArray[np.bool_], starts: Ints) -> npt.NDArray[Any]:
    """Add up the covered columns from each start to the next."""
    return np.add.reduceat(values if covered.all() else np.where(covered, values, 0), starts, axis=1)


def _covers(span: Ages | None, ages: Ints) -> npt.NDArray[np.bool_]:
    """Tell which whole days, given by their least ages, lie in a span of ages."""
    if span is None:
        return np.zeros(len(ages), dtype=np.bool_)
    return (ages >= span[0]) & (span[1] is None or ages < span[1])


def _counted(name: str, n_rows: Ints, events: npt.NDArray[np.number]) -> pa.Array:
    """Return a column of numbers of rows, or of events where there are rows."""
    return pa.array(n_rows.astype(np.int64)) if name.startswith("rows") else pa.array(events.astype(np.float64), mask=n_rows == 0)
