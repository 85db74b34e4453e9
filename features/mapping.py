"""Maps a source's rows onto a table of the contract, each row with the reasons for which it is broken.

A row that breaks a rule of the contract goes to quarantine. A number or flag that cannot be read, or a number that is out of bounds,
is blanked where the contract lets it be empty, and its row stays: a term without its seats is still a term. A time that cannot be
read is never blanked, for an empty one means something else, such as a ticket that is still open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.clock import known_by
from features.config import ATTRIBUTE, AttributeKind, ColumnMap, Config, TableConfig, TableSource
from features.contracts import CONTRACT, Column, ColumnType
from features.engine import Engine
from features.errors import ConfigError, ContractError, explain, nearest
from features.expressions import BROKEN, HASH, RAW, SQL, derive, evidence_by_file, query_files
from features.queries import QueryEngine
from features.readings import Evidence, Wanted, filled, finite, read_flag, read_number, read_time, read_typed_time, stated
from features.sources import FILE, PROBLEM, ROW, OpenedSource, open_source
from features.sums import LARGEST

__all__ = [
    "BLANKED",
    "FUTURE_TOLERANCE",
    "IN_FUTURE",
    "REASONS",
    "SEPARATOR",
    "MappedSource",
    "in_currency",
    "map_source",
    "marker_notes",
    "table_columns",
    "with_problems",
]

REASONS, BLANKED = "__reasons", "__blanked"
SEPARATOR = "; "
IN_FUTURE = "in the future"

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
    row_by_row
        Whether what each row means is seen from the row alone, and from how all values of its text columns are written.
    evidence
        How the values of text columns that must be read are written, by column of the contract and by file.
    """

    table: ir.Table
    opened: OpenedSource
    taken: Mapping[str, str]
    unused: tuple[str, ...]
    left_out: int
    notes: Mapping[str, int]
    row_by_row: bool
    evidence: Mapping[str, Mapping[str, Evidence]]


_ATTRIBUTE_TYPES: Mapping[AttributeKind, ColumnType] = {"category": "text", "number": "number", "date": "time"}


def table_columns(table: TableConfig) -> dict[str, Column]:
    """Return the columns of a contract table, and the attributes that the workspace declares."""
    attributes = {
        ATTRIBUTE + name: Column(type=_ATTRIBUTE_TYPES[kind], meaning="declared by the workspace", future=True)
        for name, kind in table.attributes.items()
    }
    return dict(CONTRACT[table.table].columns) | attributes


def map_source(
    engine: Engine,
    source: TableSource,
    table: TableConfig,
    config: Config,
    *,
    now: datetime,
    staging: Path,
    only: Sequence[Path] | None = None,
    like: Mapping[str, str] | None = None,
    may_be_empty: bool = False,
    beside: Mapping[str, Evidence] | None = None,
) -> MappedSource:
    """Open a source and map it.

    Parameters
    ----------
    now
        The present, in UTC: a later time is broken where the contract does not allow it.
    staging
        A folder for temporary files, to be kept until the table was read.
    only, like, may_be_empty
        As of `features.sources.open_source`.
    beside
        How values are written in the source's files that are not read this time, by column of the contract.

    Raises
    ------
    SourceError
        If the source cannot be opened.
    ConfigError
        If an expression cannot be computed, or a currency has no rate.
    ContractError
        If a column is missing or of a wrong type.
    """
    opened = open_source(engine, source, staging, only=only, like=like, may_be_empty=may_be_empty)
    if source.query is not None and source.database is None:
        opened = query_files(engine, opened, source, staging)
    columns = table_columns(table)
    maps = _complete(source, columns, opened)
    texts = [str(mapped.column) for name, mapped in maps.items() if mapped.column and columns[name].type in ("id", "text")]
    derived = derive(engine, opened, replace(source, columns=maps), as_text=texts)
    stated_rows, by_file = _stated_values(engine, derived.table, maps, columns)
    evidence = {name: sum(found.values(), (beside or {}).get(name, Evidence())) for name, found in by_file.items()}
    read = _read_values(engine, stated_rows, maps, columns, evidence, source.table)
    rows = with_problems(engine, read, maps, columns, source.table, now=now)
    mapped_table, notes = in_currency(engine, rows, source, config)
    used = {mapped.column for mapped in maps.values()} | {None}
    return MappedSource(
        table=mapped_table,
        opened=opened,
        taken={name: mapped.column or mapped.sql or f"constant {mapped.constant}" for name, mapped in maps.items()},
        unused=tuple(name for name in opened.columns if name not in used and not _in_sql(name, maps, source)),
        left_out=derived.left_out,
        notes={**opened.notes, **notes, **marker_notes(evidence)},
        row_by_row=derived.row_by_row and not opened.notes and _is_read_in_place(source),
        evidence=by_file,
    )


def _is_read_in_place(source: TableSource) -> bool:
    return source.database is None and source.query is None


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


