from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.engine import Engine
from features.movements import MOVEMENT_GROUPS, build_movements
from tests.brute_force import movements
from tests.random_worlds import ORIGIN, as_tables, recipes

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

NEW_YEAR = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def movements_of(engine, world, **options):
    return build_movements(engine, as_tables(engine, world), **{"grace_days": 30, **options})


@settings(
    max_examples=15, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(
    recipe=recipes().filter(lambda recipe: "subscriptions" in recipe.world()),
    grace_days=st.sampled_from((0, 30, 90)),
    days=st.sampled_from((-400, 0, 13)),
)
def test_movements_are_those_of_their_twin(engine, recipe, grace_days, days):
    world, data_until = recipe.world(), ORIGIN + timedelta(days=days, hours=7)
    found = movements_of(engine, world, data_until=data_until, grace_days=grace_days)
    assert found.to_pylist() == movements(world, data_until, grace_days)
    for earlier in (data_until - timedelta(days=1), data_until - timedelta(days=60), data_until):
        before = movements_of(engine, world, data_until=earlier, grace_days=grace_days)
        assert movements_of(engine, world, data_until=data_until, grace_days=grace_days, earlier=before).equals(found)


# Known answers


def day(n):
    """Return the midnight n days after New Year 2024."""
    return NEW_YEAR + timedelta(days=n)


def term(start, end, *, account="a", arr=100.0, ended=None):
    times = {"start_date": day(start), "end_date": day(end), "ended_at": None if ended is None else day(ended)}
    return {"account_id": account, "subscription_id": f"{account}{start}", "arr": arr} | times


def arr_by_month(engine, *terms, data_until=datetime(2024, 5, 1), **options):
    world = {"accounts": [{"account_id": "a"}, {"account_id": "b"}], "telemetry": [], "subscriptions": list(terms)}
    found = movements_of(engine, world, data_until=data_until, **options).to_pylist()
    assert all(row["account_id"] == "a" for row in found)
    return {f"{row['month']:%m-%d}": row["arr"] for row in found}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        pytest.param([term(0, 60)], {"01-01": 100, "02-01": 100}, id="a term that ends on 1 March does not run then"),
        pytest.param([term(1, 61)], {"02-01": 100, "03-01": 100}, id="one that begins on 2 January did not run on the first"),
        pytest.param([term(0, 50), term(70, 91, arr=80.0)], {"01-01": 100, "02-01": 100, "03-01": 100}, id="booked late"),
        pytest.param([term(0, 50), term(80, 91)], {"01-01": 100, "02-01": 100}, id="back after the grace period: no payment between"),
        pytest.param([term(0, 50), term(61, 121, arr=130.0)], {"01-01": 100, "02-01": 100, "03-01": 100, "04-01": 130}, id="and grown"),
        pytest.param([term(0, 121), term(31, 60, arr=5.0)], {"01-01": 100, "02-01": 105, "03-01": 100, "04-01": 100}, id="one of two"),
        pytest.param([term(0, 366, ended=40)], {"01-01": 100, "02-01": 100}, id="ended in mid-term"),
        pytest.param([term(0, 110)], {"01-01": 100, "02-01": 100, "03-01": 100, "04-01": 100}, id="lapsed within the grace of the end"),
    ],
)
def test_what_is_paid_at_the_start_of_each_month(engine, terms, expected):
    assert arr_by_month(engine, *terms) == expected


def test_the_end_of_the_data_is_there_too(engine):
    assert arr_by_month(engine, term(0, 400), data_until=datetime(2024, 2, 14, 9)) == {"01-01": 100, "02-01": 100, "02-14": 100}


def test_nobody_ever_paid(engine):
    world = {"accounts": [{"account_id": "a"}], "telemetry": [], "subscriptions": [term(0, 60, arr=0.0)]}
    found = movements_of(engine, world, data_until=NEW_YEAR)
    assert (len(found), found.column_names) == (0, ["account_id", "month", "arr", *MOVEMENT_GROUPS])


def test_the_partner_is_that_of_the_month(engine):
    handed_over = [
        {"account_id": "a", "partner_id": "p", "valid_from": day(-9), "valid_to": day(40)},
        {"account_id": "a", "partner_id": "q", "valid_from": day(40), "valid_to": None},
    ]
    accounts = [{"account_id": "a", "segment": "small"}]
    world = {"accounts": accounts, "telemetry": [], "subscriptions": [term(0, 400)], "assignments": handed_over}
    found = movements_of(engine, world, data_until=datetime(2024, 3, 1)).to_pylist()
    assert [(row["partner_id"], row["segment"]) for row in found] == [("p", "small"), ("p", "small"), ("q", "small")]
