"""Measures on parts of the rows: the right rows, the same resamples, and no number where there is too little to measure."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.breakdown import Level, account_size, break_down, slice_rows, weak_spots
from training.evaluation import Estimate, TestRows, auc, judge, rank_measures, single, standard_measures
from training.profit import churn_measures

NOW = np.datetime64("2023-11-01", "us")


def book(n=1200, accounts=200, seed=0):
    rng = np.random.default_rng(seed)
    account = np.array([f"a{i}" for i in rng.integers(0, accounts, n)], dtype=object)
    probability = rng.uniform(0.02, 0.5, n)
    target = (rng.random(n) < probability).astype(float)
    cutoff = NOW + rng.integers(0, 5, n) * np.timedelta64(30, "D")
    days = rng.integers(1, 91, n)
    context = pd.DataFrame(
        {
            "segment": rng.choice(["small", "large", None], n, p=[0.6, 0.3, 0.1]),
            "partner_type": rng.choice(["reseller", "agency"], n),
            "left_at": np.where(target == 1, cutoff + days * np.timedelta64(1, "D"), np.datetime64("NaT")),
        }
    )
    return TestRows(account, target, rng.lognormal(9, 1, n)), probability, cutoff, context, days


@pytest.fixture(scope="module")
def small():
    return book()


def test_rows_are_parted_by_what_is_known_of_them(small):
    rows, _, cutoff, context, days = small
    slices = slice_rows(context, cutoff, rows.target, size=rows.arr)
    assert list(slices) == ["lead time", "segment", "partner type", "account size", "quarter"]
    lead = slices["lead time"]
    assert lead.levels == ("1 to 30 days", "31 to 60 days", "61 to 90 days")
    for position in range(3):
        inside = (rows.target == 1) & (days > 30 * position) & (days <= 30 * position + 30)
        np.testing.assert_array_equal(lead.rows(position), inside | (rows.target == 0))
    segment = slices["segment"]
    assert segment.levels == ("small", "large", "no segment")
    np.testing.assert_array_equal(segment.rows(2), context["segment"].isna())
    np.testing.assert_array_equal(segment.rows(0), context["segment"] == "small")
    size = slices["account size"]
    assert size.levels == ("smallest third", "middle third", "largest third")
    assert [size.rows(position).sum() for position in range(3)] == [400, 400, 400]
    assert rows.arr[size.rows(0)].max() <= rows.arr[size.rows(1)].min() <= rows.arr[size.rows(1)].max() <= rows.arr[size.rows(2)].min()
    quarter = slices["quarter"]
    assert quarter.levels == ("2023 Q4", "2024 Q1")
    np.testing.assert_array_equal(quarter.rows(0), cutoff < np.datetime64("2024-01-01"))


def test_what_is_not_known_or_does_not_part_the_rows_is_left_out(small):
    rows, _, cutoff, context, _ = small
    bare = context.assign(segment=None, left_at=pd.NaT, partner_type="agency")
    assert list(slice_rows(bare, cutoff, rows.target, size=None)) == ["quarter"]
    assert slice_rows(bare[[]], np.full(len(rows), NOW), rows.target, size=np.full(len(rows), np.nan)) == {}


def test_a_long_horizon_has_wider_lead_times(small):
    rows, _, cutoff, context, days = small
    late = context.assign(left_at=np.where(rows.target == 1, cutoff + 4 * days * np.timedelta64(1, "D"), np.datetime64("NaT")))
    levels = slice_rows(late, cutoff, rows.target, size=None)["lead time"].levels
    assert levels == ("1 to 60 days", "61 to 120 days", "121 to 180 days", "181 to 240 days", "241 to 300 days", "301 to 360 days")


@given(st.integers(2, 40), st.integers(0, 100))
def test_every_row_is_in_one_part_however_many_there_are(kinds, seed):
    rng = np.random.default_rng(seed)
    names = rng.choice([f"s{i:02d}" for i in range(kinds)], 300, p=rng.dirichlet(np.ones(kinds)))
    slices = slice_rows(pd.DataFrame({"segment": names}), np.full(300, NOW), np.zeros(300), size=None)
    if "segment" not in slices:
        assert len(set(names)) == 1
        return
    parted = slices["segment"]
    counts = [parted.rows(position).sum() for position in range(len(parted.levels))]
    assert sum(counts) == 300
    assert len(parted.levels) == min(len(set(names)), 12)
    for position, name in enumerate(parted.levels):
        inside = names[parted.rows(position)]
        assert set(inside) == {name} if name != "other" else counts[position] == 300 - sum(counts[:-1])
    if parted.levels[-1] == "other":
        left_out = names[parted.rows(len(parted.levels) - 1)]
        assert pd.Series(left_out).value_counts().max() <= min(counts[:-1])


def test_a_part_is_measured_like_rows_of_its_own(small):
    rows, probability, cutoff, context, _ = small
    slices = slice_rows(context, cutoff, rows.target, size=rows.arr)
    found = break_down(rows, probability, slices, suite=churn_measures, resamples=20, seed=0)
    assert list(found) == list(slices)
    for name, levels in found.items():
        for position, level in enumerate(levels):
            inside = slices[name].rows(position)
            suite = rank_measures if name == "lead time" else churn_measures
            alone = judge(rows.at(inside), probability[inside], suite=suite, resamples=0, seed=0)
            if name == "lead time":
                del alone["ece_expected"]
            assert (level.name, level.rows, level.positives) == (slices[name].levels[position], inside.sum(), rows.target[inside].sum())
            assert level.reason == ""
            assert {measure: estimate.value for measure, estimate in level.metrics.items()} == pytest.approx(
                {measure: estimate.value for measure, estimate in alone.items()}
            )
    json.dumps({name: [asdict(level) for level in levels] for name, levels in found.items()}, allow_nan=False)


def test_intervals_come_from_accounts_drawn_from_all_rows(small):
    rows, probability, _, context, _ = small
    slices = slice_rows(context[["segment"]], np.full(len(rows), NOW), rows.target, size=None)
    found = break_down(rows, probability, slices, suite=standard_measures, resamples=30, seed=4)["segment"][0]
    names, generator = np.unique(rows.account_id), np.random.default_rng(4)
    inside = np.flatnonzero(context["segment"] == "small")
    by_account = {name: inside[rows.account_id[inside] == name] for name in names}
    slow = []
    for _ in range(30):
        drawn = np.concatenate([by_account[names[i]] for i in generator.integers(len(names), size=len(names))])
        slow.append(single(lambda weights, d=drawn: auc(rows.target[d], probability[d], weights), len(drawn)))
    low, high = np.quantile(slow, [0.025, 0.975])
    expected = single(lambda weights: auc(rows.target[inside], probability[inside], weights), len(inside))
    assert found.metrics["auc"] == Estimate(pytest.approx(expected), pytest.approx(low), pytest.approx(high))


def test_too_little_is_not_measured_and_says_so(small):
    rows, probability, _, context, _ = small
    few = np.flatnonzero(rows.target == 1)[:9]
    segment = np.where(rows.target == 0, "quiet", "loud").astype(object)
    segment[few] = "quiet"
    slices = slice_rows(context[[]].assign(segment=segment), np.full(len(rows), NOW), rows.target, size=None)
    loud, quiet = sorted(break_down(rows, probability, slices, resamples=0, seed=0)["segment"], key=lambda level: level.name)
    accounts = len(set(rows.account_id[few]))
    assert (quiet.metrics, quiet.positives) == (None, 9)
    assert quiet.reason == f"too few to be measured: {accounts} accounts have a positive row, at least 10 are needed"
    assert loud.metrics is None
    assert "no accounts have a negative row" in loud.reason
    assert weak_spots({"auc": Estimate(0.9, None, None)}, {"segment": (loud, quiet)}) == ()


def test_a_part_that_the_scores_do_not_serve_is_named():
    rows, probability, cutoff, context, _ = book(n=4000, accounts=1000)
    failed = (context["segment"] == "large").to_numpy()
    probability = np.where(failed, np.random.default_rng(1).permutation(probability) * 0.5, probability)
    slices = slice_rows(context[["segment", "partner_type"]], cutoff, rows.target, size=None)
    overall = judge(rows, probability, seed=0)
    spots = weak_spots(overall, break_down(rows, probability, slices, seed=0))
    assert ("segment", "large", "auc") in {(spot.slice, spot.level, spot.measure) for spot in spots}
    assert ("segment", "large", "ece") in {(spot.slice, spot.level, spot.measure) for spot in spots}
    assert not any(spot.level == "small" for spot in spots)
    worst = next(spot for spot in spots if spot.level == "large" and spot.measure == "auc")
    assert worst.found.high < worst.against == overall["auc"].value


def test_size_is_money_where_there_is_any_else_users_or_seats():
    arr, none = np.array([1.0, np.nan]), np.array([np.nan, np.nan])
    frame = pd.DataFrame({"seats": [5.0, 6.0], "active_users_91d": [3.0, None]})
    np.testing.assert_array_equal(account_size(arr, frame), arr)
    np.testing.assert_array_equal(account_size(none, frame), [3, np.nan])
    np.testing.assert_array_equal(account_size(none, frame[["seats"]]), [5, 6])
    assert account_size(none, frame[[]]) is None


def test_levels_are_plain_values():
    assert asdict(Level("a", 2, 1, {"auc": Estimate(0.5, None, None)})) == {
        "name": "a",
        "rows": 2,
        "positives": 1,
        "metrics": {"auc": {"value": 0.5, "low": None, "high": None}},
        "reason": "",
    }
