"""A workspace's tables on Spark, read where they lie: Parquet files, and tables of the session's catalogue (Hive, Iceberg, Delta).

Nothing is copied. A table is a view over its sources, with the same columns, rules and reasons as a check on one machine; rows that
break a rule are counted by the check and left out whenever the table is read.

But: text is not read as times or numbers here, as no value of a lake should need it; write `sql` where one does. Left-out rows are
counted, not listed. Rows that repeat another one are found by their key; in a table without one (telemetry, engagement) they are kept,
because finding them would sort the table at each reading. Of rows that share a key one stays, the least by all its columns.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from features.checks import CheckSummary, TableCheck
from features.config import ColumnMap, TableConfig, TableSource
from features.contracts import CONTRACT, Column
from features.contributed import is_contributed, tables_with_contributions
from features.errors import ConfigError, ContractError, QuarantineError, SourceError, explain, nearest
from features.expressions import BROKEN, HASH
from features.ledger import replace_file
from features.mapping import BLANKED, REASONS, SEPARATOR, in_currency, table_columns, with_problems
from features.progress import Progress, silent
from features.readings import finite, read_typed_time
from features.sources import FILE, PROBLEM, ROW, list_files
from features.spark_engine import SparkEngine
from features.staging import combined_rows, good_rows, reason, with_reasons
from features.workspace import Workspace

__all__ = ["check_lake", "open_lake"]


def open_lake(engine: SparkEngine, workspace: Workspace, *, now: datetime) -> dict[str, ir.Table]:
    """Open the good rows of a workspace's tables.

    Parameters
    ----------
    now
        The present, in UTC: what happened cannot be later.

    Raises
    ------
    SourceError
        If a source is not there or is none that Spark reads in place.
    ConfigError
        If a condition or an expression cannot be computed, or a currency has no rate.
    ContractError
        If a column is missing or of a wrong type.
    """
    return {name: engine.layer(good_rows(table.rows, name)) for name, table in _lake_tables(engine, workspace, now).items()}


def check_lake(workspace: Workspace, *, now: datetime, on_progress: Progress = silent) -> CheckSummary:
    """Count the rows of a workspace's tables on Spark and why some are left out, and write `check.json`.

    Raises
    ------
    QuarantineError
        If more rows of a table are broken than it allows.

    And what `open_lake` raises.
    """
    started = time.perf_counter()
    with SparkEngine(workspace.config.spark.settings) as engine:
        tables = _lake_tables(engine, workspace, now)
        checks = []
        for number, table in enumerate(tables.values()):
            on_progress(f"checking {table.config.table}", number, len(tables))
            checks.append(_counted(engine, table))
        on_progress("checked", len(tables), len(tables))
        known = engine.layer(good_rows(tables["telemetry"].rows, "telemetry")).known_at
        ends = engine.to_arrow(known.as_table().aggregate(first=known.min(), last=known.max())).to_pylist()[0]
    summary = CheckSummary(
        tables=tuple(checks),
        missing_tables=tuple(name for name in CONTRACT if name not in tables),
        data_from=ends["first"],
        data_until=workspace.config.data_until or ends["last"],
        seconds=round(time.perf_counter() - started, 3),
    )
    with replace_file(workspace.check_report) as report:
        report.write_text(json.dumps(summary.to_dict(), indent=2), encoding="utf-8")
    _refuse_too_many(checks)
    return summary


@dataclass(frozen=True)
class _LakeTable:
    """A table of the contract: all rows with `REASONS` and `BLANKED`, and where its columns come from."""

    config: TableConfig
    rows: ir.Table
    taken: Mapping[str, str]
    unused: tuple[str, ...]


def _lake_tables(engine: SparkEngine, workspace: Workspace, now: datetime) -> dict[str, _LakeTable]:
    found: dict[str, _LakeTable] = {}
    for name, config in tables_with_contributions(workspace).items():
        parts = [_mapped(engine, _opened(engine, source, workspace), source, config, workspace, now) for source in config.sources]
        accounts, partners = (
            good_rows(found[other].rows, other) if other in found and key in CONTRACT[name].columns and other != name else None
            for other, key in (("accounts", "account_id"), ("partners", "partner_id"))
        )
        rows = combined_rows(config, {number: part.rows for number, part in enumerate(parts)}, accounts=accounts, partners=partners)
        taken = {column: place for part in reversed(parts) for column, place in part.taken.items()}
        unused = tuple(dict.fromkeys(column for part in parts for column in part.unused))
        found[name] = _LakeTable(config, _with_shared_keys(engine.layer(rows), name), taken, unused)
    return found


def _with_shared_keys(rows: ir.Table, table: str) -> ir.Table:
    """Give all good rows of a key but one a reason."""
    contract = CONTRACT[table]
    if not contract.unique:
        return rows
    key = [*contract.unique, *(["recorded_at"] if "recorded_at" in rows.columns else [])]
    others = [rows[name] for name in rows.columns if not name.startswith("__") and name not in key]
    alike = ibis.window(group_by=[*(rows[name] for name in key), rows[REASONS] == ""], order_by=others or [rows[key[0]]])
    repeats = (rows[REASONS] == "") & (ibis.row_number().over(alike) > 0)
    return with_reasons(rows, reason(repeats, f"{', '.join(contract.unique)}: used by another row"))


def _opened(engine: SparkEngine, source: TableSource, workspace: Workspace) -> ir.Table:
    """Open what a source names."""
    if source.location is not None and is_contributed(source, workspace):
        return engine.hold(pq.read_table(source.location), name="contributions")
    try:
        if source.database == "spark":
            return engine.view(source.query or f"SELECT * FROM {engine.quoted(str(source.relation))}")
        if source.database is None and source.location is not None and source.query is None and _is_parquet(source):
            return engine.read_parquet(str(source.location))
    except engine.refusal as error:
        todo = "Look at the name, the query and your rights in the lake."
        raise SourceError(explain(f"Spark cannot read {source.table}: {_first_line(error)}", given=_label(source), todo=todo)) from error
    allowed = 'Parquet files, or database = "spark" with table = "..." or query = "SELECT ..."'
    todo = 'Write it to the lake, or leave out engine = "spark" if one machine is enough.'
    raise SourceError(
        explain(f"{source.table} has a source that Spark does not read in place", given=_label(source), allowed=allowed, todo=todo)
    )


def _is_parquet(source: TableSource) -> bool:
    assert source.location is not None
    return source.format == "parquet" or all(file.suffix in (".parquet", ".pq") for file in list_files(source.location, source.format))


def _label(source: TableSource) -> str:
    return str(source.location or source.relation or source.query)


@dataclass(frozen=True)
class _Part:
    rows: ir.Table
    taken: Mapping[str, str]
    unused: tuple[str, ...]


_SQL = "sql:"


def _mapped(engine: SparkEngine, raw: ir.Table, source: TableSource, config: TableConfig, workspace: Workspace, now: datetime) -> _Part:
    """Return a source's rows as rows of the contract's table."""
    columns = table_columns(config)
    maps = _complete(source, columns, raw)
    derived = _derived(engine, raw, source, maps)
    read: dict[str, ir.Value] = {}
    for name, mapped in maps.items():
        value = _value(derived, mapped)
        typed = _typed(value, columns[name], mapped, f"{source.table}.{name}")
        read |= {f"value:{name}": typed, f"there:{name}": _is_there(value, typed), f"{BROKEN}{name}": ibis.literal(value=False)}
    about = {FILE: ibis.literal(_label(source)), ROW: ibis.null("int64"), HASH: ibis.null("int64"), PROBLEM: ibis.null("string")}
    rows = with_problems(engine, engine.layer(derived.select(**read, **about)), maps, columns, source.table, now=now)
    used = {mapped.column for mapped in maps.values()}
    return _Part(
        rows=in_currency(engine, rows, source, workspace.config)[0],
        taken={name: mapped.column or mapped.sql or f"constant {mapped.constant}" for name, mapped in maps.items()},
        unused=tuple(name for name in raw.columns if name not in used),
    )


def _complete(source: TableSource, columns: Mapping[str, Column], raw: ir.Table) -> dict[str, ColumnMap]:
    """Add the columns that the source has under the contract's own names, and find the others, whatever their case."""
    there = {name.lower(): name for name in raw.columns}
    implied = {name: ColumnMap(name=name, column=name) for name in columns if name in there}
    maps = implied | dict(source.columns)
    for name, column in columns.items():
        if column.required and name not in maps:
            raise _missing(source, raw, name, f"it needs {name}: {column.meaning}")
    for name, mapped in maps.items():
        if mapped.column is not None and mapped.column.lower() not in there:
            raise _missing(source, raw, mapped.column, f"{name} is mapped onto {mapped.column}")
    known = {name: maps[name] for name in columns if name in maps}
    return {name: replace(mapped, column=there[mapped.column.lower()]) if mapped.column else mapped for name, mapped in known.items()}


