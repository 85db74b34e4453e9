import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scores.reasons import Contribution, explain_score, log_odds_slope, worded
from tests.serving_book import CATALOGUE, feature
from training.calibration import BetaCalibrator, IsotonicCalibrator, PlattCalibrator

BETA = BetaCalibrator(low=1.1, high=0.7, intercept=0.2)
ISOTONIC = IsotonicCalibrator(raw=(-4.0, -2.0, 0.5), at=(-5.0, -2.5, 0.0), slope=0.7)
parts_of_all = st.lists(st.floats(-3, 3), min_size=len(CATALOGUE), max_size=len(CATALOGUE))


def explained(parts, calibrator=BETA, base=-3.0, **values):
    contributions = [Contribution(feature=each, part=part, **values) for each, part in zip(CATALOGUE, parts, strict=True)]
    raw = base + math.fsum(parts)
    probability = float(calibrator.probability(np.array([raw]))[0])
    return explain_score("churn", contributions, base=base, raw=raw, probability=probability, calibrator=calibrator)


@given(parts_of_all)
def test_the_drivers_parts_lead_from_the_base_to_the_raw_score(parts):
    explanation = explained(parts)
    assert explanation.base + math.fsum(driver.part for driver in explanation.drivers) == pytest.approx(explanation.raw, abs=1e-9)


@given(parts_of_all, st.sampled_from([BETA, PlattCalibrator(slope=0.8, intercept=-0.3), ISOTONIC]))
def test_the_factors_lead_from_the_average_odds_to_the_account_s(parts, calibrator):
    explanation = explained(parts, calibrator)
    odds = (
        explanation.base_probability / (1 - explanation.base_probability) * math.prod(driver.odds_factor for driver in explanation.drivers)
    )
    assert odds == pytest.approx(explanation.probability / (1 - explanation.probability), rel=1e-4)


@given(parts_of_all)
def test_every_feature_is_in_exactly_one_driver_and_the_largest_come_first(parts):
    drivers = explained(parts).drivers
    assert sorted(member.feature.name for driver in drivers for member in driver.members) == sorted(CATALOGUE.names)
    sizes = [abs(driver.part) for driver in drivers]
    assert sizes == sorted(sizes, reverse=True)


def test_windows_of_one_measure_are_one_driver_and_other_measures_are_not():
    grouped = {tuple(sorted(member.feature.name for member in driver.members)) for driver in explained([1.0] * len(CATALOGUE)).drivers}
    assert ("active_users_28d", "active_users_91d") in grouped
    assert ("events_28d",) in grouped


def test_the_larger_part_gives_the_driver_its_words():
    parts = [0.0] * len(CATALOGUE)
    parts[0], parts[1] = 0.2, -0.7
    driver = explained(parts, value=23.0, earlier=41.0).drivers[0]
    assert driver.part == pytest.approx(-0.5)
    assert driver.effect == "lowers"
    assert driver.odds_factor < 1
    assert driver.sentence == "Active users fell from 41 to 23 in 91 days"


@pytest.mark.parametrize("raw", [-3.0, -3.0 + 1e-9])
def test_an_account_at_the_average_has_a_slope_too(raw):
    assert log_odds_slope(BETA, -3.0, raw) == pytest.approx(log_odds_slope(BETA, -3.0, -2.99), rel=1e-2)


@pytest.mark.parametrize(
    ("template", "value", "earlier", "said"),
    [
        ("active users {moved} in 28 days", 23.0, 41.0, "Active users fell from 41 to 23 in 28 days"),
        ("active users {moved} in 28 days", 23.0, None, "Active users stood at 23 in 28 days"),
        ("the last use was {value} ago", 1.0, 4.0, "The last use was 1 user ago"),
        ("active users {moved}", None, 41.0, "Tried: not known"),
    ],
)
def test_sentences_say_how_a_value_moved(template, value, earlier, said):
    assert worded(feature("tried", "usage", "users", template), value, earlier) == said
