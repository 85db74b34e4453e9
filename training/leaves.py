"""A model's trees as their leaves, and what the path to each leaf asks of each feature."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightgbm as lgb

__all__ = ["OTHERS", "Fork", "Leaf", "Question", "leaves_of", "read_trees"]

OTHERS = -1
"""In a set of levels: all are meant but those that are listed beside it."""


@dataclass(frozen=True)
class Question:
    """What a path asks of one feature.

    Parameters
    ----------
    low, high
        A number passes if it is above `low` and not above `high`.
    levels
        The levels that pass; None if the feature is a number.
    missing
        Whether a missing value passes.
    share
        The share of training rows that pass, among those that pass all that was asked before.
    """

    low: float = -math.inf
    high: float = math.inf
    levels: frozenset[int] | None = None
    missing: bool = True
    share: float = 1.0

    def passes_level(self, level: int) -> bool:
        """Whether a level passes; `OTHERS` stands for one that no question names."""
        assert self.levels is not None
        return (level in self.levels) != (OTHERS in self.levels) if level != OTHERS else OTHERS in self.levels


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf: its value in log-odds, and the questions of its path by feature."""

    value: float
    questions: Mapping[int, Question] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Fork:
    """A place where a tree parts in two."""

    left: "Fork | Leaf"
    right: "Fork | Leaf"


def read_trees(booster: lgb.Booster) -> list[Fork | Leaf] | None:
    """Return a model's trees in their order; None if one treats zero as missing.

    Parameters
    ----------
    booster
        A model without linear trees.
    """
    roots = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    return None if any(map(_zero_is_missing, roots)) else [_grown(root, {}) for root in roots]


def leaves_of(tree: Fork | Leaf) -> Iterator[Leaf]:
    """Return a tree's leaves from left to right."""
    if isinstance(tree, Leaf):
        yield tree
    else:
        yield from leaves_of(tree.left)
        yield from leaves_of(tree.right)


def _grown(node: Mapping[str, Any], asked: Mapping[int, Question]) -> Fork | Leaf:
    if "leaf_value" in node:
        return Leaf(node["leaf_value"], asked)
    feature = node["split_feature"]
    before = asked.get(feature, Question())
    sides = {side: {**asked, feature: _narrowed(before, node, side)} for side in ("left_child", "right_child")}
    return Fork(*(_grown(node[side], questions) for side, questions in sides.items()))


def _narrowed(question: Question, node: Mapping[str, Any], side: str) -> Question:
    """Return what is asked of the feature after one more split."""
    left = side == "left_child"
    share = question.share * _count(node[side]) / node["internal_count"]
    if node["decision_type"] == "==":
        named = frozenset(int(level) for level in node["threshold"].split("||"))
        levels = _both(question.levels, named if left else named | {OTHERS})
        return Question(levels=levels, missing=question.missing and not left, share=share)
    threshold = node["threshold"]
    to_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0.0
    missing = question.missing and to_left == left
    if left:
        return Question(question.low, min(question.high, threshold), missing=missing, share=share)
    return Question(max(question.low, threshold), question.high, missing=missing, share=share)


def _both(one: frozenset[int] | None, other: frozenset[int]) -> frozenset[int]:
    """Return the levels that are in both sets, each told directly or by its complement."""
    if one is None:
        return other
    if OTHERS in one and OTHERS in other:
        return one | other
    if OTHERS in one:
        return other - one
    if OTHERS in other:
        return one - other
    return one & other


def _count(node: Mapping[str, Any]) -> int:
    count: int = node["leaf_count"] if "leaf_value" in node else node["internal_count"]
    return count


def _zero_is_missing(node: Mapping[str, Any]) -> bool:
    if "leaf_value" in node:
        return False
    return node["missing_type"] == "Zero" or _zero_is_missing(node["left_child"]) or _zero_is_missing(node["right_child"])
