"""What a model must beat to be worth its keep: single rules that anybody could apply, and a logistic regression.

A rule sorts the accounts by one feature. Its direction is that of the catalogue where domain knowledge fixes one, else the better one on
the training rows; the same goes for the end of the list at which accounts without a value are put. Rules and regression are fitted anew
for each block of a rolling backtest, on the rows that the model of that block was trained on, and all of them are judged alike: by the
AUC over pairs of rows of one block, see `training.evaluation.auc_within`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from features.catalogue import Catalogue
from features.errors import ConfigError, explain, nearest
from features.feature import Feature, Target
from training.dataset import Array, Dataset
from training.evaluation import Estimate, Positions, TestRows, auc_measure, estimate_all, resample
from training.splits import ForwardSplit

__all__ = [
    "HEALTH_SCORE",
    "LOGISTIC_REGRESSION",
    "RULES",
    "BaselineResult",
    "BaselineScores",
    "Logistic",
    "Preparation",
    "Rule",
    "fit_logistic",
    "fit_rules",
    "judge_baselines",
    "score_baselines",
]

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

HEALTH_SCORE = "vendor's health score"
LOGISTIC_REGRESSION = "logistic regression"

_PENALTY_PER_ROW = 0.05
"""The logistic regression's ridge penalty, on standardised features. Of hundreds of features some drift, and a weaker penalty lets them
do more harm than a single rule does."""

_FARTHEST = np.float32(5)
_RESAMPLES = 200
_LARGEST = 1e38
"""Numbers beyond it count as this one: they would be infinite in single precision."""
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """A list of accounts sorted by one feature.

    Parameters
    ----------
    sign
        +1 if the odds rise with the feature, -1 if they fall.
    missing
        The score of an account without a value: infinity puts it first, minus infinity last.
    levels
        For a category, what each level counts for: its share of positives among the training rows. None for a number.
    """

    name: str
    feature: str
    sign: int
    missing: float
    levels: Mapping[str, float] | None = None

    def score(self, frame: pd.DataFrame) -> Array:
        """Return the scores `(n,)`; only their order means anything."""
        values = _counted(frame[self.feature], self.levels)
        return np.where(np.isnan(values), self.missing, self.sign * values)


@dataclass(frozen=True, eq=False)
class Preparation:
    """How encoded rows are made ready for a linear model, in single precision.

    Numbers are compressed to `sign(x) * ln(1 + |x|)`, standardised and held within 5 standard deviations, so that a feature that was still
    empty in training does no harm; a missing one is average, beside a flag for each pattern of missing values. Levels become flags.

    Parameters
    ----------
    number
        `(n_features,)` which columns are numbers.
    mean, spread
        Of the compressed numbers.
    flagged
        Positions of numbers whose missing values are flagged.
    """

    number: npt.NDArray[np.bool_]
    mean: _Floats
    spread: _Floats
    flagged: Positions
    encoder: OneHotEncoder

    def prepare(self, matrix: Array) -> _Floats:
        """Return encoded rows `(n, n_features)` as the linear model reads them."""
        values = _compressed(matrix, self.number)
        missing = np.isnan(values)
        standard = np.clip((values - self.mean) / self.spread, -_FARTHEST, _FARTHEST)
        numbers = [np.where(missing, np.float32(0), standard), missing[:, self.flagged]]
        levels = [] if self.number.all() else [self.encoder.transform(matrix[:, ~self.number])]
        return np.hstack([*numbers, *levels], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Logistic:
    """A ridge-penalised logistic regression on encoded rows."""

    preparation: Preparation
    model: LogisticRegression

    def decision_function(self, matrix: Array) -> Array:
        """Return the log-odds `(n,)` of encoded rows `(n, n_features)`."""
        return np.asarray(self.model.decision_function(self.preparation.prepare(matrix)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class BaselineScores:
    """A baseline's scores of the test rows, `(n,)`, comparable within a block of the backtest only; and its features if it is a rule."""

    feature: str | None
    score: Array


