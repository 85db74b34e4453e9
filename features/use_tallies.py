"""Use tallies: statistics of an account's users, or of the kinds of event or products that they use.

As Ibis expressions they take a row for each of them at every cutoff. Where telemetry is numbered, `features.use_counts` has arrays with a
place for each, and a statistic of all accounts is a count over them; the numbers are those of the expressions, to the bit.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from features.feature import Feature, Window
from features.slices import KnownTables, Spine
from features.spans import within
from features.use_counts import Places, Summed, UseSums, can_be_summed

__all__ = ["UseTallies", "UseTally"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UseTally:
    """A statistic of rows that are summed up by user, by kind of event or by product.

    Parameters
    ----------
    kind
        How many there are `ever`, were `active` in the last days, in the days `before` those, are `new` in the last days, or were `lost`,
        active before and no longer; the share of those before who are `kept`; or the `top` one's share of all events of the last days.
    days
        How many days are the last.
    """

    kind: Literal["ever", "active", "before", "new", "lost", "kept", "top"]
    days: int = 0

    def __call__(self, rows: ir.Table) -> ir.Value:
        """Return the statistic as an aggregate."""
        days = self.days
        match self.kind:
            case "ever":
                return rows.count()
            case "active":
                return rows.count(where=within(rows, days))
            case "before":
                return rows.count(where=rows[f"rows_before_{days}d"] > 0)
            case "new":
                return rows.count(where=rows.oldest_age_days < days)
            case "lost":
                return rows.count(where=(rows.newest_age_days >= days) & (rows.newest_age_days < 2 * days))
            case "kept":
                came_before = rows[f"rows_before_{days}d"] > 0
                return rows.count(where=within(rows, days) & came_before) / rows.count(where=came_before).nullif(0)
            case "top":
                return rows[f"events_{days}d"].max() / rows[f"events_{days}d"].sum().nullif(0)


_EVER = UseTally("ever")


@dataclass(frozen=True, eq=False)
class UseTallies:
    """The statistics of numbered telemetry at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    takes: ClassVar = UseTally
    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be tallied."""
        return (
            len(window.by) == 1
            and all(isinstance(feature.expression, UseTally) for feature in features)
            and can_be_summed(self.known, _summed(window, features))
        )

    @staticmethod
    def shares_with(window: Window) -> Window:
        """Return what windows have in common that are filled at once."""
        return window

    def fill(self, columns: dict[str, Floats], asked: Sequence[tuple[Window, Sequence[Feature]]]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        ((window, features),) = asked
        telemetry = self.known.telemetry
        assert telemetry is not None
        places = Places.of(self.known, window, telemetry)
        sums = UseSums.of(self.known, places, _summed(window, features), telemetry)
        wanted, days, lag_days = sums.columns_of(places), window.days, window.lag_days
        arrivals = telemetry.arrivals(wanted, self.known.cutoffs, days=days, lag_days=lag_days, ends=sums.ends)
        for (cutoff, rows, accounts), arriving in zip(self.known.by_cutoff(self.spine), arrivals, strict=True):
            for part in arriving:
                sums.add(part, places)
            found = _tallied(sums, places, cutoff, self.known.n_accounts, tallies={_EVER, *(feature.expression for feature in features)})
            there = found[_EVER][accounts] > 0
            for feature in features:
                columns[feature.name][rows[there]] = found[feature.expression][accounts[there]]
            sums.leave(cutoff)
            yield


def _summed(window: Window, features: Sequence[Feature]) -> Summed:
    return Summed(window, [feature.expression for feature in features])


def _tallied(sums: UseSums, places: Places, cutoff: int, n_accounts: int, *, tallies: Collection[object]) -> Mapping[object, Floats]:
    """Return statistics of all accounts at a cutoff, NaN where there is none, shape `(n_accounts,)` each."""
    found = {tally: _Statistic.of(tally, n_accounts) for tally in tallies}
    is_within = sums.are_within(cutoff)
    for some in places.in_parts(n_accounts):
        there = some.start + np.flatnonzero(is_within[some])
        seen = _SeenPlaces(sums, cutoff, there, places.account_of(there).astype(np.intp))
        for statistic in found.values():
            statistic.add(seen)
    return {tally: statistic.of_accounts for tally, statistic in found.items()}


@dataclass(eq=False)
class _SeenPlaces:
    """Those of some places that have a row in the window of a cutoff, and their accounts, shape `(n,)`."""

    sums: UseSums
    cutoff: int
    there: Ints
    account: npt.NDArray[np.intp]
    _found: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column of `features.slices.summed`."""
        if name not in self._found:
            self._found[name] = self.sums.values_of(name, self.cutoff, self.there)
        return self._found[name]


@dataclass(frozen=True, eq=False)
class _Statistic:
    """A statistic of all accounts, for which places are added some at a time; where it is a share, its part and the whole."""

    tally: UseTally
    part: Floats
    whole: Floats | None

    @classmethod
    def of(cls, tally: object, n_accounts: int) -> "_Statistic":
        """Return the statistic of no places."""
        assert isinstance(tally, UseTally)
        part = np.full(n_accounts, -np.inf if tally.kind == "top" else 0.0)
        return cls(tally, part, np.zeros(n_accounts) if tally.kind in ("kept", "top") else None)

    def add(self, seen: _SeenPlaces) -> None:
        """Count places."""
        days = self.tally.days
        match self.tally.kind:
            case "ever":
                _count(self.part, seen)
            case "active":
                _count(self.part, seen, seen["newest_age_days"] < days)
            case "before":
                _count(self.part, seen, seen[f"rows_before_{days}d"] > 0)
            case "new":
                _count(self.part, seen, seen["oldest_age_days"] < days)
            case "lost":
                _count(self.part, seen, (seen["newest_age_days"] >= days) & (seen["newest_age_days"] < 2 * days))
            case "kept":
                came_before = seen[f"rows_before_{days}d"] > 0
                _count(self.part, seen, (seen["newest_age_days"] < days) & came_before)
                _count(self.whole, seen, came_before)
            case "top":
                events = seen[f"events_{days}d"]
                np.maximum.at(self.part, seen.account, np.where(np.isnan(events), -np.inf, events))
                _count(self.whole, seen, np.nan_to_num(events))

    @property
    def of_accounts(self) -> Floats:
        """The statistic of each account, NaN where there is none, shape `(n_accounts,)`."""
        return self.part if self.whole is None else _share(self.part, self.whole)


def _count(counts: Floats | None, seen: _SeenPlaces, weights: npt.NDArray[Any] | None = None) -> None:
    """Add up by account what places weigh, which is whole; those that do not count weigh nothing, as leaving them out takes longer."""
    assert counts is not None
    counts += np.bincount(seen.account, weights=weights, minlength=len(counts))


def _share(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    """Divide, NaN where the whole is zero."""
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole != 0))
