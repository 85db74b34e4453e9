"""LightGBM's own walk through the trees is the twin of the tables."""

import itertools
import math

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_trees import LEVELS, rows, trained
from training import boughs
from training.explanation import parts
from training.leaf_tables import leaf_tables

SHAPES = st.fixed_dictionaries(
    {
        "num_leaves": st.integers(2, 40),
        "max_depth": st.integers(1, 7),
        "min_data_in_leaf": st.sampled_from([5, 50, 5000]),
        "use_missing": st.booleans(),
        "max_cat_to_onehot": st.sampled_from([1, 4]),
        "cat_smooth": st.sampled_from([1, 10]),
        "min_data_per_group": st.just(5),
        "monotone_constraints": st.sampled_from([[0] * 7, [1, -1, 0, 0, 0, 0, 0]]),
        "bagging_fraction": st.sampled_from([0.6, 1.0]),
        "bagging_freq": st.just(1),
        "boost_from_average": st.booleans(),
        "max_bin": st.sampled_from([3, 255]),
    }
)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10_000), patterns=st.sampled_from([1, 16, boughs.PATTERNS, 5000]))
def test_any_model_has_lightgbm_s_raw_scores_to_the_last_bit_and_its_parts(shape, seed, patterns):
    booster = trained(seed, **shape)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.boughs.PATTERNS", patterns)
        tables = leaf_tables(booster)
    matrix = rows(np.random.default_rng(seed + 10), 300)
    matrix[:20, 5:] = LEVELS + 3  # levels that training has not seen
    matrix[20] = np.nan
    raw, explained = tables.explain(matrix)
    assert (raw == booster.predict(matrix, raw_score=True)).all()
    own = parts(booster, matrix)
    np.testing.assert_allclose(explained, own, rtol=0, atol=1e-12)
    np.testing.assert_allclose(explained.sum(axis=1), raw, rtol=0, atol=1e-12)
    assert (explained[:, -1] == own[:, -1]).all()
    few_raw, few = tables.explain(matrix[15:25])
    assert (few_raw == raw[15:25]).all()
    assert (few == explained[15:25]).all()


def test_a_row_s_numbers_do_not_depend_on_the_rows_beside_it_or_on_threads(monkeypatch):
    monkeypatch.setattr("training.column_tables._BLOCK", 7)
    tables = leaf_tables(trained(3))
    matrix = rows(np.random.default_rng(0), 300)
    raw, together = tables.explain(matrix, threads=3)
    for start, count in itertools.product((0, 5, 200), (1, 2, 99)):
        own, alone = tables.explain(matrix[start : start + count])
        assert (own == raw[start : start + count]).all()
        assert (alone == together[start : start + count]).all()


def test_ranks_beyond_a_byte():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4000, 2))
    matrix[::9, 0] = np.nan
    data = lgb.Dataset(matrix, np.sin(matrix[:, 1] * 20) + np.sin(np.nan_to_num(matrix[:, 0]) * 30), params={"max_bin": 2000})
    booster = lgb.train(
        {"num_leaves": 6, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1, "max_bin": 2000, "extra_trees": True}, data, 300
    )
    tables = leaf_tables(booster)
    assert max(len(codes.cuts) for codes in tables.columns.codes) > 256
    raw, explained = tables.explain(matrix[:1000])
    assert (raw == booster.predict(matrix[:1000], raw_score=True)).all()
    np.testing.assert_allclose(explained, parts(booster, matrix[:1000]), rtol=0, atol=1e-12)


def test_no_row_is_no_row():
    raw, explained = leaf_tables(trained(3)).explain(np.empty((0, 7)))
    assert raw.shape == (0,)
    assert explained.shape == (0, 8)


def test_the_parts_are_shapley_values_of_what_the_trees_say_on_average():
    """By the definition: over all orders of the features, what each adds when it becomes known."""
    booster = trained(4, num_leaves=6, max_depth=3)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    tables = leaf_tables(booster)
    for values in rows(np.random.default_rng(5), 3):
        _, explained = tables.explain(values[None, :])
        known = {subset: sum(average(tree, values, subset) for tree in trees) for subset in subsets(range(7))}
        for feature in range(7):
            others = [each for each in range(7) if each != feature]
            part = sum(
                math.factorial(len(subset))
                * math.factorial(6 - len(subset))
                / math.factorial(7)
                * (known[tuple(sorted((*subset, feature)))] - known[subset])
                for subset in subsets(others)
            )
            assert explained[0, feature] == pytest.approx(part, abs=1e-12)


def subsets(features):
    features = list(features)
    return [subset for size in range(len(features) + 1) for subset in itertools.combinations(features, size)]


def average(node, values, known):
    if "leaf_value" in node:
        return node["leaf_value"]
    sides = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        return average(sides[0] if goes_left(node, values[node["split_feature"]]) else sides[1], values, known)
    counts = [side.get("leaf_count", side.get("internal_count")) for side in sides]
    return sum(count * average(side, values, known) for count, side in zip(counts, sides, strict=True)) / sum(counts)


def goes_left(node, value):
    if node["decision_type"] == "==":
        return not math.isnan(value) and str(int(value)) in node["threshold"].split("||")
    return node["default_left"] if math.isnan(value) else value <= node["threshold"]


def test_a_model_that_takes_zero_for_missing_has_no_tables():
    assert leaf_tables(trained(1, zero_as_missing=True)) is None


def test_deep_trees_have_no_tables(monkeypatch):
    booster = trained(1)
    monkeypatch.setattr("training.leaf_tables.DEEPEST", 4)
    assert leaf_tables(booster) is None
    monkeypatch.setattr("training.leaf_tables.DEEPEST", 5)
    assert leaf_tables(booster) is not None
    monkeypatch.setattr("training.leaf_tables._LARGEST", 1000)
    assert leaf_tables(booster) is None
