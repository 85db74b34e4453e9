import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import wording


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_probability_never_sounds_rarer(low, high):
    low, high = sorted((low, high))
    assert frequency(wording.chance(low)) <= frequency(wording.chance(high)) + 1e-12


def frequency(text):
    words = text.split()
    return int(words[-3]) / int(words[-1]) * (0.99 if words[0] == "less" else 1.01 if words[0] == "more" else 1)


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.sampled_from(["users", "share", "USD", "days", "ratio"]))
def test_a_value_that_looks_the_same_is_not_said_to_have_moved(now, before, unit):
    said = wording.moved(now, before, unit)
    if said.startswith(("rose", "fell")):
        _, _, earlier, _, later = said.removesuffix(" days").removesuffix(" day").split(" ", 4)
        assert earlier != later
        assert said.startswith("rose" if now > before else "fell")


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0, "users", "0 users"),
        (1.0, "people", "1 person"),
        (-0.001, "share", "−0.1\u00a0%"),
        (2.4, "ratio", "240\u00a0%"),
        (0.0, "flag", "no"),
        (308.0, "USD per seat", "$308 per seat"),
        (70.1, "events per user", "70.1 events per user"),
        (1234567.0, "CHF", "CHF 1,234,567"),
        ("education", "level", "education"),
    ],
)
def test_amounts_carry_their_unit(value, unit, said):
    assert wording.amount(value, unit) == said
