import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from training.baseline import fit_logistic, fit_rules
from training.dataset import encode_features, learn_categories, load_dataset


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


def rules_by_name(frame, target, catalogue, name="churn"):
    return {rule.name: rule for rule in fit_rules(frame, target, catalogue=catalogue, target_name=name)}


def test_rules_are_those_that_the_catalogue_has_a_feature_for(data, synthetic_catalogue):
    rules = rules_by_name(data.features, data.target, synthetic_catalogue)
    assert {name: rule.feature for name, rule in rules.items()} == {
        "recency": "days_since_last_event",
        "active users": "active_users_28d",
        "users trend": "users_trend_28d",
        "days to renewal": "days_to_renewal",
        "ARR": "arr",
    }


def test_a_fixed_direction_is_kept_even_where_the_rows_say_otherwise(data, synthetic_catalogue):
    upside_down = rules_by_name(data.features, 1 - data.target, synthetic_catalogue)
    assert (upside_down["recency"].sign, upside_down["active users"].sign) == (1, -1)


def test_an_open_direction_is_learnt_from_the_rows(data, synthetic_catalogue):
    by_arr = (data.arr > np.median(data.arr)).astype(float)
    assert rules_by_name(data.features, by_arr, synthetic_catalogue)["ARR"].sign == 1
    assert rules_by_name(data.features, 1 - by_arr, synthetic_catalogue)["ARR"].sign == -1


@pytest.mark.parametrize(("outcome", "end"), [(1.0, np.inf), (0.0, -np.inf)])
def test_accounts_without_a_value_go_to_the_end_where_they_belong(synthetic_catalogue, data, outcome, end):
    frame = data.features.head(400).copy()
    target = (frame["days_since_last_event"] > 8).to_numpy(dtype=float)
    frame.iloc[:60, frame.columns.get_loc("days_since_last_event")] = np.nan
    target[:60] = outcome
    rule = rules_by_name(frame, target, synthetic_catalogue)["recency"]
    assert rule.missing == end
    assert roc_auc_score(target, np.nan_to_num(rule.score(frame), posinf=1e9, neginf=-1e9)) == 1


def test_logistic_regression_finds_the_truth_of_the_synthetic_book(data, synthetic_catalogue):
    categories = learn_categories(data.features, synthetic_catalogue)
    matrix = encode_features(data.features, features=synthetic_catalogue.names, categories=categories)
    earlier, later = data.cutoff < data.cutoffs[10], data.cutoff >= data.cutoffs[10]
    model = fit_logistic(matrix[earlier], data.target[earlier], catalogue=synthetic_catalogue)
    found = roc_auc_score(data.target[later], model.decision_function(matrix[later]))
    best = max(
        roc_auc_score(data.target[later], rule.score(data.features[later]))
        for rule in fit_rules(data.features[earlier], data.target[earlier], catalogue=synthetic_catalogue, target_name="churn")
    )
    assert found > best + 0.02


def test_logistic_regression_bears_empty_columns_and_unseen_levels(data, synthetic_catalogue):
    categories = learn_categories(data.features, synthetic_catalogue)
    frame = data.features.assign(noise=np.nan, discount=1.0)
    model = fit_logistic(
        encode_features(frame, features=synthetic_catalogue.names, categories=categories), data.target, catalogue=synthetic_catalogue
    )
    other = pd.DataFrame(frame.head(3)).assign(partner_tier="platinum", noise=3.0)
    assert np.isfinite(model.decision_function(encode_features(other, features=synthetic_catalogue.names, categories=categories))).all()
