import math
import random
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import ibis.expr.operations as ops
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import slices
from features.config import ChangeTarget, Targets
from features.engine import Engine
from features.families import VIEWS
from features.labels import build_labels
from features.matrix_query import matrix_query
from features.movements import build_movements
from features.slices import KnownTables
from features.snapshots import build_matrix
from features.sums import BILLION, LARGEST, STEP, exact_mean, exact_sum, exactly, in_steps, split
from tests.random_worlds import CUTS, KINDS, ORIGIN, Recipe, as_arrow, as_spine, catalogue_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning:ibis")  # by Ibis 12 on DuckDB 2

SIZES = {"accounts": 6, "partners": 2, "assignments": 20, "telemetry": 900, "subscriptions": 120}
SIZES |= dict.fromkeys(("engagement", "tickets", "outcomes"), 120)
LATE = Recipe(1, SIZES)
AT_ONCE_KNOWN = Recipe(1, SIZES, (("telemetry", "recorded_at"),))
PAIRS = [(f"a{i:02d}", ORIGIN + timedelta(days=days)) for days in (-91, 0) for i in range(6)]
FRACTIONAL = ("arr", "list_arr", "seats", "quantity", "value", "csat")
ARR = ChangeTarget(measure="arr")
TARGETS = Targets(kind="subscription", expansion=ARR, contraction=ARR)

numbers = st.lists(st.floats(-LARGEST, LARGEST) | st.floats(-100, 100) | st.integers(-9, 9).map(lambda n: n / 10), max_size=30)


@pytest.fixture(scope="module")
def engine():
    with Engine(threads=1) as engine:
        yield engine


def held(value):
    """Hold a number to a billionth, its whole part apart, with Python's own decimals."""
    whole = math.trunc(Decimal(value) + (Decimal("0.5") if value > 0 else Decimal("-0.5")))
    billionths = (value - whole) * BILLION
    return whole, math.trunc(Decimal(billionths) + (Decimal("0.5") if billionths > 0 else Decimal("-0.5")))


def summed(engine, values):
    rows = engine.hold(pa.table({"value": pa.array(values, pa.float64())}), name="numbers")
    return engine.to_arrow(rows.aggregate(sum=exact_sum(rows["value"]), mean=exact_mean(rows["value"]))).to_pylist()[0]


@settings(max_examples=25, derandomize=True, deadline=None)
@given(values=numbers, seed=st.integers(0, 9))
def test_a_sum_is_exact_in_whatever_order(engine, values, seed):
    wholes, billionths = zip(*map(held, values), strict=True) if values else ((), ())
    truth = sum(wholes) + sum(billionths) / BILLION if values else None
    shuffled = random.Random(seed).sample(values, len(values))
    found = summed(engine, shuffled)
    assert found == summed(engine, values) == {"sum": truth, "mean": truth / len(values) if values else None}
    assert truth is None or math.isclose(truth, math.fsum(values), rel_tol=1e-9, abs_tol=1e-9 * len(values))
    parts = [array.tolist() for array in split(np.array(values, dtype=float))]
    assert parts == [list(wholes), list(billionths)]


def test_counts_stay_whole_and_fractions_of_them_become_steps(engine):
    rows = engine.hold(pa.table({"events": [0.0, 1.0, 1e12, 0.5, 0.1, None]}), name="counts")
    found = engine.to_arrow(rows.select(events=in_steps(rows.events)))["events"].to_pylist()
    assert found == [0.0, 1.0, 1e12, 0.5, round(0.1 / STEP) * STEP, None]


def test_sums_of_ones_own_are_made_exact_and_nothing_else_is(engine):
    rows = engine.hold(pa.table({"value": [0.1, 0.2, 0.3, None], "n": [1, 2, 3, 4]}), name="own")
    value = rows["value"].sum(where=rows.n > 1) / rows["value"].mean() + rows["value"].max() * rows.n.sum()
    wanted = exact_sum(rows["value"], where=rows.n > 1) / exact_mean(rows["value"]) + rows["value"].max() * rows.n.sum()
    assert exactly(value).equals(wanted)
    over_rows = rows["value"].sum().over()
    summed = rows.group_by("n").agg(total=rows["value"].sum())
    assert exactly(over_rows).equals(over_rows)
    assert engine.compile(summed.aggregate(most=exactly(summed.total.max()))) == engine.compile(summed.aggregate(most=summed.total.max()))


def test_the_catalogue_adds_nothing_up_that_is_rounded(engine):
    world = LATE.world()
    tables = {table: engine.hold(as_arrow(world, table), name=f"whole_{table}") for table in world}
    known = KnownTables(engine, tables, as_spine(PAIRS), levels={"event": KINDS}, views=VIEWS)
    query = matrix_query(known, catalogue_of(world)).op()
    added = [node for node in query.find((ops.Sum, ops.Mean)) if node.arg.dtype.is_floating()]
    assert added
    assert all(isinstance(node.arg, ops.Field) and node.arg.name.startswith("events") for node in added)  # these come in steps
    assert not query.find((ops.Variance, ops.StandardDev, ops.First, ops.Last, ops.Arbitrary))


def test_a_number_too_large_to_be_added_is_refused(engine):
    with pytest.raises(engine.refusal):
        summed(engine, [1e300, 1.0])


def with_fractions(world):
    """Return the world with numbers that doubles cannot hold exactly."""
    rng = random.Random(7)
    return {
        table: [
            {name: value * rng.uniform(0.5, 1.5) if name in FRACTIONAL and value else value for name, value in row.items()} for row in rows
        ]
        for table, rows in world.items()
    }


def results(world, folder: Path, *, seed: int, threads: int) -> list[pa.Table]:
    """Compute features, labels and movements from Parquet files whose rows lie in an order of their own."""
    rng = np.random.default_rng(seed)
    with Engine(threads=threads) as engine:
        tables = {}
        for table in world:
            rows = as_arrow(world, table)
            rows = rows.take(rng.permutation(len(rows))) if len(rows) else rows
            pq.write_table(rows, folder / f"{table}_{seed}.parquet", row_group_size=40)
            tables[table] = engine.read_parquet(folder / f"{table}_{seed}.parquet")
        spine = as_spine(PAIRS)
        known = KnownTables(engine, tables, spine, levels={"event": KINDS}, views=VIEWS)
        return [
            build_matrix(known, spine, catalogue_of(world)),
            build_labels(known, spine, TARGETS, data_until=ORIGIN.replace(year=2026)),
            build_movements(engine, tables, data_until=ORIGIN, grace_days=30),
        ]


@pytest.mark.parametrize(
    ("cut", "recipe", "runs"),
    [("at once", LATE, ((1, 2), (2, 4))), ("per cutoff", AT_ONCE_KNOWN, ((3, 4),))],
    ids=["late rows, by queries", "known at once, in arrays"],
)
def test_neither_threads_nor_the_order_of_rows_change_a_bit(monkeypatch, tmp_path, cut, recipe, runs):
    monkeypatch.setattr(slices, "ROWS_WORTH_A_QUERY", CUTS[cut])
    world = with_fractions(recipe.world())
    first = results(world, tmp_path, seed=0, threads=1)
    assert all(table.num_rows for table in first)
    for seed, threads in runs:
        for one, other in zip(first, results(world, tmp_path, seed=seed, threads=threads), strict=True):
            assert not [name for name in one.column_names if not one[name].equals(other[name])]
