"""Maps a source's rows onto a table of the contract, each row with the reasons for which it is broken.

A row that breaks a rule of the contract goes to quarantine. A number or flag that cannot be read, or a number that is out of bounds,
is blanked where the contract lets it be empty, and its row stays: a term without its seats is still a term. A time that cannot be
read is never blanked, for an empty one means something else, such as a ticket that is still open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.clock import known_by
from features.config import ATTRIBUTE, AttributeKind, ColumnMap, Config, TableConfig, TableSource
from features.contracts import CONTRACT, Column, ColumnType
from features.engine import Engine
from features.errors import ConfigError, ContractError, explain, nearest
from features.expressions import BROKEN, HASH, RAW, SQL, derive, gather_evidence, query_files
from features.readings import Evidence, filled, finite, read_flag, read_number, read_time, read_typed_time, stated
from features.sources import FILE, PROBLEM, ROW, OpenedSource, open_source

__all__ = ["BLANKED", "FUTURE_TOLERANCE", "REASONS", "SEPARATOR", "MappedSource", "map_source", "table_columns"]

REASONS, BLANKED = "__reasons", "__blanked"
SEPARATOR = "; "

FUTURE_TOLERANCE = timedelta(days=1)
"""How far past the present a time may lie: the end of today for rows that sum up a day, and clocks that are ahead."""


@dataclass(frozen=True)
class MappedSource:
    """A source's rows as rows of a contract table.

    Parameters
    ----------
    table
        The contract's columns that the source offers, the reasons why the row is broken and the values blanked in it (both joined by
        `SEPARATOR`, empty if there are none), the file, the row and a hash of the whole raw row.
    taken
        Where each column comes from.
    unused
        The source's columns that nothing is taken from.
    left_out
        Rows that the source's `where` left out.
    notes
        What was noticed and accepted, and how often.
    """

    table: ir.Table
    opened: OpenedSource
    taken: Mapping[str, str]
    unused: tuple[str, ...]
    left_out: int
    notes: Mapping[str, int]


@dataclass(frozen=True)
class _Cell:
    """One column of a row, and what is wrong with it: as a reason that costs the row, or one that costs the value."""

    value: ir.Value
    reasons: tuple[ir.StringValue, ...] = ()
    blanked: tuple[ir.StringValue, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


_ATTRIBUTE_TYPES: Mapping[AttributeKind, ColumnType] = {"category": "text", "number": "number", "date": "time"}


def table_columns(table: TableConfig) -> dict[str, Column]:
    """Return the columns of a contract table, and the attributes that the workspace declares."""
    attributes = {
        ATTRIBUTE + name: Column(type=_ATTRIBUTE_TYPES[kind], meaning="declared by the workspace")
        for name, kind in table.attributes.items()
    }
    return dict(CONTRACT[table.table].columns) | attributes


def map_source(engine: Engine, source: TableSource, table: TableConfig, config: Config, *, now: datetime, staging: Path) -> MappedSource:
    """Open a source and map it.

    Parameters
    ----------
    now
        The present, in UTC: a later time is broken where the contract does not allow it.
    staging
        A folder for temporary files, to be kept until the table was read.

    Raises
    ------
    SourceError
        If the source cannot be opened.
    ConfigError
        If an expression cannot be computed, or a currency has no rate.
    ContractError
        If a column is missing or of a wrong type.
    """
    opened = open_source(engine, source, staging)
    if source.query is not None and source.database is None:
        opened = query_files(engine, opened, source, staging)
    columns = table_columns(table)
    maps = _complete(source, columns, opened)
    texts = [str(mapped.column) for name, mapped in maps.items() if mapped.column and columns[name].type in ("id", "text")]
    derived = derive(engine, opened, replace(source, columns=maps), as_text=texts)
    values = {name: _value(derived.table, mapped) for name, mapped in maps.items()}
    readable = {name: value for name, value in values.items() if value.type().is_string() and columns[name].type not in ("id", "text")}
    evidence = gather_evidence(derived.table.select(**readable), readable) if readable else {}
    cells = {
        name: _cell(derived.table, value, maps[name], columns[name], evidence.get(name), f"{source.table}.{name}")
        for name, value in values.items()
    }
    mapped_table, notes = _in_currency(_assembled(derived.table, cells, columns, source.table, now=now), source, config)
    used = {mapped.column for mapped in maps.values()} | {None}
    return MappedSource(
        table=mapped_table,
        opened=opened,
        taken={name: mapped.column or mapped.sql or f"constant {mapped.constant}" for name, mapped in maps.items()},
        unused=tuple(name for name in opened.columns if name not in used and not _in_sql(name, maps, source)),
        left_out=derived.left_out,
        notes={**opened.notes, **notes, **{what: count for cell in cells.values() for what, count in cell.notes.items()}},
    )


def _in_sql(name: str, maps: Mapping[str, ColumnMap], source: TableSource) -> bool:
    return any(name.lower() in (sql or "").lower() for sql in [source.where, *(mapped.sql for mapped in maps.values())])


def _complete(source: TableSource, columns: Mapping[str, Column], opened: OpenedSource) -> dict[str, ColumnMap]:
    """Add the columns that the source has under the contract's own names, and find the others, whatever their case."""
    there = {name.lower(): name for name in opened.columns}
    implied = {name: ColumnMap(name=name, column=there[name]) for name in columns if name in there and name not in source.columns}
    offered = {**source.columns, **implied}
    maps = {name: offered[name] for name in columns if name in offered}
    for name, column in columns.items():
        if column.required and name not in maps:
            raise _missing(source, opened, name, f"it needs {name}: {column.meaning}", nearest(name, opened.columns))
    for name, mapped in maps.items():
        if mapped.column is not None and mapped.column.lower() not in there:
            raise _missing(source, opened, name, f"{name} is mapped onto {mapped.column}", nearest(mapped.column, opened.columns))
    return {name: replace(mapped, column=there[mapped.column.lower()]) if mapped.column else mapped for name, mapped in maps.items()}


