import math

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features import peers, slices
from features.engine import Engine
from features.snapshots import build_matrix
from tests.brute_force import all_twins, feature_values
from tests.random_worlds import (
    ATTRIBUTES,
    CARRYING,
    CUTS,
    RATIOS,
    as_spine,
    catalogue_of,
    columns_of,
    known_tables,
    make_world,
    recipes,
    spines,
)

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2
NAMES = {"login": "login", "Export data": "export_data", "ünï/code": "ünï_code", "41": "41"}
MINIMUM_PEERS = 3
RANDOM = settings(
    max_examples=6, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
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


def differences(matrix, expected, pairs):
    """Return where the matrix and the twin differ, as (feature, account, cutoff, found, expected)."""
    found = []
    for name, values in expected.items():
        for pair, value, truth in zip(pairs, matrix[name].to_pylist(), values, strict=True):
            same = (
                value == truth
                if None in (value, truth) or isinstance(truth, str)
                else math.isclose(value, truth, rel_tol=1e-9, abs_tol=1e-9)
            )
            if not same:
                found.append((name, pair[0], str(pair[1]), value, truth))
    return found


def test_every_feature_has_a_twin_and_every_twin_a_feature():
    world = make_world(
        0, dict.fromkeys(("accounts", "telemetry", "subscriptions", "engagement", "tickets", "partners", "assignments", "outcomes"), 3)
    )
    catalogue = catalogue_of(world)
    assert {feature.name for feature in catalogue if feature.family != "peers"} == set(twins_of(world))


@pytest.mark.parametrize("cut", CUTS)
@RANDOM
@given(data=st.data())
def test_features_are_those_of_their_twins(data, cut, engine, small_groups):
    recipe = data.draw(recipes())
    pairs = data.draw(spines(recipe.sizes["accounts"]))
    world = recipe.world()
    slices.ROWS_WORTH_A_QUERY, before = CUTS[cut], slices.ROWS_WORTH_A_QUERY
    try:
        matrix = matrix_of(engine, world, pairs)
    finally:
        slices.ROWS_WORTH_A_QUERY = before
    names = matrix.column_names[2:]
    assert not differences(matrix, feature_values(world, pairs, names, twins_of(world), minimum_peers=MINIMUM_PEERS), pairs)
