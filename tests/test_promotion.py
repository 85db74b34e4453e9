from dataclasses import replace

import numpy as np
import pytest

from training.dataset import load_dataset
from training.evaluation import Estimate
from training.promotion import Comparison, Incumbent, compare_tracks, decide, face_champion, score_track
from training.splits import LabelWindow, forward_split, rolling_splits

BETTER, UNSURE, WORSE = Estimate(0.04, 0.02, 0.06), Estimate(0.01, -0.01, 0.03), Estimate(-0.04, -0.06, -0.02)
WINDOW = LabelWindow(horizon_days=90, lead_days=0, grace_days=0)


def facing(gain, *, refreshed=False):
    return Incumbent(comparison=Comparison(gain, 1200, 80), refreshed=refreshed)


@pytest.mark.parametrize(
    ("gains", "leaks", "incumbent", "role", "said"),
    [
        ({"recency": BETTER}, [], None, "champion", "first model that beats all baselines"),
        ({"recency": UNSURE}, [], None, "challenger", "does not beat recency by more than its interval: the gain in AUC is +0.010 (-0.010"),
        ({"recency": BETTER, "logistic regression": UNSURE}, [], None, "challenger", "does not beat logistic regression"),
        ({"recency": Estimate(0.2, None, None)}, [], None, "challenger", "no interval"),
        ({"recency": BETTER}, ["arr_next tells the outcome."], None, "challenger", "The audit found a leak: arr_next"),
        ({"recency": WORSE}, [], Incumbent(unfit="gone"), "challenger", "does not beat recency"),
        ({"recency": BETTER}, [], Incumbent(unfit="features are missing"), "champion", "no longer be used: features are missing"),
        ({"recency": BETTER}, [], facing(BETTER), "champion", "beats the previous champion: on the same 1,200 rows"),
        ({"recency": BETTER}, [], facing(UNSURE), "challenger", "The champion stays: on the same 1,200 rows"),
        ({"recency": BETTER}, [], facing(UNSURE, refreshed=True), "champion", "the champion's recipe, trained on the newest rows"),
        ({"recency": BETTER}, [], facing(WORSE, refreshed=True), "challenger", "The champion stays"),
        (
            {"recency": BETTER},
            [],
            Incumbent(comparison=Comparison(None, 0, 0, "it has seen the labels")),
            "challenger",
            "it has seen the labels",
        ),
    ],
)
def test_the_champion_is_the_one_that_earned_it(gains, leaks, incumbent, role, said):
    decision = decide(gains, leaks=leaks, incumbent=incumbent)
    assert decision.role == role
    assert said in decision.reason


@pytest.mark.parametrize(
    ("gains", "leaks", "incumbent", "provisional"),
    [
        ({"recency": BETTER, "logistic regression": UNSURE}, [], None, True),
        ({"recency": UNSURE, "logistic regression": UNSURE}, [], None, True),
        ({"recency": BETTER, "logistic regression": Estimate(-0.01, -0.03, 0.01)}, [], None, True),
        ({"recency": BETTER, "logistic regression": WORSE}, [], None, False),
        ({"recency": Estimate(-0.01, -0.03, 0.01)}, [], None, False),
        ({"recency": UNSURE}, ["a leak"], None, False),
        ({"recency": UNSURE}, [], Incumbent(unfit="gone"), False),
        ({"recency": BETTER}, [], None, False),
    ],
)
def test_without_a_champion_what_no_rule_beats_is_used_provisionally(gains, leaks, incumbent, provisional):
    decision = decide(gains, leaks=leaks, incumbent=incumbent)
    assert decision.provisional == provisional == ("used provisionally" in decision.reason)


@pytest.fixture(scope="module")
def data(synthetic_snapshots, synthetic_catalogue):
    return load_dataset(synthetic_snapshots, "churn", synthetic_catalogue)


@pytest.fixture(scope="module")
def splits(data):
    return rolling_splits(data.cutoff, WINDOW, forward_split(data.cutoff, WINDOW), folds=2)


def known_until(package, data, cutoff):
    """Return the package as if its last training cutoff had been this one."""
    return replace(package, cutoff=cutoff.item())


def test_a_row_is_scored_by_the_newest_package_that_had_not_seen_its_labels(synthetic_package, data, splits):
    early, late = (np.unique(data.cutoff[split.train])[-1] for split in splits)
    assert early < late
    old = known_until(synthetic_package, data, early)
    new = replace(known_until(synthetic_package, data, late), calibrator=replace(synthetic_package.calibrator, intercept=1.0))
    spoilt = known_until(synthetic_package, data, data.cutoffs[-1])
    found = score_track((spoilt, old, new), data, splits, WINDOW)
    for split, package in zip(splits, (old, new), strict=True):
        np.testing.assert_array_equal(found[split.test], package.score_rows(data.features[split.test]).probability)
    assert np.isnan(found[~(splits[0].test | splits[1].test)]).all()
    assert np.isnan(score_track((spoilt,), data, splits, WINDOW)).all()


def test_only_rows_that_neither_model_learnt_from_are_compared(synthetic_package, data, splits):
    early, late = (np.unique(data.cutoff[split.train])[-1] for split in splits)
    champion, newcomer = known_until(synthetic_package, data, late), known_until(synthetic_package, data, early)
    found = compare_tracks((champion,), (newcomer,), data, splits, WINDOW, seed=0)
    assert found.rows == splits[1].test.sum()
    assert found.positives == data.target[splits[1].test].sum()
    assert found.gain == Estimate(0.0, 0.0, 0.0)
    seen = known_until(synthetic_package, data, data.cutoffs[-1])
    assert "already seen labels" in compare_tracks((seen,), (newcomer,), data, splits, WINDOW, seed=0).obstacle
    rare = replace(data, target=np.where(np.cumsum(splits[1].test & (data.target == 1)) <= 5, data.target, 0.0))
    assert "5 of them positive" in compare_tracks((champion,), (newcomer,), rare, splits, WINDOW, seed=0).obstacle


def test_a_newcomer_faces_the_champion(synthetic_package, data, splits):
    early = np.unique(data.cutoff[splits[0].train])[-1]
    package = known_until(synthetic_package, data, early)
    blind = replace(package, calibrator=replace(package.calibrator, slope=0.0))
    assert face_champion((blind,), (package,), data, splits, WINDOW, seed=0).comparison.gain.low > 0
    assert face_champion((package,), (package,), data, splits, WINDOW, seed=0).refreshed
    assert not face_champion((package,), (replace(package, recipe={}),), data, splits, WINDOW, seed=0).refreshed
    shorter = replace(WINDOW, horizon_days=30)
    assert "90 days ahead" in face_champion((package,), (package,), data, splits, shorter, seed=0).unfit
    fewer = replace(data, features=data.features.drop(columns="noise"))
    assert "missing: noise" in face_champion((package,), (package,), fewer, splits, WINDOW, seed=0).unfit
