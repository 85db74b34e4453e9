"""The model: gradient-boosted trees whose direction is fixed where domain knowledge fixes it.

LightGBM, log loss, shallow trees (the depth decides what an explanation costs), categories as categories, missing values as missing,
no resampling. Training is deterministic: the same rows, parameters and seed give the same trees, byte for byte.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from features.catalogue import Catalogue
from features.errors import ConfigError, explain, nearest
from features.feature import Family, Target
from training.dataset import Array
from training.splits import Fold

__all__ = ["Problem", "Recipe", "Rehearsal", "directions", "fit_booster", "make_recipe", "model_names", "raw_scores", "rehearse"]

Positions = npt.NDArray[np.intp]

_DEFAULTS: Mapping[str, float | int | str] = {
    "learning_rate": 0.04,
    "num_leaves": 15,
    "max_depth": 5,
    "min_data_in_leaf": 50,
    "lambda_l2": 10.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 127,
    "cat_smooth": 20.0,
    "cat_l2": 20.0,
}
_FURTHER = (
    "lambda_l1",
    "min_gain_to_split",
    "min_sum_hessian_in_leaf",
    "min_data_per_group",
    "path_smooth",
    "extra_trees",
    "max_cat_threshold",
)
_ROUNDS = ("rounds", "max_rounds")
_MAX_ROUNDS = 600
_PATIENCE = 60
_DRAWS = 20
"""How many draws of features a tree may take on average before too few of them can be used."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a target's model is trained.

    Parameters
    ----------
    parameters
        LightGBM's, complete but for the constraints.
    rounds
        The number of trees; None to choose it on later folds.
    max_rounds
        The most trees that may be chosen.
    threads
        Threads of LightGBM; more than there are free cores make it many times slower.
    """

    parameters: Mapping[str, float | int | str]
    rounds: int | None
    max_rounds: int
    seed: int
    threads: int

    def to_json(self) -> dict[str, float | int | str]:
        """Return what makes two models the same recipe: parameters, the number of trees if it is fixed, and the seed."""
        fixed = {} if self.rounds is None else {"rounds": self.rounds}
        return {**self.parameters, **fixed, "max_rounds": self.max_rounds, "seed": self.seed}


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Rows to learn from, and how.

    Parameters
    ----------
    matrix
        `(n, n_features)`, encoded, in the catalogue's order.
    target
        `(n,)` 0.0 or 1.0.
    target_name
        The target whose directions the catalogue fixes.
    bins
        An earlier problem whose bins are used, so that where they are cut tells nothing of later rows; cut anew if None.
    """

    matrix: Array
    target: Array
    target_name: Target
    catalogue: Catalogue
    recipe: Recipe
    bins: "Problem | None" = None

    @cached_property
    def binned(self) -> lgb.Dataset:
        """The rows as LightGBM holds them; binning takes as long as many trees, so it is done once."""
        categories = [position for position, feature in enumerate(self.catalogue) if feature.kind == "category"]
        return lgb.Dataset(
            self.matrix,
            self.target,
            feature_name=model_names(self.catalogue.names),
            categorical_feature=categories,
            params=dict(self.parameters),
            reference=self.bins.binned if self.bins else None,
        ).construct()

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """LightGBM's parameters, complete."""
        constraints = directions(self.catalogue, self.target_name)
        return {
            **self.recipe.parameters,
            **({"monotone_constraints": list(constraints), "monotone_constraints_method": "intermediate"} if any(constraints) else {}),
            "objective": "binary",
            "metric": "binary_logloss",
            "seed": self.recipe.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.recipe.threads,
            "verbosity": -1,
        }


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What the inner folds taught.

    Parameters
    ----------
    rounds
        The number of trees with the least log loss on later rows, on average over the folds.
    rows
        `(m,)` positions of the rows that were held out.
    raw
        `(m,)` their raw scores, each from a model that was trained on earlier rows only.
    """

    rounds: int
    rows: npt.NDArray[np.intp]
    raw: Array


def make_recipe(overrides: Mapping[str, float | int | str], *, seed: int, threads: int) -> Recipe:
    """Combine the default parameters with a workspace's overrides.

    Besides LightGBM's names, `rounds` fixes the number of trees and `max_rounds` bounds it.

    Raises
    ------
    ConfigError
        If an override has an unknown name.

    Examples
    --------
    >>> make_recipe({"rounds": 120}, seed=0, threads=1).rounds
    120
    """
    allowed = (*_DEFAULTS, *_FURTHER, *_ROUNDS)
    for name in overrides:
        if name not in allowed:
            raise ConfigError(
                explain(
                    f"unknown training parameter {name!r}",
                    given=f"{name} = {overrides[name]}",
                    allowed=", ".join(sorted(allowed)),
                    todo=nearest(name, allowed) or "Remove it from [training.parameters].",
                )
            )
    chosen = {name: value for name, value in overrides.items() if name not in _ROUNDS}
    return Recipe(
        parameters={**_DEFAULTS, **chosen},
        rounds=int(overrides["rounds"]) if "rounds" in overrides else None,
        max_rounds=int(overrides.get("max_rounds", _MAX_ROUNDS)),
        seed=seed,
        threads=threads,
    )


def directions(catalogue: Catalogue, target: Target) -> tuple[int, ...]:
    """Return for each feature +1 or -1 if the target's odds may only rise or fall with it, else 0; categories have no direction."""
    return tuple(feature.direction.get(target, 0) if feature.kind == "number" else 0 for feature in catalogue)


