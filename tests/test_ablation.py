"""What families of features add, where it is known: in a book whose outcomes follow some of them and not others."""

import json
from dataclasses import asdict

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from features.catalogue import Catalogue
from training.ablation import ablate, families, judge_ablation
from training.dataset import encode_features, learn_categories, load_dataset
from training.evaluation import TestRows, auc, compare
from training.model import Problem, fit_booster, make_recipe, raw_scores

ROUNDS = 60
PARAMETERS = {"num_leaves": 7, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def matrix(data, synthetic_catalogue):
    categories = learn_categories(data.features, synthetic_catalogue)
    return encode_features(data.features, features=synthetic_catalogue.names, categories=categories)


def learn(data, matrix, catalogue, **parameters):
    earlier = data.cutoff < data.cutoffs[10]
    recipe = make_recipe(PARAMETERS | parameters, seed=0, threads=1)
    return Problem(matrix=matrix[earlier], target=data.target[earlier], target_name="churn", catalogue=catalogue, recipe=recipe)


@pytest.fixture(scope="module")
def judged(data, matrix, synthetic_catalogue):
    later = data.at(data.cutoff >= data.cutoffs[10])
    ahead = matrix[data.cutoff >= data.cutoffs[10]]
    problem = learn(data, matrix, synthetic_catalogue)
    rows = TestRows(later.account_id, later.target, later.arr)
    raw = raw_scores(lgb.Booster(model_str=fit_booster(problem, ROUNDS)), ahead)
    without = ablate(problem, ROUNDS, ahead)
    return rows, raw, without, judge_ablation(rows, raw, without, catalogue=synthetic_catalogue, resamples=100, seed=0)


def test_families_that_make_customers_leave_add_and_others_do_not(judged):
    _, _, _, found = judged
    by_family = {gain.family: gain for gain in found}
    assert set(by_family) == {"usage", "commercial", "partner", "support"}
    assert {family: gain.features for family, gain in by_family.items()} == {"usage": 3, "commercial": 3, "partner": 1, "support": 1}
    assert [gain.auc.value for gain in found] == sorted((gain.auc.value for gain in found), reverse=True)
    for family in ("usage", "partner"):
        assert by_family[family].auc.low > 0
        assert by_family[family].log_loss.low > 0
    assert found[-1].family == "support"  # its only feature is noise
    assert by_family["support"].auc.low < 0.002
    assert abs(by_family["support"].auc.value) < 0.02


def test_gains_are_paired_differences(judged):
    rows, raw, without, found = judged
    for gain in found:
        other = without[gain.family]
        assert gain.auc.value == pytest.approx(roc_auc_score(rows.target, raw) - roc_auc_score(rows.target, other))
        losses = [sklearn_log_loss(rows.target, 1 / (1 + np.exp(-score))) for score in (other, raw)]
        assert gain.log_loss.value == pytest.approx(losses[0] - losses[1])
        expected = compare(lambda s, weights: auc(rows.target, s, weights), raw, other, rows.account_id, resamples=100, seed=0)
        np.testing.assert_allclose([*vars(gain.auc).values()], [*vars(expected).values()])
    json.dumps([asdict(gain) for gain in found], allow_nan=False)


@pytest.mark.parametrize("parameters", [{}, {"extra_trees": "true"}, {"path_smooth": 3.0}, {"feature_fraction": 0.2}])
@pytest.mark.parametrize("family", ["usage", "partner"])
def test_no_tree_uses_a_family_that_is_left_out(data, matrix, synthetic_catalogue, family, parameters):
    problem = learn(data, matrix, synthetic_catalogue, **parameters)
    booster = lgb.Booster(model_str=fit_booster(problem, ROUNDS, without=(family,)))
    splits = dict(zip((feature.name for feature in synthetic_catalogue), booster.feature_importance("split"), strict=True))
    inside = {feature.name for feature in synthetic_catalogue if feature.family == family}
    assert sum(splits[name] for name in inside) == 0
    assert sum(splits[name] for name in splits if name not in inside) > 0
    assert booster.num_trees() == ROUNDS  # although some trees could draw no feature that they may use


@pytest.mark.parametrize("family", ["usage", "commercial", "partner"])
def test_leaving_a_family_out_is_not_having_it(data, matrix, synthetic_catalogue, family):
    problem = learn(data, matrix, synthetic_catalogue, feature_fraction=1.0)
    without = raw_scores(lgb.Booster(model_str=fit_booster(problem, 20, without=(family,))), matrix)
    kept = [position for position, feature in enumerate(synthetic_catalogue) if feature.family != family]
    smaller = Catalogue(tuple(synthetic_catalogue.features[position] for position in kept))
    never = fit_booster(learn(data, matrix[:, kept], smaller, feature_fraction=1.0), 20)
    np.testing.assert_array_equal(without, raw_scores(lgb.Booster(model_str=never), matrix[:, kept]))


def test_bins_and_the_full_model_are_what_they_were_before(data, matrix, synthetic_catalogue):
    problem = learn(data, matrix, synthetic_catalogue)
    before, bins = fit_booster(problem, 20), problem.binned
    ablate(problem, 5, matrix[:10])
    assert problem.binned is bins
    assert fit_booster(problem, 20) == before


def test_the_only_family_is_not_left_out(data, matrix, synthetic_catalogue):
    usage = Catalogue(synthetic_catalogue.features[:3])
    assert families(usage) == ("usage",)
    assert ablate(learn(data, matrix[:, :3], usage), 5, matrix[:, :3]) == {}
    rows = TestRows(data.account_id, data.target, data.arr)
    assert judge_ablation(rows, matrix[:, 0], {}, catalogue=usage, seed=0) == ()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_model_adds_nothing_to_itself(seed):
    rng = np.random.default_rng(seed)
    rows = TestRows(np.arange(40).astype(str).astype(object), rng.permutation(np.repeat([0.0, 1.0], 20)), np.ones(40))
    raw = rng.normal(size=40)
    (gain,) = judge_ablation(rows, raw, {"usage": raw}, catalogue=Catalogue(()), resamples=5, seed=0)
    assert asdict(gain.auc) == asdict(gain.log_loss) == {"value": 0, "low": 0, "high": 0}