_GIVEN, _STATED = "given:", "stated:"


def _stated_values(
    engine: Engine, table: ir.Table, maps: Mapping[str, ColumnMap], columns: Mapping[str, Column]
) -> tuple[ir.Table, dict[str, dict[str, Evidence]]]:
    """Return the values as `given:<name>`, what texts state as `stated:<name>`, and by file the evidence of texts that must be read."""
    given = {_GIVEN + name: _value(table, mapped) for name, mapped in maps.items()}
    values = engine.layer(table.mutate(**given))
    wanted: dict[str, Wanted] = {name: kind for name in maps if (kind := columns[name].type) in ("time", "number", "flag")}
    texts = [name for name in wanted if values[_GIVEN + name].type().is_string()]
    evidence = evidence_by_file(engine, values, {_GIVEN + name: wanted[name] for name in texts})
    read = engine.layer(values.mutate(**{_STATED + name: stated(values[_GIVEN + name]) for name in texts}))
    return read, {name: evidence[_GIVEN + name] for name in texts}


def _value(table: ir.Table, mapped: ColumnMap) -> ir.Value:
    if mapped.column is not None:
        return table[RAW + mapped.column]
    return table[SQL + mapped.name] if mapped.sql is not None else ibis.literal(mapped.constant)


def marker_notes(evidence: Mapping[str, Evidence]) -> dict[str, int]:
    """Count by column the words that say that there is no value."""
    return {f"{name}: word for a missing value": found.markers for name, found in evidence.items() if found.markers}


def _read_values(
    engine: Engine,
    table: ir.Table,
    maps: Mapping[str, ColumnMap],
    columns: Mapping[str, Column],
    evidence: Mapping[str, Evidence],
    source: str,
) -> ir.Table:
    """Add what each column's value is as `value:<name>`, and whether the source states one as `there:<name>`."""
    read: dict[str, ir.Value] = {}
    for name, mapped in maps.items():
        raw = table[(_STATED if name in evidence else _GIVEN) + name]
        value = _reading(raw, mapped, columns[name], evidence.get(name), f"{source}.{name}")
        read[_VALUE + name] = value.cast(_DTYPES[columns[name].type])
        read[_THERE + name] = raw.notnull() & ~raw.isnan() if raw.type().is_floating() else raw.notnull()
    return engine.layer(table.mutate(**read))


_VALUE, _THERE = "value:", "there:"
_DTYPES = {"id": "string", "text": "string", "time": "timestamp(6)", "number": "float64", "flag": "boolean"}


def _reading(raw: ir.Value, mapped: ColumnMap, column: Column, evidence: Evidence | None, key: str) -> ir.Value:
    """Return the value that a column states, null where it cannot be read."""
    match column.type:
        case "time":
            return _time(raw, mapped, evidence, key)
        case "number":
            return _number(raw, evidence, key)
        case "flag":
            return _flag(raw, key)
        case _:
            return _text(raw)


def _text(value: ir.Value) -> ir.StringValue:
    kind = value.type()
    if kind.is_floating() or kind.is_decimal():
        # programs that know no missing whole number write ids as 7.0
        number = value.cast("float64")
        whole = (number == number.floor()) & (number.abs() < 2**53)
        return ibis.ifelse(whole, number.try_cast("int64").cast("string"), filled(value.cast("string")))
    return filled(value.cast("string"))


def _time(raw: ir.Value, mapped: ColumnMap, evidence: Evidence | None, key: str) -> ir.TimestampValue:
    if evidence is None:
        value = read_typed_time(raw, zone=mapped.time_zone)
        if value is None:
            raise _wrong_type(key, "time", str(raw.type()))
        return value
    if mapped.time_format is None and evidence.is_ambiguous:
        raise _ambiguous(key, evidence)
    return read_time(raw, slashes=evidence.slash_style, zone=mapped.time_zone, given=mapped.time_format)


def _number(raw: ir.Value, evidence: Evidence | None, key: str) -> ir.FloatingValue:
    kind = raw.type()
    if evidence is not None:
        return read_number(raw, style=evidence.number_style)
    if kind.is_boolean():
        return raw.cast("int8").cast("float64")
    if kind.is_numeric() or kind.is_null():
        return finite(raw.cast("float64"))
    raise _wrong_type(key, "number", str(kind))


def _flag(raw: ir.Value, key: str) -> ir.BooleanValue:
    kind = raw.type()
    if kind.is_boolean():
        return raw
    if kind.is_string() or kind.is_numeric():
        return read_flag(_text(raw))
    raise _wrong_type(key, "flag", str(kind))


def _wrong_type(key: str, wanted: str, given: str) -> ContractError:
    todo = f'Map {key} onto another column, or convert it: {{ sql = "..." }}.'
    return ContractError(explain(f"{key} must be a {wanted}, but its column is of another type", given=given, todo=todo))


