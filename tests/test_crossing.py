import numpy as np
import pytest

from training.crossing import cross_score
from training.dataset import encode_features, learn_categories, load_dataset
from training.model import Problem, make_recipe


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def problem_of(synthetic_catalogue):
    def made(data):
        categories = learn_categories(data.features, synthetic_catalogue)
        return Problem(
            matrix=encode_features(data.features, features=synthetic_catalogue.names, categories=categories),
            target=data.target,
            target_name="churn",
            catalogue=synthetic_catalogue,
            recipe=make_recipe({"num_leaves": 7, "learning_rate": 0.15}, seed=0, threads=1),
        )

    return made


def test_each_row_is_scored_once_by_a_model_of_other_accounts(data, problem_of):
    rows = np.flatnonzero(data.cutoff >= data.cutoffs[-3])
    found = cross_score(problem_of(data), 10, data, rows)
    assert sorted(found.rows) == rows.tolist()
    account = data.account_id[found.rows]
    for number in np.unique(found.fold):
        own = set(account[found.fold == number])
        assert own.isdisjoint(account[found.fold != number])
        kept = ~np.isin(data.account_id, [*own, *(set(data.account_id) - set(account))])
        assert found.level[found.fold == number][0] == pytest.approx(data.target[kept].mean(), rel=0.2)


def test_what_an_account_does_changes_no_score_of_its_own(data, problem_of):
    rows = np.flatnonzero(data.cutoff == data.cutoffs[-1])
    found = cross_score(problem_of(data), 10, data, rows)
    one = data.account_id == data.account_id[found.rows[0]]
    problem = problem_of(data)
    turned = Problem(**vars(problem) | {"target": np.where(one, 1 - data.target, data.target)})
    other = cross_score(turned, 10, data, rows)
    assert other.raw[0] == found.raw[0]
    assert not np.array_equal(other.raw, found.raw)


def test_two_accounts_are_too_few(data, problem_of):
    two = data.at(np.isin(data.account_id, np.unique(data.account_id)[:2]))
    assert cross_score(problem_of(data), 10, two, np.arange(len(two))) is None
