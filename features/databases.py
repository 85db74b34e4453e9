"""Exports tables of databases to files that the engine reads: DuckDB to Parquet, SQLite and PostgreSQL to CSV, all streamed."""

import csv
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from features.config import TableSource
from features.engine import quoted_name
from features.errors import SourceError, explain

__all__ = ["Exported", "export_postgresql", "export_sqlite", "label", "selection"]

_SESSION = "-c timezone=UTC -c datestyle=ISO -c default_transaction_read_only=on"


@dataclass
class Exported:
    """How far an export is.

    Parameters
    ----------
    rows
        The rows that were written.
    expected
        About how many there are; 0 where nobody knows without reading them.
    """

    rows: int = 0
    expected: int = 0

    def share(self) -> float:
        """Return which share is done, at most 0.99; -1 where it is not known.

        Examples
        --------
        >>> Exported(30, 120).share(), Exported(150, 120).share(), Exported(30).share()
        (0.25, 0.99, -1.0)
        """
        return min(0.99, self.rows / self.expected) if self.expected else -1.0


def label(source: TableSource) -> str:
    """Name a database and what is read from it, without the credentials in its address."""
    place = source.location or f"the database in {source.url_env}"
    return f"{place}: {source.relation or 'query'}"


def selection(source: TableSource) -> str:
    """Return the SQL that reads the source inside its database."""
    if source.query is not None:
        return source.query.strip().rstrip(";")
    return f"SELECT * FROM {'.'.join(quoted_name(part) for part in str(source.relation).split('.'))}"


def export_sqlite(source: TableSource, out: Path, done: Exported) -> None:
    """Write a table of a SQLite database as CSV; the database is opened for reading only.

    Parameters
    ----------
    done
        Is brought up to date meanwhile. The numbers of a table's rows tell how many are expected; of a view or a query nobody knows.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    address = f"file:{quote(str(source.location))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection, closing(connection.execute(selection(source))) as rows:
            done.expected = _numbered_rows(connection, source)
            _write(out, [column[0] for column in rows.description], rows.fetchmany, done)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error


def _numbered_rows(connection: sqlite3.Connection, source: TableSource) -> int:
    """Return how far apart the first and the last number of a table's rows are, which SQLite finds at once; 0 for anything else."""
    name, of_rows = str(source.relation).split(".")[-1], selection(source).removeprefix("SELECT * ")
    with suppress(sqlite3.Error, TypeError, ValueError, OverflowError):  # there may be no rows, no numbers, or a column of that name
        is_table = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", [name]).fetchone()
        if source.query is None and is_table:
            asked = f"SELECT (SELECT max(_rowid_) {of_rows}) - (SELECT min(_rowid_) {of_rows}) + 1"
            return int(connection.execute(asked).fetchone()[0])
    return 0


def _write(out: Path, names: list[str], fetch: Callable[[int], list[Any]], done: Exported) -> None:
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        while rows := fetch(10_000):
            writer.writerows(rows)
            done.rows += len(rows)


def export_postgresql(source: TableSource, out: Path, done: Exported) -> None:
    """Write a table of a PostgreSQL database as CSV, its times in UTC.

    Parameters
    ----------
    done
        Is brought up to date meanwhile; the server guesses how many rows are expected, if it can.

    Raises
    ------
    SourceError
        If the database cannot be reached or read, or its driver is not installed.
    """
    if source.url is None:
        todo = f'Set it: export {source.url_env}="postgresql://user:password@host:5432/database".'
        raise SourceError(explain(f"the environment variable {source.url_env} is not set", given=label(source), todo=todo))
    try:
        import psycopg
    except ImportError as error:
        raise SourceError(explain("the driver for PostgreSQL is not installed", todo="Install renewcast[postgres].")) from error
    statement = f"COPY ({selection(source)}) TO STDOUT WITH (FORMAT csv, HEADER true, ENCODING 'UTF8')"
    try:
        with psycopg.connect(source.url, options=_SESSION) as connection, out.open("wb") as stream:
            with suppress(psycopg.Error, LookupError, TypeError), connection.transaction():  # a server may give no such plan
                plan = connection.execute(f"EXPLAIN (FORMAT json) ({selection(source)})".encode()).fetchone()
                done.expected = int(plan[0][0]["Plan"]["Plan Rows"]) if plan else 0
            with connection.cursor().copy(statement.encode()) as blocks:
                for done.rows, block in enumerate(blocks):  # a row each, after the header
                    stream.write(block)
    except psycopg.Error as error:
        raise _unreadable(source, error) from error


def _unreadable(source: TableSource, error: Exception) -> SourceError:
    todo = "Look at the name of the table, the query and your rights in the database."
    return SourceError(explain(f"the database cannot be read: {str(error).strip()}", given=label(source), todo=todo))
