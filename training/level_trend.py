"""How far a model's level lags behind: an outcome that becomes more or less common moves away from the mean of the rows learnt from.

A model of several years gives the newest months about the level of all of them, as far as no feature tells them apart. So its level is
followed through the months that it learnt from. A month's shift is what is to be added to the log-odds of its rows for their mean
probability to be the share of positives. The shifts are those of a local level model (Harvey, "Forecasting, structural time series models
and the Kalman filter", 1989, chapter 4)::

    seen_t = level_t + error_t,    level_t = level_(t-1) + step_t

where the error's variance is known, one over the rows' information, and that of the steps is not. It is estimated from the same months:
the filter is run for each of several spreads of the steps, and their last levels are averaged by how likely each made the months,
which pulls towards none where months differ as chance alone makes them differ. The last level is the forecast of all that follow.

It is the model's own rows that are looked at, not rows held out from an earlier one: what an earlier model missed says little of one that
has learnt from it since (see `training.calibration`). No tree can tell one month from another, so that few shifts are hidden by having
been learnt from. Without drift the correction is small, but never exactly none.

Rows of one account whose label windows overlap tell of the same event. The information and the likelihood count by the share that is
their own (composite likelihood: Varin, Reid and Firth, "An overview of composite likelihood methods", Statistica Sinica 2011).

But: neither seasons nor the return to a former level are known to it; two years of months are too few to estimate them. So it follows a
slow drift and is misled by a level that was raised for a while: it lowered the log loss of contraction and expansion of a real book by
0.4 and 0.9 %, and raised that of its churn by 0.3 % and that of expansion of three simulated ones, whose list prices jump once, by 0.1
to 0.7 %. Scales of the prior from 0.03 to 0.2 differed by 0.06 % on average. A level that reverts by a tenth each month had next to no
effect.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from training.calibration import Array, Labels, Rows, level_at, share

__all__ = ["level_shift", "recent_rows"]

_MONTHS = 24
"""So many of the latest months are looked at."""

_STEPS: Array = np.array([0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3])
"""Spreads of the steps of a month that are compared, in log-odds."""

_STEP_SCALE = 0.1
"""Of the half-normal prior of the spread."""

_START_SCALE = 0.2
"""Of the normal prior of the first level, as in `training.shocks`."""


def recent_rows(cutoff: npt.NDArray[np.datetime64]) -> Rows:
    """Return the positions of the rows whose months are looked at, given all rows' cutoffs `(n,)`."""
    month = _months(cutoff)
    return np.flatnonzero(month > month.max() - _MONTHS)


def level_shift(log_odds: Array, target: Array, *, account_id: Labels, cutoff: npt.NDArray[np.datetime64], horizon_days: float) -> float:
    """Return what is to be added to a model's log-odds for rows later than these.

    Parameters
    ----------
    log_odds, target
        Scores and outcomes 0/1 `(n,)` of rows that the model has learnt from, from `recent_rows`.
    account_id, cutoff
        `(n,)` whose row it is, and of when, UTC.
    horizon_days
        Length of the label windows.

    Examples
    --------
    >>> cutoff = np.repeat(np.arange("2024-01", "2025-01", dtype="datetime64[M]").astype("datetime64[us]"), 1000)
    >>> target = (np.arange(12_000) % 1000 < np.repeat([100] * 6 + [150] * 6, 1000)).astype(float)
    >>> level = np.full(12_000, np.log(1 / 7))  # what they are on average, 1 in 8
    >>> round(level_shift(level, target, account_id=np.arange(12_000), cutoff=cutoff, horizon_days=90), 1)
    0.2
    """
    month, number = np.unique(_months(cutoff), return_inverse=True)
    probability = expit(log_odds)
    seen = [level_at(log_odds[number == t], share(target[number == t])) for t in range(len(month))]
    overlap = _overlap(account_id, cutoff, horizon_days)
    noise = overlap / np.bincount(number, probability * (1 - probability))
    levels, log_likelihood = _filter(np.array(seen), noise, np.diff(month, prepend=month[0]))
    log_posterior = log_likelihood / overlap - 0.5 * (_STEPS / _STEP_SCALE) ** 2
    posterior = np.exp(log_posterior - log_posterior.max())
    return float(levels @ posterior / posterior.sum())


def _filter(seen: Array, noise: Array, gaps: npt.NDArray[Any]) -> tuple[Array, Array]:
    """Run the Kalman filter for each spread of the steps: the last level, and the log-likelihood of what was seen."""
    level, variance, log_likelihood = np.zeros(len(_STEPS)), np.full(len(_STEPS), _START_SCALE**2), np.zeros(len(_STEPS))
    for shift, error, gap in zip(seen, noise, gaps, strict=True):
        variance = variance + gap * _STEPS**2
        off, total = shift - level, variance + error
        log_likelihood -= 0.5 * (off**2 / total + np.log(total))
        level, variance = level + variance / total * off, variance * error / total
    return level, log_likelihood


def _overlap(account_id: Labels, cutoff: npt.NDArray[np.datetime64], horizon_days: float) -> float:
    """Return how many rows of an account there are within one horizon, on average over accounts and horizons."""
    horizon = ((cutoff - cutoff.min()) / np.timedelta64(1, "D") // horizon_days).astype(np.int64)
    _, account = np.unique(account_id, return_inverse=True)
    return len(account) / len(np.unique(account * (horizon.max() + 1) + horizon))


def _months(cutoff: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    return cutoff.astype("datetime64[M]").astype(np.int64)
