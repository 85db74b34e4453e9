"""What features need of a query engine, whichever it is: the small seam behind which DuckDB and Spark do the same work.

`features.engine.Engine` is DuckDB in this process, `features.spark_engine.SparkEngine` is Spark. Both take Ibis expressions and give
Arrow tables; the tests hold every feature and label on one against the other.
"""

from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

__all__ = ["QueryEngine"]


class QueryEngine(Protocol):
    """Computes Ibis expressions; times are UTC."""

    @property
    def in_process(self) -> bool:
        """Whether tables lie in this process, so that its arrays and numbers for rows are cheap."""

    @property
    def refusal(self) -> tuple[type[Exception], ...]:
        """What a query may raise when the engine refuses it."""

    @property
    def cutoff(self) -> ir.IntegerValue:
        """The instant of `at`, as an expression: one compiled query serves any number of cutoffs."""

    def at(self, cutoff: int) -> None:
        """Set the instant that `cutoff` stands for, in microseconds since 1970-01-01 UTC."""

    def microseconds(self, time: ir.TimestampValue) -> ir.IntegerValue:
        """Return the timestamp as a whole number of microseconds since 1970-01-01 UTC."""

    def layer(self, table: ir.Table) -> ir.Table:
        """Name a table as a view; nothing is computed yet."""

    def table(self, sql: str | ir.Table, *, name: str) -> ir.Table:
        """Compute a query once, keep its result under a name and return it as an Ibis table."""

    def hold(self, rows: pa.Table, *, name: str) -> ir.Table:
        """Give a table of this process a name and return it as an Ibis table."""

    def compile(self, table: ir.Table) -> str:
        """Return the query for a table, to be run any number of times with `fetch`."""

    def fetch(self, sql: str) -> pa.Table:
        """Run a compiled query."""

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """Compute a table."""

    def count(self, table: ir.Table) -> int:
        """Return how many rows a table has."""
