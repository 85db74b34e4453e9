"""Whether probabilities can be taken at their word: what was said against how often it happened.

Rows are put into ten bins of equally many rows by their probability. Mean gaps between probability and frequency are never zero, even
for a perfect model, and an account's rows of several cutoffs come true together or not at all, which makes them larger. So each gap is
set against what chance alone would do: outcomes of perfectly calibrated probabilities, correlated within accounts as they are seen to be.

But: what moves all accounts at once, such as a bad quarter, is not part of that chance. How much months differ beyond it would have to be
estimated from the months before, or a model that is wrong would excuse itself. On two years of months before a test period that estimate
was zero for all targets of a real book, and for a simulated one whose list prices had jumped it took the jump for shocks (0.019 in place
of 0.015). That is too little to go by.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from training.dataset import Array

__all__ = ["CurveBin", "calibration_curve", "ece", "ece_expected"]

_BINS = 10
_DRAWS = 2000
_Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""

_Bins = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class CurveBin:
    """A bin of the calibration curve.

    Parameters
    ----------
    probability
        Mean probability of its rows.
    frequency
        Share of its rows whose outcome is positive.
    low, high
        95 % interval of the frequency.
    """

    rows: int
    positives: int
    probability: float
    frequency: float
    low: float
    high: float


def ece(target: Array, probability: Array, weights: Array) -> Array:
    """Return the expected calibration error: the mean gap between probability and frequency over the bins, each with its share of rows.

    Its bootstrap interval lies above the truth: noise adds to an absolute gap and never takes from it. `ece_expected` tells what to
    hold it against.
    """
    bins = _bins(probability)
    gaps = np.asarray(csr_array((target - probability, (bins, np.arange(len(bins)))), shape=(_BINS, len(bins))) @ weights)
    total: Array = weights.sum(axis=0)
    error: Array = np.divide(np.abs(gaps).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0)
    return error


def ece_expected(target: Array, probability: Array, account_id: npt.NDArray[Any], *, quantile: float = 0.95, seed: int) -> float:
    """Return the calibration error that a perfectly calibrated model stays below on these rows, by chance, with probability `quantile`.

    Were the probabilities true, a row's outcome would have the variance `p (1 - p)`, and two rows of an account a covariance. It is taken
    to be the same share of their standard deviations throughout, and estimated from the products of the residuals, each less its bin's
    mean, of rows that share account and bin. The bins' gaps are then drawn from the normal distribution with those covariances. In
    simulations with independent, overlapping and exchangeable outcomes of 200 and 800 accounts, a calibrated model stayed below in 95 to
    98 of 100 worlds; a bootstrap of centred gaps did in 91 to 98, because a bin in which nothing happened looks as if nothing could.
    """
    share, bins = _shared_variance(target, probability, account_id), _bins(probability)
    deviation = np.sqrt(probability * (1 - probability))
    by_account = _by_account(deviation, bins, account_id)
    alone = np.bincount(bins, deviation**2, _BINS)
    spread = np.hstack([np.sqrt(1 - share) * np.diag(np.sqrt(alone)), np.sqrt(share) * _root(by_account.T @ by_account)])
    gaps = np.random.default_rng(seed).standard_normal((_DRAWS, spread.shape[1])) @ spread.T
    return float(np.quantile(np.abs(gaps).sum(axis=1) / len(target), quantile))


def calibration_curve(target: Array, probability: Array, account_id: npt.NDArray[Any]) -> tuple[CurveBin, ...]:
    """Return the bins of rows `(n,)`, the lowest probabilities first; bins that equal probabilities leave empty are not there.

    Intervals are Wilson's, with as many rows as would tell as much if they were independent (Korn and Graubard, "Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data", Survey Methodology 1998).
    """
    share, bins = _shared_variance(target, probability, account_id), _bins(probability)
    deviation = np.sqrt(probability * (1 - probability))
    together, alone = (_by_account(deviation, bins, account_id) ** 2).sum(axis=0), np.bincount(bins, deviation**2, _BINS)
    curve = []
    for number in np.unique(bins):
        inside = bins == number
        rows, positives = int(inside.sum()), int(target[inside].sum())
        design = 1 + share * (together[number] / alone[number] - 1) if alone[number] > 0 else 1.0
        low, high = _wilson(positives / rows, rows / design)
        mean = float(probability[inside].mean())
        curve.append(CurveBin(rows=rows, positives=positives, probability=mean, frequency=positives / rows, low=low, high=high))
    return tuple(curve)


def _bins(probability: Array) -> _Bins:
    edges = np.quantile(probability, np.linspace(0, 1, _BINS + 1)[1:-1])
    return np.asarray(np.searchsorted(edges, probability, side="right"), dtype=np.intp)


def _shared_variance(target: Array, probability: Array, account_id: npt.NDArray[Any]) -> float:
    """Return the correlation, between 0 and 1, of outcomes that share account and bin, given their probabilities."""
    bins = _bins(probability)
    gap = np.bincount(bins, target - probability, _BINS) / np.maximum(np.bincount(bins, minlength=_BINS), 1)
    residual, deviation = target - probability - gap[bins], np.sqrt(probability * (1 - probability))
    seen = (_by_account(residual, bins, account_id) ** 2).sum() - (residual**2).sum()
    possible = (_by_account(deviation, bins, account_id) ** 2).sum() - (deviation**2).sum()
    return float(np.clip(seen / possible, 0, 1)) if possible > 0 else 0.0


def _by_account(values: Array, bins: _Bins, account_id: npt.NDArray[Any]) -> Array:
    """Sum up values `(n,)` by account and bin: `(n_accounts, n_bins)`."""
    names, account = np.unique(account_id, return_inverse=True)
    return np.asarray(np.bincount(account * _BINS + bins, values, len(names) * _BINS).reshape(len(names), _BINS), dtype=np.float64)


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))


def _wilson(frequency: float, rows: float) -> tuple[float, float]:
    centre = (frequency + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z / (1 + _Z**2 / rows) * np.sqrt(frequency * (1 - frequency) / rows + _Z**2 / (4 * rows**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
