from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.feature import Window
from features.reference import full_catalogue
from serving.permissions.assignments import Assignments, Term
from serving.permissions.caller import VENDOR, Caller
from serving.permissions.partner_facts import PartnerRow, read_partners, read_supplies, read_terms
from serving.permissions.policy import default_policy
from serving.permissions.supplies import ABOUT_PARTNERS, SUPPLIED, Supplies, Supply, fed_by
from serving.scores.sharing import View
from tests.serving_book import feature, stamps, write

CATALOGUE = full_catalogue()
CUTOFF, EARLIER = datetime(2025, 7, 1), datetime(2025, 4, 1)
supplies = st.builds(Supply, st.integers(0, 3), st.sampled_from([SUPPLIED, ABOUT_PARTNERS]), st.sampled_from("pqr"))


def as_seen_by(partner_id):
    return View(Caller(partner_id), None, default_policy())


def test_all_of_engagement_is_fed_by_what_partners_supply_and_nothing_of_use():
    fed = fed_by(CATALOGUE)
    assert set(fed[SUPPLIED]) == {feature.name for feature in CATALOGUE if feature.family == "engagement"}
    assert set(fed[ABOUT_PARTNERS]) == {"partner_type", "partner_tier", "partner_region", "partner_managed", "partner_days"}


def test_what_is_derived_from_a_fed_feature_is_fed():
    measured = feature("contacts_28d", "engagement", "contacts", "{value}")
    chain = [
        changed(measured, source=Window(table=SUPPLIED, days=28)),
        changed(measured, name="b", family="peers", source=None, inputs=("a",)),
        changed(measured, name="a", family="usage", source=None, inputs=("contacts_28d",)),
        changed(measured, name="c", family="usage", source=None, inputs=("other",)),
    ]
    assert fed_by(chain) == {SUPPLIED: ("a", "b", "contacts_28d"), ABOUT_PARTNERS: ()}


def changed(base, **values):
    return type(base)(**({name: getattr(base, name) for name in base.__dataclass_fields__} | values))


@given(st.lists(supplies, max_size=10))
def test_a_partner_sees_what_is_made_of_its_own_and_the_vendor_s_data_only(drawn):
    held = Supplies(drawn, CATALOGUE)
    fed = fed_by(CATALOGUE)
    for row in range(4):
        behind = held.of(row)
        for one in CATALOGUE:
            partners = {supply.partner_id for supply in drawn if supply.row == row and one.name in fed[supply.table]}
            assert set(behind.get(one.name, ())) == partners
            assert View(VENDOR, None, default_policy()).sees(one, supplied_by=behind.get(one.name, ()))
            seen = as_seen_by("p").sees(one, supplied_by=behind.get(one.name, ()))
            assert seen == (one.sensitivity != "vendor" and partners <= {"p"})


@given(st.lists(supplies, max_size=10))
def test_they_survive_their_file(drawn):
    held = Supplies(drawn, CATALOGUE)
    again = Supplies.from_columns(held.columns(), CATALOGUE)
    assert [again.of(row) for row in range(5)] == [held.of(row) for row in range(5)]


def test_what_a_partner_supplied_in_a_table_that_does_not_say_who_is_the_vendor_s():
    one = changed(feature("nps_in_crm", "engagement", "score", "{value}", sensitivity="partner"), source=Window(table="accounts"))
    assert not as_seen_by("p").sees(one)
    assert as_seen_by("p").sees(one, supplied_by={"p"})
    assert not as_seen_by("p").sees(one, supplied_by={"p", "q"})


def test_the_tables_say_who_supplied_what(tmp_path):
    when = stamps([EARLIER] * 5)
    rows = {"account_id": ["a", "a", "b", "gone", "b"], "source": ["p1", "Vendor", "vendor", "p2", None], "known_at": when}
    write(tmp_path / "engagement.parquet", rows)
    write(tmp_path / "partners.parquet", {"partner_id": ["p1"], "name": ["Northwind"], "tier": ["gold"]})
    ends = stamps([datetime(2025, 5, 1), None])
    terms = {"account_id": ["b", "b"], "partner_id": ["p1", "p2"], "valid_from": stamps([datetime(2024, 1, 1), datetime(2025, 5, 1)])}
    write(tmp_path / "assignments.parquet", terms | {"valid_to": ends})

    read = read_terms(tmp_path)
    assert read[1] == Term(account_id="b", partner_id="p2", valid_from=datetime(2025, 5, 1))
    assignments = Assignments.of(read, ["a", "b", "c"])
    found = read_supplies(tmp_path, ["a", "b", "c"], assignments, cutoff=CUTOFF, earlier_at=[EARLIER, EARLIER, None])
    assert sorted(found) == [Supply(0, SUPPLIED, "p1"), Supply(1, ABOUT_PARTNERS, "p1"), Supply(1, ABOUT_PARTNERS, "p2")]
    assert read_partners(tmp_path) == [PartnerRow(partner_id="p1", name="Northwind", tier="gold")]


@pytest.mark.parametrize("read", [read_terms, read_partners])
def test_without_partners_there_is_nothing_to_read(tmp_path, read):
    assert read(tmp_path) == []
    assert read_supplies(tmp_path, ["a"], Assignments.of([], ["a"]), cutoff=CUTOFF, earlier_at=[None]) == []
