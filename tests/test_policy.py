import dataclasses
import logging
import re
import tomllib
import types
import typing
from typing import get_args, get_origin

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from features.catalogue import Catalogue
from features.errors import ConfigError
from features.feature import Family
from features.workspace import load_workspace
from serving.app import ROUTERS
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.policies import SETTLED_SECONDS, LivePolicy
from serving.permissions.policy import DEFAULT_FILE, POLICY_NAME, admits, default_policy, load_policy, parse_policy
from serving.permissions.policy_lines import differences, policy_template
from serving.scores.sharing import View
from tests.serving_book import CATALOGUE, CONFIG, feature

TIERS = ("gold", "silver", "bronze")
DISCOUNT = feature("discount", "commercial", "share", "{value}", sensitivity="vendor")
audiences = st.sampled_from(["shared", "vendor"]) | st.lists(st.sampled_from(TIERS), min_size=1, unique=True)


def written(audience):
    return f'"{audience}"' if isinstance(audience, str) else str(audience).replace("'", '"')


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "renewcast.toml").write_text(CONFIG)
    return load_workspace(tmp_path, {})


def as_partner(policy, tier=None):
    return View(Caller("p1"), tier, policy)


# what the file says


@given(audiences, st.sampled_from([*TIERS, None]))
def test_a_feature_is_seen_by_those_that_its_line_names_and_by_the_vendor(audience, tier):
    policy = parse_policy(f"[features]\ndiscount = {written(audience)}")
    assert as_partner(policy, tier).sees(DISCOUNT) == (audience == "shared" or (audience != "vendor" and tier in audience))
    assert View(VENDOR, None, policy).sees(DISCOUNT)


@given(audiences, audiences)
def test_a_feature_s_own_line_goes_before_its_family_s_and_that_before_the_catalogue(own, family):
    by_family = parse_policy(f"[families]\ncommercial = {written(family)}")
    by_both = parse_policy(f"[families]\ncommercial = {written(family)}\n[features]\ndiscount = {written(own)}")
    for tier in (*TIERS, None):
        assert as_partner(by_family, tier).sees(DISCOUNT) == admits(by_family.families["commercial"], tier)
        assert as_partner(by_both, tier).sees(DISCOUNT) == admits(by_both.features["discount"], tier)
        assert not as_partner(default_policy(), tier).sees(DISCOUNT)


def test_no_line_shows_what_another_partner_supplied():
    policy = parse_policy('[features]\ntrainings = "shared"')
    one = feature("trainings", "engagement", "trainings", "{value}", sensitivity="partner")
    assert as_partner(policy).sees(one, supplied_by={"p1"})
    assert not as_partner(policy).sees(one, supplied_by={"p1", "p2"})


@given(st.sampled_from(["csm", "arr", "partner_name"]), audiences, st.sampled_from([*TIERS, None]))
def test_a_field_is_null_for_those_that_its_line_does_not_name(field, audience, tier):
    policy = parse_policy(f"[fields.AccountSummary]\n{field} = {written(audience)}")
    values = {"name": "Aster Foods", "csm": 1, "arr": 2, "partner_name": 3}
    for record in ("AccountSummary", "Account"):  # what is hidden on the list is hidden on the account
        shown = as_partner(policy, tier).share(record, values)
        assert shown == values | ({} if admits(policy.fields[record][field], tier) else {field: None})
        assert View(VENDOR, None, policy).share(record, values) == values


@given(audiences, audiences)
def test_a_line_for_a_field_everywhere_gives_way_to_a_record_s_own(anywhere, own):
    policy = parse_policy(f"[everywhere]\narr = {written(anywhere)}\n[fields.Totals]\narr = {written(own)}")
    of_field = {record: lines["arr"] for record, lines in policy.fields.items() if lines.get("arr", "always") != "always"}
    expected = parse_policy(f"[features]\nwide = {written(anywhere)}\nnarrow = {written(own)}").features
    assert of_field == {record: expected["narrow" if record == "Totals" else "wide"] for record in of_field}
    assert {"AccountSummary", "Account", "Totals"} <= set(of_field)


