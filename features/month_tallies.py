"""Tallies of numbered telemetry: the same statistics as `features.tally`, from the rows of one month after the other.

Nothing is kept but running sums by account and kind of event, so that it does not matter how many events there are, nor how late they came.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from features import clock
from features.feature import Feature, Window
from features.forms import MonthRows
from features.numbered import NumberedTelemetry
from features.running import Extremes, Running, Weights, needed_until
from features.slices import KnownTables, Spine
from features.sums import BILLION, EXACT_BELOW, split
from features.tally import Tally, tallies_of, write_tallies
from features.use_counts import ages_of_window

__all__ = ["MonthTallies"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_KINDS = frozenset({"count", "sum", "mean", "events", "newest", "oldest"})
_AMOUNTS = frozenset({"events", "quantity", "users"})


@dataclass(frozen=True, eq=False)
class MonthTallies:
    """The statistics of numbered telemetry at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    takes: ClassVar = Tally
    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        telemetry = self.known.countable(window.table)
        tallies = tallies_of(features)
        return (
            telemetry is not None
            and not window.by
            and window.each in (None, "event")
            and all(isinstance(feature.expression, Tally) for feature in features)
            and all(tally.kind in _KINDS and tally.column in _AMOUNTS | {""} for tally in tallies)
            and (window.days is None or all(tally.kind != "oldest" for tally in tallies))
            and not telemetry.lacks_events
            and telemetry.busiest * max(telemetry.largest, BILLION) < EXACT_BELOW
        )

    @staticmethod
    def shares_with(window: Window) -> Window:
        """Return what windows have in common that are filled at once."""
        return replace(window, days=None)

    def fill(self, columns: dict[str, Floats], asked: Sequence[tuple[Window, Sequence[Feature]]]) -> Iterator[None]:
        """Write the features of windows that differ in their days only into their columns `(n_rows,)`, cutoff by cutoff."""
        telemetry, widest = self.known.telemetry, _widest([window for window, _ in asked])
        assert telemetry is not None
        levels = self.known.levels[widest.each] if widest.each else ()
        sums = _Sums(self.known, [(window, tallies_of(features)) for window, features in asked], _level_of(telemetry, widest, levels))
        arrivals = partial(telemetry.arrivals, cutoffs=self.known.cutoffs, days=widest.days, lag_days=widest.lag_days)
        counted = arrivals(sums.columns_of(telemetry), ends=sums.ends)
        streams = [counted, *(arrivals([*sums.keys, name], carrying=name) for name in sums.carried)]
        for (cutoff, rows, accounts), counted, *carrying in zip(self.known.by_cutoff(self.spine), *streams, strict=True):
            for found in counted:
                sums.add(found)
            for name, amounts in zip(sums.carried, carrying, strict=True):
                for found in amounts:
                    sums.add_amounts(name, found)
            for window, features in asked:
                n_rows, values = sums.at(cutoff, window, tallies_of(features))
                write_tallies(columns, features, levels, n_rows, values, rows=rows, accounts=accounts)
            sums.leave(cutoff)
            yield


def _widest(windows: Sequence[Window]) -> Window:
    return max(windows, key=lambda window: math.inf if window.days is None else window.days)


def _level_of(telemetry: NumberedTelemetry, window: Window, levels: Sequence[str]) -> npt.NDArray[np.int32] | None:
    """Return the level of each kind of event by its number, one past the last for what has no features of its own; None without levels."""
    if window.each is None:
        return None
    numbers = {name: number for number, name in enumerate(levels)}
    return np.array([*(numbers.get(name, len(levels)) for name in telemetry.texts["event"]), len(levels)], dtype=np.int32)


