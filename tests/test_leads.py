"""The lead that is kept is the first driver that the list of accounts shows."""

from datetime import UTC, datetime

import pytest

from serving.answers.account_answers import account_answer
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import default_policy
from serving.scores.account_json import tier_of
from serving.scores.batch import score_workspace
from serving.scores.leads import leads_of, read_leads, write_leads
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View
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
