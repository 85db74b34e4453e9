"""What boughs are: a tree's leaves, each in one of them, told apart by a byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_trees import trained
from training.boughs import PATTERNS, boughs_of
from training.leaves import leaves_of, read_trees


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), depth=st.integers(1, 7))
def test_each_leaf_is_in_one_bough_and_patterns_fit_a_byte(seed, depth):
    for tree in read_trees(trained(seed, max_depth=depth, num_leaves=31)):
        boughs = list(boughs_of(tree))
        assert [leaf for bough in boughs for leaf in bough.leaves] == list(leaves_of(tree))
        assert all(bough.patterns <= PATTERNS or len(bough.leaves) == 1 for bough in boughs)
        for bough in boughs:
            assert {feature for leaf in bough.leaves for feature in leaf.questions} == set(bough.classes)


def test_a_pattern_s_number_tells_the_classes():
    bough = max((bough for tree in read_trees(trained(2)) for bough in boughs_of(tree)), key=lambda bough: len(bough.classes))
    sizes = [len(classes) for classes in bough.classes.values()]
    numbers = {sum(n * weight for n, weight in zip(place, bough.weights.values(), strict=True)) for place in np.ndindex(*sizes)}
    assert numbers == set(range(bough.patterns))


def test_a_class_of_levels_is_what_passes_the_same_questions():
    classes = [classes for tree in read_trees(trained(5)) for bough in boughs_of(tree) for classes in bough.classes.values()]
    told = [each for each in classes if each.levels is not None]
    assert told
    for each in told:
        columns = [tuple(column) for column in each.passes.T]
        assert len(set(columns)) == len(columns) == len(set(each.levels.values()))


@pytest.mark.parametrize("use_missing", [True, False])
def test_a_missing_value_has_a_class_of_its_own_only_if_it_needs_one(use_missing):
    classes = [each for tree in read_trees(trained(6, use_missing=use_missing)) for b in boughs_of(tree) for each in b.classes.values()]
    own = [each for each in classes if each.cuts and each.cuts[0] == -np.inf]
    for each in own:
        assert each.missing == 0
        assert tuple(each.passes[:, 0]) not in {tuple(each.passes[:, 1]), tuple(each.passes[:, -1])}
