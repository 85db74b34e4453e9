"""Curves over all thresholds of a score, with rows counted by weights, so that a bootstrap is one call."""

import numpy as np

from training.dataset import Array

__all__ = ["GRID", "gain_curves", "threshold_curves"]

GRID: Array = np.linspace(0, 1, 101)
"""The shares of rows at which gain curves are read."""


def threshold_curves(target: Array, score: Array, weights: Array) -> tuple[Array, Array]:
    """Return the shares of the positives and of the negatives that score at or above each threshold, from none to all.

    Parameters
    ----------
    target, score
        `(n,)`.
    weights
        `(n, b)`: one way to count the rows in each column.

    Returns
    -------
    Two arrays `(n_scores + 1, b)`, a step for each different score.

    Examples
    --------
    >>> found, vain = threshold_curves(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.5, 0.5]), np.ones((3, 1)))
    >>> found[:, 0], vain[:, 0]
    (array([0. , 0.5, 1. ]), array([0., 0., 1.]))
    """
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    positives, negatives = (np.cumsum(weights[order] * side[order, None], axis=0)[ends] for side in (target, 1 - target))
    return _from_zero(positives), _from_zero(negatives)


def gain_curves(target: Array, score: Array, weights: Array) -> Array:
    """Return the share of the positives among each share in `GRID` of the rows with the highest scores: `(101, b)`.

    Rows of equal score share: of such a group, a part of the rows holds the same part of its positives.
    """
    found, vain = threshold_curves(target, score, weights)
    looked_at = found * (target @ weights) + vain * ((1 - target) @ weights)
    return np.stack([np.interp(GRID, rows / rows[-1], gain) for rows, gain in zip(looked_at.T, found.T, strict=True)], axis=1)


def _from_zero(cumulated: Array) -> Array:
    total = np.where(cumulated[-1] > 0, cumulated[-1], np.nan)
    return np.vstack([np.zeros(cumulated.shape[1]), cumulated / total])
