"""Tallies of numbered telemetry: the same statistics as `features.tally`, from the rows of one month after the other.

Nothing is kept but the sums by account and kind of event, so that it does not matter how many events there are, nor how late they came.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features import clock
from features.feature import Feature, Window
from features.numbered import MonthRows, NumberedTelemetry
from features.slices import KnownTables, Spine
from features.sums import BILLION, EXACT_BELOW, split
from features.tally import Tally, tallies_of, write_tallies

__all__ = ["MonthTallies"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_KINDS = frozenset({"count", "sum", "mean", "events", "newest", "oldest"})
_AMOUNTS = frozenset({"events", "quantity", "users"})
_NEVER, _ALWAYS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class MonthTallies:
    """The statistics of numbered telemetry at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        telemetry = self.known.telemetry
        return (
            telemetry is not None
            and window.table == "telemetry"
            and not window.by
            and window.each in (None, "event")
            and all(isinstance(feature.expression, Tally) for feature in features)
            and all(tally.kind in _KINDS and tally.column in _AMOUNTS | {""} for tally in tallies_of(features))
            and not telemetry.lacks_events
            and telemetry.busiest * max(telemetry.largest, BILLION) < EXACT_BELOW
            and self.known.is_cut_by_cutoff("telemetry")
        )

    def fill(self, columns: dict[str, Floats], window: Window, features: Sequence[Feature]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        telemetry, tallies = self.known.telemetry, tallies_of(features)
        assert telemetry is not None
        levels = self.known.levels[window.each] if window.each else ()
        for cutoff, rows, accounts in self.known.by_cutoff(self.spine):
            sums = _Sums((self.known.n_accounts, max(1, len(levels))), tallies, _level_of(telemetry, levels) if window.each else None)
            until = clock.shifted(cutoff, -window.lag_days)
            since = None if window.days is None else clock.shifted(until, -window.days)
            for found in telemetry.months(sums.columns_of(telemetry), since=since, until=until, cutoff=cutoff):
                sums.add(found)
            values = {tally: sums.value(tally, cutoff) for tally in tallies}
            write_tallies(columns, features, levels, sums.rows, values, rows=rows, accounts=accounts)
            yield


def _level_of(telemetry: NumberedTelemetry, levels: Sequence[str]) -> Ints:
    """Return the level of each kind of event by its number, -1 where it has no features of its own."""
    numbers = {name: number for number, name in enumerate(levels)}
    return np.array([numbers.get(name, -1) for name in telemetry.texts["event"]], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is added up, by account and level: arrays of shape `(n_accounts, n_levels)`.

    Parameters
    ----------
    level_of
        The level of each kind of event by its number; None where all count as one.
    """

    shape: tuple[int, int]
    tallies: Sequence[Tally]
    level_of: Ints | None
    found: dict[tuple[str, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    times: dict[str, Ints] = field(default_factory=dict)

    @property
    def amounts(self) -> set[str]:
        """The columns that are added up."""
        return {tally.column for tally in self.tallies if tally.column} | ({"events"} & {tally.kind for tally in self.tallies})

    @property
    def rows(self) -> Floats:
        """How many rows there were."""
        return self._of("", "rows")

    def columns_of(self, telemetry: NumberedTelemetry) -> list[str]:
        """Return the columns of rows that are looked at; what each row has once is counted instead."""
        single = {"events"} if all(piece.are_single for piece in telemetry.pieces) else set()
        return ["account", *(["event"] if self.level_of is not None else []), *sorted(self.amounts - single)]

    def add(self, rows: MonthRows) -> None:
        """Add rows of one month, which come after those of all months before."""
        if self.level_of is not None:
            level = self.level_of[rows.columns["event"]]
            rows, level = rows.take(level >= 0), level[level >= 0]
            places = rows.columns["account"] * self.shape[1] + level
        else:
            places = rows.columns["account"]
        self._add("", "rows", places, None)
        for name in self.amounts & rows.columns.keys():
            self._add_amounts(name, places, rows.columns[name])
        if {"newest", "oldest"} & {tally.kind for tally in self.tallies}:
            self._note_times(places, rows.time)

    def value(self, tally: Tally, cutoff: int) -> Floats:
        """Return a statistic; NaN where there is none."""
        match tally.kind:
            case "count":
                return self.rows
            case "newest" | "oldest":
                return clock.ages_of(self.times[tally.kind], cutoff).reshape(self.shape) if tally.kind in self.times else self.rows
        column = tally.column or tally.kind
        if (column, "whole") not in self.found:  # each row was one
            return self.rows if tally.kind != "mean" else np.ones(self.shape)
        if tally.kind == "events":
            return self._of(column, "plain")
        total = self._of(column, "whole") + self._of(column, "billionths") / BILLION
        if tally.kind == "sum":
            return total
        with np.errstate(invalid="ignore"):
            return np.divide(total, self._of(column, "filled"))

    def _of(self, column: str, what: str) -> Floats:
        return self.found.get((column, what), np.zeros(self.shape[0] * self.shape[1])).reshape(self.shape)

    def _add_amounts(self, column: str, places: npt.NDArray[np.int64], values: Floats) -> None:
        empty = np.isnan(values)
        if empty.any():
            places, values = places[~empty], values[~empty]
        whole, billionths = split(values)
        for what, weights in (("whole", whole), ("billionths", billionths), ("plain", values), ("filled", None)):
            self._add(column, what, places, weights)

    def _add(self, column: str, what: str, places: npt.NDArray[np.int64], weights: Floats | None) -> None:
        counted = np.bincount(places, weights=weights, minlength=self.shape[0] * self.shape[1]).astype(np.float64, copy=False)
        self.found[column, what] = counted + self.found.get((column, what), 0.0)

    def _note_times(self, places: npt.NDArray[np.int64], times: Ints) -> None:
        size = self.shape[0] * self.shape[1]
        newest, oldest = self.times.setdefault("newest", np.full(size, _NEVER)), self.times.setdefault("oldest", np.full(size, _ALWAYS))
        newest[places] = times
        first = np.flatnonzero(oldest[places] == _ALWAYS)[::-1]
        oldest[places[first]] = times[first]
