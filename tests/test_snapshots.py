import math
import random
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from features import peers, slices
from features.catalogue import Catalogue
from features.config import ChangeTarget, Targets
from features.engine import Engine
from features.labels import eligible_rows
from features.snapshots import build_matrix
from tests.brute_force import all_twins, differences, feature_values
from tests.random_worlds import (
    ATTRIBUTES,
    CARRYING,
    CUTS,
    FULL,
    FULL_OWN,
    FULL_SHARED,
    ORIGIN,
    RATIOS,
    as_spine,
    cases,
    catalogue_of,
    columns_of,
    known_tables,
    make_world,
    other_future,
    recipes,
)

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
NAMES = {"login": "login", "Export data": "export_data", "ünï/code": "ünï_code", "41": "41"}
MINIMUM_PEERS = 3
RANDOM = settings(
    max_examples=2, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)  # a world takes a second: failures print a short recipe instead of being shrunk


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(peers, "MINIMUM_PEERS", MINIMUM_PEERS)


def twins_of(world):
    columns = {table: columns_of(world, table) for table in world}
    return all_twins(columns, event_names=NAMES, carrying=CARRYING, ratios=RATIOS, attributes=ATTRIBUTES)


def matrix_of(engine, world, pairs):
    return build_matrix(known_tables(engine, world, pairs), as_spine(pairs), catalogue_of(world))


def test_every_feature_has_a_twin_and_every_twin_a_feature():
    world = make_world(
        0, dict.fromkeys(("accounts", "telemetry", "subscriptions", "engagement", "tickets", "partners", "assignments", "outcomes"), 3)
    )
    catalogue = catalogue_of(world)
    assert {feature.name for feature in catalogue if feature.family != "peers"} == set(twins_of(world))


@pytest.mark.parametrize("cut", CUTS)
@RANDOM
@example(case=FULL_SHARED)
@example(case=FULL_OWN)
@given(case=cases())
def test_features_are_those_of_their_twins(case, cut, engine, small_groups):
    recipe, pairs = case
    world = recipe.world()
    slices.ROWS_WORTH_A_QUERY, before = CUTS[cut], slices.ROWS_WORTH_A_QUERY
    try:
        matrix = matrix_of(engine, world, pairs)
    finally:
        slices.ROWS_WORTH_A_QUERY = before
    names = matrix.column_names[2:]
    assert not differences(matrix, feature_values(world, pairs, names, twins_of(world), minimum_peers=MINIMUM_PEERS), pairs)


@RANDOM
@example(recipe=FULL, cutoff=ORIGIN - timedelta(days=91, hours=11), future=1)
@given(recipe=recipes(), cutoff=st.sampled_from((ORIGIN, ORIGIN + timedelta(days=31, hours=13))), future=st.integers(0, 1000))
def test_nothing_that_became_known_after_the_cutoff_changes_a_feature_or_who_is_a_customer(recipe, cutoff, future, engine, small_groups):
    world = recipe.world()
    other = other_future(world, cutoff, random.Random(future))
    pairs = [(row["account_id"], cutoff) for row in world["accounts"]]
    matrix = matrix_of(engine, world, pairs)
    assert matrix.equals(matrix_of(engine, other, pairs))
    for kind in ("usage", "subscription") if "subscriptions" in world else ("usage",):
        change = ChangeTarget(measure="events")
        wanted = Targets(kind=kind, expansion=change, contraction=change)
        here, there = (eligible_rows(known_tables(engine, tables, pairs), wanted, n_rows=len(pairs)) for tables in (world, other))
        assert here.tolist() == there.tolist()


# Known answers


NOW = datetime(2024, 6, 1)


def days_ago(n):
    return NOW - timedelta(days=n)


