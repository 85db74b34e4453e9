import string

import pytest

from features.contracts import CONTRACT
from features.families import KEYS, VIEWS, build_catalogue
from tests.random_worlds import ATTRIBUTES, CARRYING, KINDS, RATIOS

EVERYTHING = {name: set(contract.columns) for name, contract in CONTRACT.items()}
EVERYTHING["accounts"] |= {f"attribute_{name}" for name in ATTRIBUTES}


def catalogue_with(columns=EVERYTHING, **options):
    declared = {"currency": "EUR", "events": KINDS, "carrying": CARRYING, "ratios": RATIOS, "attributes": ATTRIBUTES}
    return build_catalogue(columns, **(declared | options))


CATALOGUE = catalogue_with()


def test_there_are_at_least_sixty_features_of_seven_families():
    assert len(CATALOGUE) >= 60
    families = {"usage", "engagement", "support", "commercial", "outcomes", "partner", "peers"}
    assert {feature.family for feature in CATALOGUE} == families


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda feature: feature.name)
def test_features_are_declared_in_full(feature):
    assert feature.unit
    assert feature.meaning
    assert not feature.meaning.endswith(".")
    placeholders = [name for _, name, _, _ in string.Formatter().parse(feature.sentence) if name is not None]
    assert placeholders in (["moved"], ["value"])
    assert feature.source is None or (feature.source.days or 7) % 7 == feature.source.lag_days % 7 == 0
    assert (feature.source is None) == bool(feature.inputs)
    assert set(feature.inputs) <= set(CATALOGUE.names)
    assert feature.name not in KEYS
    assert feature.empty is None or feature.source is not None


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda feature: feature.name)
def test_windows_and_needs_name_what_the_contract_has(feature):
    if feature.source is None:
        return
    table = feature.source.table
    assert table in CONTRACT or table in VIEWS
    if table in CONTRACT:
        assert feature.needs <= set(CONTRACT[table].columns)


def test_prices_discounts_and_the_partners_book_are_for_the_vendor_alone():
    vendor = {feature.name for feature in CATALOGUE if feature.sensitivity == "vendor"}
    assert {"price_per_seat", "discount", "partner_book_accounts", "partner_retention_182d", "contacts_vendor_28d"} <= vendor
    confidential = ("price", "discount", "partner_book", "partner_retention", "contacts_vendor")
    assert {name for name in CATALOGUE.names if name.startswith(confidential)} == vendor
    supplied = {feature.name for feature in CATALOGUE if feature.sensitivity == "partner"}
    assert supplied == {f"contacts_partner_{days}d" for days in (28, 91, 182)}


def test_what_is_derived_from_confidential_features_is_confidential():
    for feature in CATALOGUE:
        inputs = [CATALOGUE.feature(name) for name in feature.inputs]
        assert feature.sensitivity != "shared" or all(source.sensitivity == "shared" for source in inputs), feature.name


FROM_TABLE = {
    "subscriptions": {"commercial", "usage", "partner", "peers"},
    "engagement": {"engagement"},
    "tickets": {"support", "peers"},
    "outcomes": {"outcomes"},
    "assignments": {"partner"},
    "partners": {"partner"},
}


@pytest.mark.parametrize("table", FROM_TABLE)
def test_a_missing_table_drops_its_features_and_no_others(table):
    left = catalogue_with({name: columns for name, columns in EVERYTHING.items() if name != table})
    dropped = [feature for feature in CATALOGUE if feature.name not in left]
    assert dropped
    assert {feature.family for feature in dropped} <= FROM_TABLE[table]
    views = {"subscriptions": {"subscription_changes"}, "assignments": {"assigned_partner", "partner_book"}}.get(table, set())
    for feature in dropped:
        made_of = {feature.source.table} if feature.source else {CATALOGUE.feature(name).name for name in feature.inputs}
        is_of_table = made_of & ({table} | views)
        lost_an_input = any(name not in left for name in feature.inputs)
        assert (
            is_of_table or lost_an_input or feature.name.startswith(("partner_type", "partner_tier", "partner_region", "partner_retention"))
        )
    assert not [feature for feature in left if feature.source and feature.source.table in {table} | views]


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, name) for table, contract in CONTRACT.items() for name, column in contract.columns.items() if not column.required],
)
def test_a_missing_column_drops_exactly_the_features_that_need_it(table, column):
    left = catalogue_with(EVERYTHING | {table: EVERYTHING[table] - {column}})
    needing = {feature.name for feature in CATALOGUE if feature.source and feature.source.table == table and column in feature.needs}
    needing |= {"accounts": {"created_at": {"customer_days"}}.get(column, {column}), "partners": {f"partner_{column}"}}.get(table, set())
    while more := {feature.name for feature in CATALOGUE if set(feature.inputs) & needing} - needing:
        needing |= more
    assert set(CATALOGUE.names) - set(left.names) == needing & set(CATALOGUE.names)


def test_the_order_is_fixed():
    assert catalogue_with().hash == CATALOGUE.hash
    assert catalogue_with({name: sorted(columns, reverse=True) for name, columns in reversed(EVERYTHING.items())}).hash == CATALOGUE.hash


def test_amounts_are_in_the_workspaces_currency():
    assert CATALOGUE.feature("arr").unit == "EUR"
    assert CATALOGUE.feature("price_per_seat").unit == "EUR per seat"


def test_names_that_words_of_the_workspace_share_are_told_apart_whatever_their_order():
    kinds = ("export data", "Export-Data", "login")
    names = {kind: [f.name for f in catalogue_with(events=order) if f.level == kind] for order in (kinds, kinds[::-1]) for kind in kinds}
    for order in (kinds, kinds[::-1]):
        assert {kind: [f.name for f in catalogue_with(events=order) if f.level == kind] for kind in kinds} == names
    assert names["login"] == ["event_login_28d", "event_login_91d", "amount_login_28d", "amount_login_91d"]
    assert names["export data"][0].startswith("event_export_data_28d_")
    assert names["export data"] != names["Export-Data"]


@pytest.mark.parametrize(
    "options",
    [{"events": ("types",)}, {"ratios": {"events": (("a",), ("b",))}}, {"attributes": {"id": "category"}}],
    ids=["an event called types", "a ratio called events", "an attribute called id"],
)
def test_words_of_the_workspace_never_take_the_name_of_another_feature(options):
    catalogue = catalogue_with(**options)
    usual = build_catalogue(EVERYTHING, currency="EUR")
    for feature in usual:
        assert catalogue.feature(feature.name).meaning == feature.meaning
    assert not KEYS & set(catalogue.names)
