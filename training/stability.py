"""How far explanations would be others had other accounts been in the book.

The same recipe is trained on bootstrap resamples of the accounts, and the resulting models explain the same rows. What they agree on is
about the book; what they do not is about the draw. The parts are those of `training.explanation`, in log-odds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from features.catalogue import Catalogue
from features.feature import Family
from training.dataset import Array
from training.evaluation import resample
from training.explanation import parts
from training.model import Problem, fit_booster

__all__ = ["FamilySpread", "Stability", "judge_stability", "resampled_boosters"]

_MODELS = 4
_TOP = 3


@dataclass(frozen=True)
class FamilySpread:
    """How much a family of features moves scores: the mean size of its part over the rows, on average over the models, and the ends."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How far models that learnt from resampled accounts explain the same rows alike; averages over all pairs of models.

    Parameters
    ----------
    rank_correlation
        Spearman's, of the features' importance: the mean size of their parts. Features that no model uses do not count.
    same_feature, same_family
        Share of the rows whose largest part, of a feature or of a whole family, is of the same one.
    top_three_overlap
        Share of a row's three largest parts that are of the same features.
    families
        The largest first.
    """

    models: int
    rows: int
    rank_correlation: float
    same_feature: float
    same_family: float
    top_three_overlap: float
    families: Mapping[Family, FamilySpread]


def resampled_boosters(
    problem: Problem, rounds: int, account_id: npt.NDArray[Any], *, models: int = _MODELS, seed: int
) -> tuple[lgb.Booster, ...]:
    """Train models of a problem's rows `(n,)`, each on as many accounts as there are, drawn with replacement."""
    drawn = resample(account_id, resamples=models, seed=seed)
    boosters = []
    for column in range(1, models + 1):
        weight = drawn.counts[drawn.account, column]
        rows = np.flatnonzero(weight)
        boosters.append(lgb.Booster(model_str=fit_booster(problem, rounds, rows=rows, weight=weight[rows])))
    return tuple(boosters)


def judge_stability(boosters: Sequence[lgb.Booster], matrix: Array, *, catalogue: Catalogue) -> Stability:
    """Let two models or more explain the same encoded rows `(n, n_features)`, and compare what they say."""
    explained = [parts(booster, matrix)[:, :-1] for booster in boosters]
    names = list(dict.fromkeys(feature.family for feature in catalogue))
    member = np.array([[feature.family == name for name in names] for feature in catalogue], dtype=np.float64)
    by_family = [part @ member for part in explained]
    importance = [np.abs(part).mean(axis=0) for part in explained]
    pairs = list(combinations(range(len(boosters)), 2))
    top = [np.argsort(-np.abs(part), axis=1, kind="stable")[:, :_TOP] for part in explained]
    top_family = [np.abs(part).argmax(axis=1) for part in by_family]
    return Stability(
        models=len(boosters),
        rows=len(matrix),
        rank_correlation=float(np.mean([_rank_correlation(importance[one], importance[other]) for one, other in pairs])),
        same_feature=float(np.mean([top[one][:, 0] == top[other][:, 0] for one, other in pairs])),
        same_family=float(np.mean([top_family[one] == top_family[other] for one, other in pairs])),
        top_three_overlap=float(np.mean([(top[one][:, :, None] == top[other][:, None, :]).any(axis=2) for one, other in pairs])),
        families=_spreads(names, np.array([np.abs(part).mean(axis=0) for part in by_family])),
    )


def _rank_correlation(importance: Array, other: Array) -> float:
    """Return Spearman's rank correlation over the features that either model uses; 0 where there is nothing to order."""
    used = (importance > 0) | (other > 0)
    if used.sum() < 2:
        return 0.0
    one, two = rankdata(importance[used]), rankdata(other[used])
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])


def _spreads(names: Sequence[Family], sizes: Array) -> dict[Family, FamilySpread]:
    """Sum up sizes `(n_models, n_families)`."""
    order = np.argsort(-sizes.mean(axis=0), kind="stable")
    return {
        names[place]: FamilySpread(float(sizes[:, place].mean()), float(sizes[:, place].min()), float(sizes[:, place].max()))
        for place in order
    }
