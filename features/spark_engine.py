"""The one module that knows Spark: it offers of a Spark session what features need of an engine, and writes partitioned Parquet.

Queries are compiled by Ibis and run where the session runs; nothing is computed here. The session is a child of the one that is there
(on Databricks, EMR or under spark-submit) or of a new one, so that its settings and views are its own. Its times are UTC.

But: results that come back as Arrow tables are as large as the memory of this process allows. Features of a whole book do not
come back; they are written by Spark itself, see `features.lake`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from features.errors import SourceError, explain

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["SparkEngine"]

_UTC = dt.Timestamp(timezone="UTC")
_CUTOFF = "renewcast_cutoff"
_OURS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",  # what cannot be computed fails, and never turns into an empty value
}


@ibis.udf.scalar.builtin(name="unix_micros", signature=((_UTC,), dt.int64))
def _unix_micros(time):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for Spark's function of that name."""


@ibis.udf.scalar.builtin(name=_CUTOFF, signature=((), dt.int64))
def _cutoff():  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Stand for the temporary function that `SparkEngine.at` makes."""


class SparkEngine:
    """A Spark session, through Ibis.

    Parameters
    ----------
    settings
        Settings of Spark, such as `spark.master`. Those of a context count only where none runs yet.

    Raises
    ------
    SourceError
        If PySpark is not installed.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        try:
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError as error:
            todo = 'Install renewcast[spark], and Java 17; or write engine = "duckdb" in [workspace].'
            raise SourceError(explain("Spark is not installed", todo=todo)) from error
        builder = SparkSession.builder.appName("renewcast")
        for key, value in (settings or {}).items():
            builder = builder.config(key, value)
        self.session: SparkSession = builder.getOrCreate().newSession()
        for key, value in {**(settings or {}), **_OURS}.items():
            if self.session.conf.isModifiable(key):
                self.session.conf.set(key, value)
        self.connection = ibis.pyspark.connect(self.session)
        self._refusal = PySparkException
        self._kept: dict[str, DataFrame] = {}
        self._views = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was kept; the session, which others may use too, goes on."""
        for frame in self._kept.values():
            frame.unpersist()
        self._kept.clear()

    @property
    def in_process(self) -> bool:
        """Whether tables lie in this process; those of Spark do not."""
        return False

    @property
    def refusal(self) -> type[Exception]:
        """What a query raises when the engine refuses it."""
        return self._refusal

    @property
    def cutoff(self) -> ir.IntegerValue:
        """The instant of `at`, as an expression: one compiled query serves any number of cutoffs."""
        return _cutoff()

    def at(self, cutoff: int) -> None:
        """Set the instant that `cutoff` stands for, in microseconds since 1970-01-01 UTC."""
        self.session.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {_CUTOFF}() RETURNS BIGINT RETURN {int(cutoff)}L")

    def microseconds(self, time: ir.TimestampValue) -> ir.IntegerValue:
        """Return the timestamp as a whole number of microseconds since 1970-01-01 UTC."""
        return _unix_micros(time.cast(_UTC))

    def view(self, sql: str, *, name: str | None = None) -> ir.Table:
        """Name a query as a temporary view and return it as an Ibis table; nothing is computed yet."""
        self._views += 1
        name = name or f"view_{self._views}"
        self.session.sql(sql).createOrReplaceTempView(name)
        return self.connection.table(name)

    def layer(self, table: ir.Table) -> ir.Table:
        """Name a table as a view; nothing is computed yet."""
        return self.view(self.compile(table))

    def table(self, sql: str | ir.Table, *, name: str) -> ir.Table:
        """Name a query whose result is kept, in memory or on the workers' disks, when it is first computed."""
        frame = self.session.sql(sql if isinstance(sql, str) else self.compile(sql)).persist()
        frame.createOrReplaceTempView(name)
        replaced, self._kept[name] = self._kept.get(name), frame
        if replaced is not None:
            replaced.unpersist()
        return self.connection.table(name)

    def hold(self, rows: pa.Table, *, name: str) -> ir.Table:
        """Hand a table of this process to Spark under a name and return it as an Ibis table."""
        self.session.createDataFrame(rows).createOrReplaceTempView(name)
        return self.connection.table(name)

    def compile(self, table: ir.Table) -> str:
        """Return the query for a table, to be run any number of times with `fetch`."""
        return str(self.connection.compile(table))

    def fetch(self, sql: str) -> pa.Table:
        """Run a compiled query; its times come without a zone, in UTC."""
        found = self.session.sql(sql).toArrow()
        plain = [pa.timestamp("us") if pa.types.is_timestamp(field.type) else field.type for field in found.schema]
        return found.cast(pa.schema(list(zip(found.column_names, plain, strict=True))))

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """Compute a table."""
        return self.fetch(self.compile(table))

    def count(self, table: ir.Table) -> int:
        """Return how many rows a table has."""
        return self.session.sql(self.compile(table)).count()

    def write_partitioned(self, table: ir.Table, folder: str, *, by: str) -> None:
        """Write a table as Parquet files in one folder for each value of a column; what was there before is replaced at the end.

        Parameters
        ----------
        folder
            Where, by a path or an address that Spark can write to, such as `s3a://...`.
        """
        frame = self.session.sql(self.compile(table))
        frame.repartition(by).write.mode("overwrite").partitionBy(by).parquet(folder, compression="zstd")
