"""What single features tell of an outcome: quick measures of every column of a matrix at once, for the audit.

Columns are cut into bins first: missing values, up to 31 ranges of about equally many rows, or the levels of a category. A bin's rate of
positives may then take any shape, and a measure is a count of bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.dataset import Array

__all__ = ["Bins", "Subset", "auc_alone", "bin_columns", "jumps", "order_within", "pure_subset"]

Codes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

MISSING = 0
"""The bin of missing values."""

_RANGES = 31
_SAMPLE = 5_000
"""Values from which the limits of the ranges are taken."""
_PRIOR_ROWS = 5.0
_COARSE = 8
_OFTEN = 10
"""A single value is looked at if so many positives have it."""


@dataclass(frozen=True, eq=False)
class Bins:
    """The bins of all columns.

    Parameters
    ----------
    code
        `(n, n_features)`, 0 for missing values, then the ranges from low to high, or the levels of a category.
    limits
        For each column the lower limits of its ranges but the first; None for a category.
    """

    code: Codes
    limits: tuple[Array | None, ...]

    def named(self, column: int, codes: Sequence[int]) -> str:
        """Say in words which values of a number's column are in some bins.

        Examples
        --------
        >>> Bins(np.zeros((1, 1), np.uint8), (np.array([2.0, 5.0]),)).named(0, [0, 2, 3])
        'missing, from 2'
        """
        limits = self.limits[column]
        assert limits is not None
        ends = [-np.inf, *limits.tolist(), np.inf]
        words = ["missing"] if MISSING in codes else []
        for code in (code for code in codes if code != MISSING):
            if words and words[-1].endswith(f"to below {ends[code - 1]:g}"):
                words[-1] = words[-1].removesuffix(f" to below {ends[code - 1]:g}") + f" to below {ends[code]:g}"
            else:
                words.append(f"from {ends[code - 1]:g} to below {ends[code]:g}")
        return ", ".join(words).replace("from -inf to below", "below").replace(" to below inf", "")


@dataclass(frozen=True, eq=False)
class Subset:
    """Rows of one column whose values positives have and hardly anybody else: a mask `(n,)`, and the values in words."""

    rows: Flags
    values: str


def bin_columns(matrix: Array, categories: Sequence[tuple[str, ...] | None]) -> Bins:
    """Cut the columns of a matrix `(n, n_features)` into bins; `categories` has the levels of those that hold codes of levels."""
    code = np.zeros(matrix.shape, np.uint8, order="F")
    limits: list[Array | None] = []
    for position, levels in enumerate(categories):
        column = matrix[:, position]
        there = ~np.isnan(column)
        values = column[there]
        if levels is not None:
            code[there, position] = 1 + np.minimum(values, 253)
            limits.append(None)
            continue
        sample = values[:: max(1, len(values) // _SAMPLE)]
        quantiles = np.quantile(sample, np.linspace(0, 1, _RANGES + 1)[1:-1], method="higher") if len(sample) else sample
        limits.append(np.unique(quantiles))
        code[there, position] = 1 + np.searchsorted(np.unique(quantiles), values, side="right")
    return Bins(code, tuple(limits))


def auc_alone(bins: Bins, target: Array, half: Flags) -> Array:
    """Return the AUC of each column's rate of positives by bin, learnt on one half of the accounts and judged on the other, in turn.

    Parameters
    ----------
    half
        `(n,)`, True for the rows of one half.

    Returns
    -------
    `(n_features,)`; about 0.5 where a column tells nothing, whatever its shape.
    """
    return np.array([_auc_of_bins(code, target, half) for code in bins.code.T])


def _auc_of_bins(code: Codes, target: Array, half: Flags) -> float:
    n_bins = int(code.max()) + 1
    counted = np.bincount((half * 2 + target.astype(np.int64)) * n_bins + code, minlength=4 * n_bins).reshape(2, 2, n_bins)
    found = []
    for learnt, judged in ((counted[0], counted[1]), (counted[1], counted[0])):
        rows = learnt.sum(axis=0)
        rate = (learnt[1] + _PRIOR_ROWS * target.mean()) / (rows + _PRIOR_ROWS)
        negatives, positives = _summed_by(rate, judged)
        below = negatives.sum() - np.cumsum(negatives)
        pairs = negatives.sum() * positives.sum()
        found.append((positives * (below + negatives / 2)).sum() / pairs if pairs else 0.5)
    return float(np.mean(found))


def _summed_by(score: Array, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum the columns of counts `(2, n_bins)` over bins of equal score, the highest first."""
    _, place = np.unique(-score, return_inverse=True)
    summed = [np.bincount(place, weights=row) for row in counts]
    return np.array(summed, dtype=np.int64)


