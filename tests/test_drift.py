import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scores.batch import score_workspace
from serving.scores.drift import THRESHOLDS, drift_of, read_drift, stability_index, write_drift
from serving.scores.scoring import load_score_set
from tests.serving_book import feature_rows, make_workspace, packages


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("drift"))
    score_workspace(workspace)
    return load_score_set(workspace.scores)


def with_values(score_set, values):
    fields = {name: getattr(score_set, name) for name in score_set.__dataclass_fields__}
    return type(score_set)(**fields | {"values": values, "packages": packages()})


def like_training(n, seed=11):
    """Return features of the process that the packages were trained on."""
    rng = np.random.default_rng(seed)
    rows = feature_rows(rng, n, decline=rng.uniform(0.2, 1.0, n))
    return {name: rows[name].to_numpy(dtype=object if name == "partner_tier" else float) for name in rows}


def test_a_book_like_the_training_rows_has_not_moved(score_set):
    drift = drift_of(with_values(score_set, like_training(4000)))
    assert {family.moved for family in drift.families.values()} == {0}
    assert max(family.largest for family in drift.families.values()) < 0.02


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("active_users_28d", lambda values: values / 4),
        ("last_nps", lambda values: np.where(np.arange(len(values)) % 10 < 9, np.nan, values)),
        ("partner_tier", lambda values: np.where(values == "gold", "platinum", values).astype(object)),
        ("partner_tier", lambda values: np.full(len(values), "blue", dtype=object)),
    ],
    ids=["numbers", "gone missing", "an unknown level", "one level"],
)
def test_what_moved_is_told_by_its_family_alone(score_set, name, change):
    values = like_training(4000)
    drift = drift_of(with_values(score_set, values | {name: change(values[name])}))
    family = next(feature.family for feature in packages()["churn"].catalogue if feature.name == name)
    assert drift.families[family].largest > THRESHOLDS[1]
    assert drift.families[family].moved_much == 1
    assert sum(other.moved for other in drift.families.values()) == 1


def test_a_column_that_is_empty_is_the_farthest(score_set):
    values = like_training(500)
    drift = drift_of(with_values(score_set, values | {"seats": np.full(500, np.nan)}))
    assert drift.families["commercial"].largest > 1


def slow_index(now, then):
    return sum((max(a, 0.005) - max(b, 0.005)) * np.log(max(a, 0.005) / max(b, 0.005)) for a, b in zip(now, then, strict=True))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_the_index_is_the_textbook_s_less_the_noise_and_never_negative(pairs):
    now, then = (np.array(side) for side in zip(*pairs, strict=True))
    index = stability_index(now, then, accounts=100)
    assert index >= 0
    assert index == pytest.approx(max(slow_index(now, then) - (len(pairs) - 1) / 100, 0), abs=1e-9)
    assert index == pytest.approx(stability_index(then, now, accounts=100))


def test_small_books_of_the_same_process_are_not_called_moved(score_set):
    """With bins of a few accounts, a book of 60 would look moved by chance alone."""
    largest = [
        max(family.largest for family in drift_of(with_values(score_set, like_training(60, seed))).families.values()) for seed in range(10)
    ]
    assert np.mean(largest) < THRESHOLDS[1]


def test_what_is_written_is_read_again(score_set, tmp_path):
    assert read_drift(tmp_path) is None
    write_drift(score_set, tmp_path)
    assert read_drift(tmp_path) == drift_of(score_set)
    text = json.dumps(json.loads((tmp_path / "drift.json").read_text()))
    assert not any(name in text for name in score_set.values), "families, not features"