def _missing(source: TableSource, raw: ir.Table, name: str, why: str) -> ContractError:
    given = f"{_label(source)} has the columns {', '.join(raw.columns)}"
    todo = f'{nearest(name, raw.columns)} Name the column, or write {{ sql = "..." }}, in [tables.{source.table}.columns].'.strip()
    return ContractError(explain(f"the table {source.table} lacks a column: {why}", given=given, todo=todo))


def _derived(engine: SparkEngine, raw: ir.Table, source: TableSource, maps: Mapping[str, ColumnMap]) -> ir.Table:
    """Apply a source's condition and compute the expressions of its columns, which are Spark's SQL."""
    results = [f"({mapped.sql}) AS `{_SQL}{name}`" for name, mapped in maps.items() if mapped.sql is not None]
    if not results and source.where is None:
        return raw
    view = engine.layer(raw)
    query = f"SELECT {', '.join(['*', *results])} FROM {view.get_name()} WHERE {source.where or 'true'}"
    try:
        return engine.view(query)
    except engine.refusal as error:
        wrong = f"where or an expression of tables.{source.table} cannot be computed by Spark: {_first_line(error)}"
        raise ConfigError(explain(wrong, given=query, allowed=", ".join(raw.columns), todo="Write it in Spark's SQL.")) from error


