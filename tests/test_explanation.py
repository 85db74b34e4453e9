"""Parts are exact: they add up, and they are the Shapley values of the definition."""

import itertools
import math
import warnings

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import PackageError
from training.dataset import load_dataset
from training.explanation import check_parts, parts
from training.leaf_tables import leaf_tables
from training.model import raw_scores

FEATURES = 4


def small_model(seed, *, trees=8, categories=(3,)):
    """Train a model on three numbers with missing values and a category of five levels."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, FEATURES))
    matrix[:, 3] = rng.integers(0, 5, 400)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    odds = np.nan_to_num(matrix[:, 0]) * np.nan_to_num(matrix[:, 1], nan=1.0) + (matrix[:, 3] == 2)
    target = (rng.random(400) < 1 / (1 + np.exp(-odds))).astype(float)
    parameters = {
        "objective": "binary",
        "num_leaves": 6,
        "min_data_in_leaf": 10,
        "verbosity": -1,
        "num_threads": 1,
        "seed": seed,
        "min_data_per_group": 10,
        "cat_smooth": 1,
    }
    return lgb.train(parameters, lgb.Dataset(matrix, target, categorical_feature=list(categories)), trees), matrix


def expected_value(node, row, known):
    """Return the tree's mean over its training rows, given only the known features of the row: the definition, not the algorithm."""
    if "leaf_value" in node:
        return node["leaf_value"]
    left, right = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        return expected_value(left if goes_left(node, row[node["split_feature"]]) else right, row, known)
    weights = [child.get("internal_count", child.get("leaf_count")) for child in (left, right)]
    return sum(w * expected_value(child, row, known) for w, child in zip(weights, (left, right), strict=True)) / sum(weights)


def goes_left(node, value):
    if node["decision_type"] == "==":
        return not math.isnan(value) and str(int(value)) in node["threshold"].split("||")
    if math.isnan(value):
        assert node["missing_type"] in {"NaN", "None"}
        if node["missing_type"] == "NaN":
            return node["default_left"]
        value = 0.0
    return value <= node["threshold"]


def shapley(booster, row):
    trees = [info["tree_structure"] for info in booster.dump_model()["tree_info"]]
    worth = {
        frozenset(known): sum(expected_value(tree, row, known) for tree in trees)
        for size in range(FEATURES + 1)
        for known in itertools.combinations(range(FEATURES), size)
    }
    values = []
    for feature in range(FEATURES):
        value = 0.0
        for known, amount in worth.items():
            if feature not in known:
                share = math.factorial(len(known)) * math.factorial(FEATURES - len(known) - 1) / math.factorial(FEATURES)
                value += share * (worth[known | {feature}] - amount)
        values.append(value)
    return [*values, worth[frozenset()]]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_parts_are_the_shapley_values_of_the_definition(seed):
    booster, matrix = small_model(seed)
    explained = parts(booster, matrix[:6])
    for row, found in zip(matrix[:6], explained, strict=True):
        np.testing.assert_allclose(found, shapley(booster, row), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), threads=st.sampled_from([1, 2]))
def test_base_and_parts_add_up_to_the_raw_score(seed, threads):
    booster, matrix = small_model(seed)
    explained = parts(booster, matrix, threads=threads)
    assert explained.shape == (len(matrix), FEATURES + 1)
    np.testing.assert_allclose(explained.sum(axis=1), raw_scores(booster, matrix), atol=1e-6)
    assert np.ptp(explained[:, -1]) == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_parts_equal_those_of_shaps_own_algorithm(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's and numba's own, while shap is imported
        import shap

    booster, matrix = small_model(seed, categories=[])
    explainer = shap.TreeExplainer(lgb.Booster(model_str=booster.model_to_string()))
    explainer.model.model_type = "internal"  # else shap asks LightGBM, and the test compares a number with itself
    present = matrix[~np.isnan(matrix).any(axis=1)][:20]
    np.testing.assert_allclose(parts(booster, present)[:, :-1], explainer.shap_values(present), atol=1e-6)


def test_a_row_alone_is_explained_as_it_is_among_others(synthetic_package, synthetic_snapshots, synthetic_catalogue):
    rows = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue).features.head(50)
    together = synthetic_package.explain_rows(rows, threads=2)
    np.testing.assert_array_equal(np.vstack([synthetic_package.explain_rows(rows.iloc[[i]]) for i in range(10)]), together[:10])
    np.testing.assert_allclose(together.sum(axis=1), synthetic_package.score_rows(rows).raw, atol=1e-6)


def test_no_rows_have_no_parts():
    booster, matrix = small_model(0, trees=1)
    assert parts(booster, matrix[:0]).shape == (0, FEATURES + 1)


def test_a_matrix_of_another_width_is_refused():
    booster, matrix = small_model(0, trees=1)
    with pytest.raises(lgb.basic.LightGBMError, match="number of features"):
        parts(booster, matrix[:, :2])


def explained_rows(count=500):
    """Return a model, rows, and its tables' raw scores and parts of them."""
    booster, matrix = small_model(7)
    matrix = matrix[np.arange(count) % len(matrix)]
    return booster, matrix, *leaf_tables(booster).explain(matrix)


def test_a_check_finds_nothing_wrong_with_the_tables():
    check_parts(*explained_rows(), sample=50)
    check_parts(*explained_rows(1), sample=50)
    check_parts(*explained_rows(0), sample=50)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, -0.4, math.nan]))
def test_one_wrong_number_in_the_tables_is_found_if_any_row_reads_it(at, wrong):
    booster, matrix, raw, right = explained_rows(300)
    tables = leaf_tables(booster)
    tables.rows.table[at % len(tables.rows.table)] += wrong  # the columns are views of it
    changed, explained = tables.explain(matrix)
    if (explained == right).all() and (changed == raw).all():
        check_parts(booster, matrix, changed, explained, sample=10)
    else:
        with pytest.raises(PackageError, match=r"the parts of a score do not add up to it\n.*given: +row \d+: off by"):
            check_parts(booster, matrix, changed, explained, sample=10)


def test_parts_of_another_feature_add_up_and_are_found_on_the_sample():
    booster, matrix, raw, explained = explained_rows()
    with pytest.raises(PackageError, match=r"is not LightGBM's\n.*given: +row \d+, Column_[01]: .* from LightGBM's own") as caught:
        check_parts(booster, matrix, raw, explained[:, [1, 0, 2, 3, 4]], sample=10)
    assert "please report it, with LightGBM" in str(caught.value)


def test_a_raw_score_that_is_not_lightgbm_s_is_found_though_its_parts_add_up():
    booster, matrix, raw, explained = explained_rows()
    with pytest.raises(PackageError, match=r"the (base|raw score): 1 from LightGBM"):
        check_parts(booster, matrix, raw + 1, explained + np.array([0, 0, 0, 0, 1]), sample=10)
