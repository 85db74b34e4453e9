"""A what-if shows what the account page shows, and lets nobody change what it does not."""

import math

import pandas as pd
import pytest

from serving.answers.whatif import ImpossibleError
from serving.answers.whatif_answers import adjustable, what_if_answer
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy, parse_policy
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
from tests.changes_book import make_scored_thrice
from tests.serving_book import CATALOGUE, packages

ALL = View(VENDOR, None, default_policy())
PARTNER = View(Caller("p1"), None, default_policy())


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    return load_score_set(make_scored_thrice(tmp_path_factory.mktemp("whatif")).scores)


def test_the_models_are_asked_about_the_changed_account(score_set):
    row = score_set.index["acc-0004"]
    answer = what_if_answer(score_set, row, {"open_tickets": 5.0, "trainings_182d": 0.0}, ALL)
    rows = {name: [column[row]] for name, column in score_set.values.items()}
    frame = pd.DataFrame(rows).assign(open_tickets=5.0, trainings_182d=0.0)
    for target, package in score_set.packages.items():
        assert answer.after.probabilities[target] == package.score_rows(frame).probability[0]
        assert answer.before.probabilities[target] == score_set.accounts[f"{target}_probability"][row]
    assert answer.before.health == score_set.accounts["health"][row]
    assert [(moved.feature, moved.value, moved.reason) for moved in answer.asked] == [
        ("open_tickets", 5.0, None),
        ("trainings_182d", 0.0, None),
    ]
    assert "not a promise" in answer.note
    for move in answer.moves:
        parts = [*move.drivers, move.other_factors, move.model]
        assert math.fsum(part.log_odds for part in parts) == pytest.approx(move.log_odds, abs=1e-9)
        assert not move.model.changed
    assert answer.health.moved == answer.after.health - answer.before.health
    assert score_set.accounts["health"][row] == answer.before.health  # nothing is stored


def test_without_a_change_nothing_moves(score_set):
    row = score_set.index["acc-0004"]
    same = float(score_set.values["open_tickets"][row])
    answer = what_if_answer(score_set, row, {"open_tickets": same}, PARTNER)
    assert answer.health.exact == 0
    assert answer.before.probabilities == answer.after.probabilities
    assert answer.moved_along == []


@pytest.mark.parametrize(
    ("view", "asked", "message"),
    [
        (ALL, {"seats": 5.0}, "nobody can act on"),
        (ALL, {"open_ticket": 5.0}, "there is no such feature that you may change; did you mean 'open_tickets'?"),
        (PARTNER, {"discount": 0.1}, "there is no such feature that you may change"),
        (PARTNER, {"price_per_seat": 1.0}, "there is no such feature that you may change"),
        (PARTNER, {"nonsense": 1.0}, "there is no such feature that you may change"),
        (ALL, {"open_tickets": -1.0}, "must be a whole number from 0 to"),
        (ALL, {"seat_use_28d": 1.5}, "must be from 0"),
    ],
)
def test_what_may_not_be_changed_is_refused(score_set, view, asked, message):
    with pytest.raises(ImpossibleError) as caught:
        what_if_answer(score_set, score_set.index["acc-0004"], asked, view)
    (problem,) = caught.value.problems.values()
    assert problem.startswith(message)


def test_a_partner_is_told_what_is_usual_not_the_extremes(score_set):
    row = score_set.index["acc-0004"]
    offered = {view.caller: {one.feature: one for one in adjustable(score_set, row, view)} for view in (ALL, PARTNER)}
    quantiles = packages()["churn"].reference.quantiles["active_users_91d"]
    vendors, partners = (offered[view.caller]["active_users_91d"] for view in (ALL, PARTNER))
    assert (vendors.lowest, vendors.highest) == (quantiles[0], quantiles[-1])
    assert (partners.lowest, partners.highest) == (math.ceil(quantiles[1]), math.floor(quantiles[-2]))
    assert set(offered[ALL.caller]) == {feature.name for feature in CATALOGUE if feature.actionable}
    hidden = View(Caller("p1"), None, parse_policy('[features]\nopen_tickets = "vendor"\n'))
    assert "open_tickets" not in {one.feature for one in adjustable(score_set, row, hidden)}
    with pytest.raises(ImpossibleError, match="there is no such feature"):
        what_if_answer(score_set, row, {"open_tickets": 1.0}, hidden)


def test_nothing_confidential_is_in_a_partners_answer(score_set):
    for account_id in ("acc-0004", "acc-0005", "acc-0006"):
        text = what_if_answer(score_set, score_set.index[account_id], {"open_tickets": 4.0}, PARTNER).model_dump_json()
        for feature in CATALOGUE:
            if feature.sensitivity == "vendor":
                assert feature.name not in text
                assert feature.sentence.partition(" {")[0] not in text.lower()
