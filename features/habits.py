"""Habits: on how many days a user comes, averaged over an account's users.

As an Ibis expression this takes a row for each user and day, of which there are nearly as many as events. Where telemetry is numbered, each
user has a bit for each of the last days, and counting them takes no sorting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from features import clock
from features.day_counts import DayRing
from features.feature import Feature, Window
from features.slices import KnownTables, Spine
from features.spans import within
from features.use_counts import Places

__all__ = ["Habit", "Habits"]

Floats = npt.NDArray[np.float64]

_DAYS_A_BYTE = 8
_MOST_FLAGS = 1 << 32
"""So many users and days, half a gigabyte of them, are counted here; beyond, the engine does it and spills."""


@dataclass(frozen=True)
class Habit:
    """The average number of users a day over the number of users, of rows that are summed up by user and day.

    Parameters
    ----------
    days
        Days up to the cutoff that count.
    """

    days: int

    def __call__(self, user_days: ir.Table) -> ir.Value:
        """Return the share as an aggregate."""
        counted = within(user_days, self.days)
        return user_days.count(where=counted).cast("float64") / self.days / user_days.user_id.nunique(where=counted).nullif(0)


@dataclass(frozen=True, eq=False)
class Habits:
    """The habits of numbered telemetry at the shared cutoffs of a spine.

    Parameters
    ----------
    spine
        The rows that `known` was made for.
    """

    takes: ClassVar = Habit
    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be counted."""
        telemetry = self.known.countable(window.table)
        return (
            telemetry is not None
            and window.by == ("user_id", "day")
            and window.each is None
            and all(isinstance(feature.expression, Habit) for feature in features)
            and window.days is not None
            and window.days < np.iinfo(np.uint8).max
            and len(telemetry.user_accounts) * window.days <= _MOST_FLAGS
            and clock.is_midnight(self.known.cutoffs)
        )

    @staticmethod
    def shares_with(window: Window) -> Window:
        """Return what windows have in common that are filled at once."""
        return window

    def fill(self, columns: dict[str, Floats], asked: Sequence[tuple[Window, Sequence[Feature]]]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        ((window, features),) = asked
        telemetry = self.known.telemetry
        assert telemetry is not None and window.days is not None
        places = Places.of(self.known, "user_id", telemetry)
        came = _DayFlags(places.size + 1, days=window.days, lag_days=window.lag_days)  # the last is of rows without a user
        arrivals = telemetry.arrivals(["user_id"], self.known.cutoffs, days=window.days, lag_days=window.lag_days)
        for (cutoff, rows, accounts), arriving in zip(self.known.by_cutoff(self.spine), arrivals, strict=True):
            came.turn(cutoff)
            for found in arriving:
                came.add(found.time, places.of_rows(found))
            for feature in features:
                assert isinstance(feature.expression, Habit)
                share = _share(came, places, feature.expression.days, self.known.n_accounts)
                columns[feature.name][rows] = share[accounts]
            yield


class _DayFlags:
    """On which of the last days each user came: bytes of shape `(n_bytes, n_users)`, so that what is set for a day lies close together."""

    def __init__(self, n_users: int, *, days: int, lag_days: int) -> None:
        self._ring = DayRing(days, lag_days)
        self._bytes = np.zeros((-(-days // _DAYS_A_BYTE), n_users), dtype=np.uint8)

    def turn(self, cutoff: int) -> None:
        """Go on to a cutoff, and forget the days that are then too old."""
        for flags, left in zip(self._bytes, self._masks(self._ring.turn(cutoff)), strict=True):
            if left:
                flags &= ~left

    def add(self, times: npt.NDArray[np.int64], users: npt.NDArray[np.integer]) -> None:
        """Set the day of each row."""
        for place, stretch in self._ring.stretches(times):
            number, bit = divmod(place, _DAYS_A_BYTE)
            self._bytes[number][users[stretch]] |= np.uint8(1 << bit)

    def count(self, days: int, users: slice) -> npt.NDArray[np.uint8]:
        """Return on how many of the last days some users came, shape `(n,)`."""
        masks = self._masks(self._ring.by_time[self._ring.ages < days])
        return np.asarray(sum(np.bitwise_count(flags[users] & counted) for flags, counted in zip(self._bytes, masks, strict=True)))

    def _masks(self, places: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Return, for each byte, in which bits the days of some places are."""
        masks = np.zeros(len(self._bytes), dtype=np.uint8)
        np.bitwise_or.at(masks, places // _DAYS_A_BYTE, np.left_shift(1, places % _DAYS_A_BYTE).astype(np.uint8))
        return masks


def _share(came: _DayFlags, places: Places, days: int, n_accounts: int) -> Floats:
    """Return the habit of each account, NaN without users, shape `(n_accounts,)`."""
    share = np.full(n_accounts, np.nan)
    for part in places.in_parts():
        n_days = came.count(days, part.places)
        with np.errstate(invalid="ignore"):
            share[part.accounts] = part.added_up(n_days) / days / part.added_up(n_days > 0)
    return share
