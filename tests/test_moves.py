"""What a caller is told of a move adds up, gives no confidential part away, and says so in words."""

import math
from dataclasses import replace

import pytest

from serving.answers.moves import health_answer, move_answer, share_move
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores.changes import score_move
from serving.scores.sharing import View
from tests.serving_book import packages
from tests.test_changes import DEFINITION, standing

X = {
    **{"active_users_28d": 41.0, "active_users_91d": 50.0, "events_28d": 900.0, "seat_use_28d": 0.8, "days_since_last_event": 1.0},
    **{"trainings_182d": 2.0, "last_nps": 9.0, "open_tickets": 1.0, "days_to_renewal": 200.0, "seats": 52.0, "tenure_days": 800.0},
    **{"discount": 0.1, "price_per_seat": 300.0, "list_price_gap": 0.2, "partner_tier": "gold"},
}
MOVED = X | {"active_users_28d": 23.0, "seat_use_28d": 0.44, "open_tickets": 4.0}
PARTNER = View(Caller("p1"), None, default_policy())
ALL = View(VENDOR, None, default_policy())


def told(view, x0=X, x1=MOVED, *, older=None, definition=DEFINITION, supplied=None):
    newer = packages()["churn"]
    before = replace(standing(older or newer, x0), supplied=supplied or {})
    after = standing(newer, x1, definition)
    shared = share_move(score_move(newer, before=before, after=after), before=before, after=after, view=view)
    return move_answer(shared, view, before=before, after=after), health_answer(shared, view)


def test_the_parts_that_are_told_add_up():
    older = replace(packages()["churn"], calibrator=replace(packages()["churn"].calibrator, intercept=0.7))
    for view in (ALL, PARTNER):
        move, health = told(view, older=older, definition=replace(DEFINITION, version=2, reference_odds=0.12))
        parts = [*move.drivers, move.other_factors, move.model]
        assert math.fsum(part.log_odds for part in parts) == pytest.approx(move.log_odds, abs=1e-9)
        assert math.prod(part.odds_factor for part in parts) == pytest.approx(move.odds_factor, rel=1e-9)
        points = math.fsum(part.points for part in parts)
        assert points + health.definition + health.cut == pytest.approx(health.exact, abs=1e-9)
        assert sum(part.points_shown for part in parts) + health.definition_shown + health.cut_shown == health.moved
        assert health.moved == health.after - health.before


def test_it_is_said_in_words_that_add_up():
    move, health = told(ALL)
    assert health.sentence.startswith(
        f"Health fell by {-health.moved} points, from {health.before} to {health.after}: open tickets rose from 1 to 4 (−"
    )
    assert "the share of seats in use fell from 80 % to 44 % (−" in health.sentence.replace("\u00a0", " ")
    assert move.sentence.startswith("The probability of leaving rose from ")
    said = [int(part.split(")")[0].replace("−", "-")) for part in health.sentence.split("(")[1:]]
    assert sum(said) == health.moved
    assert "the newer model" not in health.sentence
    assert (move.model.changed, move.model.points, move.model.points_shown) == (False, 0, 0)


def test_nothing_that_changed_is_said_plainly():
    _, health = told(ALL, X, X)
    assert health.sentence == f"Health stayed at {health.before}."
    move, _ = told(ALL, X, X | {"discount": 0.1})
    assert move.drivers == []


def test_a_move_that_would_give_a_confidential_part_away_has_no_sizes():
    changed = X | {"discount": 0.6}
    vendors, _ = told(ALL, X, changed)
    assert vendors.drivers[0].features == ["discount"]
    move, health = told(PARTNER, X, changed)
    assert move.sizes == "withheld"
    assert all(
        part.log_odds is part.odds_factor is part.points is part.points_shown is None for part in [*move.drivers, move.other_factors]
    )
    assert (move.model.changed, move.model.log_odds, move.model.points) == (False, None, None)
    assert health.definition_shown is health.cut_shown is None
    assert health.moved == health.after - health.before
    assert health.sentence.endswith("other factors. How much each did is not shown.")
    assert "discount" not in (move.model_dump_json() + health.model_dump_json())


def test_the_policy_decides_by_name_and_by_field():
    shown = View(Caller("p1"), "gold", parse_policy('[features]\ndiscount = ["gold"]\n'))
    move, _ = told(shown, X, X | {"discount": 0.6})
    assert move.drivers[0].features == ["discount"]
    assert move.drivers[0].sensitivity is None
    without_sizes = View(Caller("p1"), None, parse_policy('[fields.Driver]\npart = "vendor"\nvalue = "vendor"\n'))
    move, health = told(without_sizes)
    assert move.sizes == "withheld"
    assert {driver.value for driver in move.drivers} == {None}
    assert "(−" not in health.sentence


def test_what_another_partner_supplied_is_not_named():
    mine, _ = told(PARTNER, supplied={"open_tickets": {"p1"}})
    assert "open_tickets" in {name for driver in mine.drivers for name in driver.features}
    others, _ = told(PARTNER, supplied={"open_tickets": {"p2"}})
    assert "open_tickets" not in {name for driver in others.drivers for name in driver.features}
    assert "icket" not in others.model_dump_json()


def test_a_value_that_stayed_counts_differently_beside_others():
    move, _ = told(ALL, X, X | {"seat_use_28d": 0.1, "partner_tier": "silver", "open_tickets": 9.0})
    stayed = [driver for driver in move.drivers if driver.value == driver.earlier]
    assert all(driver.sentence.endswith(", which now counts differently") for driver in stayed)
