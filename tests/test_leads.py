"""The lead that is kept is the first driver that the list of accounts shows."""

from datetime import UTC, datetime

import numpy as np
import pytest

from serving.answers.account_answers import account_answer
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.account_json import tier_of
from serving.scores.batch import score_workspace
from serving.scores.explained import book_evidence, lead_of, scored_rows, teller_of
from serving.scores.leads import leads_of, read_leads, write_leads
from serving.scores.scoring import load_score_set
from serving.scores.sharing import NOTHING_SUPPLIED, View
from tests.serving_book import make_workspace


@pytest.fixture(scope="module")
def score_set(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("leads"))
    score_workspace(workspace)
    return load_score_set(workspace.scores)


def test_both_sides_leads_are_what_they_are_shown(score_set, tmp_path):
    write_leads(leads_of(score_set, default_policy()), tmp_path)
    lines, now = read_leads(tmp_path).to_pylist(), datetime.now(UTC).replace(tzinfo=None)
    assert [line["account_id"] for line in lines] == score_set.accounts["account_id"].tolist()
    for row, line in list(enumerate(lines))[::7]:
        assert (line["health"], line["band"]) == (score_set.accounts["health"][row], score_set.accounts["band"][row])
        assert line["partner"] == score_set.assignments.partner_of(row, now)
        views = {"vendors_lead": View(VENDOR, None, default_policy(), now)}
        if line["partner"] is not None:
            views["partners_lead"] = View(Caller(line["partner"]), tier_of(score_set, line["partner"]), default_policy(), now)
        for side, view in views.items():
            shown = account_answer(score_set, row, view)
            assert shown.first_driver.model_dump() == {name: line[side][name] for name in ("sentence", "effect")}
            churn = next(score for score in shown.scores if score.target == "churn")
            assert line[side]["features"] in [driver.features for driver in churn.drivers]
    assert all(line["partners_lead"] is None for line in lines if line["partner"] is None)


def test_without_the_file_there_are_none(tmp_path):
    assert read_leads(tmp_path) is None


def test_the_lead_is_chosen_for_many_as_for_one(score_set):
    at = score_set.manifest.scored_at
    rows = list(range(len(score_set)))
    for view in (View(VENDOR, None, default_policy(), at), View(Caller("p1"), None, default_policy(), at)):
        teller = teller_of(score_set, "churn", view)
        for supplied in (NOTHING_SUPPLIED, {"active_users_28d": ("p2",), "trainings_182d": ("p2",)}):
            told = teller.tell(
                scored_rows(score_set, "churn", rows), book_evidence(score_set, rows, peers_needed=1), [supplied] * len(rows)
            )
            leads = [(lead_of(score.named), score.named) for score in told]
            expected = [None if lead is None else named[lead].main.name for lead, named in leads]
            parts = score_set.parts["churn"][:, :-1]
            found = teller.groups.leads(parts, teller.sees(supplied), most=view.policy.numbers.named_drivers)
            mains = [
                None if driver < 0 else teller.groups.names[teller.groups.largest_first(driver, parts[row])[0]]
                for row, driver in enumerate(found.tolist())
            ]
            assert mains == expected


def test_a_row_without_a_visible_driver_has_no_lead(score_set):
    groups = teller_of(score_set, "churn", View(VENDOR, None, default_policy(), None)).groups
    parts = score_set.parts["churn"][:20, :-1]
    assert (groups.leads(parts, [False] * len(groups), most=5) == -1).all()
    assert (groups.leads(np.zeros_like(parts), [True] * len(groups), most=5) == -1).all()
