"""Runs the SQL that a user wrote in `renewcast.toml` over a source: queries over files, conditions, and expressions for columns.

Such SQL sees numbers as numbers and times as times even where the source is text: a text column that it names is read as what at
least half of its values are. What cannot be read is null there, and the rows for which that decides are marked as broken. A `query`
sees a text column as a number or time only if all its values are one, because its rows can no longer be traced to their values.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ibis
import ibis.expr.types as ir
import sqlglot
from sqlglot import expressions as sge

from features.config import TableSource
from features.engine import Engine, QueryError, quoted_name
from features.errors import ConfigError, explain, nearest
from features.readings import Evidence, Wanted, count, gather, read_flag, read_number, read_time, stated
from features.sources import FILE, PROBLEM, PROVENANCE, ROW, OpenedSource, open_files

__all__ = ["BROKEN", "HASH", "RAW", "SQL", "DerivedSource", "derive", "evidence_by_file", "gather_evidence", "is_steady", "query_files"]

RAW, SQL, BROKEN, HASH = "raw:", "sql:", "broken:", "__hash"
"""Prefixes of a derived table's columns: as the source has them, by expression, whether an expression used a broken value."""


@dataclass(frozen=True)
class DerivedSource:
    """A source after its condition and expressions.

    Parameters
    ----------
    table
        `PROVENANCE`, `HASH` of the whole raw row, `raw:<column>`, and `sql:<name>` with `broken:<name>` for each expression.
    left_out
        Rows that did not meet the condition.
    row_by_row
        Whether condition and expressions see nothing but their own row: no other rows, and no other rows' way of writing.
    """

    table: ir.Table
    left_out: int
    row_by_row: bool


def gather_evidence(engine: Engine, table: ir.Table, columns: Mapping[str, Wanted]) -> dict[str, Evidence]:
    """Look at all values of text columns at once.

    Parameters
    ----------
    columns
        The columns, and what each may be.
    """
    by_file = evidence_by_file(engine, table.mutate(**{FILE: ibis.literal("")}), columns)
    return {name: found.get("", Evidence()) for name, found in by_file.items()}


def evidence_by_file(engine: Engine, table: ir.Table, columns: Mapping[str, Wanted]) -> dict[str, dict[str, Evidence]]:
    """Look at all values of text columns as `gather_evidence` does, and tell by column what each file of a source shows."""
    found: dict[str, dict[str, Evidence]] = {}
    for wanted in sorted(set(columns.values())):
        found |= _evidence(engine, table, [name for name in columns if columns[name] == wanted], wanted)
    return found


def _evidence(engine: Engine, table: ir.Table, names: Sequence[str], wanted: Wanted) -> dict[str, dict[str, Evidence]]:
    # the columns below one another, so that one expression serves all of them; in layers, because what is built on an expression
    # would repeat it each time
    side_by_side = engine.layer(table.select(FILE, **{str(number): table[name] for number, name in enumerate(names)}))
    values = engine.view(f"UNPIVOT {quoted_name(side_by_side.get_name())} ON COLUMNS(* EXCLUDE ({FILE})) INTO NAME place VALUE text")
    values = engine.layer(values.mutate(said=stated(values.text)))
    ways = engine.layer(values.select("place", FILE, **gather(values.text, values.said, wanted)))
    counts = count({way: ways[way] for way in ways.columns if way not in ("place", FILE)})
    found: dict[str, dict[str, Evidence]] = {name: {} for name in names}
    for row in engine.to_arrow(ways.group_by("place", FILE).aggregate(**counts)).to_pylist():
        place, file = int(row.pop("place")), row.pop(FILE)
        found[names[place]][file] = Evidence(**{what: int(total) for what, total in row.items()})
    return found


def query_files(engine: Engine, opened: OpenedSource, source: TableSource, staging: Path) -> OpenedSource:
    """Run a source's query over its files and lookups; lines that could not be read stay rows of the result.

    Raises
    ------
    ConfigError
        If the query cannot be run.
    """
    named = _named(str(source.query), f"tables.{source.table}.query")
    for number, (name, location) in enumerate(source.lookups.items()):
        folder = staging / f"lookup_{source.table}_{number}_{len(list(staging.iterdir()))}"
        folder.mkdir()
        lookup = open_files(engine, location, None, folder)
        engine.view(engine.compile(_clean(engine, lookup, named).drop(*PROVENANCE)), name=name)
    engine.view(engine.compile(_clean(engine, opened, named)), name="source")
    out = staging / f"query_{len(list(staging.iterdir()))}.parquet"
    try:
        engine.write_parquet(f"SELECT *, row_number() OVER () AS __result FROM ({str(source.query).strip().rstrip(';')})", out)
    except QueryError as error:
        todo = "Try the query in the duckdb shell."
        given, allowed = source.query, f"source ({', '.join(opened.columns)}); lookups: {', '.join(source.lookups) or 'none'}"
        raise ConfigError(
            explain(f"tables.{source.table}.query cannot be run: {error}", given=given, allowed=allowed, todo=todo)
        ) from error
    result = engine.read_parquet(out)
    numbered = result if _is_traced(engine, result) else result.mutate(**_provenance(source, result))
    unreadable = opened.table.filter(opened.table[PROBLEM].notnull()).select(*PROVENANCE)
    return replace(opened, table=_with_rows(numbered.drop("__result"), unreadable))


