"""Counts of use: telemetry summed up by user, kind, product, day or week at one cutoff after the other, without a query.

Where telemetry is numbered, what `features.slices.summed` asks the engine for is counted here instead: a user, or a kind of event of an
account, has a number, so a sum over all of them is an array with a place for each, and a row is added by its place. Rows come a month at
a time in the order in which they happened, so that the newest row of a place is the last one written there, and the edges of all lookbacks
are a few binary searches. The memory that it takes grows with users and accounts, not with events.

The numbers are those of the queries, to the bit: counts of events add up without rounding (see `features.sums`), and an age is computed
from the same two instants.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import clock
from features.feature import LOOKBACKS, Expression, Window
from features.numbered import MonthRows, NumberedTelemetry
from features.slices import KnownTables, Spine

__all__ = ["UseCounts"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_Ages = tuple[int | None, int | None]
"""From which age in days to which, the latter excluded; None for no end."""

_NEVER = np.iinfo(np.int64).min
_ALWAYS = np.iinfo(np.int64).max
_MOST_PLACES = 1 << 27
"""So many places of one array, a gigabyte of them, are counted here; beyond, the engine does it and spills."""

_AGES = ("newest_age_days", "oldest_age_days")
_KEY_TYPES = {"user_id": "int32", "event": "string", "product": "string", "day": "int32", "week": "int32"}


@dataclass(frozen=True, eq=False)
class UseCounts:
    """Summed-up rows of telemetry for the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    known: KnownTables
    spine: Spine

    def answer(self, window: Window) -> bool:
        """Tell whether the rows of this window can be counted."""
        telemetry = self.known.telemetry
        return (
            telemetry is not None
            and window.table == "telemetry"
            and len(window.by) == 1
            and window.by[0] in _KEY_TYPES
            and window.each is None
            and not (window.days is None and window.by[0] in ("day", "week"))
            and not telemetry.lacks_events
            and self.known.is_cut_by_cutoff("telemetry")
            and self._are_cutoffs_of_their_own
            and _Places.of(self.known, window, telemetry, 0).size <= _MOST_PLACES
        )

    @cached_property
    def _are_cutoffs_of_their_own(self) -> bool:
        """Whether no account comes twice at one cutoff."""
        cutoffs = np.searchsorted(self.known.cutoffs, self.spine.instants)
        pairs = cutoffs * self.known.n_accounts + self.known.numbers_of(self.spine.account_id)
        return len(np.unique(pairs)) == len(self.spine)

    def parts(self, window: Window, expressions: Sequence[Expression]) -> Iterator[ir.Table]:
        """Yield, cutoff by cutoff, the columns of `features.slices.summed` that the expressions look at.

        A part must be computed before the next one is asked for: each takes the name of the one before.
        """
        wanted = _looked_at(window, expressions)
        telemetry = self.known.telemetry
        assert telemetry is not None
        for cutoff, rows, accounts in self.known.by_cutoff(self.spine):
            row_of = np.full(self.known.n_accounts, -1, dtype=np.int32)
            row_of[accounts] = rows
            places = _Places.of(self.known, window, telemetry, cutoff)
            yield self.known.engine.hold(_summed_up(telemetry, places, window, cutoff, wanted, row_of), name="summed_up")


