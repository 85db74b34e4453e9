"""LightGBM's own walk through the trees is the twin of the tables."""

import itertools
import math

import lightgbm as lgb
import numpy as np
import pytest

from training.explanation import parts
from training.leaf_tables import leaf_tables

LEVELS = 6


def rows(rng, count):
    matrix = np.round(rng.normal(0, 2, (count, 7)), 1)
    matrix[:, 5:] = rng.integers(0, LEVELS, (count, 2))
    matrix[rng.random(matrix.shape) < 0.15] = np.nan
    return matrix


def trained(seed, **changed):
    rng = np.random.default_rng(seed)
    matrix = rows(rng, 1200)
    known = np.nan_to_num(matrix)
    risk = known[:, 0] - known[:, 1] * (known[:, 2] > 0) + 0.8 * np.isin(known[:, 5], [1, 4]) - 0.5 * (known[:, 6] == 2) - 0.5
    outcome = (rng.random(len(matrix)) < 1 / (1 + np.exp(-risk))).astype(float)
    parameters = {"objective": "binary", "num_leaves": 15, "max_depth": 5, "verbosity": -1, "num_threads": 1, "seed": seed, **changed}
    data = lgb.Dataset(matrix, outcome, categorical_feature=[5, 6], weight=rng.uniform(0.5, 2, len(matrix)))
    return lgb.train(parameters, data, num_boost_round=30)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"num_leaves": 4, "max_depth": 2},
        {"max_depth": 7, "num_leaves": 40, "min_data_in_leaf": 5},
        {"use_missing": False},
        {"max_cat_to_onehot": 1, "cat_smooth": 1, "min_data_per_group": 5},
        {"monotone_constraints": [1, -1, 0, 0, 0, 0, 0]},
        {"bagging_fraction": 0.6, "bagging_freq": 1, "boost_from_average": False},
    ],
)
def test_the_tables_give_lightgbm_s_raw_scores_to_the_last_bit_and_its_parts(changed):
    for seed in (1, 2):
        booster = trained(seed, **changed)
        tables = leaf_tables(booster)
        matrix = rows(np.random.default_rng(seed + 10), 300)
        matrix[:20, 5:] = LEVELS + 3  # levels that training has not seen
        matrix[20] = np.nan
        raw, explained = tables.explain(matrix)
        assert (raw == booster.predict(matrix, raw_score=True)).all()
        np.testing.assert_allclose(explained, parts(booster, matrix), rtol=0, atol=1e-12)
        np.testing.assert_allclose(explained.sum(axis=1), raw, rtol=0, atol=1e-12)
        assert (explained[:, -1] == parts(booster, matrix)[:, -1]).all()


def test_a_row_s_numbers_do_not_depend_on_the_rows_beside_it():
    tables = leaf_tables(trained(3))
    matrix = rows(np.random.default_rng(0), 40)
    raw, together = tables.explain(matrix)
    for row in range(len(matrix)):
        own, alone = tables.explain(matrix[row : row + 1])
        assert own[0] == raw[row]
        assert (alone[0] == together[row]).all()


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


@pytest.mark.parametrize("changed", [{"zero_as_missing": True}, {"min_data_in_leaf": 5000}])
def test_models_that_the_tables_cannot_hold_have_none(changed):
    assert leaf_tables(trained(1, **changed)) is None


def test_deep_trees_have_no_tables(monkeypatch):
    booster = trained(1)
    monkeypatch.setattr("training.leaf_tables._DEEPEST", 4)
    assert leaf_tables(booster) is None
    monkeypatch.setattr("training.leaf_tables._DEEPEST", 5)
    assert leaf_tables(booster) is not None
    monkeypatch.setattr("training.leaf_tables._LARGEST", 1000)
    assert leaf_tables(booster) is None
