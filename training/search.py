"""A search for a better recipe, by Optuna, on rows before the test period.

A trial trains its recipe on the earlier rows of each inner fold, stops early on the later ones, and is worth the mean over the folds of
their log loss once the scores are calibrated by Platt's line: how common the outcome is later, and how sure the scores are, is the
calibrator's matter. In forward trials on seven books, numbers of trees that were chosen by this loss rather than by the uncalibrated one
lowered the loss of the next period by 0.5 % for expansion, whose rate drifts, and changed it by less than 0.1 % for churn.

The first trial is the recipe as it was given. A trial that is worse, after a fold, than the median of the trials that went through all
folds ends there. Trials run one after the other and every draw has a fixed seed, so the same rows, recipe and seed find the same recipe.
Sources: Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011 (the sampler); Golovin et al., "Google Vizier", KDD
2017 (the median rule).

The best of many trials looks better on the folds than it is. So a found recipe takes the place of the given one only if its losses on
the later rows are lower by more than the standard error of the difference over accounts.

But: trees deeper than 6 are never tried, since the cost of an explanation grows with the square of the depth.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from features.errors import ConfigError, NotEnoughDataError, explain
from features.progress import Progress, silent
from training.calibration import Labels, PlattCalibrator, clustered_mean, row_losses
from training.dataset import Array
from training.model import Problem, Recipe
from training.splits import Fold

if TYPE_CHECKING:
    import optuna

__all__ = ["SEARCHED", "Range", "SearchResult", "Trial", "search_recipe"]

_PATIENCE = 2.4
"""How much may be learnt in vain before a training stops: the number of trees times the learning rate."""

_STRAIGHT = PlattCalibrator(slope=1.0, intercept=0.0)

_SLOPES = (0.01, 5.0)
"""The slopes that Platt's line may have; the scores of few trees would be stretched without end."""

_NEWTON_STEPS, _CLOSE, _NEARLY_NONE = 25, 1e-4, 1e-9

_LOGGING = Lock()

_STARTUP = 5
"""Finished trials before one is dropped."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values that are tried for a parameter, both ends included.

    Parameters
    ----------
    logarithmic
        Whether a factor of two counts the same everywhere in the range.
    """

    low: float
    high: float
    whole: bool = False
    logarithmic: bool = False


