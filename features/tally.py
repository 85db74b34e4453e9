"""Tallies: the same few statistics for every kind of event, in several windows, without a query for each.

The widest part of a matrix counts, sums, averages and counts distinct users of each kind of event. Where cutoffs are shared by many
accounts and every row is known when it happens, this needs no engine: the rows lie in arrays in the order of time, so a window is the
stretch between two binary searches, and a statistic of all accounts and kinds at once is one `bincount` of that stretch. Fractions are
added as `features.sums` says, so that arrays and engine give the same bits.

Distinct users need no hashing either. A user is counted at its last event before the cutoff, and an event is the last one if the
user's next event (of the same account and kind) comes after the cutoff; who is next is found once, by one sort, for all windows.

Everywhere else, with late rows or with cutoffs of each account's own, a `Tally` is an Ibis expression like any other. The tests hold
both against the same slow twin.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.contracts import CONTRACT
from features.feature import Feature, Window
from features.ordering import sorted_rows
from features.slices import KnownTables, Spine
from features.sums import BILLION, EXACT_BELOW, exact_mean, exact_sum, split

__all__ = ["Tallies", "Tally", "tallies_of", "write_tallies"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_KINDS = frozenset({"count", "sum", "mean", "distinct"})
"""What rows in the order of time are tallied for; the engine does the others."""


@dataclass(frozen=True)
class Tally:
    """A statistic of a slice's rows.

    Parameters
    ----------
    kind
        `count` of rows, `sum` or `mean` of a column, number of `distinct` values of a column, where empty values do not count; the
        number of `events` that the rows stand for; or the age in days of the `newest` or `oldest` row.
    column
        The column, but for those that are about rows.
    """

    kind: Literal["count", "sum", "mean", "distinct", "events", "newest", "oldest"]
    column: str = ""

    def __call__(self, rows: ir.Table) -> ir.Value:
        """Return the statistic as an aggregate."""
        match self.kind:
            case "count":
                return rows.count()
            case "sum":
                return exact_sum(rows[self.column]).fill_null(0.0)
            case "mean":
                return exact_mean(rows[self.column])
            case "distinct":
                return rows[self.column].nunique()
            case "events":
                return rows.events.sum().fill_null(0.0)
            case "newest":
                return rows.age_days.min()
            case "oldest":
                return rows.age_days.max()


@dataclass(eq=False)
class Tallies:
    """The statistics of one table at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    takes: ClassVar = Tally
    known: KnownTables
    spine: Spine
    _orders: dict[tuple[str, str | None], "_TimeOrder"] = field(default_factory=dict)

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        return (
            self.known.engine.in_process
            and not window.by
            and window.table not in self.known.views
            and all(isinstance(feature.expression, Tally) for feature in features)
            and {tally.kind for tally in tallies_of(features)} <= _KINDS
            and self._is_known_at_once(window.table, {tally.column for tally in tallies_of(features)} - {""})
            and self.known.is_cut_by_cutoff(window.table)
            and all(self._order(window, features).is_exact(tally.column) for tally in tallies_of(features) if tally.kind in ("sum", "mean"))
        )

    def _is_known_at_once(self, table: str, columns: set[str]) -> bool:
        """Tell whether rows are known when they happen, these columns of numbers and users with them."""
        contract = CONTRACT[table]
        declared = [contract.columns[name] for name in columns]
        return (
            contract.occurred is not None
            and not {"recorded_at", contract.withdrawn} & set(self.known.tables[table].columns)
            and all(column.known_from is None for column in declared)
            and all(column.type == "number" or name == "user_id" for name, column in zip(columns, declared, strict=True))
        )

    @staticmethod
    def shares_with(window: Window) -> Window:
        """Return what windows have in common that are filled at once."""
        return window

    def fill(self, columns: dict[str, Floats], asked: Sequence[tuple[Window, Sequence[Feature]]]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        ((window, features),) = asked
        order = self._order(window, features)
        tallies = tallies_of(features)
        levels = self.known.levels[window.each] if window.each else ()
        for cutoff, rows, accounts in self.known.by_cutoff(self.spine):
            stretch = clock.sorted_window(order.time, cutoff, days=window.days, lag_days=window.lag_days)
            rows_found, values = order.tally(tallies, stretch)
            write_tallies(columns, features, levels, rows_found, values, rows=rows, accounts=accounts)
            yield

    def _order(self, window: Window, features: Sequence[Feature]) -> "_TimeOrder":
        wanted, days = {tally.column for tally in tallies_of(features)} - {""}, self._reach(window)
        key = window.table, window.each
        held = self._orders.get(key)
        if held is None or not held.holds(wanted, days):
            if held is not None:  # what one window has is not read again for the other
                wanted, days = wanted | held.columns.keys(), _wider(held.days, days)
            self._orders[key] = _read(self.known, window, wanted, days)
        return self._orders[key]

    def _reach(self, window: Window) -> int | None:
        """Return by how many days before the last cutoff the window of the first one has begun; None if it has no beginning."""
        if window.days is None or not len(self.known.cutoffs):
            return None
        first, last = map(clock.day_of, self.known.cutoffs[[0, -1]].tolist())
        return last - first + 1 + window.lag_days + window.days


def _wider(one: int | None, other: int | None) -> int | None:
    """Return the larger of two numbers of days; None stands for all."""
    return None if one is None or other is None else max(one, other)


def tallies_of(features: Sequence[Feature]) -> list[Tally]:
    """Return the different tallies that features are."""
    return list(dict.fromkeys(feature.expression for feature in features if isinstance(feature.expression, Tally)))


def write_tallies(
    columns: dict[str, Floats],
    features: Sequence[Feature],
    levels: Sequence[str],
    rows_found: Floats,
    values: Mapping[Tally, Floats],
    *,
    rows: Ints,
    accounts: Ints,
) -> None:
    """Write tallies by account and level, where there were rows, into the features' columns `(n_rows,)`.

    Parameters
    ----------
    rows, accounts
        The rows of the spine to write, and the number of the account of each.
    """
    for feature in features:
        level = levels.index(str(feature.level)) if levels else 0
        there = rows_found[accounts, level] > 0
        columns[feature.name][rows[there]] = values[feature.expression][accounts[there], level]  # type: ignore[index]


@dataclass(frozen=True, eq=False)
class _TimeOrder:
    """A table's rows in the order of time, `(n,)` in each array.

    Parameters
    ----------
    days
        The rows of so many days before the last cutoff are there, or all if None.
    group
        Number of the row's account times the number of levels, plus the number of its level.
    shape
        Numbers of accounts and of levels.
    columns
        Floats with NaN where there is none; for identifiers numbers with -1 where there is none.
    """

    days: int | None
    time: Ints
    group: Ints
    shape: tuple[int, int]
    columns: dict[str, npt.NDArray[Any]]
    _following: dict[str, Ints] = field(default_factory=dict)

    def holds(self, columns: Collection[str], days: int | None) -> bool:
        """Tell whether the rows of so many days before the last cutoff, all if None, are there with some columns."""
        return self.columns.keys() >= {*columns} and _wider(self.days, days) == self.days

    def tally(self, tallies: Sequence[Tally], rows: slice) -> tuple[Floats, dict[Tally, Floats]]:
        """Count a stretch of rows and compute its statistics, by account and level: `(n_accounts, n_levels)` each."""
        group = self.group[rows]
        counted = self._per_group(group)
        sums = {tally.column: self._sum(group, rows, tally.column) for tally in tallies if tally.kind in ("sum", "mean")}
        found: dict[Tally, Floats] = {}
        for tally in tallies:
            match tally.kind:
                case "count":
                    found[tally] = counted
                case "sum":
                    found[tally] = sums[tally.column][0]
                case "mean":
                    with np.errstate(invalid="ignore"):
                        found[tally] = np.divide(*sums[tally.column])
                case "distinct":
                    is_last = self._following_row(tally.column)[rows] >= rows.stop
                    found[tally] = self._per_group(group[is_last & (self.columns[tally.column][rows] >= 0)])
        return counted, found

    def _per_group(self, group: Ints, weights: Floats | None = None) -> Floats:
        counted = np.bincount(group, weights=weights, minlength=self.shape[0] * self.shape[1])
        return counted.reshape(self.shape).astype(np.float64, copy=False)

    def _sum(self, group: Ints, rows: slice, column: str) -> tuple[Floats, Floats]:
        """Sum the values that are there, and count them."""
        values = self.columns[column][rows]
        empty = np.isnan(values)
        if empty.any():
            group, values = group[~empty], values[~empty]
        whole, billionths = split(values)
        return self._per_group(group, whole) + self._per_group(group, billionths) / BILLION, self._per_group(group)

    def is_exact(self, column: str) -> bool:
        """Tell whether floats hold the sums of every account and level without rounding; else the engine must add them."""
        values = self.columns[column]
        largest = max(np.fmax.reduce(values, initial=0.0), -np.fmin.reduce(values, initial=0.0), BILLION)
        return bool(np.bincount(self.group).max(initial=0) * largest < EXACT_BELOW)

    def _following_row(self, column: str) -> Ints:
        """Return the row in which the same identifier comes next in the same account and level; past the end after its last."""
        if column not in self._following:
            identifier = self.group * (int(self.columns[column].max(initial=0)) + 2) + (self.columns[column] + 1)
            row, identifier = sorted_rows(identifier)
            following = np.full(len(row), len(row))
            same = identifier[1:] == identifier[:-1]
            following[row[:-1][same]] = row[1:][same]
            self._following[column] = following
        return self._following[column]


def _read(known: KnownTables, window: Window, columns: set[str], days: int | None) -> _TimeOrder:
    """Read the rows of the spine's accounts of so many days before the last cutoff, all if None, and of the window's levels."""
    rows = known.numbered(window.table)
    if window.each:
        rows = rows.filter(rows[f"{window.each}_level"].notnull())
    occurred = CONTRACT[window.table].occurred
    if days is not None:
        rows = rows.filter(clock.in_window(rows[occurred], ibis.literal(int(known.cutoffs[-1]), "int64"), days=days))
    level = rows[f"{window.each}_level"] if window.each else ibis.literal(0, "int16")
    table = known.engine.to_arrow(
        rows.select(account=rows.account, level=level, time=rows[occurred], **{name: rows[name] for name in columns})
    )
    n_levels = len(known.levels[window.each]) if window.each else 1
    arrays = {name: _array(table[name]) for name in columns}
    time, group = _array(table["time"]), _array(table["account"]).astype(np.int64)
    group *= n_levels
    group += _array(table["level"])
    if np.any(time[1:] < time[:-1]):
        in_time = np.argsort(time, kind="stable")
        time, group, arrays = time[in_time], group[in_time], {name: values[in_time] for name, values in arrays.items()}
    return _TimeOrder(days, time, group, (known.n_accounts, n_levels), arrays)


def _array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if column.null_count:
        column = pc.fill_null(column, -1 if pa.types.is_integer(column.type) else np.nan)
    return np.asarray(column.to_numpy())
