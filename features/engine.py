"""The one module that knows DuckDB: it connects, reads files and writes results; everything else says what it wants in Ibis.

An engine lives in memory, spills to a folder when a memory limit is reached, and is closed by its `with` block. Times are UTC.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

__all__ = ["ROWS_PER_GROUP", "Engine", "QueryError", "quoted", "quoted_name"]

ROWS_PER_GROUP = 122_880
"""Rows in one row group of a Parquet file: DuckDB's own unit, small enough that a window of days skips most groups."""

_VERSION = "PARQUET_VERSION v2"
"""Version 2 keeps whole numbers and times as differences.

Measured with 98.5 M rows of telemetry on 2 cores: a tenth smaller than version 1, written in the same time and read in half of it.
"""
_KEPT = f"COMPRESSION zstd, DICTIONARY_SIZE_LIMIT {ROWS_PER_GROUP // 4}"
"""Texts that come four times in a group on average are kept once."""
_STAGED = f"COMPRESSION snappy, DICTIONARY_SIZE_LIMIT {ROWS_PER_GROUP // 32}"
"""Only texts that come some thirty times in a group are kept once. To find that out of others costs more than writing them: with the same
telemetry a quarter of the time of writing, which does not come back where a file is read once or twice."""

_SECONDS_BETWEEN_LOOKS = 0.25

QueryError = duckdb.Error
"""What a query raises when the engine refuses it."""


def quoted(text: object) -> str:
    """Write a value as an SQL string.

    Examples
    --------
    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + str(text).replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """Write the name of a column or table for SQL, whatever characters it holds.

    Examples
    --------
    >>> print(quoted_name('a "b" c'))
    "a ""b"" c"
    """
    return '"' + name.replace('"', '""') + '"'


@ibis.udf.scalar.builtin(name="epoch_us")  # type: ignore[untyped-decorator]
def _epoch_us(time: datetime) -> int:  # type: ignore[empty-body]
    """Stand for DuckDB's function of that name."""


@ibis.udf.scalar.builtin(name="getvariable")  # type: ignore[untyped-decorator]
def _getvariable(variable: str) -> int:  # type: ignore[empty-body]
    """Stand for DuckDB's function of that name."""


