"""Habits: on how many days a user comes, averaged over an account's users.

As an Ibis expression this takes a row for each user and day, of which there are nearly as many as events. Where telemetry is numbered, each
user and day is a place in an array of flags, and counting them takes no sorting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from features import clock
from features.feature import Feature, Window
from features.numbered import NumberedTelemetry
from features.slices import KnownTables, Spine
from features.spans import within

__all__ = ["Habit", "Habits"]

Floats = npt.NDArray[np.float64]

_MOST_FLAGS = 1 << 30
"""So many users and days, a gigabyte of them, are counted here; beyond, the engine does it and spills."""


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

    known: KnownTables
    spine: Spine

    def answer(self, window: Window, features: Sequence[Feature]) -> bool:
        """Tell whether these features of one window can be counted."""
        telemetry = self.known.telemetry
        return (
            telemetry is not None
            and window.table == "telemetry"
            and window.by == ("user_id", "day")
            and window.each is None
            and all(isinstance(feature.expression, Habit) for feature in features)
            and window.days is not None
            and len(telemetry.user_accounts) * (window.days + 1) <= _MOST_FLAGS
            and self.known.is_cut_by_cutoff("telemetry")
        )

    def fill(self, columns: dict[str, Floats], window: Window, features: Sequence[Feature]) -> Iterator[None]:
        """Write the features of one window into their columns `(n_rows,)`, cutoff by cutoff."""
        assert self.known.telemetry is not None
        for cutoff, rows, accounts in self.known.by_cutoff(self.spine):
            for feature in features:
                assert isinstance(feature.expression, Habit)
                share = _share(self.known.telemetry, window, feature.expression.days, cutoff, self.known.n_accounts)
                columns[feature.name][rows] = share[accounts]
            yield


def _share(telemetry: NumberedTelemetry, window: Window, days: int, cutoff: int, n_accounts: int) -> Floats:
    """Return the habit of each account, NaN without users, shape `(n_accounts,)`."""
    assert window.days is not None
    until = clock.shifted(cutoff, -window.lag_days)
    since = clock.shifted(cutoff, -min(window.lag_days + window.days, max(days, window.lag_days)))
    first_day, width = clock.day_of(since + 1), window.days + 1
    came = np.zeros(len(telemetry.user_accounts) * width, dtype=np.bool_)
    for rows in telemetry.months(["user_id"], since=since, until=until, cutoff=cutoff):
        user, day = rows.columns["user_id"].astype(np.int64), clock.day_number_of(rows.time) - first_day
        named = user >= 0
        came[user[named] * width + day[named]] = True
    user, n_days = np.unique(np.flatnonzero(came) // width, return_counts=True)
    account = telemetry.user_accounts[user]
    user_days, users = (np.bincount(account, weights=each, minlength=n_accounts) for each in (n_days, None))
    with np.errstate(invalid="ignore"):
        return np.asarray(user_days / days / users)
