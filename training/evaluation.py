"""How good scores are, and how sure that is.

Every measure takes weights `(n, b)` and returns `(b,)`: one column of weights is one way to count the rows. A bootstrap is then one
call with a column for each resample, and a sort is done once for all of them. Resamples draw whole accounts (cluster bootstrap: Davison
and Hinkley, "Bootstrap methods and their application", 1997, section 3.8), because an account's rows of several cutoffs are not
independent. Percentile intervals of 95 %.

Ties share: rows with equal scores are neither before nor after each other, and a capacity that ends among them takes the same
fraction of each.

But: what moves all accounts at once, such as a bad quarter, is not resampled; no interval here covers it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from training.dataset import Array
from training.reliability import ece, ece_expected

__all__ = [
    "CAPACITIES",
    "Estimate",
    "Measure",
    "Measures",
    "Positions",
    "Ranking",
    "Resamples",
    "Suite",
    "TestRows",
    "auc",
    "auc_measure",
    "auc_within",
    "average_precision",
    "brier",
    "brier_skill",
    "compare",
    "estimate",
    "estimate_all",
    "judge",
    "lift",
    "log_loss",
    "rank",
    "rank_measures",
    "recall",
    "resample",
    "single",
    "standard_measures",
    "value_caught",
]

CAPACITIES = (0.05, 0.1, 0.2)
"""The shares of the rows that a team may have the time to look at."""

_RESAMPLES = 200
_BLOCK = 4_000_000
"""Weights that are held in memory at once."""

Positions = npt.NDArray[np.intp]
Measure = Callable[[Array], Array]
"""From weights `(n, b)` to values `(b,)`."""
Measures = Callable[[Array], Mapping[str, Array]]
"""From weights `(n, b)` to values `(b,)` by name."""


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

    def __len__(self) -> int:
        return len(self.target)

    def at(self, rows: npt.NDArray[Any]) -> "TestRows":
        """Return the rows of a boolean mask `(n,)`, or of positions."""
        return TestRows(self.account_id[rows], self.target[rows], self.arr[rows])


Suite = Callable[[TestRows, Array], Measures]
"""From rows and their probabilities `(n,)` to what is measured on them."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Ways to count rows: the first counts each once, every further one is a draw of as many accounts as there are.

    Parameters
    ----------
    account
        `(n,)` the row's account, as a number.
    counts
        `(n_accounts, 1 + resamples)` how often each account was drawn.
    """

    account: Positions
    counts: Array

    def at(self, rows: npt.NDArray[Any]) -> "Resamples":
        """Return the same draws for some of the rows: those of a boolean mask `(n,)`, or of positions."""
        return Resamples(self.account[rows], self.counts)

    def weights(self) -> Iterator[Array]:
        """Yield weights `(n, b)`, few enough columns at a time to be held in memory."""
        block = max(1, _BLOCK // max(len(self.account), 1))
        for start in range(0, self.counts.shape[1], block):
            yield self.counts[self.account, start : start + block]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows in the order of their scores, highest first, cut into runs that no rank measure needs to look into.

    A run is a group of rows with equal scores, or several such groups without any value between them.

    Parameters
    ----------
    values, rows
        `(n_runs, n)` sparse: what a row adds to the value of its run, and to its size.
    """

    values: csr_array
    rows: csr_array

    def sums(self, weights: Array) -> tuple[Array, Array]:
        """Return the value and the size of each run `(n_runs, b)` under weights `(n, b)`."""
        return np.asarray(self.values @ weights), np.asarray(self.rows @ weights)


def judge(
    rows: TestRows, probability: Array, *, suite: "Suite | None" = None, resamples: int = _RESAMPLES, seed: int
) -> dict[str, Estimate]:
    """Measure calibrated probabilities `(n,)`, each measure with its interval.

    `suite` says what is measured; without one it is `standard_measures`. `ece_expected` is there too: what `ece` may be by chance, see
    `training.reliability`. The same seed and accounts give the same resamples.
    """
    resampled = resample(rows.account_id, resamples=resamples, seed=seed)
    found = estimate_all((suite or standard_measures)(rows, probability), resampled)
    chance = ece_expected(rows.target, probability, resampled.account, seed=seed)
    return found | {"ece_expected": Estimate(chance, None, None)}


def standard_measures(rows: TestRows, probability: Array) -> Measures:
    """Return what is measured of every target: `rank_measures`, and `brier`, `brier_skill` and `ece`."""
    ranked = rank_measures(rows, probability)
    errors = (probability - rows.target) ** 2

    def measured(weights: Array) -> dict[str, Array]:
        squared = _squared(errors @ weights, rows.target @ weights, weights.sum(axis=0))
        return {**ranked(weights), **squared, "ece": ece(rows.target, probability, weights)}

    return measured