def _is_traced(engine: Engine, result: ir.Table) -> bool:
    """Tell whether each row of a result still says which single row of a file it is."""
    if not set(PROVENANCE) <= set(result.columns):
        return False
    return engine.count(result) == engine.count(result.select(FILE, ROW).distinct())


def _provenance(source: TableSource, result: ir.Table) -> dict[str, ir.Value]:
    texts = {name: ibis.null("string") for name in PROVENANCE}
    return texts | {FILE: ibis.literal(f"{source.location}: query"), ROW: result["__result"]}


def _with_rows(table: ir.Table, unreadable: ir.Table) -> ir.Table:
    others = {name: ibis.null(kind) for name, kind in table.schema().items() if name not in PROVENANCE}
    whole = unreadable.mutate(**others).cast({ROW: table[ROW].type()})
    return table.union(whole.select(*table.columns))


def _clean(engine: Engine, opened: OpenedSource, named: Collection[str]) -> ir.Table:
    """Return the readable rows, the text columns that a query names read as what all of their values are."""
    table = opened.table.filter(opened.table[PROBLEM].isnull())
    texts = _text_columns(opened.table, (name for name in opened.columns if name.lower() in named))
    evidence = gather_evidence(engine, table, dict.fromkeys(texts, "anything"))
    return table.mutate(**{name: read for name, found in evidence.items() if (read := _reading(table[name], found, share=1.0)) is not None})


def _text_columns(table: ir.Table, columns: Iterable[str]) -> list[str]:
    return [name for name in columns if table[name].type().is_string()]


def _reading(raw: ir.StringColumn, found: Evidence, *, share: float) -> ir.Value | None:
    """Read a text column as what at least that share of its values are; None if they are just text."""
    text = stated(raw)
    needed = share * found.stated
    if found.stated == 0 or (share == 1.0 and found.markers):
        return None
    if found.flags == found.stated:
        return read_flag(text)
    if found.numbers >= needed and not found.padded:
        number = read_number(text, style=found.number_style)
        return number.cast("int64") if found.whole == found.numbers else number
    if found.times + (found.slashed if found.slash_style else 0) >= needed:
        return read_time(text, slashes=found.slash_style)
    return None


def derive(engine: Engine, opened: OpenedSource, source: TableSource, *, as_text: Collection[str]) -> DerivedSource:
    """Apply a source's condition and compute the expressions of its columns.

    Parameters
    ----------
    as_text
        Columns that stay text in SQL, because the contract's ids and texts are taken from them.

    Raises
    ------
    ConfigError
        If the condition or an expression cannot be computed.
    """
    table = opened.table
    expressions = {name: column.sql for name, column in source.columns.items() if column.sql is not None}
    named = {name: _referenced(sql, opened, f"tables.{source.table}.columns.{name}") for name, sql in expressions.items()}
    deciding = _referenced(source.where, opened, f"tables.{source.table}.where") if source.where else set()
    used = deciding.union(*named.values()) - set(as_text)
    texts = _text_columns(table, used)
    readings = {
        name: read
        for name, found in gather_evidence(engine, table, dict.fromkeys(texts, "anything")).items()
        if (read := _reading(table[name], found, share=0.5)) is not None
    }
    read = engine.layer(
        table.select(
            *(table[name] for name in PROVENANCE),
            **{name: readings.get(name, table[name]) for name in opened.columns},
            **{RAW + name: table[name] for name in opened.columns},
        )
    )
    broken = {name: stated(read[RAW + name]).notnull() & read[name].isnull() for name in readings}
    marks = {BROKEN + name: _any(broken, columns) for name, columns in {**named, "where": deciding}.items()}
    view = engine.layer(read.mutate(**marks))
    computed = _computed(engine, view, source, opened, expressions)
    return replace(computed, row_by_row=computed.row_by_row and not texts)


def _any(broken: Mapping[str, ir.BooleanValue], columns: Collection[str]) -> ir.BooleanValue:
    found: ir.BooleanValue = ibis.literal(value=False)
    for name in sorted(columns):
        found = found | broken[name] if name in broken else found
    return found