def pure_subset(bins: Bins, column: int, values: Array, target: Array, *, purity: float, levels: Sequence[str] | None) -> Subset | None:
    """Return the rows of those bins and single values of a column of which at least a share of `purity` are positive, if any.

    Parameters
    ----------
    values
        `(n,)`, the column itself.
    levels
        The levels of a category.
    """
    code = bins.code[:, column]
    positives, rows = np.bincount(code, weights=target), np.bincount(code)
    pure = np.flatnonzero((positives >= _OFTEN) & (positives >= purity * rows))
    if len(pure):
        marked = np.isin(code, pure)
        return Subset(marked, _in_words(bins, column, pure.tolist(), values[marked], levels))
    if levels is not None:
        return None
    found, counts = np.unique(values[(target == 1) & ~np.isnan(values)], return_counts=True)
    often = found[np.argsort(-counts)][: np.count_nonzero(counts >= _OFTEN)][:3]
    single = [value for value in often if target[values == value].mean() >= purity]
    return Subset(np.isin(values, single), ", ".join(f"{value:g}" for value in single)) if single else None


def _in_words(bins: Bins, column: int, codes: list[int], values: Array, levels: Sequence[str] | None) -> str:
    if levels is not None:
        return ", ".join(["missing", *levels][code] for code in codes)
    single = len(codes) == 1 and codes != [MISSING] and (values == values[0]).all()
    return f"{values[0]:g}" if single else bins.named(column, codes)


def order_within(values: Array, time: Array, group: npt.NDArray[np.intp]) -> Array:
    """Return how far each column orders the rows of a group as time does: the correlation of ranks within groups, `(n_features,)`.

    Parameters
    ----------
    values
        `(n, n_features)`; columns with a missing value in more than half of the rows get 0.
    time, group
        `(n,)`.
    """
    frame = pd.DataFrame(np.column_stack([values, time]))
    ranks = frame.groupby(group).rank(pct=True)
    centred = (ranks - ranks.groupby(group).transform("mean")).fillna(0.0).to_numpy()
    columns, of_time = centred[:, :-1], centred[:, -1]
    spread = np.sqrt((columns**2).sum(axis=0) * (of_time**2).sum())
    enough = (np.isnan(values).mean(axis=0) <= 0.5) & (spread > 0)
    order: Array = np.divide(of_time @ columns, spread, out=np.zeros(values.shape[1]), where=enough)
    return order


def jumps(bins: Bins, block: npt.NDArray[np.intp]) -> Array:
    """Return how much each column's values differ between neighbouring blocks of rows: total variation, `(n_features, n_blocks - 1)`.

    0 where two blocks have the same share of rows in each bin, 1 where they share none; of more than eight bins neighbours count as one.
    """
    n_blocks, n_bins = int(block.max()) + 1, _COARSE + 1
    found = []
    for code in bins.code.T:
        coarse = code.astype(np.int64)
        if (most := int(code.max())) > _COARSE:
            coarse = np.where(coarse == MISSING, MISSING, 1 + (coarse - 1) * _COARSE // most)
        counts = np.bincount(block * n_bins + coarse, minlength=n_blocks * n_bins).reshape(n_blocks, n_bins)
        shares = counts / counts.sum(axis=1, keepdims=True)
        found.append(np.abs(np.diff(shares, axis=0)).sum(axis=1) / 2)
    return np.array(found)