def rank_measures(rows: TestRows, probability: Array) -> Measures:
    """Return the measures for which the probability `(n,)` only ranks.

    `auc` and `average_precision`, and for each capacity of k % of the rows `lift_top_k` and `recall_top_k`. If some positive row has an
    ARR, `arr_caught_top_k` too: the share of the positive rows' ARR that is in the k % of the rows with the most expected ARR at stake,
    probability times ARR.
    """
    ranking = rank(probability, rows.target)
    arr = np.nan_to_num(rows.arr)
    stakes = rank(probability * arr, rows.target * arr) if (arr * rows.target).any() else None

    def measured(weights: Array) -> dict[str, Array]:
        found = _ranked(*ranking.sums(weights))
        if stakes:
            caught = _caught(*stakes.sums(weights), CAPACITIES)
            found |= {f"arr_caught_top_{_percent(capacity)}": share for capacity, share in zip(CAPACITIES, caught, strict=True)}
        return found

    return measured


def resample(account_id: npt.NDArray[np.object_], *, resamples: int, seed: int) -> Resamples:
    """Draw accounts of rows `(n,)` with replacement; the same seed and accounts give the same draws."""
    names, account = np.unique(account_id, return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.ones((len(names), 1 + resamples))
    for column in range(1, 1 + resamples):
        counts[:, column] = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
    return Resamples(account, counts)


def estimate_all(measures: Measures, resampled: Resamples) -> dict[str, Estimate]:
    """Return each measure's value on the rows as they are, and its interval over the resamples."""
    parts = [measures(weights) for weights in resampled.weights()]
    return {name: _estimate(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def estimate(measure: Measure, account_id: npt.NDArray[np.object_], *, resamples: int = _RESAMPLES, seed: int) -> Estimate:
    """Return one measure's value on the rows as they are, and its interval over resampled accounts.

    The same seed and accounts give the same resamples, so that the difference of two measures can be estimated as one.
    """
    return _estimate(np.concatenate([measure(weights) for weights in resample(account_id, resamples=resamples, seed=seed).weights()]))


def compare(
    measure: Callable[[Array, Array], Array],
    scores: Array,
    others: Array,
    account_id: npt.NDArray[np.object_],
    *,
    resamples: int = _RESAMPLES,
    seed: int,
) -> Estimate:
    """Return by how much a measure of `(scores, weights)` is higher for scores `(n,)` than for others on the same rows.

    The interval is paired: both are measured on each resample, so that what makes rows easy or hard for both drops out.

    Examples
    --------
    >>> target, accounts = np.array([0.0, 0.0, 1.0, 1.0]), np.array(["a", "b", "c", "d"], dtype=object)
    >>> measure = lambda score, weights: auc(target, score, weights)
    >>> compare(measure, np.array([0.1, 0.2, 0.7, 0.9]), np.array([0.4, 0.2, 0.3, 0.9]), accounts, seed=0).value
    0.25
    """
    return estimate(lambda weights: measure(scores, weights) - measure(others, weights), account_id, resamples=resamples, seed=seed)


def single(measure: Measure, rows: int) -> float:
    """Return a measure's value with each row counted once."""
    return float(measure(np.ones((rows, 1)))[0])


def auc(target: Array, score: Array, weights: Array) -> Array:
    """Return the share of (positive, negative) pairs that the score orders rightly, ties counted half."""
    return _ratio(*_pairs(*rank(score, target).sums(weights)))


def auc_within(target: Array, score: Array, stratum: npt.NDArray[Any], weights: Array) -> Array:
    """Return the AUC over the pairs whose two rows are of one stratum `(n,)`.

    Where a backtest scores each block of cutoffs by another model, or by a rule that was fitted anew, scores of two blocks have no
    common scale. Pairs within a block need none, so that whatever ranks accounts can be compared on equal terms; in return, what a
    score says of one block against another does not count. Each stratum has the weight of its number of pairs.
    """
    return auc_measure(target, score, stratum)(weights)


def auc_measure(target: Array, score: Array, stratum: npt.NDArray[Any]) -> Measure:
    """Return `auc_within` of these scores as a measure that sorts them once, however often it is called."""
    rankings = [rank(score[rows], target[rows], rows=rows, n=len(target)) for rows in _strata(stratum)]

    def measured(weights: Array) -> Array:
        right, pairs = zip(*(_pairs(*ranking.sums(weights)) for ranking in rankings), strict=True)
        return _ratio(np.sum(right, axis=0), np.sum(pairs, axis=0))

    return measured


def average_precision(target: Array, score: Array, weights: Array) -> Array:
    """Return the mean of the precision over the recall, without interpolation."""
    return _precision(*rank(score, target).sums(weights))


def lift(target: Array, score: Array, weights: Array, *, capacity: float) -> Array:
    """Return how many times the average share of positives the `capacity` of the rows with the highest scores holds."""
    return value_caught(target, score, weights, capacity=capacity) / capacity


def recall(target: Array, score: Array, weights: Array, *, capacity: float) -> Array:
    """Return the share of the positives that is in the `capacity` of the rows with the highest scores."""
    return value_caught(target, score, weights, capacity=capacity)


def value_caught(value: Array, score: Array, weights: Array, *, capacity: float) -> Array:
    """Return the share of the value `(n,)`, nowhere negative, that is in the `capacity` of the rows with the highest scores."""
    return _caught(*rank(score, value).sums(weights), (capacity,))[0]


def brier(target: Array, probability: Array, weights: Array) -> Array:
    """Return the mean squared error of the probability."""
    return _ratio(((probability - target) ** 2) @ weights, weights.sum(axis=0))


def brier_skill(target: Array, probability: Array, weights: Array) -> Array:
    """Return how much of the Brier score of always saying the rows' own base rate is saved; 0 saves nothing."""
    return _squared(((probability - target) ** 2) @ weights, target @ weights, weights.sum(axis=0))["brier_skill"]


def log_loss(target: Array, probability: Array, weights: Array) -> Array:
    """Return the mean negative log likelihood, in nats, of probabilities strictly between 0 and 1."""
    return _ratio(-np.log(np.where(target == 1, probability, 1 - probability)) @ weights, weights.sum(axis=0))


def rank(score: Array, value: Array, *, rows: Positions | None = None, n: int | None = None) -> Ranking:
    """Sort rows by their scores and sum up a value that is nowhere negative, such as the target.

    Parameters
    ----------
    score, value
        `(m,)`.
    rows
        `(m,)` where these rows stand among all `n` rows that weights are given for; without it they are all of them.
    """
    order = np.argsort(-score, kind="stable")
    ordered, values = score[order], value[order]
    tied = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]]))
    valued = np.bincount(tied, values) > 0
    begins = valued | np.concatenate([[True], valued[:-1]])
    run = (np.cumsum(begins) - 1)[tied]
    column = order if rows is None else rows[order]
    shape = (int(begins.sum()), len(score) if n is None else n)
    counted = values != 0
    return Ranking(
        values=csr_array((values[counted], (run[counted], column[counted])), shape=shape),
        rows=csr_array((np.ones(len(score)), (run, column)), shape=shape),
    )


