"""Counts of use: telemetry summed up by user, kind or product at one cutoff after the other, without a query.

Where telemetry is numbered, what `features.slices.summed` asks the engine for is counted here instead: a user, or a kind of event of an
account, has a number, so a sum over all of them is an array with a place for each, and a row is added by its place. Each row is added once
for all cutoffs (see `features.running`). The memory that it takes grows with users and accounts, not with events.

The numbers are those of the queries, to the bit: counts of events add up without rounding (see `features.sums`), and an age is computed
from the same two instants.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import ibis
import ibis.expr.operations as ops
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features import clock
from features.feature import LOOKBACKS, Expression, Window
from features.forms import MonthRows
from features.numbered import NumberedTelemetry
from features.running import Ages, Extremes, Running, clipped, held_at_once
from features.slices import KnownTables, Spine

__all__ = ["Part", "Places", "Summed", "UseCounts", "UseSums", "ages_of_window", "are_cutoffs_of_their_own", "can_be_summed"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MOST_BYTES = 1 << 31
"""Beyond so much memory the engine counts, and spills; 4 M users take two fifths of it."""

_PLACES_AT_ONCE = 1 << 17
"""Users, or accounts and kinds, of which statistics are made at once."""

_KEY_TYPES = {"user_id": "int32", "event": "string", "product": "string", "day": "int32", "week": "int32"}


@dataclass(frozen=True, eq=False)
class Summed:
    """The columns of `features.slices.summed` that are looked at.

    Parameters
    ----------
    window
        The window, summed up by one column.
    """

    window: Window
    expressions: Sequence[Expression]

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the columns."""
        return frozenset[str]().union(*(_columns_of(expression, self.window.by[0]) for expression in self.expressions))

    @cached_property
    def spans(self) -> Mapping[str, Ages | None]:
        """The ages that a column counts, for each column that counts; None where none of them lie in the window."""
        ages = ages_of_window(self.window)
        declared: dict[str, Ages] = {"events": (0, None)}
        declared |= {f"events_{days}d": (0, days) for days in LOOKBACKS} | {f"rows_before_{days}d": (days, 2 * days) for days in LOOKBACKS}
        return {name: clipped(declared[name], ages) for name in sorted(self.names & declared.keys())}

    @property
    def counted(self) -> set[Ages]:
        """The different spans of ages that count."""
        return {span for span in self.spans.values() if span is not None}

    def counts_events(self, telemetry: NumberedTelemetry) -> bool:
        """Tell whether it matters for how many events a row stands."""
        return any(name.startswith("events") for name in self.spans) and not all(piece.are_single for piece in telemetry.pieces)


@lru_cache(maxsize=1024)
def _columns_of(expression: Expression, key: str) -> frozenset[str]:
    """Return the columns that an expression looks at; finding them out takes half a millisecond, and each is asked for many times."""
    types = {"row": "int32", key: _KEY_TYPES[key], "events": "float64", "newest_age_days": "float64", "oldest_age_days": "float64"}
    types |= {f"events_{days}d": "float64" for days in LOOKBACKS} | {f"rows_before_{days}d": "int64" for days in LOOKBACKS}
    types |= {"gap_days": "int32"} if key == "day" else {}
    return frozenset(node.name for node in expression(ibis.table(types, name="summed_up")).op().find(ops.Field))


def ages_of_window(window: Window) -> Ages:
    """Return from which age in days to which a window reaches."""
    return window.lag_days, None if window.days is None else window.lag_days + window.days


def are_cutoffs_of_their_own(known: KnownTables, spine: Spine) -> bool:
    """Tell whether no account comes twice at one cutoff."""
    pairs = np.searchsorted(known.cutoffs, spine.instants) * known.n_accounts + known.numbers_of(spine.account_id)
    return len(np.unique(pairs)) == len(spine)


def can_be_summed(known: KnownTables, summed: Summed) -> bool:
    """Tell whether telemetry can be summed up here, by a column with numbers."""
    window = summed.window
    telemetry = known.countable(window.table)
    return (
        telemetry is not None
        and len(window.by) == 1
        and window.by[0] in ("user_id", "event", "product")
        and window.each is None
        and not telemetry.lacks_events
        and (window.days is None or "oldest_age_days" not in summed.names)
        and _bytes(known, telemetry, summed) <= _MOST_BYTES
    )


def _bytes(known: KnownTables, telemetry: NumberedTelemetry, summed: Summed) -> int:
    a_count = 12 if summed.counts_events(telemetry) else 4
    a_place = 24 + a_count * held_at_once(known.cutoffs.tolist(), summed.counted)
    return a_place * _n_places(known, summed.window.by[0], telemetry)


def _n_places(known: KnownTables, key: str, telemetry: NumberedTelemetry) -> int:
    return len(telemetry.user_accounts) if key == "user_id" else known.n_accounts * len(telemetry.texts[key])


