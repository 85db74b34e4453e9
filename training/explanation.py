"""Why a score is what it is: exact Shapley parts of the raw score.

The parts are those of TreeSHAP, path-dependent (Lundberg et al., "From local explanations to global understanding with explainable AI
for trees", Nature Machine Intelligence 2020), as LightGBM computes them. They are in log-odds and add up, base included, to the raw
score; they never add up to a probability.
"""

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from features.errors import PackageError, explain

__all__ = ["check_parts", "parts"]

Array = npt.NDArray[np.float64]

_TOLERANCE = 1e-5
"""How far a part may be from LightGBM's own, in log-odds; LightGBM divides by small shares, so its last digits are not exact."""

_ROUNDING = 1e-9
"""How far a row's parts may be from adding up to its raw score."""


def parts(booster: lgb.Booster, matrix: Array, *, threads: int = 1) -> Array:
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


def check_parts(booster: lgb.Booster, matrix: Array, raw: Array, explained: Array, *, sample: int) -> None:
    """Check that parts `(n, n_features + 1)` which were made in another way add up to the raw scores `(n,)`, and are LightGBM's own.

    All rows are added up; rows that are evenly spread over them are explained again by LightGBM.

    Parameters
    ----------
    sample
        How many of the rows LightGBM explains, at most.

    Raises
    ------
    PackageError
        If a row does not add up, or differs; it names the row and the feature.
    """
    off = np.abs(explained.sum(axis=1) - raw)
    if not (off <= _ROUNDING).all():
        row = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise _wrong("the parts of a score do not add up to it", f"row {row}: off by {off[row]:.3g} in log-odds", _ROUNDING)
    rows = np.unique(np.linspace(0, len(matrix) - 1, min(sample, len(matrix)), dtype=np.intp))
    own = parts(booster, matrix[rows])
    scores = booster.predict(matrix[rows], raw_score=True, num_threads=1) if len(rows) else np.empty(0)
    differ = np.column_stack([np.abs(explained[rows] - own), np.abs(raw[rows] - scores)])
    if not (differ <= _TOLERANCE).all():
        place, column = divmod(int(np.argmax(np.nan_to_num(differ, nan=np.inf))), differ.shape[1])
        what = (*booster.feature_name(), "the base", "the raw score")[column]
        given = f"row {rows[place]}, {what}: {differ[place, column]:.3g} from LightGBM's own, in log-odds"
        raise _wrong("the explanation of a score is not LightGBM's", given, _TOLERANCE)


def _wrong(what: str, given: str, allowed: float) -> PackageError:
    todo = (
        f"This should never happen: please report it, with LightGBM {lgb.__version__} and NumPy {np.__version__}. "
        "Nothing of this was kept; the scores of before are still served."
    )
    return PackageError(explain(what, given=given, allowed=f"at most {allowed:g}", todo=todo))
