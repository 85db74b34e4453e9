import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from training.dataset import encode_features, learn_categories, load_dataset
from training.model import Problem, directions, fit_booster, make_recipe, model_names, raw_scores, rehearse

RECIPE = make_recipe({"num_leaves": 7, "learning_rate": 0.1, "max_rounds": 120}, seed=0, threads=1)


@pytest.fixture(scope="module")
def book(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    categories = learn_categories(data.features, synthetic_catalogue)
    return data, encode_features(data.features, features=synthetic_catalogue.names, categories=categories)


def problem(book, catalogue, recipe=RECIPE, *, target=None):
    data, matrix = book
    return Problem(matrix=matrix, target=data.target if target is None else target, target_name="churn", catalogue=catalogue, recipe=recipe)


def fitted(book, catalogue, recipe=RECIPE, rounds=40):
    return fit_booster(problem(book, catalogue, recipe), rounds)


def test_the_same_rows_and_seed_give_the_same_bytes_with_one_thread_or_two(book, synthetic_catalogue):
    one = fitted(book, synthetic_catalogue)
    assert fitted(book, synthetic_catalogue) == one
    two = fitted(book, synthetic_catalogue, make_recipe({"num_leaves": 7, "learning_rate": 0.1}, seed=0, threads=2))
    assert two.replace("[num_threads: 2]", "[num_threads: 1]") == one
    assert fitted(book, synthetic_catalogue, make_recipe({"num_leaves": 7}, seed=1, threads=1)) != one


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 4000), feature=st.sampled_from(["days_since_last_event", "active_users_28d"]))
def test_odds_never_move_against_a_fixed_direction(book, synthetic_catalogue, row, feature):
    booster = BOOSTERS.setdefault("churn", lgb.Booster(model_str=fitted(book, synthetic_catalogue)))
    position = synthetic_catalogue.names.index(feature)
    steps = np.repeat(book[1][[row]], 60, axis=0)
    steps[:, position] = np.linspace(0, 60, 60)
    moved = np.diff(raw_scores(booster, steps)) * directions(synthetic_catalogue, "churn")[position]
    assert np.all(moved >= -1e-12)


BOOSTERS: dict[str, lgb.Booster] = {}


def test_directions_follow_the_catalogue_and_the_target(synthetic_catalogue):
    by_name = dict(zip(synthetic_catalogue.names, directions(synthetic_catalogue, "churn"), strict=True))
    assert (by_name["days_since_last_event"], by_name["active_users_28d"], by_name["arr"]) == (1, -1, 0)
    assert directions(synthetic_catalogue, "expansion")[synthetic_catalogue.names.index("users_trend_28d")] == 1


def test_rehearsal_scores_later_rows_with_models_that_have_not_seen_them(book, synthetic_catalogue):
    data, _ = book
    folds = [(np.flatnonzero(data.cutoff < data.cutoffs[k]), np.flatnonzero(data.cutoff == data.cutoffs[k])) for k in (8, 12)]
    found = rehearse(problem(book, synthetic_catalogue), folds)
    assert 1 <= found.rounds < 120
    np.testing.assert_array_equal(found.rows, np.concatenate([later for _, later in folds]))
    shuffled = data.target.copy()
    shuffled[folds[-1][1]] = np.random.default_rng(0).permutation(shuffled[folds[-1][1]])
    fixed = make_recipe({"num_leaves": 7, "learning_rate": 0.1, "rounds": found.rounds}, seed=0, threads=1)
    one = rehearse(problem(book, synthetic_catalogue, fixed), folds[-1:])
    other = rehearse(problem(book, synthetic_catalogue, fixed, target=shuffled), folds[-1:])
    np.testing.assert_array_equal(one.raw, other.raw)
    np.testing.assert_array_equal(one.raw, found.raw[-len(one.raw) :])


def test_a_rehearsal_leaves_the_rows_as_they_were(book, synthetic_catalogue):
    data, _ = book
    rehearsed = problem(book, synthetic_catalogue)
    rehearse(rehearsed, [(np.flatnonzero(data.cutoff < data.cutoffs[8]), np.flatnonzero(data.cutoff >= data.cutoffs[8]))])
    assert fit_booster(rehearsed, 40) == fitted(book, synthetic_catalogue)


def test_fixed_rounds_are_kept(book, synthetic_catalogue):
    data, _ = book
    folds = [(np.flatnonzero(data.cutoff < data.cutoffs[8]), np.flatnonzero(data.cutoff >= data.cutoffs[8]))]
    recipe = make_recipe({"rounds": 17}, seed=0, threads=1)
    assert rehearse(problem(book, synthetic_catalogue, recipe), folds).rounds == 17
    assert lgb.Booster(model_str=fitted(book, synthetic_catalogue, recipe, rounds=17)).num_trees() == 17


def test_an_unknown_parameter_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        make_recipe({"learning_rat": 0.1}, seed=0, threads=1)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8))
def test_any_feature_names_can_be_stored(names):
    stored = model_names(names)
    assert len(set(stored)) == len(names)
    matrix = np.random.default_rng(0).normal(size=(60, len(names)))
    booster = lgb.train({"verbosity": -1, "num_threads": 1}, lgb.Dataset(matrix, matrix[:, 0], feature_name=stored), 1)
    assert lgb.Booster(model_str=booster.model_to_string()).feature_name() == stored


def test_scores_of_no_rows_are_no_scores(book, synthetic_catalogue):
    booster = lgb.Booster(model_str=fitted(book, synthetic_catalogue, rounds=2))
    assert raw_scores(booster, np.empty((0, len(synthetic_catalogue)))).shape == (0,)
    assert pd.isna(raw_scores(booster, book[1][:3])).sum() == 0
