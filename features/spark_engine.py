"""The one module that knows Spark: it offers of a Spark session what features need of an engine, and writes partitioned Parquet.

Queries are compiled by Ibis and run where the session runs; nothing is computed here. The session is a child of the one that is there
(on Databricks, EMR or under spark-submit) or of a new one, so that its settings and views are its own. Its times are UTC.

But: results that come back as Arrow tables are as large as the memory of this process allows. Features of a whole book do not
come back; they are written by Spark itself, see `features.lake`.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Set
from types import TracebackType
from typing import TYPE_CHECKING, Self

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from features.errors import SourceError, explain

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["Batches", "SparkEngine"]

Batches = Iterable[pa.RecordBatch]
"""What goes to a worker's function, and comes from it."""

_UTC = dt.Timestamp(timezone="UTC")
_CUTOFF = "renewcast_cutoff"
_BLANKS = "20090A0B0C0D"
"""The blanks that text is stripped of, in hexadecimal."""
_ANY_PYTHON = "python3"
"""What PySpark runs on workers unless PYSPARK_PYTHON says another one."""
_OURS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",  # what cannot be computed fails, and never turns into an empty value
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",  # an account called 007 is not the number 7
}


@ibis.udf.scalar.builtin(name="unix_micros", signature=((_UTC,), dt.int64))
def _unix_micros(time):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for Spark's function of that name."""


@ibis.udf.scalar.builtin(name=_CUTOFF, signature=((), dt.int64))
def _cutoff():  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Stand for the temporary function that `SparkEngine.at` makes."""


@ibis.udf.scalar.builtin(name="unhex", signature=((dt.string,), dt.binary))
def _unhex(digits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for Spark's function of that name."""


@ibis.udf.scalar.builtin(name="decode", signature=((dt.binary, dt.string), dt.string))
def _decode(code, encoding):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for Spark's function of that name."""


@ibis.udf.scalar.builtin(name="btrim", signature=((dt.string, dt.string), dt.string))
def _btrim(text, characters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for Spark's function of that name."""


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
            from py4j.protocol import Py4JError
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
        on_this_machine = str(self.session.conf.get("spark.master", "")).startswith("local")
        if on_this_machine and self.session.sparkContext.pythonExec == _ANY_PYTHON:
            self.session.sparkContext.pythonExec = sys.executable  # workers on this machine have what this process has
        self.connection = ibis.pyspark.connect(self.session)
        self._refusal = (PySparkException, Py4JError)
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
    def refusal(self) -> tuple[type[Exception], ...]:
        """What a query may raise when the engine refuses it: at once what cannot be planned, later what fails on the workers."""
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

    @staticmethod
    def filled(text: ir.StringValue) -> ir.StringValue:
        """Return the text without blanks around it, and null where nothing is left.

        Ibis strips by a literal with escapes for form feed and vertical tab, which Spark reads as the letters f and v.
        """
        return _btrim(text, _decode(_unhex(_BLANKS), "UTF-8")).nullif("")

    def view(self, sql: str) -> ir.Table:
        """Name a query as a temporary view and return it as an Ibis table; nothing is computed yet."""
        return self._named(self.session.sql(sql))

    def layer(self, table: ir.Table) -> ir.Table:
        """Name a table as a view; nothing is computed yet."""
        return self.view(self.compile(table))

    def table(self, sql: str | ir.Table, *, name: str) -> ir.Table:
        """Name a query whose result is kept, in memory or on the workers' disks, when it is first computed.

        An earlier table of the same name stays what it was; its result is kept no longer, and computed again where it is asked for.
        """
        frame = self.session.sql(sql if isinstance(sql, str) else self.compile(sql)).persist()
        replaced, self._kept[name] = self._kept.get(name), frame
        if replaced is not None:
            replaced.unpersist()
        return self._named(frame, name)

    def hold(self, rows: pa.Table, *, name: str) -> ir.Table:
        """Hand a table of this process to Spark and return it as an Ibis table; an earlier one of the same name stays what it was."""
        return self._named(self.session.createDataFrame(rows), name)

    def _named(self, frame: "DataFrame", name: str = "view") -> ir.Table:
        """Name a frame as no other view is named: queries find their tables by name, and may be run long after they were made."""
        self._views += 1
        view = f"{name}_{self._views}"
        frame.createOrReplaceTempView(view)
        return self.connection.table(view)

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

    @staticmethod
    def quoted(relation: str) -> str:
        """Write the name of a table of the session's catalogue, such as `lake.telemetry`, for SQL."""
        return ".".join(f"`{part.replace('`', '``')}`" for part in relation.split("."))

    def read_parquet(self, place: str) -> ir.Table:
        """Open Parquet files, by a path, a glob or an address, as one table, their columns joined by name."""
        return self._named(self.session.read.option("mergeSchema", "true").parquet(place))

    def count(self, table: ir.Table) -> int:
        """Return how many rows a table has."""
        return self.session.sql(self.compile(table)).count()

    def mapped(self, table: ir.Table, function: Callable[[Batches], Batches], *, schema: str) -> ir.Table:
        """Hand a table's rows to a function of Arrow batches, on the workers, and return what it yields as a table; nothing is run yet.

        Parameters
        ----------
        function
            Is sent to the workers, with what it refers to; modules are imported there.
        schema
            The columns of its batches, as Spark writes them, such as `account_id string, raw double`.
        """
        return self._named(self.session.sql(self.compile(table)).mapInArrow(function, schema))

    def write_partitioned(self, table: ir.Table, folder: str, *, by: str, values: Set[str]) -> None:
        """Write a table as Parquet files in one folder for each value of a column, in place of all that was there.

        What was there stays until all of the table is written, and then makes way.

        Parameters
        ----------
        folder
            Where, by a path or an address that Spark can write to, such as `s3a://...`.
        values
            All that the column holds.
        """
        self.replace_partitions(table, folder, by=by)
        written = self.session.read.parquet(folder).select(by).distinct().toArrow()[by].to_pylist()
        for value in sorted(set(written) - values):
            self._remove(f"{folder}/{by}={value}")

    def replace_partitions(self, table: ir.Table, folder: str, *, by: str) -> None:
        """Write a table as `write_partitioned` does, in place of what was there for the same values of the column only."""
        frame = self.session.sql(self.compile(table)).repartition(by)
        frame.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy(by).parquet(folder, compression="zstd")

    def _remove(self, folder: str) -> None:
        """Remove a folder wherever Spark can write."""
        context = self.session.sparkContext
        assert context._jvm is not None
        path = context._jvm.org.apache.hadoop.fs.Path(folder)
        path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)
