"""How much the ARR changes, given what happened: the ratio of ARR at the window's end to ARR at the cutoff.

Churn needs no model: the ratio is zero. For those that contracted, those that expanded, and those that did neither (prices drift), the
ratio has a distribution. It is kept as *atoms*, numbers of equal weight: the rows are sorted by ratio and cut into shares of equal ARR, and
an atom is what one unit of ARR became in its share. So the mean of the atoms is what one unit of all that ARR became, which is what a sum
of ARR needs: small accounts often multiply, and large ones do not. Exact repeats, such as no change at all, stay exact.

One set of atoms for all, or one for each leaf of a single small tree over the features: more leaves are taken only where they forecast
accounts that were held out better by more than one standard error (the rule of Breiman et al., "Classification and Regression Trees",
1984, section 3.4.3), in the continuous ranked probability score (Gneiting and Raftery, "Strictly proper scoring rules", JASA 2007). Each
row weighs as much as its ARR, because what is forecast is a sum of ARR. Accounts are held out whole: label windows overlap, so that one
change shows in several rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from features.errors import NotEnoughDataError, PackageError, explain
from training.dataset import Array

__all__ = ["ChangeModel", "change_from_json", "crps", "equal_mass_means", "fit_change"]

Labels = npt.NDArray[Any]
Positions = npt.NDArray[np.intp]

_ATOMS = 200
_LEAVES = (2, 4, 8)
_LEAST_IN_LEAF = 40
_PARTS = 5
_SMALLEST = 0.01
_TINY = 1e-12
_PARAMETERS: Mapping[str, Any] = {
    "objective": "l2",
    "learning_rate": 1.0,
    "min_data_in_leaf": _LEAST_IN_LEAF,
    "min_sum_hessian_in_leaf": 0.0,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True, eq=False)
class ChangeModel:
    """The distribution of `ARR at the window's end / ARR at the cutoff` under one outcome.

    Parameters
    ----------
    atoms
        For each leaf, ratios of equal weight in rising order; an even share of the ARR that was seen became each.
    tree
        The tree that assigns rows to leaves, in LightGBM's text format; empty where there is one leaf for all.
    rows
        Number of rows that it was fitted on.

    Examples
    --------
    >>> model = ChangeModel(atoms=((0.5, 0.7),), tree="", rows=2)
    >>> model.mean(np.zeros((3, 0))).tolist()
    [0.6, 0.6, 0.6]
    """

    atoms: tuple[tuple[float, ...], ...]
    tree: str
    rows: int

    def leaf(self, matrix: Array) -> Positions:
        """Return the leaf of each row of the encoded features `(n, n_features)`."""
        if not self.tree:
            return np.zeros(len(matrix), dtype=np.intp)
        leaves: Positions = np.asarray(self._booster.predict(matrix, pred_leaf=True, num_threads=1)).reshape(-1).astype(np.intp)
        return leaves

    def mean(self, matrix: Array) -> Array:
        """Return what one unit of ARR is expected to become, for each row of the encoded features `(n, n_features)`."""
        means = np.array([np.mean(values) for values in self.atoms])
        return means[self.leaf(matrix)]

    def draw(self, rng: np.random.Generator, leaf: Positions, shape: tuple[int, ...]) -> Array:
        """Draw ratios of the given shape, whose last axis is that of the leaves `(n,)`."""
        uniform = rng.random(shape, dtype=np.float32)
        position = (uniform * self._sizes[leaf]).astype(np.intp)
        return self._table[leaf, np.minimum(position, self._sizes[leaf] - 1)]

    def to_json(self) -> dict[str, Any]:
        """Return what `change_from_json` reads."""
        return {"atoms": [list(values) for values in self.atoms], "tree": self.tree, "rows": self.rows}

    @cached_property
    def _booster(self) -> lgb.Booster:
        return lgb.Booster(model_str=self.tree)

    @cached_property
    def _sizes(self) -> Positions:
        return np.array([len(values) for values in self.atoms], dtype=np.intp)

    @cached_property
    def _table(self) -> Array:
        """The atoms as `(n_leaves, largest number of atoms)`, filled up with ones."""
        table = np.ones((len(self.atoms), self._sizes.max()))
        for number, values in enumerate(self.atoms):
            table[number, : len(values)] = values
        return table


def change_from_json(data: Mapping[str, Any]) -> ChangeModel:
    """Make a model from what its `to_json` returned.

    Raises
    ------
    PackageError
        If it is damaged: a leaf without numbers, a number that is not finite, or a tree with other leaves.
    """
    try:
        atoms = tuple(tuple(float(value) for value in values) for values in data["atoms"])
        model = ChangeModel(atoms=atoms, tree=str(data["tree"]), rows=int(data["rows"]))
        leaves = _leaves(model._booster) if model.tree else 1
    except (KeyError, TypeError, ValueError, IndexError, lgb.basic.LightGBMError) as error:
        raise PackageError(explain(f"the model of the ARR change cannot be read: {type(error).__name__}: {error}")) from error
    if leaves != len(atoms) or not all(values and np.isfinite(values).all() for values in atoms):
        raise PackageError(explain("the model of the ARR change does not agree with itself", todo="Run `renewcast train` again."))
    return model


def fit_change(matrix: Array, ratio: Array, *, arr: Array, account: Labels, categories: Sequence[int] = ()) -> ChangeModel:
    """Fit the distribution of the ratio of ARR at the window's end to ARR at the cutoff, for rows that share one outcome.

    Parameters
    ----------
    matrix
        `(n, n_features)` encoded features.
    ratio, arr
        `(n,)` what became of one unit of ARR, and ARR at the cutoff, above zero.
    account
        `(n,)`, the account of each row.
    categories
        Columns of the matrix that hold codes of categories.

    Raises
    ------
    NotEnoughDataError
        If there is no row.
    """
    if not len(ratio):
        raise NotEnoughDataError(explain("there is no row to learn the ARR change from", todo="Load a longer history."))
    rows = _Rows(matrix, ratio, arr, np.unique(account, return_inverse=True)[1], tuple(categories))
    return _fit(rows, [_choose_leaves(rows)])[0]


def equal_mass_means(values: Array, mass: Array, parts: int) -> Array:
    """Return the means of `parts` equal shares of the mass of sorted values, `(n,)` each.

    A value on a border counts to both sides in proportion.

    Examples
    --------
    >>> equal_mass_means(np.array([4.0, 1.0, 3.0, 2.0]), np.ones(4), 2).tolist()
    [1.5, 3.5]
    >>> equal_mass_means(np.array([1.0, 4.0]), np.array([3.0, 1.0]), 2).tolist()
    [1.0, 2.5]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    until = np.concatenate([[0.0], np.cumsum(mass[order])])
    borders = np.linspace(0, until[-1], parts + 1)
    cumulated = np.interp(borders, until, np.concatenate([[0.0], np.cumsum(ordered * mass[order])]))
    last = len(values) - 1
    lowest = ordered[np.clip(np.searchsorted(until, borders[:-1] * (1 + _TINY), side="right") - 1, 0, last)]
    highest = ordered[np.clip(np.searchsorted(until, borders[1:] * (1 - _TINY), side="left") - 1, 0, last)]
    means: Array = np.clip(np.diff(cumulated) * parts / until[-1], lowest, highest)  # without the rounding of the sums
    return means


