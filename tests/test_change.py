import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import NotEnoughDataError, PackageError
from training.change import ChangeModel, change_from_json, crps, equal_mass_means, fit_change

RATIOS = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=40).map(np.array)
WEIGHED = st.lists(st.tuples(st.floats(0.05, 20.0), st.floats(1.0, 1000.0)), min_size=1, max_size=40).map(np.array)


def rows(n=600, *, seed=0, shift=0.0, accounts=200):
    """Ratios around 1.2, higher by `shift` where the first of four columns is above zero."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 4))
    ratio = 1.2 + shift * (matrix[:, 0] > 0) + 0.05 * rng.random(n)
    return matrix, ratio, rng.integers(0, accounts, n)


def fitted(matrix, ratio, account, **options):
    return fit_change(matrix, ratio, arr=np.ones(len(ratio)), account=account, **options)


@given(WEIGHED, st.integers(1, 30))
def test_equal_shares_of_the_mass_keep_mean_order_and_range(rows, parts):
    values, mass = rows.T
    means = equal_mass_means(values, mass, parts)
    assert means.mean() == pytest.approx(np.average(values, weights=mass))
    assert (np.diff(means) >= -1e-9).all()
    assert values.min() <= means.min() <= means.max() <= values.max()


@given(RATIOS, st.integers(1, 30))
def test_rows_of_the_same_mass_are_shared_out_one_by_one(values, parts):
    everything = np.sort(np.repeat(values, parts)).reshape(parts, len(values))
    np.testing.assert_allclose(equal_mass_means(values, np.ones(len(values)), parts), everything.mean(axis=1))


def test_what_a_unit_of_arr_became_and_not_the_average_account():
    """Small accounts double, large ones stay: the book hardly grows."""
    ratio, arr = np.array([2.0] * 90 + [1.0] * 10), np.array([10.0] * 90 + [9900.0] * 10)
    model = fit_change(np.zeros((100, 1)), ratio, arr=arr, account=np.arange(100))
    assert model.mean(np.zeros((1, 1)))[0] == pytest.approx((arr @ ratio) / arr.sum())
    assert np.mean(np.array(model.atoms[0]) == 1.0) > 0.97


@given(RATIOS, st.floats(0.0, 25.0))
def test_the_score_is_that_of_its_definition(atoms, seen):
    slow = np.mean([abs(x - seen) for x in atoms]) - np.mean([abs(x - y) for x in atoms for y in atoms]) / 2
    assert crps(atoms, np.array([seen]))[0] == pytest.approx(slow, abs=1e-9)


def test_the_score_is_best_for_the_true_distribution():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=4000)
    true, narrow, shifted = rng.normal(size=500), 0.5 * rng.normal(size=500), 0.5 + rng.normal(size=500)
    assert crps(true, seen).mean() < min(crps(narrow, seen).mean(), crps(shifted, seen).mean())


def test_one_distribution_for_all_where_features_tell_nothing():
    model = fitted(*rows())
    assert (len(model.atoms), model.tree, model.rows) == (1, "", 600)


def test_a_tree_where_a_feature_tells_more():
    matrix, ratio, account = rows(shift=0.5)
    model = fitted(matrix, ratio, account)
    assert len(model.atoms) == 2
    np.testing.assert_allclose(model.mean(matrix), 1.225 + 0.5 * (matrix[:, 0] > 0), atol=0.01)


def test_a_category_may_split_the_rows():
    matrix, _, account = rows()
    matrix[:, 1] = np.arange(600) % 4
    model = fitted(matrix, np.where(np.isin(matrix[:, 1], [0, 3]), 0.7, 1.3), account, categories=[1])
    assert {value for atoms in model.atoms for value in atoms} == {0.7, 1.3}
    assert all(len(set(atoms)) == 1 for atoms in model.atoms)


def test_what_tells_only_the_account_is_no_evidence():
    """Each account shows twenty times, with features and a ratio of its own that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    account = np.repeat(np.arange(30), 20)
    model = fitted(rng.normal(size=(30, 4))[account], rng.uniform(1, 2, 30)[account], account)
    assert len(model.atoms) == 1
    assert len(fitted(rng.normal(size=(30, 4))[account], rng.uniform(1, 2, 30)[account], np.arange(600)).atoms) > 1


@given(WEIGHED)
def test_the_mean_is_what_all_the_arr_became(rows):
    ratio, arr = rows.T
    model = fit_change(np.zeros((len(ratio), 1)), ratio, arr=arr, account=np.arange(len(ratio)))
    assert model.mean(np.zeros((1, 1)))[0] == pytest.approx((arr @ ratio) / arr.sum())


def test_no_change_at_all_stays_exact():
    ratio = np.concatenate([np.ones(5000), np.full(500, 1.03)])
    model = fitted(np.zeros((5500, 1)), ratio, np.arange(5500))
    assert np.mean(np.array(model.atoms[0]) == 1.0) == pytest.approx(5000 / 5500, abs=0.01)


def test_draws_have_the_distribution_of_their_leaf():
    model = ChangeModel(atoms=((0.5, 0.6), (1.5, 2.0, 2.5)), tree="", rows=5)
    leaf = np.array([0, 1, 1, 0])
    draws = model.draw(np.random.default_rng(0), leaf, (20_000, 4))
    assert set(np.unique(draws[:, leaf == 0])) == {0.5, 0.6}
    assert set(np.unique(draws[:, leaf == 1])) == {1.5, 2.0, 2.5}
    np.testing.assert_allclose(draws.mean(axis=0), [0.55, 2.0, 2.0, 0.55], atol=0.01)
    assert abs(np.corrcoef(draws[:, 1], draws[:, 2])[0, 1]) < 0.03


def test_the_same_rows_give_the_same_model_and_text_carries_all_of_it():
    matrix, ratio, account = rows(shift=0.5)
    model = fitted(matrix, ratio, account)
    again = change_from_json(json.loads(json.dumps(model.to_json())))
    assert again.to_json() == model.to_json() == fitted(matrix, ratio, account).to_json()
    np.testing.assert_array_equal(again.mean(matrix), model.mean(matrix))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("atoms"),
        lambda data: data["atoms"].pop(),
        lambda data: data["atoms"][0].clear(),
        lambda data: data.update(atoms=[[1.0], [float("nan")]]),
        lambda data: data.update(tree="tree\nno tree"),
        lambda data: data.update(rows="many"),
    ],
)
def test_a_damaged_model_is_refused(damage):
    data = fitted(*rows(shift=0.5)).to_json()
    damage(data)
    with pytest.raises(PackageError, match="the ARR change"):
        change_from_json(data)


def test_no_row_at_all_is_an_error():
    with pytest.raises(NotEnoughDataError, match="no row to learn the ARR change from"):
        fitted(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
