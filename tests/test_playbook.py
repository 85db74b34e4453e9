from fnmatch import fnmatchcase

import pytest

from features.errors import ConfigError
from features.reference import full_catalogue
from features.workspace import load_workspace
from serving.answers.playbook import CATEGORIES, load_playbook
from serving.answers.schema import Driver, OtherFactors, Score
from tests.serving_book import CONFIG


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    return load_workspace(tmp_path, {})


def driver(*features, effect="raises", sentence="It fell"):
    nothing = dict.fromkeys(("part", "odds_factor", "value", "earlier", "peers", "sensitivity"))
    return Driver(features=list(features), family="usage", sentence=sentence, effect=effect, unit="", actionable=True, **nothing)


def score(target, *drivers):
    other = OtherFactors.model_construct(part=None, odds_factor=None, features=None, confidential=False)
    return Score.model_construct(target=target, drivers=list(drivers), other_factors=other)


def test_every_pattern_of_the_default_names_a_feature(workspace):
    plays = load_playbook(workspace).plays
    names = full_catalogue().names
    patterns = {(play.name, pattern) for play in plays.values() for pattern in play.features}
    assert {(play, pattern) for play, pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)} == set()
    assert {play.category for play in plays.values()} == set(CATEGORIES)


def test_no_default_promises_an_effect(workspace):
    for play in load_playbook(workspace).plays.values():
        assert not {"saves", "prevents", "reduces", "increases", "improves", "guarantees"} & set(play.text.casefold().split())


def test_plays_follow_the_reasons_in_their_order_each_once(workspace):
    playbook = load_playbook(workspace)
    reasons = [driver("tickets_open", sentence="Tickets rose"), driver("nps_last"), driver("tickets_91d"), driver("seats")]
    found = playbook.suggest([score("churn", *reasons)], side="vendor")
    assert [suggestion.play.name for suggestion in found] == ["clear-tickets", "answer-survey"]
    assert found[0].because == "Tickets rose"


def test_a_reason_that_lowers_the_risk_needs_no_play(workspace):
    assert load_playbook(workspace).suggest([score("churn", driver("tickets_open", effect="lowers"))], side="vendor") == ()


def test_only_the_feature_in_the_sentence_counts(workspace):
    assert load_playbook(workspace).suggest([score("churn", driver("seats", "tickets_open"))], side="vendor") == ()


def test_a_workspace_replaces_adds_and_takes_away(workspace):
    (workspace.folder / "plays.toml").write_text("""
off = ["answer-survey"]
[plays.clear-tickets]
category = "Experience"
title = "Call the support lead"
text = "Ask."
features = ["tickets_*"]
who = "vendor"
[plays.send-flowers]
category = "Experience"
title = "Send flowers"
text = "An option."
features = ["nps_last"]
""")
    playbook = load_playbook(workspace)
    scores = [score("churn", driver("tickets_open"), driver("nps_last"))]
    assert [found.play.title for found in playbook.suggest(scores, side="vendor")] == ["Call the support lead", "Send flowers"]
    assert [found.play.title for found in playbook.suggest(scores, side="partner")] == ["Send flowers"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plays = [", "is not TOML"),
        ('[plays.x]\ncategory = "Luck"', "plays.x.category is not known"),
        ('[plays.x]\ncategory = "Growth"\ntitle = "x"', "plays.x.text is missing"),
        ('[plays.x]\ncategory = "Growth"\ntitle = "x"\ntext = "x"\nfeatures = ["a"]\ncolour = 1', "plays.x.colour is not a known key"),
        ("nothing = 1", "nothing is not a known key"),
    ],
)
def test_mistakes_are_named(workspace, text, said):
    (workspace.folder / "plays.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_playbook(workspace)