def _missing(source: TableSource, opened: OpenedSource, name: str, why: str, hint: str) -> ContractError:
    first = opened.table.select(*opened.columns).limit(3).to_pyarrow().to_pylist()
    rows = "\n".join(", ".join(f"{key}={value}" for key, value in row.items()) for row in first)
    given = f"{opened.label} has the columns {', '.join(opened.columns)}\nfirst rows:\n{rows}"
    todo = f'{hint} Write {name} = "the column" or {name} = {{ sql = "..." }} in [tables.{source.table}.columns].'.strip()
    return ContractError(explain(f"the table {source.table} lacks a column: {why}", given=given, todo=todo))


def _value(table: ir.Table, mapped: ColumnMap) -> ir.Value:
    if mapped.column is not None:
        return table[RAW + mapped.column]
    return table[SQL + mapped.name] if mapped.sql is not None else ibis.literal(mapped.constant)


def _cell(table: ir.Table, raw: ir.Value, mapped: ColumnMap, column: Column, evidence: Evidence | None, key: str) -> _Cell:
    broken = table[BROKEN + mapped.name] if mapped.sql is not None else ibis.literal(value=False)
    match column.type:
        case "time":
            return _time_cell(raw, broken, mapped, evidence, key)
        case "number":
            return _number_cell(raw, broken, mapped, column, evidence, key)
        case "flag":
            return _flag_cell(raw, broken, mapped, column, key)
        case _:
            return _Cell(_as_text(raw), (_when(broken, f"{mapped.name}: made of a value that cannot be read"),))


def _when(condition: ir.BooleanValue, reason: str) -> ir.StringValue:
    return ibis.ifelse(condition, reason, ibis.null("string"))


def _as_text(value: ir.Value) -> ir.StringValue:
    kind = value.type()
    if kind.is_floating() or kind.is_decimal():
        # programs that know no missing whole number write ids as 7.0
        number = value.cast("float64")
        whole = (number == number.floor()) & (number.abs() < 2**53)
        return ibis.ifelse(whole, number.try_cast("int64").cast("string"), filled(value.cast("string")))
    return filled(value.cast("string"))


