"""Day tallies: statistics of days and weeks, for all accounts at once.

As Ibis expressions they take a row for each account and day that it came, at every cutoff. Where telemetry is numbered, arrays of days and
accounts hold what is needed (see `features.day_counts`), and a statistic is a few passes over them; what is asked of days and of weeks
shares them. The numbers are those of the expressions, to the bit: what is added up is whole, or split as `features.sums` says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from features import clock
from features.day_counts import MOST_PLACES, DaySums
from features.feature import Feature, Window
from features.slices import KnownTables, Spine
from features.spans import within
from features.sums import BILLION, EXACT_BELOW, exact_sum, split

__all__ = ["DayTallies", "DayTally", "WeekTally"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_DAYS_PER_WEEK = 7


@dataclass(frozen=True)
class DayTally:
    """A statistic of rows that are summed up by day.

    Parameters
    ----------
    kind
        How many days were `active` of the last ones; or the `longest` or the `mean` of the gaps, from one active day to the next, or
        their standard `deviation`, as of a sample.
    days
        For active days: how many days up to the cutoff count.
    """

    kind: Literal["active", "longest", "mean", "deviation"]
    days: int = 0

    def __call__(self, by_day: ir.Table) -> ir.Value:
        """Return the statistic as an aggregate."""
        match self.kind:
            case "active":
                return by_day.count(where=within(by_day, self.days))
            case "longest":
                return by_day.gap_days.max()
            case "mean":
                return by_day.gap_days.mean()
            case "deviation":
                gaps = by_day.gap_days.cast("int64")
                n, total, squares = (sum_.cast("float64") for sum_ in (gaps.count(), gaps.sum(), (gaps * gaps).sum()))
                return (ibis.greatest(squares * n - total * total, 0.0) / (n * (n - 1.0)).nullif(0)).sqrt()


@dataclass(frozen=True)
class WeekTally:
    """A statistic of rows that are summed up by week.

    Parameters
    ----------
    kind
        The number of `events`; or their `swing` from week to week, the standard deviation over the mean, weeks without any included.
    weeks
        How many weeks count.
    since
        After how many weeks up to the cutoff they begin.
    """

    kind: Literal["events", "swing"]
    weeks: int
    since: int = 0

    def __call__(self, by_week: ir.Table) -> ir.Value:
        """Return the statistic as an aggregate."""
        counted = (by_week.week >= self.since) & (by_week.week < self.since + self.weeks)
        total = by_week.events.sum(where=counted)
        if self.kind == "events":
            return total.fill_null(0.0)
        squares = exact_sum(by_week.events * by_week.events, where=counted)  # sums do not depend on the order of the rows
        return ibis.greatest(squares * float(self.weeks) - total * total, 0.0).sqrt() / total.nullif(0)


@dataclass(frozen=True, eq=False)
class DayTallies:
    """The statistics of days and weeks of numbered telemetry at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    takes: ClassVar = DayTally | WeekTally
    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        telemetry = self.known.countable(window.table)
        return (
            telemetry is not None
            and window.by in (("day",), ("week",))
            and all(isinstance(feature.expression, DayTally if window.by == ("day",) else WeekTally) for feature in features)
            and window.each is None
            and window.days is not None
            and window.lag_days == 0
            and not telemetry.lacks_events
            and (telemetry.busiest * (1.0 if self._is_single else max(telemetry.largest, 1.0))) ** 2 < EXACT_BELOW
            and clock.is_midnight(self.known.cutoffs)
            and self.known.n_accounts * window.days <= MOST_PLACES
        )

    @staticmethod
    def shares_with(window: Window) -> Window:
        """Return what windows have in common that are filled at once."""
        return Window(table=window.table, days=window.days)

    @property
    def _is_single(self) -> bool:
        return self.known.telemetry is not None and all(piece.are_single for piece in self.known.telemetry.pieces)

    def fill(self, columns: dict[str, Floats], asked: Sequence[tuple[Window, Sequence[Feature]]]) -> Iterator[None]:
        """Write the features of windows of the same days into their columns `(n_rows,)`, cutoff by cutoff."""
        telemetry, days = self.known.telemetry, asked[0][0].days
        assert telemetry is not None and days is not None
        sums = DaySums(self.known.n_accounts, days=days, lag_days=0, weighted=not self._is_single)
        arrivals = telemetry.arrivals(["account", *([] if self._is_single else ["events"])], self.known.cutoffs, days=days)
        features = [feature for _, features in asked for feature in features]
        for (cutoff, rows, accounts), arriving in zip(self.known.by_cutoff(self.spine), arrivals, strict=True):
            sums.turn(cutoff)
            for found in arriving:
                sums.add(found)
            tallied = _Tallied(sums)
            there = tallied.there[accounts]
            for feature in features:
                columns[feature.name][rows[there]] = tallied.of(feature.expression)[accounts[there]]
            yield