def rehearse(problem: Problem, folds: Sequence[Fold]) -> Rehearsal:
    """Train on each fold's earlier rows, choose the number of trees on its later ones, and return the scores of those."""
    recipe = problem.recipe
    result = lgb.cv(
        dict(problem.parameters),
        problem.binned,
        num_boost_round=recipe.rounds or recipe.max_rounds,
        folds=list(folds),
        callbacks=[] if recipe.rounds else [lgb.early_stopping(_PATIENCE, verbose=False)],
        return_cvbooster=True,
    )
    boosters = result["cvbooster"]
    assert isinstance(boosters, lgb.CVBooster)
    rounds = recipe.rounds or boosters.best_iteration
    raw = [
        booster.predict(problem.matrix[later], raw_score=True, num_iteration=rounds, num_threads=recipe.threads)
        for booster, (_, later) in zip(boosters.boosters, folds, strict=True)
    ]
    return Rehearsal(rounds=rounds, rows=np.concatenate([later for _, later in folds]), raw=np.concatenate(raw))


def fit_booster(
    problem: Problem, rounds: int, *, rows: Positions | None = None, weight: Array | None = None, without: Collection[Family] = ()
) -> str:
    """Train with a fixed number of trees, and return the model in LightGBM's text format.

    Parameters
    ----------
    rows
        Positions of the rows to learn from; all of them if None.
    weight
        `(n_rows,)` how much each of those counts.
    without
        Families of features that no tree may use; the columns stay, so that nothing is binned again.
    """
    chosen = np.arange(len(problem.target)) if rows is None else rows
    data = problem.binned if rows is None and weight is None else problem.binned.subset(chosen.tolist())
    if weight is not None:
        data.construct().set_weight(weight)
    parameters = dict(problem.parameters)
    if without:
        parameters["feature_contri"] = [float(feature.family not in without) for feature in problem.catalogue]
    booster = _every_tree(parameters, data, rounds) if without else lgb.train(parameters, data, num_boost_round=rounds)
    text: str = booster.model_to_string()
    return text


def _every_tree(parameters: Mapping[str, Any], data: lgb.Dataset, rounds: int) -> lgb.Booster:
    """Train as `lgb.train` does, which would stop at the first tree for which only features that may not be used were drawn."""
    booster = lgb.Booster(dict(parameters), data)
    for _ in range(_DRAWS * rounds):
        booster.update()
        if booster.num_trees() == rounds:
            break
    return booster


def raw_scores(booster: lgb.Booster, matrix: Array, *, threads: int = 1) -> Array:
    """Return the raw scores `(n,)` of encoded rows, in log-odds."""
    if len(matrix) == 0:
        return np.empty(0)
    return np.asarray(booster.predict(matrix, raw_score=True, num_threads=1 if len(matrix) == 1 else threads))


def model_names(features: Sequence[str]) -> list[str]:
    """Return the features' names as LightGBM can hold them: position, then the name without special characters.

    Examples
    --------
    >>> model_names(["active_users_28d", "events: api"])
    ['0_active_users_28d', '1_events__api']
    """
    return [f"{position}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}" for position, name in enumerate(features)]
