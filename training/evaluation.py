"""How good scores are, and how sure that is.

Every measure takes weights `(n, b)` and returns `(b,)`: one column of weights is one way to count the rows. A bootstrap is then one
call with a column for each resample, and a sort is done once for all of them. Resamples draw whole accounts (cluster bootstrap: Davison
and Hinkley, "Bootstrap methods and their application", 1997, section 3.8), because an account's rows of several cutoffs are not
independent. Percentile intervals of 95 %.

Ties share: rows with equal scores are neither before nor after each other, and a capacity that ends among them takes the same
fraction of each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.dataset import Array

__all__ = [
    "CAPACITY",
    "Estimate",
    "TestRows",
    "auc",
    "average_precision",
    "brier",
    "brier_skill",
    "ece",
    "estimate",
    "judge",
    "lift",
    "single",
    "value_caught",
]

CAPACITY = 0.1
"""The share of the rows that somebody has the time to look at."""

_BINS = 10
_BLOCK = 4_000_000
"""Weights that are held in memory at once."""

Measure = Callable[[Array], Array]


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95 % interval; the bounds are None where too few resamples have both outcomes."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class TestRows:
    """Rows to be judged on, with their outcomes.

    Parameters
    ----------
    account_id
        `(n,)`, what is resampled.
    target
        `(n,)` 0.0 or 1.0.
    arr
        `(n,)` ARR at the cutoff, or missing.
    """

    __test__ = False  # not a test, whatever its name

    account_id: npt.NDArray[np.object_]
    target: Array
    arr: Array


def judge(rows: TestRows, raw: Array, probability: Array, *, resamples: int, seed: int) -> dict[str, Estimate]:
    """Measure scores `(n,)` by all the measures of this module, each with its interval.

    `arr_caught_top_decile` is there only if some positive row has an ARR: of the ARR of the positive rows, the share in the tenth of the
    rows with the most expected ARR at stake, probability times ARR.
    """
    target = rows.target
    measures: dict[str, Measure] = {
        "auc": lambda weights: auc(target, raw, weights),
        "average_precision": lambda weights: average_precision(target, raw, weights),
        "lift_top_decile": lambda weights: lift(target, raw, weights),
        "brier": lambda weights: brier(target, probability, weights),
        "brier_skill": lambda weights: brier_skill(target, probability, weights),
        "ece": lambda weights: ece(target, probability, weights),
    }
    arr = np.nan_to_num(rows.arr)
    if (arr * target).sum() > 0:
        measures["arr_caught_top_decile"] = lambda weights: value_caught(target * arr, probability * arr, weights)
    return {name: estimate(measure, rows.account_id, resamples=resamples, seed=seed) for name, measure in measures.items()}


def estimate(measure: Measure, account_id: npt.NDArray[np.object_], *, resamples: int, seed: int) -> Estimate:
    """Return a measure's value on the rows as they are, and its interval over resampled accounts.

    The same seed and accounts give the same resamples, so that the difference of two measures can be estimated as one.
    """
    _, account = np.unique(account_id, return_inverse=True)
    drawn = np.concatenate([measure(weights) for weights in _resampled(account, resamples, np.random.default_rng(seed))])
    valid = drawn[np.isfinite(drawn)]
    low, high = np.quantile(valid, [0.025, 0.975]) if 2 * len(valid) >= max(resamples, 1) else (None, None)
    return Estimate(single(measure, len(account)), None if low is None else float(low), None if high is None else float(high))


def single(measure: Measure, rows: int) -> float:
    """Return a measure's value with each row counted once."""
    return float(measure(np.ones((rows, 1)))[0])


def auc(target: Array, score: Array, weights: Array) -> Array:
    """Return the share of (positive, negative) pairs that the score orders rightly, ties counted half."""
    positives, negatives = _by_score(score, weights * target[:, None], weights * (1 - target)[:, None])
    below = negatives.sum(axis=0) - np.cumsum(negatives, axis=0)
    return _ratio((positives * (below + negatives / 2)).sum(axis=0), positives.sum(axis=0) * negatives.sum(axis=0))


def average_precision(target: Array, score: Array, weights: Array) -> Array:
    """Return the mean of the precision over the recall, without interpolation."""
    positives, rows = _by_score(score, weights * target[:, None], weights)
    total = np.cumsum(rows, axis=0)
    precision = np.divide(np.cumsum(positives, axis=0), total, out=np.zeros_like(total), where=total > 0)
    return _ratio((positives * precision).sum(axis=0), positives.sum(axis=0))


def lift(target: Array, score: Array, weights: Array) -> Array:
    """Return how many times the average share of positives the tenth of the rows with the highest scores holds."""
    return value_caught(target, score, weights) / CAPACITY


def value_caught(value: Array, score: Array, weights: Array) -> Array:
    """Return the share of the value `(n,)` that is in the tenth of the rows with the highest scores."""
    values, rows = _by_score(score, weights * value[:, None], weights)
    before = np.cumsum(rows, axis=0) - rows
    room = CAPACITY * rows.sum(axis=0) - before
    taken = np.clip(np.divide(room, rows, out=np.zeros_like(rows), where=rows > 0), 0, 1)
    return _ratio((values * taken).sum(axis=0), values.sum(axis=0))


def brier(target: Array, probability: Array, weights: Array) -> Array:
    """Return the mean squared error of the probability."""
    return _ratio(((probability - target) ** 2) @ weights, weights.sum(axis=0))


def brier_skill(target: Array, probability: Array, weights: Array) -> Array:
    """Return how much of the Brier score of always saying the rows' own base rate is saved; 0 saves nothing."""
    base_rate = _ratio(target @ weights, weights.sum(axis=0))
    return 1 - _ratio(brier(target, probability, weights), base_rate * (1 - base_rate))


def ece(target: Array, probability: Array, weights: Array) -> Array:
    """Return the expected calibration error: the mean gap between probability and frequency over ten bins of equally many rows.

    Its interval lies above the truth: noise adds to an absolute gap and never takes from it.
    """
    edges = np.quantile(probability, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, probability, side="right")
    gaps = np.stack([np.abs((target - probability)[bins == part] @ weights[bins == part]) for part in np.unique(bins)])
    return _ratio(gaps.sum(axis=0), weights.sum(axis=0))


def _by_score(score: Array, *columns: Array) -> list[Array]:
    """Sum weights `(n, b)` over rows of equal score, the highest first: `(n_scores, b)`."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return [np.add.reduceat(column[order], starts, axis=0) for column in columns]


def _resampled(account: npt.NDArray[np.intp], resamples: int, generator: np.random.Generator) -> Iterator[Array]:
    accounts = int(account.max()) + 1
    block = max(1, _BLOCK // len(account))
    for start in range(0, resamples, block):
        drawn = generator.integers(accounts, size=(min(block, resamples - start), accounts))
        counts = np.stack([np.bincount(draw, minlength=accounts) for draw in drawn], axis=1)
        yield counts[account].astype(np.float64)
    if not resamples:
        yield np.empty((len(account), 0))


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
