import json

import pytest
from typer.testing import CliRunner

from serving.answers.disclosure import disclose
from serving.commands.cli import app
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policy import POLICY_NAME, default_policy, parse_policy
from serving.scores.batch import score_workspace
from serving.scores.scoring import load_score_set
from serving.scores.sharing import View, merge_parts
from tests.serving_book import CUTOFF, make_workspace, stamps, write


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = make_workspace(tmp_path_factory.mktemp("book"))
    names = {"p1": "Northwind Consulting", "p2": "Blue Harbour MSP"}
    write(workspace.tables / "partners.parquet", {"partner_id": list(names), "name": list(names.values()), "tier": ["gold", None]})
    when = stamps([CUTOFF])
    write(workspace.tables / "engagement.parquet", {"account_id": ["acc-0004"], "source": ["p2"], "occurred_at": when, "known_at": when})
    score_workspace(workspace)
    return workspace


@pytest.fixture(autouse=True)
def no_policy(workspace):
    yield
    (workspace.folder / POLICY_NAME).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def score_set(workspace):
    return load_score_set(workspace.scores)


def called(workspace, *words):
    ran = CliRunner().invoke(app, ["policy", *words, "--workspace", str(workspace.folder)])
    return ran.exit_code, " ".join(ran.output.split())


def told(workspace, *words):
    ran = CliRunner().invoke(app, ["policy", *words, "--json", "--workspace", str(workspace.folder)])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_init_writes_a_file_that_changes_nothing_and_is_not_overwritten_unasked(workspace):
    assert called(workspace, "init")[0] == 0
    path = workspace.folder / POLICY_NAME
    assert parse_policy(path.read_text()).fingerprint == default_policy().fingerprint
    path.write_text('[features]\ndiscount = "shared"\n')
    code, said = called(workspace, "init")
    assert code == 1
    assert "there is a policy already" in said
    assert called(workspace, "init", "--replace")[0] == 0
    assert "discount =" in path.read_text()


def test_check_says_where_the_policy_differs(workspace):
    assert told(workspace, "check")["differences"] == []
    text = '[actions]\nexport = ["gold"]\n[notes]\nvendor_notes = ["gold", "silver"]\n'
    (workspace.folder / POLICY_NAME).write_text(text)
    code, said = called(workspace, "check")
    assert code == 0
    assert "2 lines unlike the default" in said
    assert "tightens actions.export: partners of the tier gold, by default every partner" in said
    assert "loosens notes.vendor_notes: partners of the tiers gold, silver, by default the vendor" in said
    assert "no partner has the tier bronze, silver" in said
    assert told(workspace, "check")["fingerprint"] == parse_policy(text).fingerprint


def test_check_refuses_what_there_is_not(workspace):
    (workspace.folder / POLICY_NAME).write_text('[features]\ndiscont = "shared"\n')
    code, said = called(workspace, "check")
    assert code == 1
    assert "did you mean 'discount'?" in said


def test_show_tells_what_is_kept_back_and_why(workspace):
    (workspace.folder / POLICY_NAME).write_text('[features]\ndiscount = ["silver"]\n[families]\nsupport = "vendor"\n')
    code, said = called(workspace, "show", "--as", "partner:p1", "--account", "acc-0004")
    assert code == 0
    assert "partner:p1 (tier gold) and account acc-0004" in said
    assert "managed by p1" in said
    assert "discount: other tiers', [features] discount is for partners of the tier silver" in said
    assert "open_tickets: the vendor's, [families] support is for the vendor" in said
    assert "the vendor's, the catalogue says vendor" in said
    assert "last_nps, trainings_182d: another partner's, made from data of, or about, p2" in said
    assert "Driver.sensitivity: for the vendor" in said
    assert "sizes are" in said


def test_show_as_data(workspace, score_set):
    shown = told(workspace, "show", "--as", "partner:p1", "--account", "acc-0004")
    assert shown["visible"] and shown["partner"] == "p1" and shown["tier"] == "gold"
    assert {score["target"] for score in shown["scores"]} == set(score_set.packages)
    assert {one["name"] for one in shown["scores"][0]["hidden"]} >= {"discount", "price_per_seat", "trainings_182d"}
    assert "OtherFactors.features" in {one["field"] for one in shown["fields"]}
    whole = told(workspace, "show", "--as", "vendor", "--account", "acc-0004")
    assert all(score["hidden"] == [] and score["sizes"] == "exact" for score in whole["scores"])
    assert whole["fields"] == [] and whole["may_not"] == []


def test_show_says_when_the_account_does_not_exist_for_the_caller(workspace):
    code, said = called(workspace, "show", "--as", "partner:p2", "--account", "acc-0004")
    assert code == 0
    assert "does not exist for this caller" in said
    assert "told" not in said
    assert told(workspace, "show", "--as", "partner:p2", "--account", "acc-0004") == {
        "caller": "partner:p2",
        "account_id": "acc-0004",
        "visible": False,
    }


def test_show_asks_about_an_instant(workspace):
    words = ("show", "--as", "partner:p2", "--account", "acc-0001", "--at")
    assert told(workspace, *words, "2025-01-31")["visible"]
    assert not told(workspace, *words, "2025-02-01")["visible"]
    assert told(workspace, "show", "--as", "partner:p1", "--account", "acc-0001", "--at", "2025-02-01T00:00:00Z")["visible"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--as", "partner:p11", "--account", "acc-0004"), "did you mean 'p1'?"),
        (("--as", "p1", "--account", "acc-0004"), "this is no caller"),
        (("--as", "vendor", "--account", "acc-004"), "did you mean 'acc-"),
        (("--as", "vendor", "--account", "acc-0004", "--at", "soon"), "this is no instant"),
    ],
)
def test_show_refuses_what_there_is_not(workspace, words, message):
    code, said = called(workspace, "show", *words)
    assert code == 1
    assert message in said


def test_what_is_shown_is_what_the_rules_say(score_set):
    """Each feature is either told to the partner by name somewhere, or listed as hidden; doubts are there exactly if sizes are not."""
    view = View(Caller("p1"), None, default_policy(), CUTOFF)
    for row in range(0, len(score_set), 7):
        for score in disclose(score_set, row, view).scores:
            supplied = score_set.supplies.of(row)
            hidden = {one.name for one in score.hidden}
            seen = {one.name for one in score_set.features.values() if view.sees(one, supplied_by=supplied.get(one.name, ()))}
            assert hidden | seen == set(score_set.features) and not hidden & seen
            assert (score.doubts is None) == (score.sizes == "exact")
            moving = sum(one.moves for one in score.hidden)
            assert score.doubts != "too few" or 0 < moving < 3
    assert merge_parts((), View(VENDOR, None, default_policy())).sizes == "exact"


def test_what_is_shown_needs_an_instant(score_set):
    with pytest.raises(ValueError, match="instant"):
        disclose(score_set, 0, View(VENDOR, None, default_policy()))
