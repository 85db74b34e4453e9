"""Why a score is what it is: exact Shapley parts of the raw score.

The parts are those of TreeSHAP, path-dependent (Lundberg et al., "From local explanations to global understanding with explainable AI
for trees", Nature Machine Intelligence 2020), as LightGBM computes them. They are in log-odds and add up, base included, to the raw
score; they never add up to a probability.
"""

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

__all__ = ["parts"]


def parts(booster: lgb.Booster, matrix: npt.NDArray[np.float64], *, threads: int = 1) -> npt.NDArray[np.float64]:
    """Split the raw score of each row into one part a feature.

    Parameters
    ----------
    booster
        A model without linear trees.
    matrix
        Encoded rows `(n, n_features)`, from `training.dataset.encode_features`.
    threads
        A single row is always explained by one thread: a second one doubles its cost and gains nothing.

    Returns
    -------
    Parts `(n, n_features + 1)` in log-odds, the base last; each row adds up to its raw score.
    """
    if len(matrix) == 0:
        return np.empty((0, matrix.shape[1] + 1))
    return np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1 if len(matrix) == 1 else threads))