def features_of(engine, *names, **tables):
    """Return the named features of account a now, as a tuple."""
    world, pairs = {"accounts": [{"account_id": "a"}], "telemetry": []} | tables, [("a", NOW)]
    catalogue = catalogue_of(world)
    inputs = {name for feature in catalogue if feature.name in names for name in feature.inputs}
    catalogue = Catalogue(tuple(feature for feature in catalogue if feature.name in inputs | set(names)))
    row = build_matrix(known_tables(engine, world, pairs), as_spine(pairs), catalogue).to_pylist()[0]
    return tuple(row[name] for name in names)


def event(at, **columns):
    return {"account_id": "a", "occurred_at": at, "event": "login", "events": 1.0} | columns


def term(start, end, **columns):
    return {
        "account_id": "a",
        "subscription_id": "s",
        "start_date": days_ago(start),
        "end_date": end and days_ago(end),
        "arr": 100.0,
    } | columns


def test_windows_are_open_on_the_left_and_closed_on_the_right(engine):
    tick = timedelta(microseconds=1)
    telemetry = [event(NOW + tick), event(NOW), event(days_ago(7) + tick), event(days_ago(7)), event(days_ago(28))]
    assert features_of(engine, "events_7d", "events_28d", "events_91d", "days_since_last_event", telemetry=telemetry) == (2, 3, 4, 0)


def test_an_account_of_which_nothing_is_known_yet(engine):
    known_tables = {"telemetry": [event(NOW + timedelta(days=1))], "subscriptions": [term(-1, -365)], "tickets": []}
    zero = ("events_28d", "active_days_28d", "arr", "tickets_open", "event_login_28d", "terms_so_far")
    missing = ("days_since_last_event", "events_trend_28d", "weekly_swing_28d", "days_to_renewal", "days_since_change")
    assert features_of(engine, *zero, *missing, **known_tables) == (0,) * len(zero) + (None,) * len(missing)


def test_even_use_does_not_swing_whatever_its_size(engine):
    daily = [event(days_ago(n), events=1e9 + 1 / 3) for n in range(28)]
    assert features_of(engine, "weekly_swing_28d", telemetry=daily) == pytest.approx((0,), abs=1e-6)


def test_a_renewal_at_the_same_size_is_no_change_in_whatever_order_sizes_add_up(engine):
    sizes = (0.1, 0.2, 0.3, 0.7, 1e-3)
    old = [term(400, 35, subscription_id=f"s{i}", arr=size) for i, size in enumerate(sizes)]
    new = [term(35, -300, subscription_id=f"s{i}", arr=size) for i, size in reversed([*enumerate(sizes)])]
    names = ("expansions_so_far", "contractions_so_far", "days_since_change")
    assert features_of(engine, *names, subscriptions=[*old, *new]) == (0, 0, 400)


def test_a_term_ends_when_it_really_ended_and_never_later_than_planned(engine):
    assert features_of(engine, "arr", subscriptions=[term(300, 100, ended_at=days_ago(-5))]) == (0,)
    assert features_of(engine, "arr_before_91d", subscriptions=[term(300, 100, ended_at=days_ago(50))]) == (0,)
    assert features_of(engine, "arr", subscriptions=[term(300, -100, ended_at=days_ago(0))]) == (0,)
    assert features_of(engine, "arr", subscriptions=[term(300, -100, ended_at=days_ago(-1))]) == (100,)


def answer(when, value):
    return {"account_id": "a", "occurred_at": when, "channel": "survey", "kind": "nps", "value": float(value)}


@pytest.mark.parametrize(
    "values",
    [
        (9, 2, 7),
        (10, 9, 100),
        (-2, -1, 0, 3),
        (-0.5, 0.25, -0.25),
        (4.1, 4.05, 4.25),
        (-1e15, 1e15, 5e-324),
        (1 / 3, 1 / 3 + 2**-52, 1),
        (8.1, math.nextafter(8.1, 9)),
    ],
)
def test_of_several_answers_at_once_the_lowest_counts_in_whatever_order_they_come(values, engine):
    earlier = answer(days_ago(3) - timedelta(microseconds=1), min(values) - 1)
    answers = [answer(days_ago(3), value) for value in values]
    for contacts in ([earlier, *answers], [*reversed(answers), earlier]):
        assert features_of(engine, "nps_last", engagement=contacts) == (min(values),)


