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
from features.feature import Target
from training.dataset import Array
from training.evaluation import auc, single

__all__ = ["RULES", "Rule", "fit_logistic", "fit_rules"]

RULES: Mapping[str, tuple[str, ...]] = {
    "recency": ("days_since_last_event", "days_since_active"),
    "active users": ("active_users_28d", "active_users_91d", "active_users_182d"),
    "usage volume": ("events_28d", "events_91d", "events_182d"),
    "usage trend": ("events_change_28d", "events_trend_28d", "active_users_change_28d"),
    "days to renewal": ("days_to_renewal",),
    "tenure": ("tenure_days",),
    "ARR": ("arr",),
    "seat use": ("seat_use_28d",),
}
"""The rules, and the features by which each may be applied, the first of them that a catalogue has."""

_STRENGTH = 0.1
"""Inverse of the logistic regression's ridge penalty, on standardised features."""


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
        return _score(_values(frame, self.feature), self.sign, self.missing)


def fit_rules(frame: pd.DataFrame, target: Array, *, catalogue: Catalogue, target_name: Target) -> tuple[Rule, ...]:
    """Fit all rules that the catalogue has a feature for, on training rows `(n, n_features)` with outcomes `(n,)`."""
    found = {name: next((feature for feature in features if feature in catalogue), None) for name, features in RULES.items()}
    return tuple(
        _fit_rule(name, feature, _values(frame, feature), target, catalogue.feature(feature).direction.get(target_name))
        for name, feature in found.items()
        if feature is not None
    )


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
    return make_pipeline(encode, LogisticRegression(C=_STRENGTH, max_iter=2000)).fit(matrix, target)


def _fit_rule(name: str, feature: str, values: Array, target: Array, direction: int | None) -> Rule:
    signs = (1, -1) if direction is None else (direction,)
    choices = [(sign, missing) for sign in signs for missing in (-np.inf, np.inf)]
    sign, missing = max(choices, key=lambda choice: _auc(target, _score(values, *choice)))
    return Rule(name, feature, sign, missing)


def _auc(target: Array, score: Array) -> float:
    return single(lambda weights: auc(target, score, weights), len(target))


def _score(values: Array, sign: int, missing: float) -> Array:
    return np.where(np.isnan(values), missing, sign * values)


def _values(frame: pd.DataFrame, feature: str) -> Array:
    return frame[feature].to_numpy(dtype=np.float64, na_value=np.nan)


def _compressed(values: Array) -> Array:
    return np.sign(values) * np.log1p(np.abs(values))
