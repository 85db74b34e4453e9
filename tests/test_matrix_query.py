import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from features import peers
from features.engine import Engine
from features.matrix_query import matrix_query
from features.snapshots import build_matrix
from tests.random_worlds import FULL_OWN, as_spine, cases, catalogue_of, known_tables

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
RANDOM = settings(
    max_examples=2, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)


@RANDOM
@example(case=FULL_OWN)
@given(case=cases())
def test_one_query_gives_the_matrix_to_the_bit(case):
    recipe, pairs = case
    world = recipe.world()
    catalogue = catalogue_of(world)
    before, peers.MINIMUM_PEERS = peers.MINIMUM_PEERS, 3
    try:
        with Engine(threads=1) as engine:
            known = known_tables(engine, world, pairs)
            found = engine.to_arrow(matrix_query(known, catalogue).order_by("row"))
            expected = build_matrix(known, as_spine(pairs), catalogue)
    finally:
        peers.MINIMUM_PEERS = before
    assert found["row"].to_pylist() == list(range(len(pairs)))
    assert found.drop("row").equals(expected)