def test_the_newest_answer_counts_however_old_it_is(engine):
    answers = [answer(datetime(year, 1, 1), value) for year, value in ((1, 1), (1969, 2), (1970, 3), (1971, 4))]
    for n in range(1, 5):
        assert features_of(engine, "nps_last", engagement=answers[:n]) == (n,)


def test_a_field_that_became_known_nobody_knows_when_stays_hidden(engine):
    rated = {"ticket_id": "t", "account_id": "a", "opened_at": days_ago(3), "csat": 5.0}
    assert features_of(engine, "tickets_28d", tickets=[rated]) == (1,)
    outcome = {"account_id": "a", "outcome_id": "o", "agreed_at": days_ago(3), "due_at": days_ago(1), "value": 5.0}
    assert features_of(engine, "outcomes_agreed", outcomes=[outcome]) == (1,)


def test_dates_of_the_account_that_had_not_come_were_not_known(engine):
    def age(go_live):
        accounts = [{"account_id": "a", "attribute_channel": None, "attribute_score": None, "attribute_go_live": go_live}]
        return features_of(engine, "account_go_live_days", accounts=accounts)[0]

    assert (age(days_ago(2)), age(NOW), age(days_ago(-1)), age(None)) == (2, 0, None, None)


def test_events_without_an_amount_carry_none(engine):
    telemetry = [event(days_ago(60), quantity=None), event(days_ago(200), quantity=3.0)]
    assert features_of(engine, "amount_login_28d", "amount_login_91d", telemetry=telemetry) == (0, 0)


def test_a_partner_keeps_accounts_apart_that_number_their_subscriptions_alike(engine):
    accounts = [{"account_id": name} for name in "abc"]
    assigned = [{"account_id": name, "partner_id": "p", "valid_from": days_ago(400)} for name in "abc"]
    recorded = {"recorded_at": days_ago(390)}
    terms = [term(390, end, account_id=name) | recorded for name, end in (("a", None), ("b", None), ("c", 10))]
    names = ("partner_book_accounts", "partner_retention_182d")
    assert features_of(engine, *names, accounts=accounts, assignments=assigned, subscriptions=terms) == (3, 0.5)


@pytest.mark.parametrize(("n", "expected"), [(9, None), (10, 7 / 9)])
def test_ranks_need_ten_accounts_of_a_segment_and_equal_ones_share_the_lowest(engine, n, expected):
    accounts = [{"account_id": f"a{i}", "segment": "small"} for i in range(n)] + [{"account_id": "b", "segment": "large"}]
    telemetry = [event(days_ago(1), account_id=f"a{i}", events=float(min(i, 7))) for i in range(n)]
    pairs = [(row["account_id"], NOW) for row in accounts]
    ranks = matrix_of(engine, {"accounts": accounts, "telemetry": telemetry}, pairs)["events_28d_rank"].to_pylist()
    assert ranks[7:9] == [expected and pytest.approx(expected)] * 2
    assert ranks[-1] is None


def test_kinds_of_event_that_sound_alike_have_features_of_their_own(engine):
    kinds = ("export data", "export-data", "types", "!?", "")
    telemetry = [event(days_ago(1), event=kind, events=float(i)) for i, kind in enumerate(kinds, start=1)]
    world, pairs = {"accounts": [{"account_id": "a"}], "telemetry": telemetry}, [("a", NOW)]
    catalogue = catalogue_of(world, kinds=kinds)
    matrix = build_matrix(known_tables(engine, world, pairs, kinds=kinds), as_spine(pairs), catalogue).to_pylist()[0]
    found = {
        feature.level: matrix[feature.name] for feature in catalogue if feature.level is not None and feature.name.startswith("event_")
    }
    assert found == {kind: i for i, kind in enumerate(kinds, start=1)}
    assert matrix["event_types_28d"] == 5
