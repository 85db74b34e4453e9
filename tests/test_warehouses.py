"""The queries of the whole catalogue as warehouses would get them: compiled for each dialect, not run, and what they are made of."""

import re
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import pyarrow as pa
import pytest

from features.config import ChangeTarget, Targets
from features.families import VIEWS
from features.groups import build_groups
from features.labels import build_labels, eligible_rows
from features.matrix_query import matrix_query
from features.slices import KnownTables, Spine
from tests.random_worlds import FULL, KINDS, ORIGIN, as_arrow, catalogue_of

DOCUMENT = Path(__file__).parents[1] / "features" / "WORKSPACE.md"
UTC = dt.Timestamp(timezone="UTC")
SPINE = Spine(pa.array([], pa.string()), pa.array([], pa.timestamp("us")))
WORLD = FULL.world()


@ibis.udf.scalar.builtin(name="unix_micros", signature=((UTC,), dt.int64))
def unix_micros(time):
    """The function of Databricks and BigQuery."""


@ibis.udf.scalar.builtin(name="date_part", signature=((dt.string, UTC), dt.int64))
def date_part(part, time):
    """The function of Snowflake."""


MICROSECONDS = {
    "snowflake": lambda time: date_part("epoch_microsecond", time),
    "bigquery": unix_micros,
    "databricks": unix_micros,
}


ORDERED = (dt.Numeric, dt.Boolean, dt.String, dt.Timestamp, dt.Date, dt.Null)
"""What each of the warehouses sorts and groups by, and takes for the second argument of MIN_BY; BigQuery takes no struct and no array."""


class PaperEngine:
    """Compiles what it is asked to compute, keeps the queries, and finds nothing."""

    in_process = False
    refusal = ()

    def __init__(self, dialect):
        self.dialect = dialect
        self.queries = []
        self._schemas = {}

    def microseconds(self, time):
        return MICROSECONDS[self.dialect](time.cast(UTC))

    def hold(self, rows, *, name):
        return ibis.table(ibis.Schema.from_pyarrow(rows.schema), name=name)

    def layer(self, table):
        return table

    def table(self, table, *, name):
        self.compile(table)
        return ibis.table(table.schema(), name=name)

    def compile(self, table):
        sql = str(ibis.to_sql(table, dialect=self.dialect))
        self.queries.append((table, sql))
        self._schemas[sql] = table.schema().to_pyarrow()
        return sql

    def fetch(self, sql):
        schema = self._schemas[sql]
        return pa.table({"n": [0]}) if schema.names == ["n"] else schema.empty_table()

    def to_arrow(self, table):
        return self.fetch(self.compile(table))


def known_tables(engine):
    tables = {name: engine.hold(as_arrow(WORLD, name), name=name) for name in WORLD}
    return KnownTables(engine, tables, SPINE, levels={"event": KINDS}, views=VIEWS)


@pytest.fixture(scope="module", params=MICROSECONDS)
def engine(request):
    """An engine that has compiled every feature, label and group."""
    engine = PaperEngine(request.param)
    known = known_tables(engine)
    engine.compile(matrix_query(known, catalogue_of(WORLD)))
    for kind, measure in (("subscription", "seats"), ("usage", "active_users")):
        change = ChangeTarget(measure=measure)
        targets = Targets(kind=kind, expansion=change, contraction=change)
        eligible_rows(known, targets, n_rows=0)
        build_labels(known, SPINE, targets, data_until=ORIGIN)
    build_groups(known, SPINE)
    return engine


def test_every_query_compiles(engine):
    assert len(engine.queries) > 15
    assert all(sql.startswith(("SELECT", "WITH")) for _, sql in engine.queries)


def test_nothing_is_divided_by_what_may_be_zero(engine):
    divisors = {below(node.right) for table, _ in engine.queries for node in table.op().find(ops.Divide)}
    never_zero = (ops.NullIf, ops.CountStar)  # rows are counted of groups that have some
    others = [divisor for divisor in divisors if not isinstance(divisor, never_zero) and not is_positive(divisor)]
    assert [type(divisor).__name__ for divisor in others] == ["Add"]  # silence_against_usual: a mean of gaps, and one day


def below(node):
    """Return what is cast."""
    return below(node.arg) if isinstance(node, ops.Cast) else node


def is_positive(node):
    return isinstance(node, ops.Literal) and node.value > 0


def test_no_value_is_of_a_type_that_a_warehouse_cannot_order_or_group_by(engine):
    nodes = {node for table, _ in engine.queries for node in table.op().find(ops.Node)}
    values = [node for node in nodes if isinstance(node, ops.Value)]
    assert len(values) > 1000
    assert {str(node.dtype) for node in values if not isinstance(node.dtype, ORDERED)} == set()
    keys = [key for node in nodes if isinstance(node, ops.WindowFunction) for key in node.group_by]
    assert len(keys) > 10
    assert [key for key in keys if key.dtype.is_floating()] == []  # by fractions BigQuery parts no windows


def test_the_operators_that_are_relied_on_are_those_in_the_document(engine):
    nodes = {node for table, _ in engine.queries for node in table.op().find(ops.Node)}
    used = {type(node).__name__ for node in nodes} - {type(node).__name__ for node in nodes if isinstance(node, ops.ScalarUDF)}
    section = DOCUMENT.read_text(encoding="utf-8").split("## Warehouses", 1)[1].split("\n## ", 1)[0]
    listed = section.split("Operators:", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"`(\w+)`", listed)) == used