@dataclass(frozen=True)
class BaselineResult:
    """How a baseline did on the test rows: its AUC within blocks, and by how much the model's is higher, paired."""

    feature: str | None
    auc: Estimate
    gain: Estimate


def judge_baselines(
    rows: TestRows,
    probability: Array,
    fold: npt.NDArray[np.intp],
    baselines: Mapping[str, BaselineScores],
    *,
    resamples: int = _RESAMPLES,
    seed: int,
) -> dict[str, BaselineResult]:
    """Compare a model's probabilities `(n,)` of test rows with baselines, by the AUC over pairs of rows of one fold `(n,)`.

    All are measured on the same resamples of accounts.
    """
    model = auc_measure(rows.target, probability, fold)
    others = {name: auc_measure(rows.target, baseline.score, fold) for name, baseline in baselines.items()}

    def measured(weights: Array) -> dict[str, Array]:
        own, found = model(weights), {name: measure(weights) for name, measure in others.items()}
        return found | {f"gain: {name}": own - value for name, value in found.items()}

    found = estimate_all(measured, resample(rows.account_id, resamples=resamples, seed=seed))
    return {name: BaselineResult(baseline.feature, found[name], found[f"gain: {name}"]) for name, baseline in baselines.items()}


def score_baselines(
    data: Dataset,
    matrix: Array,
    splits: Sequence[ForwardSplit],
    *,
    catalogue: Catalogue,
    target_name: Target,
    health_score: str | None = None,
) -> dict[str, BaselineScores]:
    """Fit all baselines on each split's training rows, and score its test rows.

    How rows are prepared for the logistic regression is learnt from the first split's training rows, and each fit starts where the one
    before ended, which changes nothing but its duration.

    Parameters
    ----------
    matrix
        The rows, encoded, `(n, n_features)`.
    splits
        Of the rows.
    health_score
        The feature that holds the vendor's own health score, if there is one.

    Returns
    -------
    Scores of the test rows, split by split, by the baselines' names.
    """
    features: dict[str, list[str | None]] = {}
    scores: dict[str, list[Array]] = {}
    prepared = _learn_preparation(matrix[splits[0].train], catalogue).prepare(matrix)
    logistic = LogisticRegression(max_iter=2000, warm_start=True)
    frame = data.features[[name for name in dict.fromkeys([*chain(*RULES.values()), health_score]) if name in data.features]]
    for split in splits:
        earlier, later, target = frame[split.train], frame[split.test], data.target[split.train]
        rules = fit_rules(earlier, target, catalogue=catalogue, target_name=target_name, health_score=health_score)
        logistic.set_params(C=_penalty(target)).fit(prepared[split.train], target)
        found = [(rule.name, rule.feature, rule.score(later)) for rule in rules]
        for name, feature, score in [*found, (LOGISTIC_REGRESSION, None, logistic.decision_function(prepared[split.test]))]:
            features.setdefault(name, []).append(feature)
            scores.setdefault(name, []).append(score)
    return {name: BaselineScores(_together(features[name]), np.concatenate(parts)) for name, parts in scores.items()}


def fit_rules(
    frame: pd.DataFrame, target: Array, *, catalogue: Catalogue, target_name: Target, health_score: str | None = None
) -> tuple[Rule, ...]:
    """Fit all rules that the catalogue has a feature for, on training rows `(n, n_features)` with outcomes `(n,)`.

    Raises
    ------
    ConfigError
        If the catalogue has no feature of the name `health_score`.
    """
    if health_score is not None and health_score not in catalogue:
        raise ConfigError(
            explain(
                "health_score in [training] names no feature",
                given=health_score,
                allowed="a name that `renewcast features` lists",
                todo=nearest(health_score, catalogue.names) or "Correct the name, or remove the setting.",
            )
        )
    named = {**RULES, HEALTH_SCORE: (health_score,)} if health_score is not None else RULES
    rules = []
    for name, features in named.items():
        fitted = [_fitted(name, catalogue.feature(it), frame[it], target, target_name) for it in features if it in catalogue]
        if fitted:
            rules.append(max(fitted, key=lambda rule: rule[1])[0])
    return tuple(rules)


