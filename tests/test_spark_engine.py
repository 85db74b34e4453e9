"""The same work on Spark as on DuckDB: every feature, label, group and movement, on one local session for all tests."""

import gc
from datetime import timedelta

import pytest

from features import peers
from features.config import ChangeTarget, Targets
from features.engine import Engine
from features.groups import build_groups
from features.labels import build_labels, eligible_rows
from features.matrix_query import matrix_query
from features.movements import build_movements
from features.snapshots import build_matrix
from features.spark_engine import SparkEngine
from tests.random_worlds import MOST, OPTIONAL, ORIGIN, Recipe, as_spine, catalogue_of, known_tables

pytestmark = [
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis"),  # by Ibis 12 on DuckDB 2
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # PySpark leaves those that bring results to the collector
]

LARGE = Recipe(2026, {table: 5 * rows for table, rows in MOST.items()} | {"partners": 1, "accounts": 60})
"""As many rows as there are in dozens of the random worlds on which DuckDB is held against slow twins."""

BARE = Recipe(7, MOST | {"accounts": 24}, tuple(OPTIONAL))
"""Only the columns that must be there."""


def pairs_of(recipe):
    """Return cutoffs that all accounts share, at midnight and not, and some of each account's own."""
    accounts = [f"a{i:02d}" for i in range(recipe.sizes["accounts"])]
    shared = [(account, ORIGIN + timedelta(days=d, hours=h)) for d, h in ((-91, 0), (0, 0), (31, 13)) for account in accounts]
    return shared + [(account, ORIGIN - timedelta(days=i % 5 * 61 + 7, microseconds=i)) for i, account in enumerate(accounts)]


@pytest.fixture(scope="module")
def spark(spark_settings):
    with SparkEngine(spark_settings) as engine:
        yield engine
    gc.collect()


@pytest.fixture(scope="module")
def duckdb():
    with Engine(threads=1) as engine:
        yield engine


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(peers, "MINIMUM_PEERS", 3)


@pytest.mark.parametrize("recipe", [LARGE, BARE], ids=["every column", "required columns"])
def test_every_feature_is_that_of_duckdb(recipe, spark, duckdb):
    world, pairs = recipe.world(), pairs_of(recipe)
    catalogue = catalogue_of(world)
    expected = build_matrix(known_tables(duckdb, world, pairs), as_spine(pairs), catalogue)
    found = spark.to_arrow(matrix_query(known_tables(spark, world, pairs), catalogue).order_by("row")).drop("row")
    assert found.column_names == expected.column_names
    assert [name for name in found.column_names if not same(found[name], expected[name])] == []


def same(found, expected):
    """Tell whether two columns agree; sums of numbers that are no whole ones may differ in their last bits."""
    if found.equals(expected):
        return True
    return found.type == expected.type and found.to_pylist() == pytest.approx(expected.to_pylist(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("kind", "measure"), [("subscription", "seats"), ("usage", "active_users"), ("usage", "events")])
def test_labels_and_customers_are_those_of_duckdb(kind, measure, spark, duckdb):
    world, pairs = LARGE.world(), pairs_of(LARGE)
    spine, change = as_spine(pairs), ChangeTarget(measure=measure)
    targets = Targets(kind=kind, lead_days=7, expansion=change, contraction=change)
    on_spark, on_duckdb = (known_tables(engine, world, pairs) for engine in (spark, duckdb))
    assert eligible_rows(on_spark, targets, n_rows=len(spine)).tolist() == eligible_rows(on_duckdb, targets, n_rows=len(spine)).tolist()
    found, expected = (build_labels(known, spine, targets, data_until=ORIGIN + timedelta(days=100)) for known in (on_spark, on_duckdb))
    assert found.column_names == expected.column_names
    assert [name for name in found.column_names if not same(found[name], expected[name])] == []
    assert 0 < found["churn"].null_count < len(found)


def test_groups_and_movements_are_those_of_duckdb(spark, duckdb):
    world, pairs = LARGE.world(), pairs_of(LARGE)
    on_spark, on_duckdb = (known_tables(engine, world, pairs) for engine in (spark, duckdb))
    assert build_groups(on_spark, as_spine(pairs)).equals(build_groups(on_duckdb, as_spine(pairs)))
    end = {"data_until": ORIGIN + timedelta(days=130), "grace_days": 30}
    found, expected = (build_movements(known.engine, known.tables, **end) for known in (on_spark, on_duckdb))
    assert len(found)
    assert found.equals(expected)
