"""What a model must beat to be worth its keep: single rules that anybody could apply, and a logistic regression.

A rule sorts the accounts by one feature. Its direction is that of the catalogue where domain knowledge fixes one, else the better one on
the training rows; the same goes for the end of the list at which accounts without a value are put.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from features.catalogue import Catalogue
from features.feature import Feature, Target
from training.dataset import Array
from training.evaluation import auc, single

__all__ = ["RULES", "Rule", "fit_logistic", "fit_rules"]

RULES: Mapping[str, tuple[str, ...]] = {
    "recency": ("days_since_last_event",),
    "usage volume": ("events_28d", "events_91d", "events_182d"),
    "active users": ("active_users_28d", "active_users_91d", "active_users_182d"),
    "usage trend": ("events_trend_28d", "events_trend_91d", "events_trend_182d"),
    "users trend": ("users_trend_28d", "users_trend_91d", "users_trend_182d"),
    "days to renewal": ("days_to_renewal",),
    "tenure": ("tenure_days", "days_since_first_event"),
    "ARR": ("arr",),
    "open tickets": ("tickets_open",),
}
"""The rules, and the features by which each may be applied: the one that does best on the training rows is taken."""

_PENALTY_PER_ROW = 0.05
"""The logistic regression's ridge penalty, on standardised features. Of hundreds of features some drift, and a weaker penalty lets them
do more harm than a single rule does."""


@dataclass(frozen=True)
class Rule:
    """A list of accounts sorted by one feature.

    Parameters
    ----------
    sign
        +1 if the odds rise with the feature, -1 if they fall.
    missing
        The score of an account without a value: infinity puts it first, minus infinity last.
    """

    name: str
    feature: str
    sign: int
    missing: float

    def score(self, frame: pd.DataFrame) -> Array:
        """Return the scores `(n,)`; only their order means anything."""
        values = frame[self.feature].to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isnan(values), self.missing, self.sign * values)


def fit_rules(frame: pd.DataFrame, target: Array, *, catalogue: Catalogue, target_name: Target) -> tuple[Rule, ...]:
    """Fit all rules that the catalogue has a feature for, on training rows `(n, n_features)` with outcomes `(n,)`."""
    rules = []
    for name, features in RULES.items():
        candidates = [
            rule for feature in features if feature in catalogue for rule in _candidates(name, catalogue.feature(feature), target_name)
        ]
        if candidates:
            rules.append(max(candidates, key=lambda rule: _auc(target, rule.score(frame))))
    return tuple(rules)


def fit_logistic(matrix: Array, target: Array, *, catalogue: Catalogue) -> Pipeline:
    """Fit a ridge-penalised logistic regression on encoded rows; `decision_function` gives its log-odds.

    Numbers are compressed to `sign(x) * ln(1 + |x|)`, filled with the median beside a flag, and standardised; levels become flags.
    """
    number = [position for position, feature in enumerate(catalogue) if feature.kind == "number"]
    level = [position for position, feature in enumerate(catalogue) if feature.kind == "category"]
    numbers = make_pipeline(
        FunctionTransformer(_compressed),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    levels = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
    encode = ColumnTransformer([("numbers", numbers, number), ("levels", levels, level)])
    return make_pipeline(encode, LogisticRegression(C=1 / (_PENALTY_PER_ROW * len(target)), max_iter=2000)).fit(matrix, target)


def _candidates(name: str, feature: Feature, target_name: Target) -> list[Rule]:
    signs = (feature.direction[target_name],) if target_name in feature.direction else (1, -1)
    return [Rule(name, feature.name, sign, missing) for sign in signs for missing in (-np.inf, np.inf)]


def _auc(target: Array, score: Array) -> float:
    return single(lambda weights: auc(target, score, weights), len(target))


def _compressed(values: Array) -> Array:
    return np.sign(values) * np.log1p(np.abs(values))