def _looked_at(window: Window, expressions: Sequence[Expression]) -> frozenset[str]:
    """Return the names of the summed-up columns that expressions look at."""
    numbers = [f"{name}_{days}d" for days in LOOKBACKS for name in ("events", "rows_before")]
    types = {"row": "int32", window.by[0]: _KEY_TYPES[window.by[0]], "events": "float64"}
    types |= dict.fromkeys(_AGES, "float64") | dict.fromkeys(numbers, "float64")
    types |= {f"rows_before_{days}d": "int64" for days in LOOKBACKS}
    types |= {"gap_days": "int32"} if window.by == ("day",) else {}
    rows = ibis.table(types, name="summed_up")
    found = [node.name for expression in expressions for node in expression(rows).op().find(ops.Field)]
    return frozenset(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Where rows are added: an array's places for each account and key.

    Parameters
    ----------
    size
        The number of places.
    width
        Places of one account; 0 where a place is a user.
    first
        The first day or week that has a place.
    """

    key: str
    size: int
    width: int
    first: int = 0
    accounts: npt.NDArray[np.int32] | None = None

    @classmethod
    def of(cls, known: KnownTables, window: Window, telemetry: NumberedTelemetry, cutoff: int) -> "_Places":
        """Return the places of a window's `by` column at a cutoff."""
        key = window.by[0]
        if key == "user_id":
            accounts = telemetry.user_accounts
            return cls(key=key, size=len(accounts), width=0, accounts=accounts)
        match key:
            case "day":
                since = clock.shifted(cutoff, -window.lag_days - (window.days or 0))
                first, width = clock.day_of(since + 1), (window.days or 0) + 1
            case "week":
                first = window.lag_days // 7
                width = (window.lag_days + (window.days or 0) - 1) // 7 - first + 1
            case _:
                first, width = 0, len(telemetry.texts[key])
        return cls(key=key, size=known.n_accounts * width, width=width, first=first)

    @property
    def columns(self) -> list[str]:
        """The columns of rows by which a place is found."""
        if self.key == "user_id":
            return ["user_id"]
        return ["account", self.key] if self.key in ("event", "product") else ["account"]

    def of_rows(self, rows: MonthRows, cutoff: int) -> npt.NDArray[Any]:
        """Return the place of each row, -1 where it has none."""
        if self.key == "user_id":
            return rows.columns["user_id"]
        account = rows.columns["account"].astype(np.int64)
        match self.key:
            case "day":
                return account * self.width + (clock.day_number_of(rows.time) - self.first)
            case "week":
                return account * self.width + (clock.week_number_of(rows.time, cutoff) - self.first)
            case _:
                text = rows.columns[self.key]
                return np.where(text < 0, -1, account * self.width + text)

    def account_of(self, places: Ints) -> npt.NDArray[Any]:
        """Return the account of each place."""
        return self.accounts[places] if self.accounts is not None else places // self.width

    def key_of(self, places: Ints, telemetry: NumberedTelemetry) -> pa.Array:
        """Return the key of each place, as `features.slices.summed` has it."""
        if self.key == "user_id":
            return pa.array(places.astype(np.int32))
        numbers = (places % self.width).astype(np.int32)
        if self.key in ("event", "product"):
            return pa.array(telemetry.texts[self.key], pa.string()).take(pa.array(numbers))
        return pa.array(numbers + self.first, pa.int32())


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is counted for each place; arrays of shape `(size,)`.

    Parameters
    ----------
    edges
        Ages in days at which buckets begin and end, ascending; the last is None for no end.
    rows, events
        By bucket, if it is asked for.
    """

    size: int
    edges: tuple[int | None, ...]
    counted: tuple[bool, ...]
    newest: Ints
    oldest: Ints | None
    rows: dict[int, Floats] = field(default_factory=dict)
    events: dict[int, Floats] = field(default_factory=dict)

    def add(self, rows: MonthRows, places: npt.NDArray[Any], cutoff: int, *, weighted: bool) -> None:
        """Add rows of one month, which come after those of all months before."""
        self.newest[places] = rows.time
        if self.oldest is not None:
            first = np.flatnonzero(self.oldest[places] == _ALWAYS)[::-1]
            self.oldest[places[first]] = rows.time[first]
        for bucket, is_counted in enumerate(self.counted):
            if is_counted:
                stretch = clock.sorted_ages(rows.time, cutoff, youngest=self.edges[bucket] or 0, oldest=self.edges[bucket + 1])
                if stretch.stop > stretch.start:
                    self._count(bucket, places[stretch], rows.columns["events"][stretch] if weighted else None)

    def _count(self, bucket: int, places: npt.NDArray[Any], events: Floats | None) -> None:
        _add(self.rows, bucket, places, None, self.size)
        if events is not None:
            _add(self.events, bucket, places, events, self.size)

    def total(self, sums: Mapping[int, Floats], places: Ints, span: _Ages) -> Floats:
        """Add up the buckets of a span of ages, for these places."""
        found = np.zeros(len(places))
        for bucket, values in sums.items():
            if _covers(span, *self.edges[bucket : bucket + 2]):
                found += values[places]
        return found


def _add(sums: dict[int, Floats], bucket: int, places: npt.NDArray[Any], weights: Floats | None, size: int) -> None:
    if bucket not in sums:
        sums[bucket] = np.zeros(size)
    if len(places) * 8 > size:
        sums[bucket] += np.bincount(places, weights=weights, minlength=size)
    else:
        np.add.at(sums[bucket], places, 1.0 if weights is None else weights)


def _summed_up(
    telemetry: NumberedTelemetry, places: _Places, window: Window, cutoff: int, wanted: frozenset[str], row_of: npt.NDArray[np.int32]
) -> pa.Table:
    """Return the summed-up rows of one cutoff."""
    until = clock.shifted(cutoff, -window.lag_days)
    since = None if window.days is None else clock.shifted(until, -window.days)
    sums = _empty_sums(places.size, window, wanted)
    weighted = any(sums.counted) and not all(piece.are_single for piece in telemetry.pieces) and _counts_events(wanted)
    columns = [*places.columns, *(["events"] if weighted else [])]
    for rows in telemetry.months(columns, since=since, until=until, cutoff=cutoff):
        at = places.of_rows(rows, cutoff)
        nowhere = at < 0
        if nowhere.any():
            rows, at = rows.take(~nowhere), at[~nowhere]
        sums.add(rows, at, cutoff, weighted=weighted)
    there = np.flatnonzero(sums.newest != _NEVER)
    row = row_of[places.account_of(there)]
    there, row = there[row >= 0], row[row >= 0]
    return _as_table(sums, there, row, places, telemetry, cutoff, wanted)


def _counts_events(wanted: frozenset[str]) -> bool:
    return any(name.startswith("events") for name in wanted)


def _empty_sums(size: int, window: Window, wanted: frozenset[str]) -> _Sums:
    start, end = window.lag_days, None if window.days is None else window.lag_days + window.days
    spans = [span for name in wanted if (span := _span(name)) is not None]
    inside = {edge for span in spans for edge in span if edge is not None and edge > start and (end is None or edge < end)}
    edges = (start, *sorted(inside), end)
    counted = tuple(any(_covers(span, *bucket) for span in spans) for bucket in pairwise(edges))
    oldest = np.full(size, _ALWAYS) if "oldest_age_days" in wanted else None
    return _Sums(size, edges, counted, np.full(size, _NEVER), oldest)


def _covers(span: _Ages, low: int | None, high: int | None) -> bool:
    """Tell whether all ages of a bucket lie in a span of ages."""
    return (low or 0) >= (span[0] or 0) and (span[1] is None or (high is not None and high <= span[1]))


def _span(name: str) -> _Ages | None:
    """Return from which age in days to which a column counts; None for a column that does not count."""
    if name == "events":
        return 0, None
    for days in LOOKBACKS:
        if name == f"events_{days}d":
            return 0, days
        if name == f"rows_before_{days}d":
            return days, 2 * days
    return None


def _as_table(
    sums: _Sums,
    there: Ints,
    row: npt.NDArray[np.int32],
    places: _Places,
    telemetry: NumberedTelemetry,
    cutoff: int,
    wanted: frozenset[str],
) -> pa.Table:
    columns: dict[str, pa.Array] = {"row": pa.array(row)}
    for name in sorted(wanted):
        if name == places.key:
            columns[name] = places.key_of(there, telemetry)
        elif name == "gap_days":
            columns[name] = _gaps(there, row)
        elif name == "newest_age_days":
            columns[name] = pa.array(clock.ages_of(sums.newest[there], cutoff))
        elif name == "oldest_age_days" and sums.oldest is not None:
            columns[name] = pa.array(clock.ages_of(sums.oldest[there], cutoff))
        elif (span := _span(name)) is not None:
            columns[name] = _counted(sums, there, name, span)
    return pa.table(columns)


def _counted(sums: _Sums, there: Ints, name: str, span: _Ages) -> pa.Array:
    n_rows = sums.total(sums.rows, there, span)
    if name.startswith("rows"):
        return pa.array(n_rows.astype(np.int64))
    events = sums.total(sums.events, there, span) if sums.events else n_rows
    return pa.array(events, mask=n_rows == 0)


def _gaps(there: Ints, row: npt.NDArray[np.int32]) -> pa.Array:
    """Return the days since the account's active day before; places of days are in the order of accounts and days."""
    gaps = np.diff(there, prepend=0).astype(np.int32)
    return pa.array(gaps, mask=np.diff(row, prepend=-1) != 0)
