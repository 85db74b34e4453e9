from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import WorkspaceError
from serving.health import HealthDefinition, band_of, health_of, published_definition

DEFINITION = HealthDefinition(version=1, reference_odds=1 / 29, published="2024-01-01T00:00:00", accounts=100)
probabilities = st.floats(0, 1)


@given(probabilities, probabilities)
def test_health_never_rises_with_the_probability(low, high):
    low, high = sorted((low, high))
    better, worse = health_of(np.array([low, high]), DEFINITION)
    assert better >= worse
    assert 0 <= worse <= better <= 100


@given(st.floats(1 / 29 / 16, 1 / 29 * 16))
def test_ten_points_halve_the_odds(odds):
    twice = health_of(np.array([odds / (1 + odds), 2 * odds / (1 + 2 * odds)]), DEFINITION)
    assert abs(int(twice[0] - twice[1]) - 10) <= 1


def test_points_on_the_half_are_rounded_up():
    odds = DEFINITION.reference_odds * 2 ** -(np.arange(-40, 40) / 10 + 0.05)
    assert health_of(odds / (1 + odds), DEFINITION).tolist() == list(range(11, 91))


def test_the_bands_meet_at_40_and_60():
    assert [band_of(points) for points in (0, 39, 40, 60, 61, 100)] == ["red", "red", "amber", "amber", "green", "green"]


def test_the_first_book_is_the_reference_for_ever(tmp_path):
    path = tmp_path / "health.json"
    first = published_definition(path, np.array([0.02, 0.04]), datetime(2024, 1, 1))
    assert first.reference_probability == pytest.approx(0.03)
    assert published_definition(path, np.array([0.5]), datetime(2025, 1, 1)) == first
    assert health_of(np.array([0.03]), first).tolist() == [50]


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1, "reference_odds": 0, "published": "", "accounts": 1}'])
def test_a_damaged_definition_is_never_made_anew(tmp_path, content):
    path = tmp_path / "health.json"
    path.write_text(content)
    with pytest.raises(WorkspaceError, match="definition of health is damaged"):
        published_definition(path, np.array([0.5]), datetime(2025, 1, 1))
    assert path.read_text() == content