def _value(table: ir.Table, mapped: ColumnMap) -> ir.Value:
    if mapped.column is not None:
        return table[mapped.column]
    return table[_SQL + mapped.name] if mapped.sql is not None else ibis.literal(mapped.constant)


def _typed(value: ir.Value, column: Column, mapped: ColumnMap, key: str) -> ir.Value:
    """Return a column in the contract's type; text is text only."""
    kind = value.type()
    if mapped.time_format is None and mapped.time_zone is None:
        match column.type:
            case "time" if kind.is_timestamp() or kind.is_date():
                return read_typed_time(value)
            case "number" if kind.is_numeric():
                return finite(value.cast("float64"))
            case "flag" if kind.is_boolean():
                return value
            case "id" | "text" if kind.is_string():
                return SparkEngine.filled(value)
            case "id" | "text" if kind.is_integer():
                return value.cast("string")
    todo = f'Convert it: {key.split(".")[1]} = {{ sql = "..." }} with a CAST, to_timestamp or to_utc_timestamp of Spark.'
    given = f"{kind}" + (", with a time_format or time_zone" if mapped.time_format or mapped.time_zone else "")
    raise ContractError(explain(f"{key} must be of the type {column.type} on Spark", given=given, todo=todo))


def _is_there(value: ir.Value, typed: ir.Value) -> ir.BooleanValue:
    """Tell where a source states a value: blanks are none, and neither is what is no number."""
    if typed.type().is_string():
        return typed.notnull()
    return value.notnull() & ~value.isnan() if value.type().is_floating() else value.notnull()


def _counted(engine: SparkEngine, table: _LakeTable) -> TableCheck:
    """Count a table's rows by what became of them, in one pass."""
    started = time.perf_counter()
    groups = table.rows.group_by(REASONS, BLANKED).agg(rows=table.rows.count())
    found = engine.to_arrow(groups).to_pylist()
    rows_in = sum(row["rows"] for row in found)
    if rows_in == 0:
        todo = "Look at the lake, or remove the table from renewcast.toml."
        raise SourceError(explain("the table has no rows", given=table.config.table, todo=todo))
    rows_out = sum(row["rows"] for row in found if row[REASONS] == "")
    return TableCheck(
        table=table.config.table,
        rows_in=rows_in,
        rows_out=rows_out,
        quarantined=rows_in - rows_out,
        left_out=0,
        reasons=_summed(found, REASONS),
        blanked=_summed(found, BLANKED),
        noticed={},
        empty={},
        limit=table.config.quarantine_limit,
        columns=table.taken,
        unused=table.unused,
        missing=tuple(name for name in CONTRACT[table.config.table].columns if name not in table.rows.columns),
        quarantine_file=None,
        seconds=round(time.perf_counter() - started, 3),
    )


def _summed(found: Sequence[Mapping[str, int | str]], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in found:
        for why in filter(None, str(row[column]).split(SEPARATOR)):
            counts[why] = counts.get(why, 0) + int(row["rows"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _refuse_too_many(checks: Sequence[TableCheck]) -> None:
    for check in checks:
        if check.share_quarantined > check.limit or check.rows_in == check.quarantined:
            counts = "\n".join(f"  {count:,} {why}" for why, count in check.reasons.items())
            given = f"{check.quarantined:,} of {check.rows_in:,} rows, {check.share_quarantined:.1%}:\n{counts}"
            todo = f"Correct the lake or the mapping, or raise quarantine_limit in [tables.{check.table}]."
            raise QuarantineError(
                explain(f"more rows of {check.table} are broken than allowed", given=given, allowed=f"{check.limit:.1%}", todo=todo)
            )


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