SEARCHED: Mapping[str, Range] = {
    "learning_rate": Range(low=0.02, high=0.12, logarithmic=True),
    "num_leaves": Range(low=4, high=31, whole=True, logarithmic=True),
    "max_depth": Range(low=2, high=6, whole=True),
    "min_data_in_leaf": Range(low=10, high=400, whole=True, logarithmic=True),
    "lambda_l2": Range(low=0.1, high=100, logarithmic=True),
    "feature_fraction": Range(low=0.05, high=1),
    "bagging_fraction": Range(low=0.4, high=1),
    "path_smooth": Range(low=0, high=60),
    "min_gain_to_split": Range(low=0, high=1),
    "cat_smooth": Range(low=1, high=100, logarithmic=True),
    "cat_l2": Range(low=1, high=100, logarithmic=True),
}
"""LightGBM's parameters that a search varies."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One recipe that was tried.

    Parameters
    ----------
    parameters
        What it did not share with all other trials.
    losses
        The least log loss on each fold's later rows; the folds after the one at which it was dropped are missing.
    loss
        The mean over the folds at the number of trees that is best for all; None if it was dropped.
    rounds
        That number of trees; None if it was dropped.
    """

    parameters: Mapping[str, float | int]
    losses: tuple[float, ...]
    loss: float | None
    rounds: int | None

    @property
    def pruned(self) -> bool:
        """Whether it was dropped before the last fold."""
        return self.loss is None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    recipe
        The best recipe, its number of trees left to be chosen as before.
    rounds
        The number of trees that was best for it on the folds.
    best
        Position of its trial; 0 is the recipe that was given.
    gain, error
        By how much the lowest loss of all trials is below that of the first trial, and the standard error of this over accounts.
    """

    recipe: Recipe
    rounds: int
    trials: tuple[Trial, ...]
    best: int
    gain: float
    error: float

    def table(self) -> pd.DataFrame:
        """Return one row for each trial: `trial`, `loss`, `rounds`, `pruned`, and its parameters."""
        rows = [
            {"trial": number, "loss": trial.loss, "rounds": trial.rounds, "pruned": trial.pruned, **trial.parameters}
            for number, trial in enumerate(self.trials)
        ]
        return pd.DataFrame(rows).astype({"loss": "float64", "rounds": "Int64"})


def search_recipe(
    problem: Problem,
    folds: Sequence[Fold],
    *,
    accounts: Labels,
    trials: int,
    fixed: Collection[str] = (),
    on_progress: Progress = silent,
) -> SearchResult:
    """Search for a recipe with a lower log loss on the folds' later rows than the problem's own.

    Parameters
    ----------
    problem
        Rows from before the test period, and the recipe to start from.
    accounts
        `(n,)`, the account of each row.
    trials
        How many recipes are tried, the given one included.
    fixed
        Parameters that keep their value, such as those that a workspace sets. So does one whose value is outside its range.

    Raises
    ------
    ConfigError
        If there is to be no trial, or nothing is left to search.
    NotEnoughDataError
        If a fold has only one outcome among its earlier or its later rows, or there is no fold.
    """
    given = problem.recipe.parameters
    ranges = {name: span for name, span in SEARCHED.items() if name not in fixed and span.low <= float(given.get(name, 0)) <= span.high}
    _require(problem, folds, ranges, trials)
    bench = _Bench(problem, tuple(folds))
    with _quiet_optuna():
        study = _study(problem.recipe, ranges)
    spaces = _distributions(ranges)
    tried: list[_Tried] = []
    for number in range(trials):
        on_progress("searching for a recipe", number, trials)
        tried.append(_try(bench, study, study.ask(spaces)))
    on_progress("searching for a recipe", trials, trials)
    return _result(bench, tried, accounts)


@dataclass(frozen=True, eq=False)
class _Tried:
    """A trial and its raw scores `(m,)` of all later rows; empty if it was dropped."""

    trial: Trial
    raw: Array


@dataclass(frozen=True, eq=False)
class _Bench:
    """The folds' rows as LightGBM holds them, binned once for all trials."""

    problem: Problem
    folds: tuple[Fold, ...]

    @cached_property
    def sides(self) -> tuple[tuple[lgb.Dataset, ...], ...]:
        """The earlier and the later rows of each fold."""
        whole = replace(self.problem, recipe=_with(self.problem.recipe, {})).binned
        return tuple(tuple(whole.subset(rows.tolist()).construct() for rows in fold) for fold in self.folds)

    @cached_property
    def later(self) -> npt.NDArray[np.intp]:
        """Positions of the rows that are held out, fold by fold."""
        return np.concatenate([later for _, later in self.folds])

    def losses(self, raw: Array) -> Array:
        """Return the loss `(m,)` of each later row under its fold's line."""
        target, ends = self.problem.target[self.later], np.cumsum([len(later) for _, later in self.folds])[:-1]
        folds = zip(np.split(raw, ends), np.split(target, ends), strict=True)
        return np.concatenate([row_losses(_line(scores, known, _STRAIGHT).log_odds(scores), known) for scores, known in folds])

    def run(self, recipe: Recipe, fold: int) -> "_Run":
        problem = replace(self.problem, recipe=recipe)
        earlier, later = self.sides[fold]
        curve: dict[str, Any] = {}
        booster = lgb.train(
            dict(problem.parameters) | {"metric": "none"},
            earlier,
            num_boost_round=recipe.rounds or recipe.max_rounds,
            valid_sets=[later],
            feval=_CalibratedLoss(problem.target[self.folds[fold][1]]),
            callbacks=[lgb.record_evaluation(curve), *([] if recipe.rounds else [lgb.early_stopping(_patience(recipe), verbose=False)])],
            keep_training_booster=True,
        )
        return _Run(booster, np.array(curve["valid_0"][_CalibratedLoss.name]), problem.matrix[self.folds[fold][1]])


class _CalibratedLoss:
    """The log loss of later rows under the Platt's line that suits them best, as LightGBM asks for it after each tree."""

    name = "calibrated log loss"

    def __init__(self, target: Array) -> None:
        self.target = target
        self.line = _STRAIGHT  # the next tree's line is near this one's

    def __call__(self, probability: Array, _data: lgb.Dataset) -> tuple[str, float, bool]:
        raw = logit(probability)
        self.line = _line(raw, self.target, self.line)
        return self.name, float(row_losses(self.line.log_odds(raw), self.target).mean()), False


def _line(raw: Array, target: Array, start: PlattCalibrator) -> PlattCalibrator:
    """Return Platt's line of least loss by Newton's method; each level is the best one for a slope that reached its bound."""
    line = start
    for _ in range(_NEWTON_STEPS):
        probability = expit(line.log_odds(raw))
        weight, off = probability * (1 - probability), target - probability
        flat, linear, square = weight.sum(), weight @ raw, weight @ raw**2
        bend = flat * square - linear**2
        steeper = (flat * (off @ raw) - linear * off.sum()) / bend if bend > _NEARLY_NONE * flat**2 else 0.0
        slope = float(np.clip(line.slope + steeper, *_SLOPES))
        higher = float((off.sum() - linear * (slope - line.slope)) / flat)
        line, moved = PlattCalibrator(slope, line.intercept + higher), abs(slope - line.slope) + abs(higher)
        if moved < _CLOSE:
            break
    return line


