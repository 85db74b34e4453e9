"""No label that was still open at a test cutoff is ever trained on."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import NotEnoughDataError
from training.dataset import Dataset
from training.splits import LabelWindow, forward_split, inner_folds

DAY = np.timedelta64(1, "D").astype("timedelta64[us]")
windows = st.builds(LabelWindow, horizon_days=st.integers(1, 200), lead_days=st.integers(0, 60), grace_days=st.integers(0, 60))
monthly = pd.date_range("2021-01-01", periods=24, freq="MS").to_numpy().astype("datetime64[us]")


def dataset(cutoff, *, accounts=40, rate=0.3, seed=0):
    rng = np.random.default_rng(seed)
    cutoff = np.repeat(cutoff, accounts)
    n = len(cutoff)
    account = np.tile([f"a{i}" for i in range(accounts)], n // accounts).astype(object)
    features, target = pd.DataFrame({"x": rng.normal(size=n)}), (rng.random(n) < rate).astype(float)
    return Dataset(account, cutoff, features, target, arr=np.ones(n), context=pd.DataFrame(index=range(n)))


def length(window):
    return (window.horizon_days + window.lead_days + window.grace_days) * DAY


@given(windows, st.lists(st.integers(0, 900), min_size=1, max_size=80), st.data())
def test_training_windows_are_closed_before_the_first_test_cutoff(window, days, data):
    cutoff = np.datetime64("2020-01-01", "us") + np.array(days) * DAY
    bounds = st.none() | st.integers(0, 900).map(lambda day: datetime(2020, 1, 1) + pd.Timedelta(days=day).to_pytimedelta())
    test_from, test_to = data.draw(bounds), data.draw(bounds)
    try:
        split = forward_split(cutoff, window, test_from=test_from, test_to=test_to)
    except NotEnoughDataError:
        return
    assert split.train.any()
    assert split.test.any()
    assert not (split.train & split.test).any()
    assert split.first_test == cutoff[split.test].min()
    assert (cutoff[split.train] + length(window)).max() <= split.first_test
    assert test_from is None or cutoff[split.test].min() >= np.datetime64(test_from)
    assert test_to is None or cutoff[split.test].max() <= np.datetime64(test_to)
    closed = cutoff + length(window) <= split.first_test
    np.testing.assert_array_equal(split.train, closed)


def test_by_default_the_last_quarter_of_the_cutoffs_is_judged():
    window = LabelWindow(horizon_days=90, lead_days=0, grace_days=30)
    split = forward_split(np.repeat(monthly, 3), window)
    assert len(np.unique(np.repeat(monthly, 3)[split.test])) == 6
    assert split.test.sum() == 18


def test_a_short_history_is_judged_on_fewer_cutoffs_rather_than_not_at_all():
    window = LabelWindow(horizon_days=182, lead_days=0, grace_days=0)
    split = forward_split(monthly[:8], window)
    assert (split.train.sum(), split.test.sum()) == (1, 1)


def test_the_window_that_closes_on_the_first_test_cutoff_is_closed():
    window = LabelWindow(horizon_days=31, lead_days=0, grace_days=0)
    cutoff = monthly[:2]
    assert forward_split(cutoff, window, test_from=datetime(2021, 2, 1)).train.tolist() == [True, False]
    longer = LabelWindow(horizon_days=32, lead_days=0, grace_days=0)
    with pytest.raises(NotEnoughDataError, match="train on"):
        forward_split(cutoff, longer, test_from=datetime(2021, 2, 1))


def test_cutoffs_of_each_account_split_as_well_as_shared_ones():
    rng = np.random.default_rng(0)
    cutoff = np.datetime64("2021-01-01", "us") + rng.integers(0, 700 * 86_400, 5000).astype("timedelta64[s]").astype("timedelta64[us]")
    window = LabelWindow(horizon_days=90, lead_days=0, grace_days=30)
    split = forward_split(cutoff, window)
    assert 0.2 < split.test.mean() < 0.3
    assert (cutoff[split.train] + length(window)).max() <= cutoff[split.test].min()


@pytest.mark.parametrize(
    ("test_from", "test_to"), [(datetime(2030, 1, 1), None), (None, datetime(2020, 1, 1)), (datetime(2022, 6, 2), datetime(2022, 6, 20))]
)
def test_a_period_without_cutoffs_is_refused(test_from, test_to):
    with pytest.raises(NotEnoughDataError, match="judge on"):
        forward_split(monthly, LabelWindow(horizon_days=30, lead_days=0, grace_days=0), test_from=test_from, test_to=test_to)


def test_no_rows_at_all_are_refused():
    with pytest.raises(NotEnoughDataError):
        forward_split(monthly[:0], LabelWindow(horizon_days=30, lead_days=0, grace_days=0))


@settings(deadline=None)
@given(windows, st.integers(2, 24))
def test_inner_folds_look_forward_over_closed_windows_or_say_that_they_do_not(window, months):
    data = dataset(monthly[:months], accounts=80, rate=0.4)
    inner = inner_folds(data, window)
    assert 1 <= len(inner.folds) <= 3
    held_out = np.concatenate([later for _, later in inner.folds])
    assert len(np.unique(held_out)) == len(held_out)
    for earlier, later in inner.folds:
        assert data.cutoff[earlier].max() < data.cutoff[later].min()
        if not inner.note:
            assert data.cutoff[earlier].max() + length(window) <= data.cutoff[later].min()
    assert not inner.note or "overlap" in inner.note


def test_one_cutoff_is_folded_by_account_and_the_note_says_so():
    data = dataset(monthly[:1], accounts=120)
    inner = inner_folds(data, LabelWindow(horizon_days=30, lead_days=0, grace_days=0))
    assert "other accounts" in inner.note
    for earlier, later in inner.folds:
        assert not set(data.account_id[earlier]) & set(data.account_id[later])


def test_too_few_positives_for_any_fold_say_how_many_there_are():
    data = dataset(monthly[:12], rate=0.0)
    with pytest.raises(NotEnoughDataError, match="0 positives"):
        inner_folds(data, LabelWindow(horizon_days=30, lead_days=0, grace_days=0))
