"""The past of a book with subscriptions, as a forecast needs it: who paid how much when, what was said of it then, and what became of it.

A *period* is the label window of one cutoff. What a forecast made at a cutoff may use of earlier periods are those that had closed by
then (`History.closed`), and the scores of models that had not seen them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.dataset import Array
from training.splits import LabelWindow

__all__ = ["Groups", "History", "realised_ratio"]

Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]
Times = npt.NDArray[np.datetime64]

_YEAR_DAYS = 365
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, eq=False)
class Groups:
    """A breakdown of rows: `names` of the groups, None for rows without one, and the number of each row's group `(n,)`."""

    names: tuple[str | None, ...]
    code: Positions

    def at(self, rows: Positions) -> "Groups":
        """Return the groups of these rows that occur in them, numbered anew."""
        present, code = np.unique(self.code[rows], return_inverse=True)
        return Groups(tuple(self.names[number] for number in present), code)

    def sums(self, values: Array) -> Array:
        """Return the sum over each group's rows of values `(n,)` or `(n, n_columns)`, with the groups on the first axis.

        Examples
        --------
        >>> Groups(("a", None), np.array([0, 1, 0])).sums(np.array([1.0, 2.0, 4.0])).tolist()
        [5.0, 2.0]
        """
        summed = np.zeros((len(self.names), *values.shape[1:]))
        np.add.at(summed, self.code, values)
        return summed


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """Rows of accounts that pay at a cutoff, ordered by cutoff and account; the last cutoff is the one from which is forecast.

    Parameters
    ----------
    cutoffs
        `(n_periods,)` different cutoffs in order, UTC.
    test
        `(n_periods,)` whether a period was scored by models on which nothing was chosen in it.
    period, account
        `(n,)` positions in `cutoffs` and in `account_id`.
    account_id
        `(n_accounts,)` in order.
    arr
        `(n,)` ARR at the cutoff, above zero.
    log_odds
        `(n, n_parts)` calibrated scores of churn, contraction and expansion, missing where the row was not scored.
    outcome
        `(n, n_parts)` 1.0 or 0.0, missing where there is no label.
    ratio
        `(n,)` ARR at the end of the label window over ARR at the cutoff, missing where the window has not closed.
    renewal_days
        `(n,)` days to the next renewal as known at the cutoff, missing where there is none.
    matrix
        `(n, n_features)` encoded features on which the size of a change may depend.
    categories
        Columns of the matrix that hold codes of categories.
    groups
        Breakdowns by kind, such as `partner`.
    assumed
        Parts for which there is no model in use: their scores are base rates.
    """

    cutoffs: Times
    test: Flags
    period: Positions
    account: Positions
    account_id: npt.NDArray[np.object_]
    arr: Array
    log_odds: Array
    outcome: Array
    ratio: Array
    renewal_days: Array
    matrix: Array
    categories: tuple[int, ...]
    groups: Mapping[str, Groups]
    window: LabelWindow
    assumed: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """How many horizons make about a year, at least one."""
        return max(1, round(_YEAR_DAYS / self.window.horizon_days))

    @property
    def spacing_days(self) -> float:
        """The usual time from one cutoff to the next; the horizon where there is but one cutoff."""
        if len(self.cutoffs) < 2:
            return float(self.window.horizon_days)
        return float(np.median(np.diff(self.cutoffs) / _DAY))

    @property
    def overlap(self) -> int:
        """How many consecutive label windows share a day."""
        return max(1, round(self.window.horizon_days / self.spacing_days))

    @property
    def scored(self) -> Flags:
        """Which periods have scores, `(n_periods,)`."""
        found = np.zeros(len(self.cutoffs), dtype=bool)
        found[self.period[~np.isnan(self.log_odds).any(axis=1)]] = True
        return found

    def closed(self, period: int) -> Flags:
        """Tell which periods' outcomes were known at the cutoff of a period, `(n_periods,)`."""
        return self.window.closed(self.cutoffs, self.cutoffs[period])

    def rows(self, period: int) -> Positions:
        """Return the rows of a period that were scored."""
        return np.flatnonzero((self.period == period) & ~np.isnan(self.log_odds).any(axis=1))

    def age_days(self, period: int) -> Array:
        """Return the days from each cutoff to that of the period, `(n_periods,)`."""
        days: Array = (self.cutoffs[period] - self.cutoffs) / _DAY
        return days

    def later(self, step: int) -> Positions:
        """Return, for each row, the row of the same account `step` horizons later, or -1 where there is none `(n,)`.

        The cutoff that lies nearest is taken, if it lies within half the usual time between cutoffs.
        """
        ahead = self.cutoffs + np.timedelta64(step * self.window.horizon_days, "D")
        distance = np.abs(ahead[:, None] - self.cutoffs) / _DAY
        nearest = distance.argmin(axis=1)
        there = distance[np.arange(len(nearest)), nearest] <= self.spacing_days / 2
        place = np.full((len(self.cutoffs) + 1, len(self.account_id)), -1, dtype=np.intp)
        place[self.period, self.account] = np.arange(len(self.period))
        return place[np.where(there, nearest, -1)[self.period], self.account]


def realised_ratio(arr: Array, arr_end: Array, churn: Array) -> Array:
    """Return ARR at the window's end over ARR at the cutoff, `(n,)`.

    Who pays nothing at the end without having churned is between two terms, a renewal booked late: nothing has changed yet.

    Examples
    --------
    >>> realised_ratio(np.array([10.0, 10.0, 10.0]), np.array([12.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])).tolist()
    [1.2, 0.0, 1.0]
    """
    ratio: Array = np.where((arr_end == 0) & (churn == 0), 1.0, arr_end / arr)
    return np.where(np.isnan(churn), np.nan, ratio)
