import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.scores.drivers import Calibrated, DriverGroups, slope
from serving.scores.reasons import Contribution, group_drivers, log_odds_slope
from tests.serving_book import feature
from training.calibration import BetaCalibrator, IsotonicCalibrator, PlattCalibrator

STEMS = (
    *("opens_28d", "opens_91d", "opens_182d", "opens_364d", "price", "logins_28d", "logins_91d", "nps"),
    *("seats_7d", "seats_28d", "seats_91d"),
)
FEATURES = tuple(
    feature(name, "usage", "users", "it {moved}", sensitivity="vendor" if name in ("price", "seats_28d") else "shared") for name in STEMS
)
GROUPS = DriverGroups.of(FEATURES)
round_numbers = st.sampled_from([0.0, 0.5, -0.5, 0.1, -0.1, 0.2, 1e-17, 100.0])
parts_of_rows = st.integers(1, 4).flatmap(lambda n: arrays(np.float64, (n, len(FEATURES)), elements=st.floats(-3, 3) | round_numbers))


def twin(parts):
    return group_drivers([Contribution(feature=each, part=part) for each, part in zip(FEATURES, parts, strict=True)], slope=0.9)


@given(parts_of_rows)
def test_many_rows_give_what_one_row_at_a_time_gives(parts):
    few, many = GROUPS.rank(parts), GROUPS.rank(np.tile(parts, (8, 1)))[: len(parts)]
    for row, own in enumerate(parts.tolist()):
        drivers = twin(own)
        for ranked in (few[row], many[row]):
            assert [ranked.sums[driver] for driver in ranked.order] == [driver.part for driver in drivers]
            members = [[GROUPS.names[member] for member in ranked.members(driver)] for driver in ranked.order]
            assert members == [[member.feature.name for member in driver.members] for driver in drivers]


@given(parts_of_rows, st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)), st.integers(0, 7))
def test_the_largest_visible_drivers_are_named_and_all_others_merged_exactly(parts, visible, most):
    for own, ranked in zip(parts.tolist(), GROUPS.rank(parts), strict=True):
        named = ranked.named(visible, most=most)
        assert named == [driver for driver in ranked.order if visible[driver] and ranked.sums[driver] != 0.0][:most]
        told = {member for driver in named for member in GROUPS.members[driver]}
        assert ranked.merged(named) == math.fsum(part for member, part in enumerate(own) if member not in told)
        others = ranked.others(named, most=len(FEATURES))
        assert sorted(others) == sorted(name for member, name in enumerate(GROUPS.names) if member not in told)
        assert ranked.others(named, most=3) == others[:3]
        unseen = [member for driver, members in enumerate(GROUPS.members) if not visible[driver] for member in members]
        assert ranked.hidden(visible) == [own[member] for member in unseen]


def test_features_of_different_audiences_are_kept_apart():
    opened = DriverGroups.of(FEATURES, audience_of=lambda each: each.name == "opens_91d")
    assert (1,) in opened.members
    assert (0, 2, 3) in opened.members
    assert (9,) in GROUPS.members, "of another sensitivity than the other windows"


@pytest.mark.parametrize(
    "calibrator",
    [
        BetaCalibrator(low=1.1, high=0.7, intercept=0.2),
        PlattCalibrator(slope=0.8, intercept=-0.3),
        IsotonicCalibrator(raw=(-4.0, -2.0, 0.5), at=(-5.0, -2.5, 0.0), slope=0.7),
    ],
)
@given(base=st.floats(-5, 2), move=st.floats(-3, 3) | st.just(0.0))
def test_the_slope_is_that_of_the_twin_to_the_last_digit(calibrator, base, move):
    raw = base + move
    chances = calibrator.probability(np.array([raw, 1.0, base, 2.0]))  # among others, as in a book
    known = slope(calibrator, Calibrated(base, float(chances[2])), Calibrated(raw, float(chances[0])))
    assert known == log_odds_slope(calibrator, base, raw)