@dataclass(frozen=True, eq=False)
class _Run:
    """A model of one fold, and its log loss on the later rows after each tree."""

    booster: lgb.Booster
    curve: Array
    matrix: Array

    def raw(self, rounds: int) -> Array:
        return np.asarray(self.booster.predict(self.matrix, raw_score=True, num_iteration=rounds, num_threads=1))


def _try(bench: _Bench, study: "optuna.Study", asked: "optuna.Trial") -> _Tried:
    import optuna

    recipe, runs = _with(bench.problem.recipe, asked.params), list[_Run]()
    for fold in range(len(bench.folds)):
        runs.append(bench.run(recipe, fold))
        losses = tuple(float(run.curve.min()) for run in runs)
        asked.report(float(np.mean(losses)), fold)
        if fold + 1 < len(bench.folds) and asked.should_prune():
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
            return _Tried(Trial(parameters=asked.params, losses=losses, loss=None, rounds=None), np.empty(0))
    rounds, loss = _best_rounds([run.curve for run in runs], recipe)
    study.tell(asked, loss)
    return _Tried(
        Trial(parameters=asked.params, losses=losses, loss=loss, rounds=rounds), np.concatenate([run.raw(rounds) for run in runs])
    )


def _best_rounds(curves: Sequence[Array], recipe: Recipe) -> tuple[int, float]:
    """Return the number of trees with the least mean loss over the folds, among those that every fold has reached, and that loss."""
    reached = min(map(len, curves))
    mean = np.mean([curve[:reached] for curve in curves], axis=0)
    rounds = recipe.rounds or int(mean.argmin()) + 1
    return rounds, float(mean[rounds - 1])


def _result(bench: _Bench, tried: Sequence[_Tried], accounts: Labels) -> SearchResult:
    first, lowest = tried[0], min((one for one in tried if not one.trial.pruned), key=lambda one: one.trial.loss or 0.0)
    gain, error = _difference(bench, first.raw, lowest.raw, accounts)
    found = lowest if gain > error else first
    assert found.trial.rounds is not None
    return SearchResult(
        recipe=bench.problem.recipe if found is first else _with(bench.problem.recipe, found.trial.parameters),
        rounds=found.trial.rounds,
        trials=tuple(one.trial for one in tried),
        best=next(number for number, one in enumerate(tried) if one is found),
        gain=gain,
        error=error,
    )


def _difference(bench: _Bench, first: Array, other: Array, accounts: Labels) -> tuple[float, float]:
    """Return by how much the second scores' mean loss over the folds is lower, and the standard error of this over accounts."""
    gains = bench.losses(first) - bench.losses(other)
    sizes = np.concatenate([np.full(len(later), len(later)) for _, later in bench.folds])
    return clustered_mean(gains * len(gains) / (sizes * len(bench.folds)), accounts[bench.later])


def _with(recipe: Recipe, parameters: Mapping[str, float | int]) -> Recipe:
    """Return the recipe with other parameters; none of them may keep a feature out of the rows that all trials share."""
    return replace(recipe, parameters={**recipe.parameters, **parameters, "feature_pre_filter": "false"})


def _patience(recipe: Recipe) -> int:
    """Return how many trees may bring nothing before the training stops: the slower it learns, the more."""
    return max(20, round(_PATIENCE / float(recipe.parameters["learning_rate"])))


def _study(recipe: Recipe, ranges: Collection[str]) -> "optuna.Study":
    import optuna

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=recipe.seed), pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    )
    study.enqueue_trial({name: recipe.parameters.get(name, 0) for name in ranges})
    return study


def _distributions(ranges: Mapping[str, Range]) -> "dict[str, optuna.distributions.BaseDistribution]":
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(span.low), int(span.high), log=span.logarithmic)
        if span.whole
        else FloatDistribution(span.low, span.high, log=span.logarithmic)
        for name, span in ranges.items()
    }


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing a study, and leave its logging as it was, even where targets are trained side by side."""
    import optuna

    with _LOGGING:
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _require(problem: Problem, folds: Sequence[Fold], ranges: Mapping[str, Range], trials: int) -> None:
    if trials < 1:
        raise ConfigError(
            explain("a search needs a trial", given=f"{trials} trials", allowed="1 or more", todo="Raise trials in [training].")
        )
    if not ranges:
        raise ConfigError(
            explain(
                "there is nothing to search: every parameter is set", todo="Remove some from [training.parameters], or set trials to 0."
            )
        )
    alike = [number for number, sides in enumerate(folds) if any(len(np.unique(problem.target[side])) < 2 for side in sides)]
    if alike or not folds:
        raise NotEnoughDataError(
            explain(
                "recipes cannot be compared: a fold has only one outcome among its earlier or its later rows",
                given=f"{len(folds)} folds, one outcome in {', '.join(f'fold {number + 1}' for number in alike) or 'none'}",
                todo="Load a longer history or more accounts, or set trials to 0 in [training].",
            )
        )
