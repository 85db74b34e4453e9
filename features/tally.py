"""Tallies: the same few statistics for every kind of event, in several windows, without a query for each.

The widest part of a matrix counts, sums, averages and counts distinct users of each kind of event. Where cutoffs are shared by many
accounts and every row is known when it happens, this needs no engine: the rows lie in arrays in the order of time, so a window is the
stretch between two binary searches, and a statistic of all accounts and kinds at once is one `bincount` of that stretch.

Distinct users need no hashing either. A user is counted at its last event before the cutoff, and an event is the last one if the
user's next event (of the same account and kind) comes after the cutoff; who is next is found once, by one sort, for all windows.

Everywhere else, with late rows or with cutoffs of each account's own, a `Tally` is an Ibis expression like any other. The tests hold
both against the same slow twin.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.contracts import CONTRACT
from features.feature import Feature, Window
from features.slices import KnownTables, Spine

__all__ = ["Tallies", "Tally"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Tally:
    """A statistic of a slice's rows.

    Parameters
    ----------
    kind
        `count` of rows, `sum` or `mean` of a column, number of `distinct` values of a column; empty values do not count.
    column
        The column, but for `count`.
    """

    kind: Literal["count", "sum", "mean", "distinct"]
    column: str = ""

    def __call__(self, rows: ir.Table) -> ir.Value:
        """Return the statistic as an aggregate."""
        match self.kind:
            case "count":
                return rows.count()
            case "sum":
                return rows[self.column].sum().fill_null(0.0)
            case "mean":
                return rows[self.column].mean()
            case "distinct":
                return rows[self.column].nunique()


@dataclass(eq=False)
class Tallies:
    """The statistics of one table at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    known: KnownTables
    spine: Spine
    _orders: dict[tuple[str, str | None], "_TimeOrder"] = field(default_factory=dict)

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        return (
            not window.by
            and window.table not in self.known.views
            and all(isinstance(feature.expression, Tally) for feature in features)
            and self._is_known_at_once(window.table, {tally.column for tally in _tallies(features)} - {""})
            and self.known.n_parts(window.table) > 1
        )

    def _is_known_at_once(self, table: str, columns: set[str]) -> bool:
        """Tell whether rows are known when they happen, these columns of numbers and users with them."""
        contract = CONTRACT[table]
        declared = [contract.columns[name] for name in columns]
        return (
            contract.occurred is not None
            and "recorded_at" not in self.known.tables[table].columns
            and all(column.known_from is None for column in declared)
            and all(column.type == "number" or name == "user_id" for name, column in zip(columns, declared, strict=True))
        )

    def fill(self, columns: dict[str, Floats], window: Window, features: Sequence[Feature]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        order = self._order(window, features)
        for cutoff, rows, accounts in self._by_cutoff:
            until = int(clock.shifted(cutoff, -window.lag_days))
            stretch = clock.sorted_window(order.time, cutoff, days=window.days, lag_days=window.lag_days)
            found = order.count(stretch)[accounts]
            values = {tally: order.tally(tally, stretch, until)[accounts] for tally in _tallies(features)}
            for feature in features:
                level = self.known.levels[window.each].index(str(feature.level)) if window.each else 0
                there = found[:, level] > 0
                columns[feature.name][rows[there]] = values[feature.expression][there, level]  # type: ignore[index]
            yield

    @cached_property
    def _by_cutoff(self) -> list[tuple[int, Ints, Ints]]:
        """The spine's rows and accounts at each cutoff."""
        instants, accounts = self.spine.instants, self.known.numbers_of(self.spine.account_id)
        return [(int(cutoff), np.flatnonzero(instants == cutoff), accounts[instants == cutoff]) for cutoff in self.known.cutoffs]

    def _order(self, window: Window, features: Sequence[Feature]) -> "_TimeOrder":
        wanted = {tally.column for tally in _tallies(features)} - {""}
        key = window.table, window.each
        if key not in self._orders or not wanted <= self._orders[key].columns.keys():
            self._orders[key] = _read(self.known, window, wanted)
        return self._orders[key]


def _tallies(features: Sequence[Feature]) -> list[Tally]:
    return list(dict.fromkeys(feature.expression for feature in features if isinstance(feature.expression, Tally)))


@dataclass(frozen=True, eq=False)
class _TimeOrder:
    """A table's rows in the order of time, `(n,)` in each array.

    Parameters
    ----------
    group
        Number of the row's account times the number of levels, plus the number of its level.
    shape
        Numbers of accounts and of levels.
    columns
        Floats with NaN where there is none; for identifiers numbers with -1 where there is none.
    """

    time: Ints
    group: npt.NDArray[np.int32]
    shape: tuple[int, int]
    columns: dict[str, npt.NDArray[Any]]
    _next: dict[str, Ints] = field(default_factory=dict)

    def count(self, rows: slice, only: npt.NDArray[np.bool_] | None = None, weights: Floats | None = None) -> Floats:
        """Count rows, or sum their weights, by account and level; shape `(n_accounts, n_levels)`."""
        group = self.group[rows]
        if only is not None:
            group, weights = group[only], None if weights is None else weights[only]
        counted = np.bincount(group, weights=weights, minlength=self.shape[0] * self.shape[1])
        return counted.reshape(self.shape).astype(np.float64, copy=False)

    def tally(self, tally: Tally, rows: slice, until: int) -> Floats:
        """Return a statistic of the rows of a window that ends at `until`, by account and level."""
        if tally.kind == "count":
            return self.count(rows)
        values = self.columns[tally.column][rows]
        if tally.kind == "distinct":
            last = ~clock.known_by(self._next_time(tally.column)[rows], until)
            return self.count(rows, only=last & (values >= 0))
        empty = np.isnan(values)
        filled = ~empty if empty.any() else None
        sums = self.count(rows, filled, values)
        if tally.kind == "sum":
            return sums
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / self.count(rows, filled))

    def _next_time(self, column: str) -> Ints:
        """Return when the same identifier comes next in the same account and level; never, after its last row."""
        if column not in self._next:
            identifier = self.group.astype(np.int64) * (int(self.columns[column].max(initial=0)) + 2) + self.columns[column] + 1
            by_identifier = _stable_order(identifier)
            same = identifier[by_identifier[1:]] == identifier[by_identifier[:-1]]
            following = np.full(len(self.time), _NEVER)
            following[by_identifier[:-1][same]] = self.time[by_identifier[1:][same]]
            self._next[column] = following
        return self._next[column]


