"""Use tallies: statistics of an account's users, or of the kinds of event or products that they use.

As Ibis expressions they take a row for each of them at every cutoff. Where telemetry is numbered, `features.use_counts` has arrays with a
place for each, those of an account side by side, and a statistic of all accounts is a sum over stretches of them; the numbers are those of
the expressions, to the bit.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from features import clock
from features.feature import Feature, Window
from features.slices import KnownTables, Spine
from features.spans import within
from features.use_counts import Part, Places, Summed, UseSums, can_be_summed

__all__ = ["UseTallies", "UseTally"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


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
        places = Places.of(self.known, window.by[0], telemetry)
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
    found = {tally: np.full(n_accounts, np.nan) for tally in tallies}
    for part in places.in_parts():
        seen = _Seen(sums, cutoff, part)
        for tally, of_accounts in found.items():
            of_accounts[part.accounts] = seen.tallied(tally)
    return found


class _Seen:
    """What is seen of some places at a cutoff; flags are of shape `(n_places,)`.

    Parameters
    ----------
    part
        The places.
    """

    def __init__(self, sums: UseSums, cutoff: int, part: Part) -> None:
        self._sums, self._cutoff, self._part = sums, cutoff, part
        self._is_there = sums.are_within(cutoff, part.places)
        self._came_since: dict[int, Flags] = {}

    def tallied(self, tally: object) -> Floats:
        """Return a statistic of the accounts, NaN where there is none, shape `(n_accounts,)`."""
        assert isinstance(tally, UseTally)
        days, count = tally.days, self._part.added_up
        match tally.kind:
            case "ever":
                return count(self._is_there)
            case "active":
                return count(self._came(days))
            case "before":
                return count(self._came_before(days))
            case "new":
                return count(self._began(days))
            case "lost":
                return count(self._came(2 * days) & ~self._came(days))
            case "kept":
                came_before = self._came_before(days)
                return _share(count(came_before & self._came(days)), count(came_before))
            case "top":
                n_rows, events = self._sums.counted(f"events_{days}d", self._cutoff, self._part.places)
                most = events if events is n_rows else np.where(n_rows == 0, -np.inf, events)
                return _share(self._part.largest(most), count(events))

    def _came(self, days: int) -> Flags:
        """Tell who came in the last days."""
        if days not in self._came_since:
            newest = self._sums.times.newest[self._part.places]
            self._came_since[days] = self._is_there & clock.came_after(newest, clock.shifted(self._cutoff, -days))
        return self._came_since[days]

    def _came_before(self, days: int) -> Flags:
        """Tell who came in the days before those."""
        return self._sums.counted(f"rows_before_{days}d", self._cutoff, self._part.places)[0] > 0

    def _began(self, days: int) -> Flags:
        """Tell who came in the last days for the first time."""
        assert self._sums.times.oldest is not None
        oldest = self._sums.times.oldest[self._part.places]
        return self._is_there & clock.came_after(oldest, clock.shifted(self._cutoff, -days))


def _share(part: Floats, whole: Floats) -> Floats:
    """Divide, NaN where the whole is zero."""
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole != 0))
