import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.drivers import DriverGroups, slopes
from serving.reasons import Contribution, group_drivers, log_odds_slope
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
    ranked = GROUPS.rank(parts)
    for row, own in enumerate(parts.tolist()):
        drivers = twin(own)
        order = ranked.order[row].tolist()
        assert [ranked.sums[row, driver] for driver in order] == [driver.part for driver in drivers]
        members = [[GROUPS.names[member] for member in group] for group in ranked.members(row, order)]
        assert members == [[member.feature.name for member in driver.members] for driver in drivers]


@given(parts_of_rows, st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)), st.integers(0, 7))
def test_the_largest_visible_drivers_are_named_and_all_others_merged_exactly(parts, visible, most):
    ranked = GROUPS.rank(parts)
    for row, own in enumerate(parts.tolist()):
        named = ranked.named(row, visible, most=most)
        candidates = [driver for driver in ranked.order[row].tolist() if visible[driver] and ranked.sums[row, driver] != 0.0]
        assert named == candidates[:most]
        told = {member for driver in named for member in GROUPS.members[driver]}
        assert ranked.merged(row, told) == math.fsum(part for member, part in enumerate(own) if member not in told)
        others = ranked.others(row, named, most=len(FEATURES))
        assert sorted(others) == sorted(name for member, name in enumerate(GROUPS.names) if member not in told)
        assert ranked.others(row, named, most=3) == others[:3]


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
@given(base=st.floats(-5, 2), moves=st.lists(st.floats(-3, 3) | st.just(0.0), min_size=1, max_size=9))
def test_slopes_are_those_of_one_row_at_a_time_to_the_last_digit(calibrator, base, moves):
    raw = base + np.array(moves)
    assert slopes(calibrator, np.full(len(raw), base), raw) == [log_odds_slope(calibrator, base, each) for each in raw.tolist()]