@dataclass(frozen=True, eq=False)
class UseCounts:
    """Rows of telemetry for the shared cutoffs of a spine, summed up by a column with numbers.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    known: KnownTables
    spine: Spine

    def answer(self, window: Window, expressions: Sequence[Expression]) -> bool:
        """Tell whether the rows of this window can be counted."""
        return can_be_summed(self.known, Summed(window, expressions)) and are_cutoffs_of_their_own(self.known, self.spine)

    def tables(self, window: Window, expressions: Sequence[Expression]) -> Iterator[pa.Table | None]:
        """Yield, cutoff by cutoff, a table of the columns of `features.slices.summed` that the expressions look at, and None after it."""
        summed = Summed(window, expressions)
        telemetry = self.known.telemetry
        assert telemetry is not None
        places = Places.of(self.known, window.by[0], telemetry)
        sums = UseSums.of(self.known, places, summed, telemetry)
        wanted, days, lag_days = sums.columns_of(places), window.days, window.lag_days
        arrivals = telemetry.arrivals(wanted, self.known.cutoffs, days=days, lag_days=lag_days, ends=sums.ends)
        for (cutoff, rows, accounts), arriving in zip(self.known.by_cutoff(self.spine), arrivals, strict=True):
            for found in arriving:
                sums.add(found, places)
            row_of = np.full(self.known.n_accounts, -1, dtype=np.int32)
            row_of[accounts] = rows
            yield sums.table(cutoff, places, row_of)
            yield None
            sums.leave(cutoff)


@dataclass(frozen=True, eq=False)
class Part:
    """Some places, all of some accounts.

    Parameters
    ----------
    accounts, starts
        The numbers of the accounts, and where in the part the places of each begin, shape `(n,)`.
    """

    places: slice
    accounts: Ints
    starts: Ints

    def added_up(self, values: npt.NDArray[Any]) -> Floats:
        """Return the sum of each account's values, which are flags or numbers that add up without rounding, shape `(n_accounts,)`."""
        values = values.view(np.uint8) if values.dtype == np.bool_ else values
        return np.asarray(np.add.reduceat(values, self.starts, dtype=np.int64 if values.dtype.kind in "iu" else None).astype(np.float64))

    def largest(self, values: npt.NDArray[Any]) -> Floats:
        """Return the largest of each account's values, shape `(n_accounts,)`."""
        return np.asarray(np.maximum.reduceat(values, self.starts).astype(np.float64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where rows are added: an array's places for each user, or for each account and kind or product; those of an account lie together.

    Parameters
    ----------
    accounts
        The numbers of the accounts that have places, ascending, shape `(n,)`.
    starts
        Where the places of each of them begin, and where those of the last one end, shape `(n + 1,)`.
    users
        The number of the user of each place; None where places are of kinds or products.
    texts
        The kinds or products by their numbers.
    """

    key: str
    accounts: Ints
    starts: Ints
    users: npt.NDArray[np.int32] | None = None
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, known: KnownTables, key: str, telemetry: NumberedTelemetry) -> "Places":
        """Return the places of a column by which rows are summed up."""
        if key == "user_id":
            n_users = np.bincount(telemetry.user_accounts, minlength=1)
            accounts = np.flatnonzero(n_users)
            return cls(key=key, accounts=accounts, starts=np.cumsum([0, *n_users[accounts]]), users=telemetry.users_by_account)
        texts = telemetry.texts[key]
        accounts = np.arange(known.n_accounts if texts else 0)
        return cls(key=key, accounts=accounts, starts=np.arange(len(accounts) + 1) * len(texts), texts=texts)

    @property
    def size(self) -> int:
        """The number of places."""
        return int(self.starts[-1])

    @property
    def columns(self) -> list[str]:
        """The columns of rows by which a place is found."""
        return ["user_id"] if self.key == "user_id" else ["account", self.key]

    def of_rows(self, rows: MonthRows) -> npt.NDArray[Any]:
        """Return the place of each row, -1 where it has none."""
        if self.key == "user_id":
            return np.asarray(self._of_users[rows.columns["user_id"]])
        text = rows.columns[self.key]
        return np.where(text < 0, -1, rows.columns["account"].astype(np.int64) * len(self.texts) + text)

    @cached_property
    def _of_users(self) -> npt.NDArray[np.int32]:
        """The place of each user, and -1 after them, which is that of nobody."""
        assert self.users is not None
        places = np.full(self.size + 1, -1, dtype=np.int32)
        places[self.users] = np.arange(self.size)
        return places

    def account_of(self, places: Ints) -> Ints:
        """Return the account of each place."""
        return self.accounts[np.searchsorted(self.starts, places, side="right") - 1]

    def in_parts(self) -> Iterator[Part]:
        """Yield those of some accounts at a time: so few, if not of one, that what is made of them takes memory that is used again."""
        first = 0
        while first < len(self.accounts):
            fits = int(np.searchsorted(self.starts, self.starts[first] + _PLACES_AT_ONCE, side="right")) - 1
            last = max(fits, first + 1)
            start, stop = self.starts[[first, last]].tolist()
            yield Part(slice(start, stop), self.accounts[first:last], self.starts[first:last] - start)
            first = last

    def key_of(self, places: Ints) -> pa.Array:
        """Return the key of each place, as `features.slices.summed` has it."""
        if self.users is not None:
            return pa.array(self.users[places])
        return pa.array(self.texts, pa.string()).take(pa.array((places % len(self.texts)).astype(np.int32)))


@dataclass(frozen=True, eq=False)
class UseSums:
    """What is counted for each place.

    Parameters
    ----------
    rows, events
        None where nothing looks at them; a row is an event where there are rows only.
    """

    summed: Summed
    times: Extremes
    rows: Running | None
    events: Running | None

    @classmethod
    def of(cls, known: KnownTables, places: Places, summed: Summed, telemetry: NumberedTelemetry) -> "UseSums":
        """Return the sums of no rows."""
        cutoffs, spans, size = known.cutoffs.tolist(), summed.counted, places.size + 1  # the last, -1, is that of rows without a place
        rows = Running(size, cutoffs, spans, np.int32) if spans else None
        events = Running(size, cutoffs, spans, np.float64) if spans and summed.counts_events(telemetry) else None
        return cls(summed, Extremes(size, with_oldest="oldest_age_days" in summed.names), rows, events)

    def columns_of(self, places: Places) -> list[str]:
        """Return the columns of rows that are looked at."""
        oldest = ["oldest"] if self.times.oldest is not None else []
        return [*places.columns, *oldest, *(["events"] if self.events is not None else [])]

    @property
    def ends(self) -> list[int]:
        """The instants by which is counted."""
        return [end for sums in (self.rows, self.events) if sums is not None for end in sums.ends.tolist()]

    def add(self, rows: MonthRows, places: Places) -> None:
        """Add rows that were not seen before."""
        at = places.of_rows(rows)
        self.times.add(rows.newest, at, None if rows.weights is None or self.times.oldest is None else rows.oldest)
        if self.rows is not None:
            self.rows.add(rows.time, at, rows.weights)
        if self.events is not None:
            self.events.add(rows.time, at, rows.columns["events"])

    def leave(self, cutoff: int) -> None:
        """Forget what no later cutoff needs."""
        for sums in (self.rows, self.events):
            if sums is not None:
                sums.leave(cutoff)

    def are_within(self, cutoff: int, places: slice = slice(None, -1)) -> npt.NDArray[np.bool_]:
        """Tell which places, or all, have a row in the window of a cutoff."""
        return self.times.are_within(cutoff, ages_of_window(self.summed.window), places)

    def table(self, cutoff: int, places: Places, row_of: npt.NDArray[np.int32]) -> pa.Table:
        """Return the summed-up rows of a cutoff.

        Parameters
        ----------
        row_of
            The spine's row of each account, -1 for those that are not looked at, shape `(n_accounts,)`.
        """
        there = np.flatnonzero(self.are_within(cutoff))
        row = row_of[places.account_of(there)]
        there, row = there[row >= 0], row[row >= 0]
        columns: dict[str, pa.Array] = {"row": pa.array(row)}
        for name in sorted(self.summed.names - {"row"}):
            if name == places.key:
                columns[name] = places.key_of(there)
            else:
                columns[name] = pa.array(self.values_of(name, cutoff, there), from_pandas=True)
        return pa.table(columns)

    def values_of(self, name: str, cutoff: int, there: Ints) -> npt.NDArray[Any]:
        """Return a column of `features.slices.summed` at a cutoff: numbers of rows, or floats with NaN where there is none: `(n,)`."""
        if name == "newest_age_days":
            return clock.ages_of(self.times.newest[there], cutoff)
        if name == "oldest_age_days" and self.times.oldest is not None:
            return clock.ages_of(self.times.oldest[there], cutoff)
        n_rows, events = self.counted(name, cutoff, there)
        return n_rows.astype(np.int64) if name.startswith("rows") else np.where(n_rows == 0, np.nan, events)

    def counted(self, name: str, cutoff: int, places: Ints | slice) -> tuple[npt.NDArray[np.number], npt.NDArray[np.number]]:
        """Return how many rows, and how many events, places have of those that a column counts at a cutoff."""
        span = self.summed.spans[name]
        if span is None or self.rows is None:
            nothing = np.zeros(self.times.newest[places].shape, dtype=np.int32)
            return nothing, nothing
        n_rows = self.rows.between(cutoff, span, places)
        return n_rows, n_rows if self.events is None else self.events.between(cutoff, span, places)