def _time_cell(raw: ir.Value, broken: ir.BooleanValue, mapped: ColumnMap, evidence: Evidence | None, key: str) -> _Cell:
    reason = f"{mapped.name}: not a time"
    if isinstance(mapped.constant, datetime):
        return _Cell(ibis.literal(mapped.constant).cast("timestamp"))
    if not raw.type().is_string():
        value = read_typed_time(raw, zone=mapped.time_zone)
        if value is None:
            raise _wrong_type(key, "time", str(raw.type()))
        return _Cell(value, (_when(broken | (raw.notnull() & value.isnull()), reason),))
    if (
        evidence is not None
        and mapped.time_format is None
        and evidence.slashed * 2 >= max(evidence.stated, 1)
        and evidence.slash_style is None
    ):
        raise _ambiguous(key, evidence)
    value = read_time(raw, slashes=evidence.slash_style if evidence else None, zone=mapped.time_zone, given=mapped.time_format)
    notes = {f"{mapped.name}: word for a missing value": evidence.markers} if evidence and evidence.markers else {}
    return _Cell(value, (_when(broken | (stated(raw).notnull() & value.isnull()), reason),), notes=notes)


def _number_cell(raw: ir.Value, broken: ir.BooleanValue, mapped: ColumnMap, column: Column, evidence: Evidence | None, key: str) -> _Cell:
    kind = raw.type()
    notes: dict[str, int] = {}
    if kind.is_string():
        number = read_number(raw, style=evidence.number_style if evidence else "point")
        unreadable = broken | (stated(raw).notnull() & number.isnull())
        notes = {f"{mapped.name}: word for a missing value": evidence.markers} if evidence and evidence.markers else {}
    elif kind.is_numeric() or kind.is_boolean() or kind.is_null():
        number = finite((raw.cast("int8") if kind.is_boolean() else raw).cast("float64"))
        unreadable = broken | raw.cast("float64").isinf().fill_null(False) if kind.is_floating() else broken
    else:
        raise _wrong_type(key, "number", str(kind))
    value, outside, bounds = _bounded(number, mapped, column)
    problems = (_when(unreadable, f"{mapped.name}: not a number"), _when(outside, f"{mapped.name}: {bounds}"))
    return _Cell(value, () if column.nullable else problems, problems if column.nullable else (), notes)


def _bounded(number: ir.FloatingValue, mapped: ColumnMap, column: Column) -> tuple[ir.FloatingValue, ir.BooleanValue, str]:
    low = max((bound for bound in (column.low, mapped.low) if bound is not None), default=None)
    high = min((bound for bound in (column.high, mapped.high) if bound is not None), default=None)
    outside: ir.BooleanValue = ibis.literal(value=False)
    if low is not None:
        outside = outside | (number < ibis.literal(low, "float64"))
    if high is not None:
        outside = outside | (number > ibis.literal(high, "float64"))
    outside = outside.fill_null(False)
    bounds = f"below {low:g}" if high is None and low is not None else f"above {high:g}" if low is None and high is not None else ""
    return ibis.ifelse(outside, ibis.null("float64"), number), outside, bounds or f"outside {low} to {high}"


def _flag_cell(raw: ir.Value, broken: ir.BooleanValue, mapped: ColumnMap, column: Column, key: str) -> _Cell:
    kind = raw.type()
    if kind.is_boolean():
        return _Cell(raw, blanked=(_when(broken, f"{mapped.name}: neither true nor false"),))
    if not (kind.is_string() or kind.is_numeric()):
        raise _wrong_type(key, "flag", str(kind))
    text = _as_text(raw)
    value = read_flag(text)
    problem = _when(broken | (stated(text).notnull() & value.isnull()), f"{mapped.name}: neither true nor false")
    return _Cell(value, () if column.nullable else (problem,), (problem,) if column.nullable else ())


def _wrong_type(key: str, wanted: str, given: str) -> ContractError:
    todo = f'Map {key} onto another column, or convert it: {{ sql = "..." }}.'
    return ContractError(explain(f"{key} must be a {wanted}, but its column is of another type", given=given, todo=todo))


