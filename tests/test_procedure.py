from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pytest

from features.errors import NotEnoughDataError
from training.backtest import held_out_frame
from training.dataset import load_dataset
from training.model import make_recipe
from training.procedure import Assignment, split_rows, train_target
from training.splits import LabelWindow

WINDOW = LabelWindow(horizon_days=60, lead_days=0, grace_days=0)


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def splits(data):
    return split_rows(data, WINDOW, test_from=None, test_to=None, minimum=20, folds=3)


@pytest.fixture(scope="module")
def assignment(synthetic_catalogue):
    recipe = make_recipe({"num_leaves": 7, "learning_rate": 0.15, "max_rounds": 80}, seed=0, threads=1)
    return Assignment(
        target="churn",
        catalogue=synthetic_catalogue,
        window=WINDOW,
        recipe=recipe,
        trials=0,
        fixed=(),
        data_fingerprint="0" * 64,
        code_version="test",
    )


def train(data, assignment, splits):
    return train_target(data, assignment, splits, advance=lambda what: None)


@pytest.fixture(scope="module")
def trained(data, splits, assignment):
    return train(data, assignment, splits)


def test_each_package_carries_what_it_was_trained_on(trained, data, splits):
    for package, rows in [*zip(trained.folds, (data.at(split.train) for split in splits), strict=True), (trained.shipped, data)]:
        assert package.cutoff == rows.cutoffs[-1].item()
        assert package.base_rate == pytest.approx(rows.target.mean())
        assert (package.horizon_days, package.code_version) == (60, "test")
        assert lgb.Booster(model_str=package.model).num_trees() == trained.rounds
        assert package.recipe == trained.recipe.to_json()
    assert trained.note == ""


def test_the_same_rows_give_the_same_packages(trained, data, splits, assignment):
    again = train(data, assignment, splits)
    assert [package.hash for package in (*again.folds, again.shipped)] == [package.hash for package in (*trained.folds, trained.shipped)]


def test_each_test_row_is_scored_by_a_model_that_knew_no_later_label(trained, data, splits):
    test = trained.test
    assert sorted(test.rows) == np.flatnonzero(np.any([split.test for split in splits], axis=0)).tolist()
    for number, (split, package) in enumerate(zip(splits, trained.folds, strict=True)):
        rows = test.rows[test.fold == number]
        assert WINDOW.closed_at(package.cutoff, data.cutoff[rows].min())
        np.testing.assert_array_equal(package.score_rows(data.features.iloc[rows]).probability, test.probability[test.fold == number])
        assert set(rows) == set(np.flatnonzero(split.test))


def test_what_happens_in_a_block_changes_neither_its_model_nor_an_earlier_one(trained, data, splits, assignment):
    last = splits[-1]
    turned = np.where(data.cutoff >= last.first_test, 1 - data.target, data.target)
    features = data.features.copy()
    features.loc[data.cutoff >= last.first_test, "noise"] += 1000.0
    other = train(replace(data, target=turned, features=features), assignment, splits)
    assert [package.model for package in other.folds] == [package.model for package in trained.folds]
    assert [package.calibrator for package in other.folds] == [package.calibrator for package in trained.folds]
    assert other.shipped.model != trained.shipped.model


def test_probabilities_keep_the_level_of_the_training_rows(trained, data, splits):
    known = data.at(splits[0].train)
    assert trained.folds[0].score_rows(known.features).probability.mean() == pytest.approx(known.target.mean(), rel=0.1)
    assert trained.shipped.score_rows(data.features).probability.mean() == pytest.approx(data.target.mean(), rel=0.1)


def test_a_level_of_only_the_test_period_is_no_level_of_the_judged_models(data, splits, assignment):
    late = data.cutoff >= splits[0].first_test
    features = data.features.copy()
    features.loc[late, "partner_tier"] = "platinum"
    trained = train(replace(data, features=features), assignment, splits)
    unseen = features[late]
    for package in trained.folds:
        assert "platinum" not in package.categories["partner_tier"]
        np.testing.assert_array_equal(package.score_rows(unseen).raw, package.score_rows(unseen.assign(partner_tier=None)).raw)
    assert "platinum" in trained.shipped.categories["partner_tier"]


def test_held_out_rows_are_kept_with_what_became_of_them(trained, data):
    frame = held_out_frame(data, (trained.inner, trained.test))
    assert frame["stage"].value_counts().to_dict() == {"inner": len(trained.inner.rows), "test": len(trained.test.rows)}
    assert not frame[frame["stage"] == "test"].duplicated(["account_id", "cutoff"]).any()
    joined = frame.merge(
        data.context.assign(account_id=data.account_id, cutoff=data.cutoff, target=data.target),
        on=["account_id", "cutoff"],
        suffixes=("", "_known"),
    )
    assert len(joined) == len(frame)
    assert (joined["target"] == joined["target_known"]).all()
    assert joined["segment"].equals(joined["segment_known"])


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_too_few_of_either_kind_say_how_many_there_are_and_are_needed(data, outcome):
    rare = np.where(np.arange(len(data)) % 400 == 0, 1 - outcome, outcome)
    with pytest.raises(NotEnoughDataError) as caught:
        split_rows(replace(data, target=rare), WINDOW, test_from=None, test_to=None, minimum=20, folds=3)
    assert "at least 20 of each kind on both sides" in str(caught.value)
    assert "minimum_positives" in str(caught.value)


def test_no_labels_at_all_are_said_to_be_none(data):
    with pytest.raises(NotEnoughDataError, match="no row has a label"):
        split_rows(data.at(np.zeros(len(data), dtype=bool)), WINDOW, test_from=None, test_to=None, minimum=20, folds=3)


def test_constant_features_are_no_obstacle(data, splits, assignment):
    features = data.features.assign(noise=5.0, discount=np.nan, partner_tier=None)
    trained = train(replace(data, features=features), assignment, splits)
    parts = trained.shipped.explain_rows(features.iloc[:50])
    for name in ("noise", "discount", "partner_tier"):
        assert not parts[:, trained.shipped.features.index(name)].any()


def test_a_block_in_which_nobody_left_is_no_obstacle(data, splits, assignment):
    target = np.where(splits[1].test, 0.0, data.target)
    trained = train(replace(data, target=target), assignment, splits)
    assert len(trained.folds) == len(splits)


def test_a_level_that_comes_late_is_missing_to_the_judged_models_and_known_to_the_shipped_one(data, splits, assignment):
    late = data.cutoff >= splits[-1].first_test
    tier = np.where(late, "violet", data.features["partner_tier"].to_numpy(dtype=object))
    trained = train(replace(data, features=data.features.assign(partner_tier=tier)), assignment, splits)
    place = trained.shipped.features.index("partner_tier")
    assert "violet" not in trained.folds[0].categories["partner_tier"]
    assert np.isnan(trained.judged_rows.matrix[late, place]).all()
    violet = trained.shipped.categories["partner_tier"].index("violet")
    assert (trained.shipped_rows.matrix[late, place] == violet).all()
    assert np.isfinite(trained.test.probability).all()


def test_rows_are_encoded_once_where_the_levels_stay(trained):
    assert trained.shipped_rows is trained.judged_rows


def test_outcomes_of_a_few_accounts_alone_are_no_obstacle(data, splits, assignment):
    few = np.isin(data.account_id, np.unique(data.account_id)[:8])
    trained = train(replace(data, target=few.astype(float)), assignment, splits)
    assert np.isfinite(trained.test.probability).all()