def test_actions_and_notes_are_what_their_lines_say():
    policy = parse_policy('[actions]\nexport = ["gold"]\nwhat_if = "vendor"\n[notes]\nvendor_notes = "shared"\nvendor_plays = ["silver"]')
    gold, silver, vendor = as_partner(policy, "gold"), as_partner(policy, "silver"), View(VENDOR, None, policy)
    assert [view.may("export") for view in (gold, silver, vendor)] == [True, False, True]
    assert [view.may("what_if") for view in (gold, silver, vendor)] == [False, False, True]
    assert [view.shows_note("vendor_plays", author=VENDOR) for view in (gold, silver, vendor)] == [False, True, True]
    assert gold.shows_note("vendor_notes", author=VENDOR)
    assert gold.shows_note("vendor_notes", author=Caller("p1"))
    assert not gold.shows_note("vendor_notes", author=Caller("p2"))


def test_numbers_can_be_made_stricter():
    policy = parse_policy("[numbers]\nnamed_drivers = 3\nfewest_merged = 5\ndominant_share = 0.5\npeers_needed = 30")
    assert dataclasses.asdict(policy.numbers) == {"named_drivers": 3, "fewest_merged": 5, "dominant_share": 0.5, "peers_needed": 30}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[numbers]\npeers_needed = 9", "at least 10"),
        ("[numbers]\nfewest_merged = 2", "at least 3"),
        ("[numbers]\ndominant_share = 0.95", "0.4 to 0.9"),
        ("[number]\npeers_needed = 12", "did you mean 'numbers'?"),
        ("[numbers]\npeers = 12", "peers_needed"),
        ('[actions]\nwhatif = "shared"', "did you mean 'what_if'?"),
        ('[notes]\nvendor_play = "shared"', "did you mean 'vendor_plays'?"),
        ('[families]\ncomercial = "vendor"', "did you mean 'commercial'?"),
        ('[features]\ndiscont = ["gold"]', "did you mean 'discount'?"),
        ('[fields.Acount]\ncsm = "vendor"', "did you mean 'Account'?"),
        ('[fields.Account]\ncms = "vendor"', "did you mean 'csm'?"),
        ('[everywhere]\nar = "vendor"', "did you mean 'arr'?"),
        ('[everywhere]\nraw_score = "vendor"', "is not known here"),
        ('[fields.Account]\nextends = "Driver"', "extends"),
        ('[features]\ndiscount = ["golden"]', "did you mean 'gold'?"),
        ('[features]\ndiscount = "partner"', '"shared", "vendor", or a list of tiers'),
        ('[features]\ndiscount = "always"', '"shared", "vendor", or a list of tiers'),
        ("[features]\ndiscount = []", '"shared", "vendor", or a list of tiers'),
        ("[features]\ndiscount = [1]", '"shared", "vendor", or a list of tiers'),
        ('[fields.Account]\nhealth = "vendor"', "cannot be kept back"),
        ('[accounts]\nother_partners = "shared"', "is not a known key"),
        ("[features", "is not TOML"),
        ('[partners]\ntiers = "gold"', "is not a list of texts"),
    ],
)
def test_what_there_is_not_is_refused_with_the_file_and_what_was_meant(workspace, text, message):
    path = workspace.folder / POLICY_NAME
    path.write_text(text)
    workspace.snapshots.mkdir(parents=True)
    (workspace.snapshots / "catalogue.json").write_text(CATALOGUE.to_json())
    with pytest.raises(ConfigError) as refused:
        load_policy(workspace)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_tiers_are_those_that_the_file_names():
    policy = parse_policy('[partners]\ntiers = ["platinum"]\n[features]\ndiscount = ["platinum"]')
    assert as_partner(policy, "platinum").sees(DISCOUNT)
    with pytest.raises(ConfigError, match="names a tier that there is not"):
        parse_policy('[partners]\ntiers = ["platinum"]\n[features]\ndiscount = ["gold"]')


def test_policies_that_say_the_same_have_one_fingerprint():
    plain = default_policy().fingerprint
    assert parse_policy("").fingerprint == parse_policy("[numbers]\npeers_needed = 10").fingerprint == plain
    assert len({plain, *(parse_policy(text).fingerprint for text in ("[numbers]\npeers_needed = 11", '[families]\nusage = "vendor"'))}) == 3
    first = parse_policy('[features]\ndiscount = ["gold", "silver"]')
    assert first.fingerprint == parse_policy('[features]\ndiscount = ["silver", "gold"]').fingerprint