def _computed(engine: Engine, view: ir.Table, source: TableSource, opened: OpenedSource, expressions: Mapping[str, str]) -> DerivedSource:
    name = quoted_name(view.get_name())
    for key, sql in {f"columns.{column}": sql for column, sql in expressions.items()}.items() | {"where": source.where or "true"}.items():
        try:
            engine.rows(f"SELECT ({sql}) FROM {name} LIMIT 0")
        except QueryError as error:
            raise _uncomputable(source, key, sql, error, opened) from error
    raw = ", ".join(quoted_name(RAW + column) for column in opened.columns)
    results = "".join(f", ({sql}) AS {quoted_name(SQL + column)}" for column, sql in expressions.items())
    flags = "".join(f", {quoted_name(BROKEN + column)}" for column in expressions)
    where = source.where or "true"
    kept = f"{PROBLEM} IS NOT NULL OR coalesce(({where}), {quoted_name(BROKEN + 'where')})"
    table = engine.view(
        f"SELECT {', '.join(PROVENANCE)}, hash({raw}) AS {HASH}, {raw}{results}{flags}, "
        f"{quoted_name(BROKEN + 'where')} AND ({where}) IS NULL AS {quoted_name(BROKEN + 'where')} FROM {name} WHERE {kept}"
    )
    left_out = engine.count(view) - engine.count(table) if source.where else 0
    return DerivedSource(table, left_out, row_by_row=all(_is_of_one_row(sql) for sql in [where, *expressions.values()]))


_OF_MANY_ROWS = (sge.Query, sge.Window, sge.AggFunc)
_CLOCK_OR_CHANCE = (sge.Rand, sge.Uuid, sge.CurrentTimestamp, sge.CurrentDate, sge.CurrentTime, sge.Localtime, sge.Localtimestamp)
_UNSTEADY = {
    *("age", "ago", "now", "get_current_timestamp", "transaction_timestamp", "pg_conf_load_time", "pg_postmaster_start_time"),
    *("setseed", "uuidv4", "uuidv7", "nextval", "currval", "setval", "getvariable", "current_setting", "stats", "txid_current"),
    *("current_connection_id", "current_query", "current_query_id", "current_transaction_id"),
}
"""Functions of the engine's that do not give the same for the same arguments (of `age` one); a test compares with those that it has."""


def is_steady(sql: str, *, tables: Collection[str] = ()) -> bool:
    """Tell whether SQL gives the same for the same rows whenever it is asked: it asks for no time, no chance and no tables but these.

    Examples
    --------
    >>> is_steady("12 * mrr"), is_steady("coalesce(end_date, today())"), is_steady("(SELECT max(day) FROM 'days.csv')")
    (True, False, False)
    """
    parsed = sqlglot.parse_one(sql, dialect="duckdb")
    if parsed.find(*_CLOCK_OR_CHANCE) or any(call.name.lower() in _UNSTEADY for call in parsed.find_all(sge.Anonymous)):
        return False
    named = {table.name.lower() for table in parsed.find_all(sge.Table)}
    return named <= {*tables, *(part.alias.lower() for part in parsed.find_all(sge.CTE))}


def _is_of_one_row(sql: str) -> bool:
    """Tell whether an expression gives the same for the same row, whatever rows there are and whenever it is asked."""
    return sqlglot.parse_one(sql, dialect="duckdb").find(*_OF_MANY_ROWS) is None and is_steady(sql)


def _referenced(sql: str, opened: OpenedSource, key: str) -> set[str]:
    """Return the source's columns that an expression names."""
    named = _named(sql, key)
    return {name for name in opened.columns if name.lower() in named}


def _named(sql: str, key: str) -> set[str]:
    """Return the columns that SQL names, in lower case."""
    try:
        parsed = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise ConfigError(explain(f"{key} is not SQL", given=sql, todo="Correct it, or try it in the duckdb shell.")) from error
    joined = {column.name.lower() for join in parsed.find_all(sge.Join) for column in join.args.get("using") or []}
    return joined | {column.name.lower() for column in parsed.find_all(sge.Column)}


def _uncomputable(source: TableSource, key: str, sql: str, error: Exception, opened: OpenedSource) -> ConfigError:
    words = [column.name for column in sqlglot.parse_one(sql, dialect="duckdb").find_all(sge.Column)]
    unknown = [word for word in words if word.lower() not in (name.lower() for name in opened.columns)]
    todo = nearest(unknown[0], opened.columns) if unknown else "Name only columns of the source; cast text with TRY_CAST(... AS DOUBLE)."
    wrong = f"tables.{source.table}.{key} cannot be computed: {str(error).split(chr(10), 1)[0]}"
    return ConfigError(explain(wrong, given=sql, allowed=f"columns of {opened.label}: {', '.join(opened.columns)}", todo=todo))
