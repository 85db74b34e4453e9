import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training.calibration import PlattCalibrator
from training.segments import SegmentLevels, fit_segment_levels, segment_levels_from_json

STRAIGHT = PlattCalibrator(slope=1.0, intercept=0.0)
LEVELS = SegmentLevels(feature="segment", shifts={"small": 0.5, "large": -0.25}, other=0.125)


def book(shifts, *, rows=12_000, seed=0):
    """Return raw scores, outcomes and segments of accounts with six rows each; a segment is so much more common than its scores say."""
    rng = np.random.default_rng(seed)
    account = np.repeat(np.arange(rows // 6), 6)
    segment = rng.choice(np.array([*shifts, None], dtype=object), rows // 6)[account]
    raw = rng.normal(-2.5, 1, rows)
    off = np.array([shifts.get(name, 0.0) for name in segment])
    return raw, (rng.random(rows) < expit(raw + off)).astype(float), segment, account


def fitted(raw, target, segment, account):
    folds = np.arange(len(raw)) % 3
    return fit_segment_levels(STRAIGHT, raw, target, feature="segment", levels=segment, folds=folds, accounts=account)


@given(st.sampled_from(["small", "large", "unheard of", None, np.nan]), st.floats(-6, 6))
def test_a_row_alone_has_the_probability_that_it_has_among_others(level, raw):
    together = LEVELS.probability(STRAIGHT, np.array([0.0, raw]), np.array(["small", level], dtype=object))
    assert LEVELS.calibrator(STRAIGHT, level).probability(np.array([raw]))[0] == pytest.approx(together[1])


def test_levels_that_are_not_known_are_the_others():
    assert [LEVELS.shift(level) for level in ("small", "unheard of", None, np.nan)] == [0.5, 0.125, 0.125, 0.125]


def test_json_round_trip_is_exact():
    assert segment_levels_from_json(json.loads(json.dumps(LEVELS.to_json()))) == LEVELS
    with pytest.raises(KeyError):
        segment_levels_from_json({"feature": "segment"})


def test_a_segment_in_which_the_outcome_is_more_common_is_found():
    raw, target, segment, account = book({"small": 0.8, "medium": 0.0, "large": -0.8})
    found = fitted(raw, target, segment, account)
    assert {"small", "large"} <= set(found.shifts)
    assert found.shift("small") - found.shift("large") == pytest.approx(1.6, abs=0.25)
    assert abs(found.shift("medium") - found.other) < 0.1


def test_the_mean_probability_stays_as_it_was():
    raw, target, segment, account = book({"small": 0.8, "medium": 0.0})
    found = fitted(raw, target, segment, account)
    assert found.probability(STRAIGHT, raw, segment).mean() == pytest.approx(expit(raw).mean())


def test_estimates_are_shrunk_by_what_may_be_noise():
    few, many = ([fitted(*book({"small": 0.35, "large": 0.0}, rows=rows, seed=seed)) for seed in range(8)] for rows in (3_000, 60_000))
    gaps = [[found.shift("small") - found.shift("large") if found else 0.0 for found in each] for each in (few, many)]
    assert np.mean(gaps[1]) == pytest.approx(0.35, abs=0.05)
    assert np.mean(gaps[0]) < np.mean(gaps[1])


def test_segments_as_the_scores_say_get_no_level_of_their_own():
    found = [fitted(*book({"small": 0.0, "medium": 0.0, "large": 0.0}, seed=seed)) for seed in range(12)]
    assert sum(levels is None for levels in found) >= 6
    assert all(abs(shift - levels.other) < 0.15 for levels in found if levels for shift in levels.shifts.values())


@pytest.mark.parametrize("outcome", [0, 1])
def test_a_segment_with_few_of_either_outcome_gets_none(outcome):
    raw, target, segment, account = book({"small": 2.0})
    rare = (segment == "small") & (target == outcome)
    kept = ~rare | (np.cumsum(rare) <= 99)
    assert fitted(raw[kept], target[kept], segment[kept], account[kept]) is None


def test_one_account_is_no_segment():
    raw, target, segment, account = book({"small": 2.0})
    segment = np.where(account < 100, segment, None)
    assert fitted(raw, target, segment, np.where(segment == "small", -1, account)) is None
