import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.clock import MICROSECONDS_PER_DAY
from features.engine import Engine
from features.terms import NEVER, bridged, final_terms, spells
from tests.brute_force import History
from tests.random_worlds import ORIGIN, known_tables, recipes

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def terms_of(engine, *terms):
    """Hold terms of one account, each (first day, day after the last, ARR)."""
    days = np.array([term[:2] for term in terms], dtype=np.int64) * MICROSECONDS_PER_DAY
    columns = {"account": np.zeros(len(terms), dtype=np.int32), "arr": [float(term[2]) for term in terms]}
    return engine.hold(pa.table(columns | {"starts": days[:, 0], "ends": days[:, 1]}), name="terms_at_hand")


def in_days(table):
    return sorted((row["starts"] // MICROSECONDS_PER_DAY, row["ends"] // MICROSECONDS_PER_DAY) for row in table.to_pylist())


CASES = [
    pytest.param([(0, 10), (10, 20)], [(0, 20)], [(0, 10), (10, 20)], id="renewed in time"),
    pytest.param([(0, 10), (39, 50)], [(0, 50)], [(0, 39), (39, 50)], id="renewed a day before the grace is over"),
    pytest.param([(0, 10), (40, 50)], [(0, 10), (40, 50)], [(0, 10), (40, 50)], id="renewed when the grace is over"),
    pytest.param([(0, 10), (5, 10), (20, 30)], [(0, 30)], [(0, 20), (5, 20), (20, 30)], id="two that ended together are both held"),
    pytest.param([(0, 8), (5, 10), (20, 30)], [(0, 30)], [(0, 8), (5, 20), (20, 30)], id="only the last is held"),
    pytest.param([(0, 60), (5, 10), (20, 30)], [(0, 60)], [(0, 60), (5, 10), (20, 30)], id="nothing is held while another runs"),
    pytest.param([(0, 10), (20, 30), (20, 40)], [(0, 40)], [(0, 20), (20, 30), (20, 40)], id="renewed as two"),
]


@pytest.mark.parametrize(("terms", "joined", "held"), CASES)
def test_spells_and_bridges(engine, terms, joined, held):
    given_terms = terms_of(engine, *((*term, 1.0) for term in terms))
    assert in_days(engine.to_arrow(spells(given_terms, 30))) == joined
    assert in_days(engine.to_arrow(bridged(given_terms, 30))) == held


def test_without_grace_no_gap_is_bridged(engine):
    terms = terms_of(engine, (0, 10, 1.0), (11, 20, 1.0), (20, 30, 2.0))
    assert in_days(engine.to_arrow(spells(terms, 0))) == [(0, 10), (11, 30)]
    assert in_days(engine.to_arrow(bridged(terms, 0))) == [(0, 10), (11, 20), (20, 30)]


@settings(
    max_examples=20, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(recipe=recipes().filter(lambda recipe: "subscriptions" in recipe.world()), grace_days=st.sampled_from((0, 1, 30, 90)))
def test_terms_are_those_of_their_twin(engine, recipe, grace_days):
    world = recipe.world()
    accounts = [row["account_id"] for row in world["accounts"]]
    known = known_tables(engine, world, [(account, ORIGIN) for account in accounts])
    terms = engine.table(final_terms(known), name="terms_found")
    found = engine.to_arrow(terms).to_pylist()
    expected = [(number, term["arr"]) for number, account in enumerate(accounts) for term in History(world, account).terms]
    assert sorted((row["account"], row["arr"]) for row in found) == sorted(expected)
    assert all(row["starts"] < row["ends"] <= NEVER for row in found)
    for number, account in enumerate(accounts):
        spans = in_days(engine.to_arrow(spells(terms, grace_days).filter(lambda rows, n=number: rows.account == n)))
        lefts = History(world, account).leaves(grace_days)
        assert len(spans) - sum(end >= NEVER // MICROSECONDS_PER_DAY for _, end in spans) == len(lefts)