def _ambiguous(key: str, evidence: Evidence) -> ContractError:
    contradicting = evidence.day_first > 0
    why = "some can only be day/month and some only month/day" if contradicting else "no value shows which number is the day"
    table, column = key.split(".")
    todo = f'Write {column} = {{ column = "...", time_format = "%d/%m/%Y" }} (or "%m/%d/%Y") in [tables.{table}.columns].'
    given = f"{evidence.slashed} such dates, {evidence.day_first} only day/month, {evidence.month_first} only month/day"
    return ContractError(explain(f"the dates of {key} can be read in two ways: {why}", given=given, todo=todo))


def _assembled(table: ir.Table, cells: Mapping[str, _Cell], columns: Mapping[str, Column], name: str, *, now: datetime) -> ir.Table:
    """Put the cells of a row together, with all reasons that the row itself shows."""
    dtypes = {"id": "string", "text": "string", "time": "timestamp(6)", "number": "float64", "flag": "boolean"}
    values = {key: cell.value.cast(dtypes[columns[key].type]) for key, cell in cells.items()}
    reasons: list[ir.StringValue] = []
    latest = ibis.timestamp(now + FUTURE_TOLERANCE)
    for key, cell in cells.items():
        reasons.extend(cell.reasons)
        if not columns[key].nullable:
            reported = [reason.notnull() for reason in cell.reasons]
            found = ibis.or_(*reported) if reported else ibis.literal(value=False)
            reasons.append(_when(values[key].isnull() & ~found, f"{key}: empty"))
        if columns[key].type == "time" and not columns[key].future:
            reasons.append(_when(~known_by(values[key], latest), f"{key}: in the future"))
    for first, second in CONTRACT[name].ordered:
        if first in values and second in values:
            reasons.append(_when(~known_by(values[first], values[second]), f"{second}: before {first}"))
    blanked = [reason for cell in cells.values() for reason in cell.blanked]
    unreadable = table[PROBLEM].replace(SEPARATOR.strip(), ",")
    return table.select(
        **values,
        **{
            FILE: table[FILE],
            ROW: table[ROW].cast("int64"),
            HASH: ibis.ifelse(unreadable.isnull(), table[HASH], ibis.null(table[HASH].type())),
            REASONS: ibis.ifelse(unreadable.notnull(), unreadable, _joined(reasons)),
            BLANKED: ibis.ifelse(unreadable.notnull(), "", _joined(blanked)),
        },
    )


def _joined(reasons: list[ir.StringValue]) -> ir.StringValue:
    return ibis.literal(SEPARATOR).join(reasons) if reasons else ibis.literal("")


_AMOUNTS = ("arr", "list_arr")


def _in_currency(table: ir.Table, source: TableSource, config: Config) -> tuple[ir.Table, dict[str, int]]:
    """Convert amounts to the workspace's currency at its fixed rates."""
    if source.table != "subscriptions" or "currency" not in table.columns:
        return table, {}
    code = table.currency.upper()
    rates = {config.currency: 1.0, **config.currencies}
    found = table.group_by(code=code).aggregate(rows=lambda t: t.count()).to_pyarrow().to_pylist()
    unknown = {row["code"]: row["rows"] for row in found if row["code"] is not None and row["code"] not in rates}
    if unknown:
        given = ", ".join(f"{code} in {count} rows" for code, count in sorted(unknown.items()))
        todo = f"Add [currencies] with {next(iter(unknown))} = what one of it is worth in {config.currency}."
        raise ConfigError(
            explain("subscriptions has amounts in a currency without a rate", given=given, allowed=", ".join(rates), todo=todo)
        )
    rate = ibis.cases(*((code == known, ibis.literal(worth, "float64")) for known, worth in rates.items()))
    empty = _when(code.isnull() & (table[REASONS] == ""), "currency: empty")
    converted = table.mutate(
        **{name: table[name] * rate for name in _AMOUNTS if name in table.columns},
        **{"currency": code, REASONS: ibis.coalesce(empty, table[REASONS])},
    )
    return converted, {
        f"currency: converted from {row['code']}": row["rows"] for row in found if row["code"] not in (config.currency, None)
    }
