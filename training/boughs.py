"""Boughs: leaves of one tree that stand together, so that what decides among them is looked up at once.

All that a bough's leaves ask of a feature sorts the feature's values into a few *classes*; one class a feature is a *pattern*. What the
bough adds to the raw score, and to the part of each of its features, depends on the pattern alone and is worked out once for each.

The part of a leaf is that of the game `g(S) = v * prod(o_i for i in S) * prod(z_j for j not in S)` over the `d` features of its path:
`v` is its value, `o_i` says whether the row passes what is asked of feature `i`, and `z_j` is the share of training rows that do. The
parts of a bough are the sums over its leaves. Sources: Lundberg et al., Nature Machine Intelligence 2020 (the game); Yang, "Fast
TreeSHAP", 2021, and Nadel and Wettenstein, "From Decision Trees to Boolean Logic", AAAI 2026 (tables by pattern, a leaf at a time).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from training.leaves import OTHERS, Fork, Leaf, Question, leaves_of

__all__ = ["DEEPEST", "PATTERNS", "Bough", "Classes", "boughs_of", "tabulated"]

Array = npt.NDArray[np.float64]

DEEPEST = 7
"""Features that a path may ask about at most: the tables of a leaf grow with `2**d`."""

PATTERNS = 256
"""Patterns that a bough of several leaves may have at most: they are told apart by one byte."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """The classes into which a bough's leaves sort the values of one feature.

    Parameters
    ----------
    cuts
        Of a number: its class is how many of these it is above. Rising; the first is `-inf` where missing values have class 0 to
        themselves.
    missing
        The class of a missing value: 0 or the highest.
    levels
        Of a category: the class of each level, and under `OTHERS` that of any other and of a missing one; None for a number.
    passes
        `(n_questions, n_classes)` which class passes which of the questions, these in the order of the leaves that ask.
    """

    cuts: tuple[float, ...] = ()
    missing: int = 0
    levels: Mapping[int, int] | None = None
    passes: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.passes.shape[1])


@dataclass(frozen=True, eq=False)
class Bough:
    """Leaves of one tree that stand together, and the classes of the features that they ask about."""

    leaves: tuple[Leaf, ...]
    classes: Mapping[int, Classes]

    @property
    def patterns(self) -> int:
        """How many patterns there are."""
        return math.prod(map(len, self.classes.values()))

    @property
    def numbers(self) -> int:
        """How many numbers its table holds: for each of its features, and for the raw score, one a pattern."""
        return self.patterns * (len(self.classes) + 1)

    @property
    def weights(self) -> dict[int, int]:
        """By feature, what a class counts in the number of a pattern, which is the sum over the features of class times weight."""
        sizes = [1, *map(len, self.classes.values())]
        return {feature: math.prod(sizes[: place + 1]) for place, feature in enumerate(self.classes)}


def boughs_of(tree: Fork | Leaf) -> Iterator[Bough]:
    """Part a tree into boughs as large as they may be, from left to right."""
    leaves = tuple(leaves_of(tree))
    bough = Bough(leaves, _classes(leaves))
    if isinstance(tree, Leaf) or bough.patterns <= PATTERNS:
        yield bough
    else:
        yield from boughs_of(tree.left)
        yield from boughs_of(tree.right)


def _classes(leaves: Sequence[Leaf]) -> dict[int, Classes]:
    asked: dict[int, list[Question]] = {}
    for leaf in leaves:
        for feature, question in leaf.questions.items():
            asked.setdefault(feature, []).append(question)
    return {feature: (_of_numbers if questions[0].levels is None else _of_levels)(questions) for feature, questions in asked.items()}


def _of_numbers(questions: Sequence[Question]) -> Classes:
    cuts = sorted({end for question in questions for end in (question.low, question.high) if math.isfinite(end)})
    ranges = list(pairwise([-math.inf, *cuts, math.inf]))
    passes = [[question.low <= low and high <= question.high for low, high in ranges] for question in questions]
    missing = [question.missing for question in questions]
    for found in (0, len(cuts)):
        if missing == [row[found] for row in passes]:
            return Classes(cuts=tuple(cuts), missing=found, passes=np.array(passes))
    own = [[question.missing, *row] for question, row in zip(questions, passes, strict=True)]
    return Classes(cuts=(-math.inf, *cuts), passes=np.array(own))


def _of_levels(questions: Sequence[Question]) -> Classes:
    named = {level for question in questions for level in question.levels or ()} | {OTHERS}
    passes = {level: tuple(question.passes_level(level) for question in questions) for level in sorted(named)}
    numbers = {told: number for number, told in enumerate(dict.fromkeys(passes.values()))}
    return Classes(levels={level: numbers[told] for level, told in passes.items()}, passes=np.array(list(numbers), dtype=bool).T)


def tabulated(boughs: Sequence[Bough]) -> Array:
    """Return what boughs add, one after the other: each `(n_features + 1, n_patterns)` to its features' parts, and to the raw score."""
    parts = _leaf_parts([leaf for bough in boughs for leaf in bough.leaves])
    return np.concatenate([_table(bough, parts).ravel() for bough in boughs])


def _table(bough: Bough, parts: Mapping[Leaf, Array]) -> Array:
    number, weights = np.arange(bough.patterns), bough.weights
    asked = {feature: iter(each.passes[:, number // weights[feature] % len(each)]) for feature, each in bough.classes.items()}
    place = {feature: position for position, feature in enumerate(bough.classes)}
    table = np.zeros((len(place) + 1, len(number)))
    for leaf in bough.leaves:
        passed = np.zeros(len(number), dtype=np.intp)
        for bit, feature in enumerate(leaf.questions):
            passed |= next(asked[feature]).astype(np.intp) << bit
        table[[place[feature] for feature in leaf.questions]] += parts[leaf][:, passed]
        table[-1, passed == (1 << len(leaf.questions)) - 1] = leaf.value
    return table


def _leaf_parts(leaves: Sequence[Leaf]) -> dict[Leaf, Array]:
    """Return for each leaf `(d, 2**d)` the parts of its features by which questions are passed, the first one's bit the lowest."""
    parts: dict[Leaf, Array] = {}
    for d in {len(leaf.questions) for leaf in leaves}:
        alike = [leaf for leaf in leaves if len(leaf.questions) == d]
        values = np.array([leaf.value for leaf in alike])
        shares = np.array([[question.share for question in leaf.questions.values()] for leaf in alike]).reshape(len(alike), d)
        parts |= zip(alike, _shapley(values, shares), strict=True)
    return parts


def _shapley(values: Array, shares: Array) -> Array:
    """Return the Shapley values `(m, d, 2**d)` of leaves with these values `(m,)` and shares `(m, d)`, under all patterns."""
    d = shares.shape[1]
    products = [np.prod(shares[:, [player for player in range(d) if mask >> player & 1]], axis=1) for mask in range(1 << d)]
    orders = [math.factorial(size) * math.factorial(d - size - 1) / math.factorial(d) for size in range(d)]
    parts = np.empty((len(values), d, 1 << d))
    for player in range(d):
        others = (1 << d) - 1 - (1 << player)
        terms = {known: orders[known.bit_count()] * products[others & ~known] for known in range(1 << d) if known & ~others == 0}
        for pattern in range(1 << d):
            total = np.sum([term for known, term in terms.items() if known & ~pattern == 0], axis=0)
            parts[:, player, pattern] = values * ((pattern >> player & 1) - shares[:, player]) * total
    return parts