def _ambiguous(key: str, evidence: Evidence) -> ContractError:
    why = "some can only be day/month and some only month/day" if evidence.day_first else "no value shows which number is the day"
    table, column = key.split(".")
    todo = f'Write {column} = {{ column = "...", time_format = "%d/%m/%Y" }} (or "%m/%d/%Y") in [tables.{table}.columns].'
    given = f"{evidence.slashed} such dates, {evidence.day_first} only day/month, {evidence.month_first} only month/day"
    return ContractError(explain(f"the dates of {key} can be read in two ways: {why}", given=given, todo=todo))


_UNREADABLE = {"time": "not a time", "number": "not a number", "flag": "neither true nor false"}


def with_problems(
    engine: QueryEngine, read: ir.Table, maps: Mapping[str, ColumnMap], columns: Mapping[str, Column], table: str, *, now: datetime
) -> ir.Table:
    """Return the contract's columns with all problems that a row itself shows."""
    kept: dict[str, ir.Value] = {}
    reasons: list[ir.StringValue] = []
    blanked: list[ir.StringValue] = []
    for name, mapped in maps.items():
        column, value = columns[name], read[_VALUE + name]
        costs = blanked if column.nullable and (column.type in ("number", "flag") or name.startswith(ATTRIBUTE)) else reasons
        broken = read[BROKEN + name] if mapped.sql is not None else ibis.literal(value=False)
        unreadable = broken | (read[_THERE + name] & value.isnull())
        costs.append(_when(unreadable, f"{name}: {_UNREADABLE.get(column.type, 'made of a value that cannot be read')}"))
        outside, bounds = _outside(value, mapped, column)
        costs.append(_when(outside, f"{name}: {bounds}"))
        if column.type == "number":
            costs.append(_when((value.abs() > LARGEST) & ~outside, f"{name}: larger than {LARGEST:g}"))
            outside = outside | (value.abs() > LARGEST).fill_null(False)
        kept[name] = ibis.ifelse(outside, ibis.null(value.type()), value)
        if not column.nullable:
            reasons.append(_when(value.isnull() & ~unreadable, f"{name}: empty"))
        if column.type == "time" and not column.future:
            reasons.append(_when(~known_by(value, ibis.timestamp(now + FUTURE_TOLERANCE)), f"{name}: {IN_FUTURE}"))
    for first, second in CONTRACT[table].ordered:
        if first in maps and second in maps:
            reasons.append(_when(~known_by(read[_VALUE + first], read[_VALUE + second]), f"{second}: before {first}"))
    return engine.layer(read.select(**kept, **_bookkeeping(read, reasons, blanked)))


def _when(condition: ir.BooleanValue, reason: str) -> ir.StringValue:
    return ibis.ifelse(condition, reason, ibis.null("string"))


def _outside(value: ir.Value, mapped: ColumnMap, column: Column) -> tuple[ir.BooleanValue, str]:
    """Return which numbers are out of bounds, and how to say it."""
    low = max((bound for bound in (column.low, mapped.low) if bound is not None), default=None)
    high = min((bound for bound in (column.high, mapped.high) if bound is not None), default=None)
    outside: ir.BooleanValue = ibis.literal(value=False)
    if low is not None:
        outside = outside | (value < ibis.literal(low, "float64")).fill_null(False)
    if high is not None:
        outside = outside | (value > ibis.literal(high, "float64")).fill_null(False)
    if low is not None and high is not None:
        return outside, f"outside {low:g} to {high:g}"
    return outside, f"below {low:g}" if low is not None else f"above {high}"


def _bookkeeping(read: ir.Table, reasons: list[ir.StringValue], blanked: list[ir.StringValue]) -> dict[str, ir.Value]:
    unreadable = read[PROBLEM].replace(SEPARATOR.strip(), ",")
    return {
        FILE: read[FILE],
        ROW: read[ROW].cast("int64"),
        HASH: ibis.ifelse(unreadable.isnull(), read[HASH], ibis.null(read[HASH].type())),
        REASONS: ibis.ifelse(unreadable.notnull(), unreadable, _joined(reasons)),
        BLANKED: ibis.ifelse(unreadable.notnull(), "", _joined(blanked)),
    }


def _joined(reasons: list[ir.StringValue]) -> ir.StringValue:
    return ibis.literal(SEPARATOR).join(reasons) if reasons else ibis.literal("")


_AMOUNTS = ("arr", "list_arr")


def in_currency(engine: QueryEngine, table: ir.Table, source: TableSource, config: Config) -> tuple[ir.Table, dict[str, int]]:
    """Convert amounts to the workspace's currency at its fixed rates."""
    if source.table != "subscriptions" or "currency" not in table.columns:
        return table, {}
    code = table.currency.upper()
    rates = {config.currency: 1.0, **config.currencies}
    found = engine.to_arrow(table.group_by(code=code).aggregate(rows=lambda t: t.count())).to_pylist()
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
