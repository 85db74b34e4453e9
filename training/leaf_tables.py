"""Exact parts of one raw score by looking them up, several times faster than by walking the trees.

The parts are those of TreeSHAP, path-dependent, as `training.explanation` has them from LightGBM. Such a part is a sum over leaves. For a
leaf with the value `v`, whose path asks about `d` features, the game is `g(S) = v * prod(o_i for i in S) * prod(z_j for j not in S)`: `o_i`
says whether the row passes all that the path asks of feature `i`, and `z_j` is the share of training rows that do. All that a row
decides are the `d` bits `o`; so the Shapley values of each leaf are worked out once for all `2**d` patterns of bits, and a row picks one
pattern a leaf. Sources: Lundberg et al., Nature Machine Intelligence 2020 (the game); Yang, "Fast TreeSHAP", 2021, and Nadel and
Wettenstein, "From Decision Trees to Boolean Logic", AAAI 2026 (tables by pattern).

Shallow trees only: the tables grow with `2**d`. Values are finite or missing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

__all__ = ["LeafTables", "leaf_tables"]

Array = npt.NDArray[np.float64]

_DEEPEST = 7
"""Features that a path may ask about at most: a pattern fits a byte."""

_LARGEST = 4_000_000
"""Numbers that the tables may hold: 32 MB."""


@dataclass
class _Question:
    """What a path asks of one feature: a range, or levels; whether a missing value passes; the share of training rows that pass."""

    low: float = -math.inf
    high: float = math.inf
    levels: set[int] | None = None
    missing: bool = True
    share: float = 1.0


@dataclass(frozen=True)
class _Leaf:
    tree: int
    value: float
    questions: Mapping[int, _Question] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class LeafTables:
    """A model's leaves, laid out for lookups; a *question* is what one leaf's path asks of one feature.

    Parameters
    ----------
    base
        The average raw score.
    feature, low, high, missing, bit
        `(n_questions,)`: a value passes if it is above `low` and not above `high`, or is missing and `missing` holds; `bit` is the
        question's place in its leaf's pattern. The questions of a leaf stand together, the leaves in the order of their trees.
    levels, passes
        The questions about levels, and for each level whether it passes; the last column is for any other one.
    first, leaf
        Where each leaf's questions begin, and for each question its leaf.
    full, value
        Each leaf's pattern for rows that end in it, and its value.
    leaf_width, start, table
        The part of question `q` under the pattern `p` of its leaf is `table[start[q] + p * leaf_width[leaf[q]]]`.
    """

    base: float
    features: int
    feature: npt.NDArray[np.intp]
    low: Array
    high: Array
    missing: npt.NDArray[np.bool_]
    bit: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.intp]
    passes: npt.NDArray[np.bool_]
    first: npt.NDArray[np.intp]
    leaf: npt.NDArray[np.intp]
    full: npt.NDArray[np.uint8]
    value: Array
    leaf_width: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    table: Array

    def explain(self, matrix: Array) -> tuple[Array, Array]:
        """Return the raw scores `(n,)` and their parts `(n, n_features + 1)`, the base last, of encoded rows `(n, n_features)`.

        The raw scores are LightGBM's to the last bit. A row's numbers do not depend on the rows beside it.
        """
        raw, parts = np.empty(len(matrix)), np.empty((len(matrix), self.features + 1))
        for row, values in enumerate(matrix):
            pattern = self._patterns(values)
            ends = self.value[pattern == self.full]
            raw[row] = np.add.accumulate(ends)[-1]  # one after the other, as LightGBM adds its trees
            own = self.table.take((self.leaf_width * pattern).take(self.leaf) + self.start)
            parts[row, :-1] = np.bincount(self.feature, weights=own, minlength=self.features)
        parts[:, -1] = self.base
        return raw, parts

    def _patterns(self, values: Array) -> npt.NDArray[np.uint8]:
        """Return for each leaf which of its questions the row passes."""
        asked = values.take(self.feature)
        passed = asked > self.low
        passed &= asked <= self.high
        passed |= self.missing & np.isnan(values).take(self.feature)
        if len(self.levels):
            level = asked[self.levels]
            known = self.passes.shape[1] - 1
            code = np.where((level >= 0) & (level < known), level, known).astype(np.intp)
            passed[self.levels] = self.passes[np.arange(len(code)), code]
        patterns: npt.NDArray[np.uint8] = np.add.reduceat(passed.view(np.uint8) * self.bit, self.first, dtype=np.uint8)
        return patterns


def leaf_tables(booster: lgb.Booster) -> LeafTables | None:
    """Lay out a model's leaves; None if its trees are too deep or treat zero as missing, or one has no split.

    Parameters
    ----------
    booster
        A model without linear trees.
    """
    model = booster.dump_model()
    trees = [tree["tree_structure"] for tree in model["tree_info"]]
    if not trees or any("split_feature" not in tree for tree in trees) or any(map(_zero_is_missing, trees)):
        return None
    leaves = [leaf for number, tree in enumerate(trees) for leaf in _leaves(number, tree)]
    widths = [len(leaf.questions) for leaf in leaves]
    if max(widths) > _DEEPEST or sum(width << width for width in widths) > _LARGEST:
        return None
    features = model["max_feature_idx"] + 1
    base = float(np.asarray(booster.predict(np.zeros((1, features)), pred_contrib=True, num_threads=1))[0, -1])
    return _laid_out(leaves, features, base)


def _laid_out(leaves: list[_Leaf], features: int, base: float) -> LeafTables:
    asked = [(feature, question) for leaf in leaves for feature, question in leaf.questions.items()]
    width = np.array([len(leaf.questions) for leaf in leaves], dtype=np.intp)
    first = np.concatenate([[0], np.cumsum(width)[:-1]]).astype(np.intp)
    place = np.concatenate([np.arange(each) for each in width]).astype(np.intp)
    levels = np.array([number for number, (_, question) in enumerate(asked) if question.levels is not None], dtype=np.intp)
    start = np.array(list(accumulate((int(each) << int(each) for each in width), initial=0))[:-1], dtype=np.intp)
    return LeafTables(
        base=base,
        features=features,
        feature=np.array([feature for feature, _ in asked], dtype=np.intp),
        low=np.array([question.low if question.levels is None else math.inf for _, question in asked]),
        high=np.array([question.high for _, question in asked]),
        missing=np.array([question.missing and question.levels is None for _, question in asked]),
        bit=(1 << place).astype(np.uint8),
        levels=levels,
        passes=_passes([question.levels for _, question in asked if question.levels is not None]),
        first=first,
        leaf=np.repeat(np.arange(len(leaves)), width),
        full=((1 << width) - 1).astype(np.uint8),
        value=np.array([leaf.value for leaf in leaves]),
        leaf_width=width,
        start=np.repeat(start, width) + place,
        table=_table(leaves, start, width),
    )


def _passes(questions: list[set[int]]) -> npt.NDArray[np.bool_]:
    """Return for each question which levels pass; levels are told by their complement if -1 is among them."""
    known = max((max(levels, default=-1) for levels in questions), default=-1) + 1
    passes = np.zeros((len(questions), known + 1), dtype=bool)
    for row, levels in enumerate(questions):
        passes[row] = _OTHERS in levels
        for level in levels - {_OTHERS}:
            passes[row, level] = not passes[row, -1]
    return passes


_OTHERS = -1
"""In a set of levels: all are meant but those that are listed beside it."""


def _table(leaves: list[_Leaf], start: npt.NDArray[np.intp], width: npt.NDArray[np.intp]) -> Array:
    """Return the Shapley values of all leaves under all patterns."""
    table = np.empty(int((width << width).sum()))
    for d in set(width.tolist()):
        rows = np.flatnonzero(width == d)
        value = np.array([leaves[row].value for row in rows])
        share = np.array([[question.share for question in leaves[row].questions.values()] for row in rows])
        for pattern in range(1 << d):
            parts = _shapley(value, share, pattern)
            at = start[rows] + pattern * d
            for player in range(d):
                table[at + player] = parts[:, player]
    return table


def _shapley(value: Array, share: Array, pattern: int) -> Array:
    """Return the Shapley values `(m, d)` of leaves with these values `(m,)` and shares `(m, d)`, under one pattern of passed questions."""
    d = share.shape[1]
    products = [np.prod(share[:, [player for player in range(d) if mask >> player & 1]], axis=1) for mask in range(1 << d)]
    parts = np.empty_like(share)
    for player in range(d):
        others = (1 << d) - 1 - (1 << player)
        total = np.zeros_like(value)
        for known in range(1 << d):
            if known & ~(pattern & others) == 0:
                size = known.bit_count()
                total += math.factorial(size) * math.factorial(d - size - 1) / math.factorial(d) * products[others & ~known]
        parts[:, player] = value * ((pattern >> player & 1) - share[:, player]) * total
    return parts


def _leaves(tree: int, node: Mapping[str, Any], questions: Mapping[int, _Question] | None = None) -> Iterator[_Leaf]:
    asked = questions or {}
    if "leaf_value" in node:
        yield _Leaf(tree, node["leaf_value"], asked)
        return
    feature = node["split_feature"]
    for side in ("left_child", "right_child"):
        share = _count(node[side]) / node["internal_count"]
        narrowed = _narrowed(asked.get(feature, _Question()), node, side == "left_child", share)
        yield from _leaves(tree, node[side], {**asked, feature: narrowed})


def _narrowed(question: _Question, node: Mapping[str, Any], left: bool, share: float) -> _Question:
    """Return what is asked of the feature after one more split."""
    share *= question.share
    if node["decision_type"] == "==":
        named = {int(level) for level in node["threshold"].split("||")}
        levels = _both(question.levels, named if left else named | {_OTHERS})
        return _Question(levels=levels, share=share)
    threshold = node["threshold"]
    to_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0.0
    missing = question.missing and to_left == left
    if left:
        return _Question(question.low, min(question.high, threshold), missing=missing, share=share)
    return _Question(max(question.low, threshold), question.high, missing=missing, share=share)


def _both(one: set[int] | None, other: set[int]) -> set[int]:
    """Return the levels that are in both sets, each told directly or by its complement."""
    if one is None:
        return other
    if _OTHERS in one and _OTHERS in other:
        return one | other
    if _OTHERS in one:
        return other - one
    if _OTHERS in other:
        return one - other
    return one & other


def _count(node: Mapping[str, Any]) -> int:
    count: int = node["leaf_count"] if "leaf_value" in node else node["internal_count"]
    return count


def _zero_is_missing(node: Mapping[str, Any]) -> bool:
    if "leaf_value" in node:
        return False
    return node["missing_type"] == "Zero" or _zero_is_missing(node["left_child"]) or _zero_is_missing(node["right_child"])