def test_a_workspace_without_a_file_has_the_default(workspace):
    assert load_policy(workspace) is default_policy()
    (workspace.folder / POLICY_NAME).write_text(DEFAULT_FILE.read_text().replace('"always"', '"shared"'))
    with pytest.raises(ConfigError, match="cannot be kept back"):
        load_policy(workspace)


def test_every_family_can_be_named():
    text = "[families]\n" + "".join(f'{family} = "vendor"\n' for family in get_args(Family))
    assert not any(as_partner(parse_policy(text)).sees(one) for one in CATALOGUE)


# every answer has its lines


def test_every_field_of_every_answer_has_a_line():
    records = {name: set(model.model_fields) for name, model in answered().items()}
    named = {name: set(lines) for name, lines in default_policy().fields.items() if name in records}
    assert named == records


def test_a_field_can_be_kept_back_only_if_it_may_be_null():
    lines = default_policy().fields
    fields = [(record, name, field.annotation) for record, model in answered().items() for name, field in model.model_fields.items()]
    assert [f"{record}.{name}" for record, name, kind in fields if lines[record][name] != "always" and not nullable(kind)] == []


def test_no_field_is_called_like_the_word_that_takes_over_lines():
    assert all("extends" not in lines for lines in default_policy().fields.values())


OF_THE_SERVICE = {"/livez", "/readyz", "/metrics"}
"""What says how the service is, and nothing about any account."""


FILES = {"/v1/export/accounts", "/v1/models/{target}/card"}
"""What is answered as a file: the first is made of summaries of accounts, the second is the vendor's; `test_no_leaks` asks for both."""


def answered() -> dict[str, type[BaseModel]]:
    """Return all models that answers of the API are made of, except problems."""
    found: dict[str, type[BaseModel]] = {}
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path not in OF_THE_SERVICE:
                collect(route.response_model, found)
    return {name: model for name, model in found.items() if name not in {"Problem", "FieldProblem"}}


def collect(annotation, found):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.__name__ not in found:
        found[annotation.__name__] = annotation
        for field in annotation.model_fields.values():
            collect(field.annotation, found)
    for inner in get_args(annotation):
        collect(inner, found)


def nullable(annotation) -> bool:
    if annotation is type(None):
        return True
    return get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated) and any(map(nullable, get_args(annotation)))


def test_every_answer_of_the_api_is_a_record():
    plain = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema and not isinstance(route.response_model, type)
    }
    assert plain <= OF_THE_SERVICE | FILES


# while the service runs


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


def edit(workspace, text):
    path = workspace.folder / POLICY_NAME
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def settle(live, clock):
    live.current()
    clock.seconds += SETTLED_SECONDS


def test_an_edited_policy_is_taken_up_without_a_restart_when_the_file_has_settled(workspace, clock):
    live = LivePolicy(workspace, clock=clock)
    assert live.current() is default_policy()
    edit(workspace, "[numbers]\npeers_needed = 20")
    assert live.current() is default_policy()
    clock.seconds += SETTLED_SECONDS / 2
    edit(workspace, "[numbers]\npeers_needed = 200")  # still being written
    assert live.current() is default_policy()
    clock.seconds += SETTLED_SECONDS / 2
    assert live.current() is default_policy()
    clock.seconds += SETTLED_SECONDS / 2
    assert live.current().numbers.peers_needed == 200
    edit(workspace, None)
    settle(live, clock)
    assert live.current() is default_policy()
    assert live.fault is None


def test_a_broken_policy_is_refused_and_the_last_good_one_stays(workspace, clock, caplog):
    edit(workspace, "[numbers]\npeers_needed = 20")
    live = LivePolicy(workspace, clock=clock)
    edit(workspace, "[numbers]\npeers_needed = 2")
    settle(live, clock)
    with caplog.at_level(logging.ERROR, "renewcast.serving"):
        assert live.current().numbers.peers_needed == 20
        assert live.current().numbers.peers_needed == 20
    assert len(caplog.records) == 1
    assert "at least 10" in live.fault
    edit(workspace, "[numbers]\npeers_needed = 22")
    settle(live, clock)
    assert live.current().numbers.peers_needed == 22
    assert live.fault is None


