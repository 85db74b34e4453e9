"""Impossible values are refused with what is allowed; what follows from a change moves along, and the account stays possible."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import Catalogue
from serving.answers.feature_rules import Quotient, Rank, Rules
from serving.answers.whatif import ImpossibleError, Limits, adjust, limits_of
from tests.serving_book import packages
from tests.test_feature_rules import FEATURES, derived, measured
from training.package import Reference

RULES = Rules(
    chains=(("active_users_7d", "active_users_28d", "active_users_91d"),),
    quotients={
        "seat_use_28d": Quotient("active_users_28d", "seats", 0.0),
        "silence": Quotient("days_since_event", "gap_mean_364d", 1.0),
        "users_share": Quotient("active_users_28d", "active_users_91d", 0.0),
    },
    ranks={("active_users_28d_rank", "a"): Rank("active_users_28d", np.array([0.0, 5, 10, 20, 20, 40, 50, 60, 70, 80, 90]))},
    whole=frozenset({"active_users_7d", "active_users_28d", "active_users_91d"}),
)
LIMITS = {
    **{f"active_users_{days}d": Limits(lowest=0.0, highest=200.0, whole=True) for days in (7, 28, 91)},
    "days_since_event": Limits(lowest=0.0, highest=400.0),
    "seat_use_28d": Limits(lowest=0.0, highest=1.0),
    "tier": Limits(levels=("blue", "gold")),
}
ALL = FEATURES | {"tier": replace(derived("tier", ()), kind="category"), "twice": derived("twice", ("users_share", "odd"))}
X = {
    **{"active_users_7d": 10.0, "active_users_28d": 20.0, "active_users_91d": 40.0, "users_lost_28d": 1.0, "users_lost_91d": 2.0},
    **{"seats": 50.0, "days_since_event": 3.0, "gap_mean_364d": 2.0, "seat_use_28d": 0.4, "silence": 1.0, "users_share": 0.5, "odd": 800.0},
    **{"active_users_28d_rank": 0.3, "tier": "gold", "twice": 1.0},
}


def changed(asked, values=X, segment="a"):
    return adjust(values, asked, features=ALL, limits=LIMITS, rules=RULES, segment=segment)


def test_what_follows_moves_along():
    found = changed({"active_users_28d": 45.0})
    assert {name: value for name, value in found.values.items() if value != X[name]} == {
        "active_users_28d": 45.0,
        "active_users_91d": 45.0,
        "seat_use_28d": 0.9,
        "users_share": 1.0,
        "active_users_28d_rank": 0.5,
    }
    assert found.moved == {
        "active_users_91d": "cannot be less than active_users_28d, which counts over 28 days",
        "seat_use_28d": "follows from active_users_28d and seats",
        "users_share": "follows from active_users_28d and active_users_91d",
        "active_users_28d_rank": "follows from active_users_28d",
    }
    assert found.held == ("odd", "twice")
    assert changed({"active_users_28d": 4.0}).values["active_users_7d"] == 4.0
    assert changed({"active_users_28d": 45.0}, segment=None).held == ("odd", "active_users_28d_rank", "twice")


def test_what_is_not_touched_stays():
    found = changed({"days_since_event": 9.0, "tier": "blue"})
    assert found.moved == {"silence": "follows from days_since_event and gap_mean_364d"}
    assert found.values == X | {"days_since_event": 9.0, "tier": "blue", "silence": 3.0}
    assert changed({"active_users_28d": 20.0}) == changed({"active_users_28d": 20})
    assert changed({"active_users_28d": 20.0}).values == X
    unknown = changed({"active_users_28d": 45.0}, X | {"seats": None, "seat_use_28d": None, "active_users_91d": None, "users_share": None})
    assert unknown.values["seat_use_28d"] is None
    assert "active_users_91d" not in unknown.moved


@pytest.mark.parametrize(
    ("asked", "problems"),
    [
        ({"active_users_28d": -1.0}, {"active_users_28d": "must be a whole number from 0 to 200 users"}),
        ({"active_users_28d": 1e9}, {"active_users_28d": "from 0 to 200 users, which is what was seen"}),
        ({"active_users_28d": 20.5}, {"active_users_28d": "whole number"}),
        ({"active_users_28d": None}, {"active_users_28d": "whole number"}),
        ({"active_users_28d": "many"}, {"active_users_28d": "whole number"}),
        ({"active_users_28d": float("nan")}, {"active_users_28d": "whole number"}),
        ({"tier": "iron"}, {"tier": "one of blue, gold"}),
        ({"tier": 3.0}, {"tier": "one of blue, gold"}),
        ({"active_users_7d": 9.0, "active_users_91d": 8.0}, {"active_users_7d": "not be more than active_users_91d"}),
        (
            {"active_users_28d": 51.0},
            {"active_users_28d": "would make seat_use_28d 102\u00a0%, beyond 100\u00a0%: active_users_28d may be at most 50"},
        ),
        ({"active_users_7d": 60.0}, {"active_users_7d": "active_users_28d, which moves along, may be at most 50"}),
    ],
)
def test_impossible_values_are_refused(asked, problems):
    with pytest.raises(ImpossibleError) as caught:
        changed(asked)
    assert set(caught.value.problems) == set(problems)
    for name, words in problems.items():
        assert words in caught.value.problems[name]


counts = st.integers(-5, 210).map(float)


@settings(max_examples=200, deadline=None)
@given(
    asked=st.dictionaries(st.sampled_from(["active_users_7d", "active_users_28d", "active_users_91d"]), counts, min_size=1),
    own=st.tuples(counts, counts, counts).map(lambda found: sorted(max(value, 0.0) for value in found)),
)
def test_an_account_that_was_possible_stays_possible(asked, own):
    values = X | dict(zip(("active_users_7d", "active_users_28d", "active_users_91d"), own, strict=True)) | {"seats": 500.0}
    values |= {name: RULES.quotients[name].value(values) for name in ("seat_use_28d", "users_share")}
    try:
        found = adjust(values, asked, features=ALL, limits=LIMITS, rules=RULES, segment="a").values
    except ImpossibleError as error:
        assert set(error.problems) <= set(asked)
        return
    assert found["active_users_7d"] <= found["active_users_28d"] <= found["active_users_91d"]
    assert {name: found[name] for name in asked} == asked
    assert found["seat_use_28d"] == pytest.approx(found["active_users_28d"] / 500)
    back = adjust(found, {}, features=ALL, limits=LIMITS, rules=RULES, segment="a")
    assert back.moved == {}


def test_the_limits_are_what_was_seen():
    package = packages()["churn"]
    users, tier = package.catalogue.feature("active_users_28d"), package.catalogue.feature("partner_tier")
    quantiles = package.reference.quantiles["active_users_28d"]
    rules = replace(RULES, whole=frozenset())
    whole = limits_of(users, [package], rules, own=3.0)
    assert (whole.lowest, whole.highest) == (quantiles[0], quantiles[-1])
    usual = limits_of(users, [package], RULES, own=3.0, tail=0.01)
    assert (usual.lowest, usual.highest, usual.whole) == (math.ceil(quantiles[1]), math.floor(quantiles[-2]), True)
    assert limits_of(users, [package], rules, own=9999.0, tail=0.01).highest == 9999.0
    fewer = replace(package, categories={"partner_tier": ("gold", "iron")})
    assert limits_of(tier, [package, fewer], rules, own="gold").levels == ("gold",)
    blank = replace(package, reference=Reference(package.reference.levels, {"active_users_28d": None}, {}, {}))
    assert limits_of(users, [blank], rules, own=None) is None
    assert limits_of(measured("strange"), [replace(package, catalogue=Catalogue(()))], rules, own=None) is None