def crps(atoms: Array, seen: Array) -> Array:
    """Return the continuous ranked probability score of atoms of equal weight `(m,)` for values that were seen `(n,)`; less is better.

    It is `E|X - seen| - E|X - X'| / 2` (Gneiting and Raftery 2007, equation 21).

    Examples
    --------
    >>> crps(np.array([1.0]), np.array([1.0, 3.0])).tolist()
    [0.0, 2.0]
    """
    atoms = np.sort(atoms)
    m = len(atoms)
    below = np.searchsorted(atoms, seen, side="right")
    cumulated = np.concatenate([[0.0], np.cumsum(atoms)])
    distance = (seen * (2 * below - m) - 2 * cumulated[below] + cumulated[m]) / m
    spread = 2 * np.sum(atoms * (2 * np.arange(m) + 1 - m)) / m**2
    scores: Array = distance - spread / 2
    return scores


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one outcome, with accounts as numbers."""

    matrix: Array
    ratio: Array
    arr: Array
    account: Positions
    categories: tuple[int, ...]

    def at(self, rows: Positions) -> "_Rows":
        return _Rows(self.matrix[rows], self.ratio[rows], self.arr[rows], self.account[rows], self.categories)


def _fit(rows: _Rows, leaves: Sequence[int]) -> list[ChangeModel]:
    """Fit one model for each greatest number of leaves; the features are binned once for all of them."""
    binned = _binned(rows) if max(leaves) > 1 else None
    return [_with_atoms(rows, _grow(binned, most) if binned and most > 1 else "") for most in leaves]


def _binned(rows: _Rows) -> lgb.Dataset:
    """Return what the trees split: the logarithm, which a few large ratios do not rule."""
    target = np.log(np.maximum(rows.ratio, _SMALLEST))
    return lgb.Dataset(rows.matrix, target, categorical_feature=list(rows.categories), params=dict(_PARAMETERS))


def _grow(binned: lgb.Dataset, leaves: int) -> str:
    """Return a tree as text, or nothing where no split is worth it."""
    grown = lgb.train({**_PARAMETERS, "num_leaves": leaves}, binned, num_boost_round=1)
    return str(grown.model_to_string()) if _leaves(grown) > 1 else ""


def _leaves(tree: lgb.Booster) -> int:
    return int(tree.dump_model()["tree_info"][0]["num_leaves"])


def _with_atoms(rows: _Rows, tree: str) -> ChangeModel:
    leaf = ChangeModel(atoms=(), tree=tree, rows=len(rows.ratio)).leaf(rows.matrix)
    atoms = tuple(_atoms(rows.ratio[leaf == number], rows.arr[leaf == number]) for number in range(leaf.max() + 1))
    return ChangeModel(atoms=atoms, tree=tree, rows=len(rows.ratio))


def _atoms(ratio: Array, arr: Array) -> tuple[float, ...]:
    return tuple(equal_mass_means(ratio, arr, _ATOMS).tolist())


def _choose_leaves(rows: _Rows) -> int:
    """Return the fewest leaves whose score on accounts held out is within one standard error of the best."""
    parts = min(_PARTS, rows.account.max() + 1)
    leaves = [1, *(most for most in _LEAVES if most * _LEAST_IN_LEAF <= len(rows.ratio) // 2)]
    if parts < 2 or len(leaves) == 1:
        return 1
    scores = _held_out(rows, leaves, parts)
    best = np.argmin(scores.sum(axis=1))
    return next(most for most, score in zip(leaves, scores, strict=True) if _within_one_error(score - scores[best], rows.account))


def _within_one_error(worse: Array, account: Positions) -> bool:
    """Tell whether the sum of differences is at most its standard error over accounts."""
    return bool(worse.sum() <= np.sqrt(np.sum(np.bincount(account, weights=worse) ** 2)))


def _held_out(rows: _Rows, leaves: Sequence[int], parts: int) -> Array:
    """Return the score of each row `(n_candidates, n)`, in ARR, under models of other accounts."""
    scores = np.empty((len(leaves), len(rows.ratio)))
    for kept, held in GroupKFold(parts).split(rows.matrix, groups=rows.account):
        judged = rows.at(held)
        for candidate, model in enumerate(_fit(rows.at(kept), leaves)):
            leaf = model.leaf(judged.matrix)
            for number, atoms in enumerate(model.atoms):
                scores[candidate, held[leaf == number]] = crps(np.array(atoms), judged.ratio[leaf == number])
    weighted: Array = scores * rows.arr
    return weighted