def _stable_order(keys: Ints) -> Ints:
    """Return the order that sorts the keys, equal ones as they stand."""
    bits = max(1, len(keys).bit_length())
    if len(keys) and int(keys.max()) >= 1 << (63 - bits):
        return np.argsort(keys, kind="stable")
    packed = np.sort((keys << bits) | np.arange(len(keys)))  # several times faster than sorting positions by their keys
    return packed & ((1 << bits) - 1)


def _read(known: KnownTables, window: Window, columns: set[str]) -> _TimeOrder:
    """Read the rows of the spine's accounts, of the levels that have features if the window asks for levels."""
    rows = known.numbered(window.table)
    if window.each:
        rows = rows.filter(rows[f"{window.each}_level"].notnull())
    occurred = CONTRACT[window.table].occurred
    level = rows[f"{window.each}_level"] if window.each else ibis.literal(0, "int16")
    table = known.engine.to_arrow(
        rows.select(account=rows.account, level=level, time=rows[occurred], **{name: rows[name] for name in columns})
    )
    n_levels = len(known.levels[window.each]) if window.each else 1
    arrays = {name: _array(table[name]) for name in table.column_names}
    if np.any(np.diff(arrays["time"]) < 0):
        arrays = {name: values[np.argsort(arrays["time"], kind="stable")] for name, values in arrays.items()}
    group = (arrays.pop("account").astype(np.int32) * n_levels + arrays.pop("level")).astype(np.int32)
    return _TimeOrder(arrays.pop("time"), group, (known.n_accounts, n_levels), arrays)


def _array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.asarray(pc.fill_null(column, -1 if pa.types.is_integer(column.type) else np.nan).to_numpy())