def fit_logistic(matrix: Array, target: Array, *, catalogue: Catalogue) -> Logistic:
    """Fit the logistic regression on encoded training rows `(n, n_features)` with outcomes `(n,)`, in single precision."""
    preparation = _learn_preparation(matrix, catalogue)
    return Logistic(preparation, LogisticRegression(C=_penalty(target), max_iter=2000).fit(preparation.prepare(matrix), target))


def _fitted(name: str, feature: Feature, column: pd.Series, target: Array, target_name: Target) -> tuple[Rule, float]:
    """Return the best rule on a feature, and how many (positive, negative) pairs of training rows it orders rightly.

    Pairs of rows with values are counted once for both signs: what one sign orders rightly, the other orders wrongly.
    """
    levels = _shares(column, target) if feature.kind == "category" else None
    values = _counted(column, levels)
    known = ~np.isnan(values)
    (lost, kept), (lost_unknown, kept_unknown) = _outcomes(target[known]), _outcomes(target[~known])
    rising = float(rankdata(values[known])[target[known] == 1].sum() - lost * (lost + 1) / 2)
    by_sign = {1: rising, -1: lost * kept - rising}
    by_end = {-np.inf: lost * kept_unknown, np.inf: lost_unknown * kept}
    found = [
        (Rule(name, feature.name, sign, missing, levels), by_sign[sign] + by_end[missing] + lost_unknown * kept_unknown / 2)
        for sign in _signs(feature, target_name)
        for missing in by_end
    ]
    return max(found, key=lambda rule: rule[1])


def _signs(feature: Feature, target_name: Target) -> tuple[int, ...]:
    if feature.kind == "category":
        return (1,)
    return (feature.direction[target_name],) if target_name in feature.direction else (1, -1)


def _outcomes(target: Array) -> tuple[float, float]:
    return float(target.sum()), float((1 - target).sum())


def _shares(column: pd.Series, target: Array) -> dict[str, float]:
    shares = pd.Series(target).groupby(column.to_numpy(dtype=object)).mean()
    return {str(level): float(share) for level, share in shares.items()}


def _counted(column: pd.Series, levels: Mapping[str, float] | None) -> Array:
    """Return what a column counts for: itself, or the share of its level, missing for a level that training had not seen."""
    values = column if levels is None else column.map(levels)
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _learn_preparation(matrix: Array, catalogue: Catalogue) -> Preparation:
    number = np.array([feature.kind == "number" for feature in catalogue], dtype=bool)
    values = _compressed(matrix, number)
    encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=20, sparse_output=False, dtype=np.float32)
    if not number.all():
        encoder.fit(matrix[:, ~number])
    return Preparation(number, *_moments(values), _patterns(np.isnan(values)), encoder)


def _penalty(target: Array) -> float:
    return 1 / (_PENALTY_PER_ROW * len(target))


def _compressed(matrix: Array, number: npt.NDArray[np.bool_]) -> _Floats:
    values = np.clip(matrix[:, number], -_LARGEST, _LARGEST).astype(np.float32)
    return np.asarray(np.copysign(np.log1p(np.abs(values)), values))


def _moments(values: _Floats) -> tuple[_Floats, _Floats]:
    """Return mean and standard deviation of the columns' known values, 0 and 1 where there is nothing to tell apart."""
    known = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    mean = np.nansum(values, axis=0, dtype=np.float64) / known
    variance = np.nansum((values - mean.astype(np.float32)) ** 2, axis=0, dtype=np.float64) / known
    spread = np.sqrt(variance)
    return mean.astype(np.float32), np.where(spread > 1e-6, spread, 1).astype(np.float32)


def _patterns(missing: npt.NDArray[np.bool_]) -> Positions:
    """Return one column for each pattern in which values are missing."""
    packed = np.packbits(missing, axis=0)
    first = {packed[:, column].tobytes(): column for column in range(missing.shape[1]) if packed[:, column].any()}
    return np.array(sorted(first.values()), dtype=np.intp)


def _together(features: Sequence[str | None]) -> str | None:
    named = dict.fromkeys(feature for feature in features if feature)
    return ", ".join(named) or None