def test_a_worker_that_starts_while_the_policy_is_broken_starts_with_the_last_good_one(workspace, clock):
    edit(workspace, "[numbers]\npeers_needed = 20")
    LivePolicy(workspace, clock=clock)
    edit(workspace, "[numbers]\npeers_needed = 2")
    again = LivePolicy(workspace, clock=clock)
    assert again.current().numbers.peers_needed == 20
    assert "at least 10" in again.fault


def test_the_last_good_one_is_good_even_if_a_feature_that_it_names_is_gone(workspace, clock):
    workspace.snapshots.mkdir(parents=True)
    (workspace.snapshots / "catalogue.json").write_text(CATALOGUE.to_json())
    edit(workspace, '[features]\nopen_tickets = "vendor"')
    LivePolicy(workspace, clock=clock)
    fewer = Catalogue(tuple(one for one in CATALOGUE if one.name != "open_tickets"))
    (workspace.snapshots / "catalogue.json").write_text(fewer.to_json())
    again = LivePolicy(workspace, clock=clock)
    assert again.current().features == {"open_tickets": "vendor"}
    assert "open_tickets" in again.fault


def test_a_service_whose_policy_was_never_good_does_not_start(workspace):
    edit(workspace, "[numbers]\npeers_needed = 2")
    with pytest.raises(ConfigError, match="at least 10"):
        LivePolicy(workspace)


def test_a_policy_that_cannot_be_kept_holds_all_the_same(workspace, clock, caplog):
    edit(workspace, "[numbers]\npeers_needed = 20")
    workspace.state.parent.mkdir(exist_ok=True)
    workspace.state.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "renewcast.serving"):
        assert LivePolicy(workspace, clock=clock).current().numbers.peers_needed == 20
    assert "cannot be kept" in caplog.text


# the file that a workspace starts from


def test_the_template_changes_nothing_and_shows_all_there_is_to_change():
    template = policy_template()
    assert parse_policy(template).fingerprint == default_policy().fingerprint
    examples = re.compile(r'^# (?:support|discount|arr) = (?:"vendor"|\["gold"\])\n(?=\n)', re.MULTILINE)
    every_line = re.sub(r"^# (?=\w+ = )", "", examples.sub("", template), flags=re.MULTILINE)
    assert parse_policy(every_line).fingerprint == default_policy().fingerprint
    assert '"always"\n' not in every_line
    default, own = (tomllib.loads(text)["fields"] for text in (DEFAULT_FILE.read_text(), every_line))
    kinds = {record: {name: one for name, one in lines.items() if name != "extends"} for record, lines in default.items()}
    changeable = {record: {name for name, one in lines.items() if one != "always"} for record, lines in kinds.items()}
    assert {record: set(lines) for record, lines in own.items()} == {record: names for record, names in changeable.items() if names}


def test_the_examples_of_the_template_can_be_used():
    assert set(parse_policy(re.sub(r"^# (?=discount|support|arr)", "", policy_template(), flags=re.MULTILINE)).features) == {"discount"}


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("", {}),
        ("[numbers]\npeers_needed = 10", {}),
        ("[numbers]\npeers_needed = 20\nnamed_drivers = 3", {"numbers.peers_needed": "tightens", "numbers.named_drivers": "changes"}),
        ('[actions]\nexport = ["gold"]', {"actions.export": "tightens"}),
        ('[notes]\nvendor_notes = ["gold"]', {"notes.vendor_notes": "loosens"}),
        ('[features]\ndiscount = ["gold"]', {"features.discount": "changes"}),
        (
            '[fields.Driver]\nsensitivity = "shared"\npeers = "vendor"',
            {"fields.Driver.sensitivity": "loosens", "fields.Driver.peers": "tightens"},
        ),
        ('[partners]\ntiers = ["a"]', {"partners.tiers": "changes"}),
    ],
)
def test_differences_from_the_default_are_told_line_by_line(text, effects):
    assert {one.line: one.effect for one in differences(parse_policy(text))} == effects