class _Tallied:
    """The statistics at one cutoff; arrays are of shape `(n_accounts,)`, NaN where there is none."""

    def __init__(self, sums: DaySums) -> None:
        self._sums = sums
        self._by_age = sums.ring.by_time[::-1]

    def of(self, tally: object) -> npt.NDArray[np.number]:
        """Return a statistic of all accounts."""
        match tally:
            case DayTally(kind="active", days=days):
                return self._active(days)
            case DayTally(kind="longest"):
                return np.where(self._gaps.n > 0, self._gaps.longest, np.nan)
            case DayTally(kind="mean"):
                return self._gaps.mean
            case DayTally(kind="deviation"):
                return self._gaps.deviation
            case WeekTally(kind="events", weeks=weeks, since=since):
                return np.asarray(self._weeks[since : since + weeks].sum(axis=0))
            case WeekTally(kind="swing", weeks=weeks, since=since):
                return self._swing(slice(since, since + weeks), weeks)
        raise TypeError(f"no tally: {tally!r}")

    @cached_property
    def there(self) -> npt.NDArray[np.bool_]:
        """Which accounts have any row."""
        return self._active(len(self._by_age)) > 0

    def _active(self, days: int) -> Ints:
        return np.asarray(np.add.reduce(self._came[:days], axis=0, dtype=np.int32))

    @cached_property
    def _came(self) -> npt.NDArray[np.bool_]:
        """Which accounts came on which day, from the newest on, shape `(days, n_accounts)`."""
        return np.greater(self._sums.rows, 0)[self._by_age]

    @cached_property
    def _gaps(self) -> "_Gaps":
        return _Gaps.of(self._came[::-1])

    @cached_property
    def _weeks(self) -> Floats:
        """The events of each week, from the newest on, shape `(weeks, n_accounts)`."""
        counted = self._sums.rows if self._sums.events is None else self._sums.events
        weeks = self._by_age.reshape(-1, _DAYS_PER_WEEK)
        return np.stack([counted[week].sum(axis=0, dtype=counted.dtype) for week in weeks]).astype(np.float64, copy=False)

    @cached_property
    def _squares(self) -> tuple[Floats, Floats]:
        """The squares of the events of each week, split to be added up."""
        if self._sums.events is None:  # they are whole
            return self._weeks * self._weeks, np.zeros((len(self._weeks), 1))
        whole, billionths = split((self._weeks * self._weeks).reshape(-1))
        return whole.reshape(self._weeks.shape), billionths.reshape(self._weeks.shape)

    def _swing(self, weeks: slice, n: int) -> Floats:
        """Return the standard deviation over the mean of n weeks."""
        total, whole, billionths = (values[weeks].sum(axis=0) for values in (self._weeks, *self._squares))
        scatter = np.maximum((whole + billionths / BILLION) * float(n) - total * total, 0.0)
        return np.asarray(np.divide(np.sqrt(scatter), total, out=np.full(len(total), np.nan), where=total != 0.0))


@dataclass(frozen=True, eq=False)
class _Gaps:
    """The gaps from one active day to the next: their number, the longest, their total, and that of their squares."""

    n: Ints
    longest: Ints
    total: Ints
    squares: Ints

    @classmethod
    def of(cls, came: npt.NDArray[np.bool_]) -> "_Gaps":
        """Return the gaps of days from the oldest to the newest, shape `(days, n_accounts)`."""
        since, gap, longest, total, squares = np.zeros((5, came.shape[1]), dtype=np.int32)
        since -= len(came)  # below zero until the first day that an account came
        for here in came:
            np.multiply(since, here, out=gap)
            np.maximum(gap, 0, out=gap)
            np.maximum(longest, gap, out=longest)
            total += gap
            squares += gap * gap
            np.putmask(since, here, 0)
            since += 1
        return cls(np.maximum(came.sum(axis=0, dtype=np.int32) - 1, 0), longest, total, squares)

    @property
    def mean(self) -> Floats:
        """The mean, NaN where there is no gap."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.n)

    @property
    def deviation(self) -> Floats:
        """The standard deviation of a sample, NaN for fewer than two gaps."""
        n, total, squares = (values.astype(np.float64) for values in (self.n, self.total, self.squares))
        pairs = n * (n - 1.0)
        scatter = np.maximum(squares * n - total * total, 0.0)
        return np.asarray(np.sqrt(np.divide(scatter, pairs, out=np.full(len(n), np.nan), where=pairs != 0.0)))
