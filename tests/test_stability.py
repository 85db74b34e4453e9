"""How far explanations agree: fully with themselves, not at all with those of other features, and in between as counted by hand."""

import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from training.dataset import encode_features, learn_categories, load_dataset
from training.explanation import parts
from training.model import Problem, make_recipe
from training.stability import judge_stability, resampled_boosters


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def problem(data, synthetic_catalogue):
    matrix = encode_features(
        data.features, features=synthetic_catalogue.names, categories=learn_categories(data.features, synthetic_catalogue)
    )
    recipe = make_recipe({"num_leaves": 7, "learning_rate": 0.1}, seed=0, threads=1)
    return Problem(matrix=matrix, target=data.target, target_name="churn", catalogue=synthetic_catalogue, recipe=recipe)


@pytest.fixture(scope="module")
def boosters(problem, data):
    return resampled_boosters(problem, 40, data.account_id, models=3, seed=0)


def test_a_book_with_a_strong_cause_is_explained_alike(boosters, problem, synthetic_catalogue):
    found = judge_stability(boosters, problem.matrix[::20], catalogue=synthetic_catalogue)
    assert (found.models, found.rows) == (3, len(problem.matrix[::20]))
    assert found.rank_correlation > 0.7
    assert found.same_family > 0.75
    assert found.same_feature > 0.6
    assert next(iter(found.families)) == "usage"
    assert found.families["usage"].lowest > found.families["support"].highest
    for spread in found.families.values():
        assert spread.lowest <= spread.mean <= spread.highest
    assert set(json.loads(json.dumps(asdict(found), allow_nan=False))["families"]) == {"usage", "commercial", "partner", "support"}


def test_agreement_is_what_counting_gives(boosters, problem, synthetic_catalogue):
    rows = problem.matrix[:40]
    found = judge_stability(boosters, rows, catalogue=synthetic_catalogue)
    family = [feature.family for feature in synthetic_catalogue]
    said = [parts(booster, rows)[:, :-1] for booster in boosters]
    counts = {"feature": [], "family": [], "three": [], "order": []}
    for one, other in combinations(said, 2):
        sizes = [np.abs(part).mean(axis=0) for part in (one, other)]
        used = (sizes[0] > 0) | (sizes[1] > 0)
        counts["order"].append(spearmanr(sizes[0][used], sizes[1][used]).statistic)
        for a, b in zip(one, other, strict=True):
            top = [sorted(range(len(family)), key=lambda f, p=part: -abs(p[f]))[:3] for part in (a, b)]
            sums = [{name: sum(part[f] for f in range(len(family)) if family[f] == name) for name in set(family)} for part in (a, b)]
            counts["feature"].append(top[0][0] == top[1][0])
            counts["three"].append(len(set(top[0]) & set(top[1])) / 3)
            counts["family"].append(len({max(total, key=lambda name, t=total: abs(t[name])) for total in sums}) == 1)
    assert found.same_feature == pytest.approx(np.mean(counts["feature"]))
    assert found.same_family == pytest.approx(np.mean(counts["family"]))
    assert found.top_three_overlap == pytest.approx(np.mean(counts["three"]))
    assert found.rank_correlation == pytest.approx(np.mean(counts["order"]))


def test_a_model_agrees_with_itself(boosters, problem, synthetic_catalogue):
    found = judge_stability([boosters[0], boosters[0]], problem.matrix[:50], catalogue=synthetic_catalogue)
    assert (found.same_feature, found.same_family, found.top_three_overlap) == (1, 1, 1)
    assert found.rank_correlation == pytest.approx(1)
    assert all(spread.lowest == spread.highest for spread in found.families.values())


def test_models_of_different_causes_do_not(problem, data, synthetic_catalogue):
    boosters = []
    for name in ("days_since_last_event", "discount"):
        values = problem.matrix[:, synthetic_catalogue.names.index(name)]
        target = (values > np.nanmedian(values)).astype(float)
        other = Problem(
            matrix=problem.matrix, target=target, target_name="contraction", catalogue=synthetic_catalogue, recipe=problem.recipe
        )
        boosters += resampled_boosters(other, 20, data.account_id, models=1, seed=0)
    found = judge_stability(boosters, problem.matrix[:200], catalogue=synthetic_catalogue)
    assert found.same_feature < 0.1
    assert found.same_family < 0.1


def test_the_same_seed_draws_the_same_accounts(problem, data, boosters):
    again = resampled_boosters(problem, 40, data.account_id, models=3, seed=0)
    assert [booster.model_to_string() for booster in again] == [booster.model_to_string() for booster in boosters]
    assert len({booster.model_to_string() for booster in boosters}) == 3


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)), st.integers(1, 30))
def test_the_order_of_models_does_not_matter(boosters, problem, synthetic_catalogue, order, rows):
    one = judge_stability(boosters, problem.matrix[:rows], catalogue=synthetic_catalogue)
    other = judge_stability([boosters[place] for place in order], problem.matrix[:rows], catalogue=synthetic_catalogue)
    assert (one.same_feature, one.top_three_overlap) == pytest.approx((other.same_feature, other.top_three_overlap))
    assert one.rank_correlation == pytest.approx(other.rank_correlation)


def test_models_without_a_tree_agree_on_nothing_to_order(problem, data, synthetic_catalogue):
    empty = Problem(
        matrix=problem.matrix, target=np.zeros(len(data)), target_name="churn", catalogue=synthetic_catalogue, recipe=problem.recipe
    )
    found = judge_stability(
        resampled_boosters(empty, 2, data.account_id, models=2, seed=0), problem.matrix[:5], catalogue=synthetic_catalogue
    )
    assert found.rank_correlation == 0