def _ranked(positives: Array, counted: Array) -> dict[str, Array]:
    found = {"auc": _ratio(*_pairs(positives, counted)), "average_precision": _precision(positives, counted)}
    for capacity, share in zip(CAPACITIES, _caught(positives, counted, CAPACITIES), strict=True):
        found |= {f"lift_top_{_percent(capacity)}": share / capacity, f"recall_top_{_percent(capacity)}": share}
    return found


def _squared(errors: Array, positives: Array, counted: Array) -> dict[str, Array]:
    error, base_rate = _ratio(errors, counted), _ratio(positives, counted)
    return {"brier": error, "brier_skill": 1 - _ratio(error, base_rate * (1 - base_rate))}


def _pairs(positives: Array, counted: Array) -> tuple[Array, Array]:
    """Return how many pairs are ordered rightly, ties counted half, and how many there are."""
    negatives = counted - positives
    all_negatives = negatives.sum(axis=0)
    right = (positives * (all_negatives - np.cumsum(negatives, axis=0) + negatives / 2)).sum(axis=0)
    return right, positives.sum(axis=0) * all_negatives


def _precision(positives: Array, counted: Array) -> Array:
    total = np.cumsum(counted, axis=0)
    precision = np.divide(np.cumsum(positives, axis=0), total, out=np.zeros_like(total), where=total > 0)
    return _ratio((positives * precision).sum(axis=0), positives.sum(axis=0))


def _caught(values: Array, counted: Array, capacities: tuple[float, ...]) -> list[Array]:
    before, total = np.cumsum(counted, axis=0) - counted, counted.sum(axis=0)
    density = np.divide(values, counted, out=np.zeros_like(values), where=counted > 0)
    room = [np.clip(capacity * total - before, 0, counted) for capacity in capacities]
    return [_ratio((density * taken).sum(axis=0), values.sum(axis=0)) for taken in room]


def _strata(stratum: npt.NDArray[Any]) -> list[Positions]:
    _, number = np.unique(stratum, return_inverse=True)
    return [np.flatnonzero(number == level) for level in range(int(number.max()) + 1)]


def _estimate(drawn: Array) -> Estimate:
    """Return the first value, and the interval of the others."""
    valid = drawn[1:][np.isfinite(drawn[1:])]
    if 2 * len(valid) < max(len(drawn) - 1, 1):
        return Estimate(float(drawn[0]), None, None)
    low, high = np.quantile(valid, [0.025, 0.975])
    return Estimate(float(drawn[0]), float(low), float(high))


def _percent(capacity: float) -> int:
    return round(100 * capacity)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