class _Sums:
    """What is added up, by account and level.

    Parameters
    ----------
    asked
        Windows, and the tallies of each.
    level_of
        The level of each kind of event by its number, of which the greatest is one for the rest; None where all count as one.
    """

    def __init__(self, known: KnownTables, asked: Sequence[tuple[Window, Sequence[Tally]]], level_of: npt.NDArray[np.int32] | None) -> None:
        self._shape = known.n_accounts, 1 if level_of is None else int(level_of[-1]) + 1
        self._spans = {ages_of_window(window) for window, _ in asked}
        self._cutoffs = known.cutoffs.tolist()
        self._tallies = {tally for _, tallies in asked for tally in tallies}
        self._level_of = level_of
        self._sums: dict[tuple[str, str], Running] = {}
        self._times = Extremes(self._shape[0] * self._shape[1], with_oldest=any(tally.kind == "oldest" for tally in self._tallies))

    @property
    def keys(self) -> list[str]:
        """The columns of rows by which a place is found."""
        return ["account", *(["event"] if self._level_of is not None else [])]

    @property
    def carried(self) -> list[str]:
        """The amounts that only some rows carry."""
        return sorted({tally.column for tally in self._tallies} - {"", "events"})

    def columns_of(self, telemetry: NumberedTelemetry) -> list[str]:
        """Return the columns of all rows that are looked at; what each row has once is counted instead."""
        asks_events = any("events" in (tally.kind, tally.column) for tally in self._tallies)
        oldest = ["oldest"] if self._times.oldest is not None else []
        return [*self.keys, *oldest, *(["events"] if asks_events and not all(piece.are_single for piece in telemetry.pieces) else [])]

    @property
    def ends(self) -> list[int]:
        """The instants by which is counted."""
        return sorted(needed_until(self._cutoffs, self._spans))

    def add(self, rows: MonthRows) -> None:
        """Add rows that were not seen before."""
        places = self._places_of(rows)
        self._add("", "rows", rows.time, places, rows.weights)
        if "events" in rows.columns:
            self._add_up("events", rows, places)
        if {"newest", "oldest"} & {tally.kind for tally in self._tallies}:
            self._times.add(rows.newest, places, None if rows.weights is None or self._times.oldest is None else rows.oldest)

    def add_amounts(self, column: str, rows: MonthRows) -> None:
        """Add the amounts of rows that were not seen before and carry one."""
        self._add_up(column, rows, self._places_of(rows))

    def _places_of(self, rows: MonthRows) -> npt.NDArray[Any]:
        if self._level_of is None:
            return rows.columns["account"]
        places: Ints = np.multiply(rows.columns["account"], self._shape[1], dtype=np.int64)
        places += self._level_of[rows.columns["event"]]
        return places

    def leave(self, cutoff: int) -> None:
        """Forget what no later cutoff needs."""
        for sums in self._sums.values():
            sums.leave(cutoff)

    def at(self, cutoff: int, window: Window, tallies: Sequence[Tally]) -> tuple[Floats, dict[Tally, Floats]]:
        """Return the number of rows and statistics at a cutoff, NaN where there is none, shape `(n_accounts, n_levels)` each."""
        n_rows = self._of("", "rows", cutoff, window)
        return n_rows, {tally: self._value(tally, n_rows, cutoff, window) for tally in tallies}

    def _value(self, tally: Tally, n_rows: Floats, cutoff: int, window: Window) -> Floats:
        match tally.kind:
            case "count":
                return n_rows
            case "newest":
                return clock.ages_of(self._times.newest, cutoff).reshape(self._shape)
            case "oldest":
                assert self._times.oldest is not None
                return clock.ages_of(self._times.oldest, cutoff).reshape(self._shape)
        column = tally.column or tally.kind
        if column == "events" and not self._sums.keys() & {("events", "whole"), ("events", "plain")}:  # each row was one
            return n_rows if tally.kind != "mean" else np.ones(self._shape)
        if tally.kind == "events":
            return self._of(column, "plain", cutoff, window)
        total = self._of(column, "whole", cutoff, window) + self._of(column, "billionths", cutoff, window) / BILLION
        if tally.kind == "sum":
            return total
        with np.errstate(invalid="ignore"):
            return np.divide(total, self._of(column, "filled", cutoff, window))

    def _of(self, column: str, what: str, cutoff: int, window: Window) -> Floats:
        if (column, what) not in self._sums:
            return np.zeros(self._shape)
        found = self._sums[column, what].between(cutoff, ages_of_window(window), slice(None))
        return found.astype(np.float64, copy=False).reshape(self._shape)

    def _add_up(self, column: str, rows: MonthRows, places: npt.NDArray[Any]) -> None:
        times, values = rows.time, rows.columns[column]
        empty = np.isnan(values)
        if empty.any():
            times, places, values = times[~empty], places[~empty], values[~empty]
        kinds = {tally.kind for tally in self._tallies if column in (tally.column, tally.kind)}
        if kinds & {"sum", "mean"}:
            whole, billionths = split(values)
            self._add(column, "whole", times, places, whole)
            if billionths.any():
                self._add(column, "billionths", times, places, billionths)
        if "events" in kinds:
            self._add(column, "plain", times, places, values)
        if "mean" in kinds:
            self._add(column, "filled", times, places, None)

    def _add(self, column: str, what: str, times: Ints, places: npt.NDArray[Any], weights: Weights | None) -> None:
        if (column, what) not in self._sums:
            kind = np.float64 if what in ("whole", "billionths", "plain") else np.int32
            self._sums[column, what] = Running(self._shape[0] * self._shape[1], self._cutoffs, self._spans, kind)
        self._sums[column, what].add(times, places, weights)
