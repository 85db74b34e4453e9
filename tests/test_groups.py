from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.groups import ACCOUNT_GROUPS, PARTNER_GROUPS, build_groups
from tests.brute_force import groups
from tests.random_worlds import as_spine, known_tables, recipes, spines

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

CUTOFF = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def groups_of(engine, world, pairs):
    return build_groups(known_tables(engine, world, pairs), as_spine(pairs))


def assigned(partner, after, until=None):
    times = [None if days is None else CUTOFF + timedelta(days=days) for days in (after, until)]
    return {"account_id": "a", "partner_id": partner, "valid_from": times[0], "valid_to": times[1]}


def world_with(*assignments, **tables):
    telemetry = [{"account_id": "a", "occurred_at": CUTOFF, "event": "login", "user_id": "u", "events": 1.0}]
    return (
        {"accounts": [{"account_id": "a"}], "telemetry": telemetry} | ({"assignments": list(assignments)} if assignments else {}) | tables
    )


@settings(
    max_examples=15, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_groups_are_those_of_their_twin(data, engine):
    recipe = data.draw(recipes())
    pairs = data.draw(spines(recipe.sizes["accounts"]))
    world = recipe.world()
    found = groups_of(engine, world, pairs).to_pylist()
    assert found == [{"account_id": account, "cutoff": cutoff} | groups(world, account, cutoff) for account, cutoff in pairs]


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        pytest.param([assigned("p", -10)], "p", id="in charge"),
        pytest.param([assigned("p", 0)], "p", id="since the cutoff itself"),
        pytest.param([assigned("p", 1)], None, id="only later"),
        pytest.param([assigned("p", -10, 0), assigned("q", 0)], "q", id="handed over at the cutoff"),
        pytest.param([assigned("p", -10, 1), assigned("q", 1)], "p", id="handed over the day after"),
        pytest.param([assigned("p", -10), assigned("q", -5)], "q", id="the newest of several"),
        pytest.param([assigned("q", -5), assigned("p", -5)], "p", id="the first by name of those that began together"),
    ],
)
def test_the_partner_at_the_cutoff(engine, assignments, expected):
    assert groups_of(engine, world_with(*assignments), [("a", CUTOFF)])["partner_id"].to_pylist() == [expected]


def test_all_columns_are_there_whatever_the_tables_say(engine):
    found = groups_of(engine, world_with(), [("a", CUTOFF)])
    assert found.column_names == ["account_id", "cutoff", *ACCOUNT_GROUPS, *PARTNER_GROUPS]
    assert set(found.schema.types[2:]) == {found.schema.field("account_id").type}
    assert found.to_pylist() == [dict.fromkeys(found.column_names) | {"account_id": "a", "cutoff": CUTOFF}]


def test_a_partner_without_a_description(engine):
    partners = [{"partner_id": "q", "name": "Q", "type": "msp"}]
    found = groups_of(engine, world_with(assigned("p", -10), partners=partners), [("a", CUTOFF)]).to_pylist()[0]
    assert (found["partner_id"], found["partner_type"]) == ("p", None)
    found = groups_of(engine, world_with(assigned("q", -10), partners=partners), [("a", CUTOFF)]).to_pylist()[0]
    assert (found["partner_id"], found["partner_type"], found["partner_tier"]) == ("q", "msp", None)
