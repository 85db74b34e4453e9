import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import PackageError, WorkspaceError
from training.dataset import encode_features, learn_categories, load_dataset

LEVELS = ("blue", "gold", "silver")


def test_only_labelled_rows_are_loaded_each_once_and_in_order(synthetic_snapshots, synthetic_catalogue):
    labels = pd.read_parquet(synthetic_snapshots / "labels.parquet")
    for target in ("churn", "expansion"):
        data = load_dataset(synthetic_snapshots, target, synthetic_catalogue)
        labelled = labels[labels[target].notna()].sort_values(["cutoff", "account_id"])
        np.testing.assert_array_equal(data.target, labelled[target])
        np.testing.assert_array_equal(data.account_id, labelled["account_id"])
        np.testing.assert_array_equal(data.cutoff, labelled["cutoff"])
        assert tuple(data.features.columns) == synthetic_catalogue.names


def test_features_stay_with_their_account_and_cutoff(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    features = pd.read_parquet(synthetic_snapshots / "features.parquet").set_index(["account_id", "cutoff"])
    for row in (0, 1234, len(data) - 1):
        expected = features.loc[(data.account_id[row], pd.Timestamp(data.cutoff[row])), "active_users_28d"]
        assert data.features["active_users_28d"].iloc[row] == expected
    np.testing.assert_allclose(data.arr, data.features["arr"])


def test_rows_can_be_taken_twice_over(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    later = data.at(data.cutoff == data.cutoffs[3])
    churned = later.at(np.flatnonzero(later.target == 1))
    assert churned.positives == len(churned) == later.positives > 0
    np.testing.assert_allclose(churned.arr, churned.features["arr"])


def test_a_mask_and_its_positions_pick_the_same_rows_whether_they_lie_side_by_side_or_not(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    for rows in (np.arange(len(data)) // 50 == 3, np.arange(len(data)) % 7 == 2, np.zeros(len(data), dtype=bool)):
        by_mask, by_place = data.at(rows), data.at(np.flatnonzero(rows))
        assert by_mask.account_id.tolist() == by_place.account_id.tolist() == data.account_id[rows].tolist()
        pd.testing.assert_frame_equal(by_mask.features, data.features[rows])
        pd.testing.assert_frame_equal(by_place.context, data.context[rows])
    backwards = data.at(np.array([5, 4, 3]))
    assert backwards.account_id.tolist() == data.account_id[[5, 4, 3]].tolist()


def test_missing_snapshots_say_what_to_run(tmp_path, synthetic_catalogue):
    with pytest.raises(WorkspaceError, match="renewcast features"):
        load_dataset(tmp_path, "churn", synthetic_catalogue)


@given(st.lists(st.one_of(st.none(), st.sampled_from([*LEVELS, "platinum", ""])), max_size=20))
def test_a_level_becomes_its_position_and_all_else_missing(values):
    for dtype in (object, "str", "category"):
        frame = pd.DataFrame({"tier": pd.Series(values, dtype=object).astype(dtype)})
        found = encode_features(frame, features=["tier"], categories={"tier": LEVELS})
        expected = [float(LEVELS.index(value)) if value in LEVELS else np.nan for value in values]
        np.testing.assert_array_equal(found[:, 0], np.array(expected, dtype=float))


@given(st.permutations(["a", "b", "tier", "extra"]))
def test_columns_are_taken_by_name_never_by_place(order):
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, None], "tier": ["gold", "blue"], "extra": ["x", "y"]})[order]
    found = encode_features(frame, features=["b", "tier", "a"], categories={"tier": LEVELS})
    np.testing.assert_array_equal(found, [[3.0, 1.0, 1.0], [np.nan, 0.0, 2.0]])


@pytest.mark.parametrize("values", [[1, 2], [1.5, None], [True, False], [None, None], [pd.NA, 1]])
def test_numbers_of_any_type_become_floats(values):
    frame = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    expected = [np.nan if value is None or value is pd.NA else float(value) for value in values]
    np.testing.assert_array_equal(encode_features(frame, features=["a"], categories={})[:, 0], expected)


@pytest.mark.parametrize("values", [["3", "4"], [1.0, "many"], [pd.Timestamp("2024-01-01"), None]])
def test_text_in_a_number_is_refused_by_name(values):
    frame = pd.DataFrame({"seats": pd.Series(values, dtype=object)})
    with pytest.raises(PackageError, match="feature seats is a number"):
        encode_features(frame, features=["seats"], categories={})


def test_missing_columns_are_named():
    with pytest.raises(PackageError, match="b, c"):
        encode_features(pd.DataFrame({"a": [1.0]}), features=["a", "b", "c"], categories={})


def test_levels_are_learnt_in_alphabetical_order(synthetic_snapshots, synthetic_catalogue):
    data = load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)
    assert learn_categories(data.features, synthetic_catalogue) == {"partner_tier": LEVELS}
