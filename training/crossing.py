"""Scores by models that know the time of a row but not its account.

The forward folds before the test period score later rows by models of earlier ones. Where something happened between the two, such as a
rise of list prices, they tell how a model fares that does not know of it. The model that is judged or shipped has learnt from those months
and fares differently. So the same rows are scored once more, by models of the same months and of other accounts. Each way alone flatters
or wrongs the model in some books; a calibration that has to suit both held better than either (see `training.calibration`).
"""

import lightgbm as lgb
import numpy as np
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from training.backtest import HeldOut, join_held_out
from training.dataset import Dataset
from training.model import Positions, Problem, fit_booster, raw_scores

__all__ = ["cross_score"]

_PARTS = 3


def cross_score(problem: Problem, rounds: int, data: Dataset, rows: Positions) -> HeldOut | None:
    """Score some of a problem's rows, each by a model of all rows of two thirds of the accounts, its own not among them.

    Parameters
    ----------
    data
        The rows that the problem was made of.
    rows
        Positions of those to be scored.

    Returns
    -------
    Inner scores; rows are positions in `data`, and probabilities not calibrated. None if there are fewer than three accounts.
    """
    if len(np.unique(data.account_id)) < _PARTS:
        return None
    parts = []
    for number, (kept, others) in enumerate(GroupKFold(_PARTS).split(data.target, groups=data.account_id)):
        scored, level = np.intersect1d(others, rows), float(data.target[kept].mean())
        if len(scored) and 0 < level < 1:
            raw = raw_scores(lgb.Booster(model_str=fit_booster(problem, rounds, rows=kept)), problem.matrix[scored])
            same = {"fold": np.full(len(scored), number), "level": np.full(len(scored), level), "probability": expit(raw)}
            parts.append(HeldOut(stage="inner", rows=scored, raw=raw, **same))
    return join_held_out(parts) if parts else None