class Engine:
    """DuckDB in memory, through Ibis.

    Parameters
    ----------
    memory_limit
        What a query may hold in memory before it spills to disk, such as `2GB`; DuckDB's own limit (80 % of the machine) if None.
    spill_folder
        Where it spills to; a folder of the operating system's, removed at the end, if None.
    threads
        Threads of a query; one for each core if None.
    """

    def __init__(self, *, memory_limit: str | None = None, spill_folder: Path | None = None, threads: int | None = None) -> None:
        self._own_folder = Path(tempfile.mkdtemp(prefix="renewcast-")) if spill_folder is None else None
        settings: dict[str, Any] = {"temp_directory": str(self._own_folder or spill_folder)}
        if memory_limit is not None:
            settings["memory_limit"] = memory_limit
        if threads is not None:
            settings["threads"] = threads
        self.connection = ibis.duckdb.connect(**settings)
        self.run("SET TimeZone = 'UTC'")
        # else a large Parquet file that is nearly sorted is sorted in parts of so many rows of all of it, each in a scan of its own of
        # all that a filter leaves: writing one month of a book would cost the more, the larger the book
        self.run("SET disabled_optimizers = 'partitioned_execution'")
        if self.rows("SELECT current_setting('enable_progress_bar')")[0][0]:  # DuckDB would draw it on standard output
            self.run("SET enable_progress_bar = false")  # in a notebook this fails without ipywidgets, where there is no bar either
        self._views = 0
        self._share: Callable[[], float] | None = None
        self._measured = 0
        self._asking = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back the memory and remove what was spilled."""
        self.connection.disconnect()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)

    def run(self, sql: str) -> None:
        """Run a statement for its effect."""
        self.connection.raw_sql(sql)

    @contextmanager
    def watched(self, tell: Callable[[float], None], *, queries: int = 1) -> Iterator[None]:
        """Tell now and then, from another thread, which share of the queries that run in the block is done, where DuckDB knows it.

        Parameters
        ----------
        queries
            How many there are that take long, one after the other; each counts the same.
        """
        if not _measures_progress(self.run):
            yield
            return
        ended = Event()
        watcher = Thread(target=self._watch, args=(tell, queries, ended), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            self.run("SET enable_progress_bar = false")

    @contextmanager
    def measured(self, share: Callable[[], float]) -> Iterator[None]:
        """Have the block counted as one query by `watched`, though the engine does nothing in it; a function tells its share.

        Parameters
        ----------
        share
            Called from another thread; below 0 where it is not known, and the block then counts when it ends.
        """
        self._share = share
        try:
            yield
        finally:
            with self._asking:  # who asks the function at this moment is done with it then
                self._share, self._measured = None, self._measured + 1

    def _watch(self, tell: Callable[[float], None], queries: int, ended: Event) -> None:
        told, before, done, measured = 0.0, 0.0, 0, self._measured
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            with self._asking:
                share = self._share() if self._share else self.connection.con.query_progress() / 100  # below 0 where it is not known
                ended_since, measured = self._measured - measured, self._measured
            if ended_since:
                before, done = 0.0, min(done + ended_since, queries - 1)
            if not 0 < share <= 1:
                continue
            if share < before:  # another query has begun
                done = min(done + 1, queries - 1)
            before = share
            if told < (done + share) / queries:
                told = (done + share) / queries
                tell(told)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a small result."""
        found: list[tuple[Any, ...]] = self.connection.raw_sql(sql).fetchall()
        return found

    def count(self, table: ir.Table) -> int:
        """Return how many rows a table has."""
        return int(self.rows(f"SELECT count(*) FROM ({self.compile(table)})")[0][0])

    def view(self, sql: str, *, name: str | None = None) -> ir.Table:
        """Name a query as a temporary view and return it as an Ibis table; nothing is computed yet."""
        self._views += 1
        name = name or f"view_{self._views}"
        self.run(f"CREATE OR REPLACE TEMP VIEW {quoted_name(name)} AS {sql}")
        return self.connection.table(name)

    def layer(self, table: ir.Table) -> ir.Table:
        """Name a table as a view, so that what is built on its columns refers to them instead of repeating their expressions."""
        return self.view(self.connection.compile(table))

    def table(self, sql: str | ir.Table, *, name: str) -> ir.Table:
        """Compute a query now, keep its result under a name and return it as an Ibis table."""
        query = sql if isinstance(sql, str) else self.connection.compile(sql)
        self.run(f"CREATE OR REPLACE TEMP TABLE {quoted_name(name)} AS {query}")
        return self.connection.table(name)

    def hold(self, rows: pa.Table, *, name: str) -> ir.Table:
        """Give a table in memory a name, without a copy, and return it as an Ibis table."""
        self.connection.con.register(name, rows)
        return self.connection.table(name)

    def microseconds(self, time: ir.TimestampValue) -> ir.IntegerValue:
        """Return the timestamp as a whole number of microseconds since 1970-01-01 UTC."""
        return _epoch_us(time.cast("timestamp"))

    @property
    def version(self) -> str:
        """Name and version: another one may give other hashes."""
        return f"duckdb {duckdb.__version__}"

    @property
    def in_process(self) -> bool:
        """Whether tables lie in this process, so that its arrays and numbers for rows are cheap."""
        return True

    @property
    def refusal(self) -> tuple[type[Exception], ...]:
        """What a query may raise when the engine refuses it."""
        return (QueryError,)

    @property
    def cutoff(self) -> ir.IntegerValue:
        """The instant of `at`, as an expression: one compiled query serves any number of cutoffs."""
        return _getvariable("cutoff")

    def at(self, cutoff: int) -> None:
        """Set the instant that `cutoff` stands for, in microseconds since 1970-01-01 UTC."""
        self.run(f"SET VARIABLE cutoff = {int(cutoff)}::BIGINT")

    def compile(self, table: ir.Table) -> str:
        """Return the query for a table, to be run any number of times with `fetch`."""
        return str(self.connection.compile(table))

    def fetch(self, sql: str) -> pa.Table:
        """Run a compiled query."""
        return self.connection.con.sql(sql).to_arrow_table()

    def read_parquet(self, files: Path | Sequence[Path], **options: object) -> ir.Table:
        """Open Parquet files as one table, their columns joined by name; options as of DuckDB's `read_parquet`."""
        return self.view(f"SELECT * FROM read_parquet({_arguments(files, {'union_by_name': True} | options)})")

    def to_arrow(self, table: ir.Table) -> pa.Table:
        """Compute a table."""
        return self.fetch(self.compile(table))

    def batches(self, table: ir.Table, *, rows: int) -> Iterator[pa.RecordBatch]:
        """Compute a table and return it so many rows at a time."""
        yield from self.connection.con.sql(self.compile(table)).to_arrow_reader(rows)

    def write_parquet(self, table: ir.Table | str, path: Path) -> int:
        """Stream a table (or an SQL query) to a Parquet file and return the number of its rows."""
        return self._copy(table, path, _KEPT)

    def stage_parquet(self, table: ir.Table | str, path: Path) -> int:
        """Do as `write_parquet` for a file that is read once or twice and then removed: larger, and written and read in less time."""
        return self._copy(table, path, _STAGED)

    def _copy(self, table: ir.Table | str, path: Path, options: str) -> int:
        sql = table if isinstance(table, str) else self.connection.compile(table)
        how = f"FORMAT parquet, {_VERSION}, {options}, ROW_GROUP_SIZE {ROWS_PER_GROUP}"
        return int(self.rows(f"COPY ({sql}) TO {quoted(path)} ({how})")[0][0])

    def write_csv(self, sql: str, path: Path) -> int:
        """Stream a query to a CSV file with a header and return the number of its rows."""
        return int(self.rows(f"COPY ({sql}) TO {quoted(path)} (FORMAT csv, HEADER true)")[0][0])

    def export_database(self, file: Path, sql: str, path: Path) -> None:
        """Write what a query finds in a DuckDB database, opened for reading only, to a Parquet file."""
        with duckdb.connect(str(file), read_only=True) as connection:
            _measures_progress(connection.execute)
            with self.measured(lambda: connection.query_progress() / 100):
                connection.execute(f"COPY ({sql}) TO {quoted(path)} (FORMAT parquet)")


def _measures_progress(run: Callable[[str], object]) -> bool:
    """Let DuckDB measure how far its queries are, without the bar that it would draw; in a notebook it may refuse."""
    try:
        run("SET enable_progress_bar_print = false")
        run("SET enable_progress_bar = true")
    except QueryError:
        return False
    return True


def _arguments(files: Path | Sequence[Path], options: Mapping[str, object]) -> str:
    paths = [files] if isinstance(files, Path) else files
    listed = "[" + ", ".join(quoted(path) for path in paths) + "]"
    return ", ".join([listed, *(f"{name} = {_literal(value)}" for name, value in options.items())])


def _literal(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case Mapping():
            return "{" + ", ".join(f"{quoted(key)}: {_literal(item)}" for key, item in value.items()) + "}"
        case _:
            return quoted(value)
