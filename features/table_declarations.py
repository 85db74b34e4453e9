"""Reads the tables of a workspace's config, and the columns of their sources."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

from features.config import (
    ATTRIBUTE,
    AttributeKind,
    BeforeCreated,
    ColumnMap,
    Database,
    FileFormat,
    TableConfig,
    TableSource,
)
from features.contracts import CONTRACT
from features.errors import nearest
from features.section import Section

__all__ = ["Locate", "read_tables"]

Locate = Callable[[Section, str], Path]
"""From a section and one of its keys to the path that the key names."""


def read_tables(section: Section, *, limit: float, locate: Locate, environ: Mapping[str, str]) -> dict[str, TableConfig]:
    """Read which tables there are, where they lie, and how their columns map onto the contract.

    Raises
    ------
    ConfigError
        If a table is missing or unknown, or a source or column cannot be.
    """
    for name in section.values:
        if name not in CONTRACT:
            todo = nearest(name, CONTRACT) or "Map it onto one of these, or remove it."
            raise section.wrong(name, "is not a table of the contract", allowed=", ".join(CONTRACT), todo=todo)
    for name, contract in CONTRACT.items():
        if contract.required and name not in section:
            todo = f'Add [{section.named(name)}] with source = "..."; it holds {contract.meaning}.'
            raise section.wrong(name, "is missing", given=", ".join(section.values) or "no table", todo=todo)
    return {name: _table(section.section(name), name, limit=limit, locate=locate, environ=environ) for name in CONTRACT if name in section}


def _table(section: Section, table: str, *, limit: float, locate: Locate, environ: Mapping[str, str]) -> TableConfig:
    own_limit = section.number("quarantine_limit", limit, low=0, high=1)
    before: BeforeCreated = section.choice("before_created_at", get_args(BeforeCreated), "keep") if _has_account_time(table) else "keep"
    parts = list(section.sections("sources")) or [section]
    attributes: dict[str, AttributeKind] = {}
    sources = tuple(_source(part, table, attributes, locate=locate, environ=environ) for part in parts)
    section.refuse_others()
    return TableConfig(table=table, sources=sources, quarantine_limit=own_limit, before_created_at=before, attributes=attributes)


def _has_account_time(table: str) -> bool:
    return table != "accounts" and "account_id" in CONTRACT[table].columns and CONTRACT[table].occurred is not None


def _source(
    section: Section, table: str, attributes: dict[str, AttributeKind], *, locate: Locate, environ: Mapping[str, str]
) -> TableSource:
    columns = _columns(section.section("columns"), table)
    if table == "accounts":
        declared = section.section("attributes")
        for name in declared.values:
            attributes[name], columns[ATTRIBUTE + name] = _attribute(declared, name)
    database = section.choice("database", get_args(Database), None)
    source = TableSource(
        table=table,
        database=database,
        where=section.text("where", None),
        query=section.text("query", None),
        columns=columns,
        **(_file_keys(section, locate) if database is None else _database_keys(section, database, locate, environ)),
    )
    section.refuse_others()
    return source


def _file_keys(section: Section, locate: Locate) -> dict[str, Any]:
    if "source" not in section and "sources" not in section:
        raise section.wrong("source", "is missing", allowed="a file, a glob or a folder", todo=f'Add source = "..." to [{section.path}].')
    lookups = section.section("lookups")
    if lookups.values and "query" not in section:
        raise section.wrong(
            "lookups", "are of no use without a query", todo=f'Add query = "SELECT ... FROM source JOIN {next(iter(lookups.values))} ...".'
        )
    return {
        "location": locate(section, "source"),
        "format": section.choice("format", get_args(FileFormat), None),
        "lookups": {name: locate(lookups, name) for name in lookups.values},
    }


def _database_keys(section: Section, database: Database, locate: Locate, environ: Mapping[str, str]) -> dict[str, Any]:
    relation = section.text("table", None)
    if (relation is None) == ("query" not in section):
        raise section.wrong(
            "table", "and query: exactly one of them says what to read", todo='Write table = "..." or query = "SELECT ...".'
        )
    if database == "spark":
        return {"relation": relation}
    if database != "postgresql":
        return {"relation": relation, "location": locate(section, "source")}
    name = section.text("url_env")
    return {"relation": relation, "url_env": name, "url": environ.get(name)}


def _columns(section: Section, table: str) -> dict[str, ColumnMap]:
    known = CONTRACT[table].columns
    for name in section.values:
        if name not in known:
            todo = nearest(name, known) or (f"Declare it in [tables.{table}.attributes]." if table == "accounts" else "Remove it.")
            raise section.wrong(name, f"is not a column of {table}", allowed=", ".join(known), todo=todo)
    return {name: _column(section, name, name) for name in section.values}


_WAYS = 'a source column as "text", or one of { column = "..." }, { sql = "..." }, { constant = ... }'


def _column(section: Section, key: str, name: str, *, ignoring: str | None = None) -> ColumnMap:
    value = section.get(key)
    if isinstance(value, str) and value.strip():
        return ColumnMap(name=name, column=value)
    if not isinstance(value, dict):
        raise section.wrong(key, "does not say where the column comes from", given=value, allowed=_WAYS)
    part = section.section(key)
    if ignoring is not None:
        part.get(ignoring, None)
    ways = [way for way in ("column", "sql", "constant") if way in part]
    if len(ways) > 1 or (not ways and ignoring is None):
        raise section.wrong(key, "must come from exactly one place", given=", ".join(ways) or "none", allowed=_WAYS)
    mapped = ColumnMap(
        name=name,
        column=part.text("column", None if ways else key),
        sql=part.text("sql", None),
        constant=part.get("constant", None),
        time_format=part.text("time_format", None),
        time_zone=_zone(part),
        low=part.number("low", None, low=float("-inf")),
        high=part.number("high", None, low=float("-inf")),
    )
    part.refuse_others()
    return mapped


def _zone(section: Section) -> str | None:
    zone: str | None = section.text("time_zone", None)
    try:
        return ZoneInfo(zone).key if zone is not None else None
    except (KeyError, ValueError) as error:
        raise section.wrong(
            "time_zone", "is not a known time zone", given=zone, allowed='names such as "Europe/Berlin" or "UTC"'
        ) from error


def _attribute(section: Section, name: str) -> tuple[AttributeKind, ColumnMap]:
    value = section.get(name)
    if isinstance(value, dict):
        part = section.section(name)
        return part.choice("type", get_args(AttributeKind)), _column(section, name, ATTRIBUTE + name, ignoring="type")
    return section.choice(name, get_args(AttributeKind)), ColumnMap(name=ATTRIBUTE + name, column=name)
