"""Exports tables of databases to files that the engine reads: DuckDB to Parquet, SQLite and PostgreSQL to CSV, all streamed."""

import csv
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from features.config import TableSource
from features.engine import quoted_name
from features.errors import SourceError, explain

__all__ = ["export_postgresql", "export_sqlite", "label", "selection"]

_SESSION = "-c timezone=UTC -c datestyle=ISO -c default_transaction_read_only=on"


def label(source: TableSource) -> str:
    """Name a database and what is read from it, without the credentials in its address."""
    place = source.location or f"the database in {source.url_env}"
    return f"{place}: {source.relation or 'query'}"


def selection(source: TableSource) -> str:
    """Return the SQL that reads the source inside its database."""
    if source.query is not None:
        return source.query.strip().rstrip(";")
    return f"SELECT * FROM {'.'.join(quoted_name(part) for part in str(source.relation).split('.'))}"


def export_sqlite(source: TableSource, out: Path) -> None:
    """Write a table of a SQLite database as CSV; the database is opened for reading only.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    address = f"file:{quote(str(source.location))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection, closing(connection.execute(selection(source))) as rows:
            _write(out, [column[0] for column in rows.description], rows.fetchmany)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise _unreadable(source, error) from error


def _write(out: Path, names: list[str], fetch: Callable[[int], list[Any]]) -> None:
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        while rows := fetch(10_000):
            writer.writerows(rows)


def export_postgresql(source: TableSource, out: Path) -> None:
    """Write a table of a PostgreSQL database as CSV, its times in UTC.

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
        with (
            psycopg.connect(source.url, options=_SESSION) as connection,
            connection.cursor().copy(statement.encode()) as blocks,
            out.open("wb") as stream,
        ):
            for block in blocks:
                stream.write(block)
    except psycopg.Error as error:
        raise _unreadable(source, error) from error


def _unreadable(source: TableSource, error: Exception) -> SourceError:
    todo = "Look at the name of the table, the query and your rights in the database."
    return SourceError(explain(f"the database cannot be read: {str(error).strip()}", given=label(source), todo=todo))
