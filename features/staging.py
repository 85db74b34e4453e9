"""Puts the mapped sources of a table together, and gives each row the reasons that other rows are needed for.

Those are an account or a partner that nobody knows, a row that is given twice, and a key that is used twice. What comes out is the table
with every row still in it; the intake of a workspace and the receipt of what a partner contributes take the good ones from here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.clock import known_by
from features.config import TableConfig
from features.contracts import CONTRACT
from features.engine import Engine, QueryError
from features.errors import SourceError, explain
from features.expressions import HASH
from features.mapping import BLANKED, REASONS, SEPARATOR, MappedSource, table_columns
from features.quarantine import SOURCE
from features.sources import FILE, ROW

__all__ = ["DOUBTS", "filled_values", "finished_rows", "reason", "stage_table", "with_reasons", "with_repeated"]

DOUBTS = "__doubts"
_ID = "__id"
_OWN = (FILE, ROW, HASH, REASONS, BLANKED, DOUBTS, SOURCE, _ID)

_NOT_STATED: Mapping[tuple[str, str], str] = {("engagement", "source"): "vendor"}
"""What a source means that lacks a column which another source of the table has: rows that name no supplier are the vendor's."""


def stage_table(
    engine: Engine,
    table: TableConfig,
    sources: Sequence[MappedSource],
    path: Path,
    *,
    accounts: ir.Table | None,
    partners: ir.Table | None = None,
) -> ir.Table:
    """Write the rows of all sources with the reasons that they show by themselves, by their account or by their partner.

    Parameters
    ----------
    path
        A Parquet file to write, to be kept until the table was read.
    accounts, partners
        The accounts and partners that there are; None where nothing is to be held against them.

    Raises
    ------
    SourceError
        If a source turns out to be damaged.
    """
    rows = _against_partners(_against_accounts(_together(table, sources), table, accounts), partners)
    try:
        engine.write_parquet(rows, path)
    except QueryError as error:
        given = "\n".join(source.opened.label for source in sources)
        todo = "In SQL of the config use TRY_CAST where a value may not fit; if a file is damaged, export it again."
        raise SourceError(explain(f"the table {table.table} cannot be read: {error}", given=given, todo=todo)) from error
    return engine.read_parquet(path, file_row_number=True).rename({_ID: "file_row_number"})


def filled_values(staged: ir.Table, table: TableConfig) -> dict[str, int]:
    """Count the rows in which each of the table's columns has a value."""
    counts = {name: staged[name].count() for name in table_columns(table) if name in staged.columns}
    found: dict[str, int] = staged.aggregate(**counts).to_pyarrow().to_pylist()[0]
    return found


def with_repeated(engine: Engine, staged: ir.Table, table: str) -> ir.Table:
    """Give rows that repeat an earlier one that reason too: the whole row, or the key of a good row."""
    repeated = engine.table(_repeated(staged, table), name="repeated_rows")
    if not engine.count(repeated):
        return staged
    joined = staged.left_join(repeated, _ID)
    return with_reasons(joined, joined.reason).select(*staged.columns)


def with_reasons(rows: ir.Table, *more: ir.StringValue) -> ir.Table:
    """Add reasons, each null where it does not hold, to those that the rows have."""
    return rows.mutate(**{REASONS: ibis.literal(SEPARATOR).join([rows[REASONS].nullif(""), *more])})


def reason(condition: ir.BooleanValue, text: str) -> ir.StringValue:
    """Return a reason where the condition holds, null elsewhere."""
    return ibis.ifelse(condition, text, ibis.null("string"))


def finished_rows(marked: ir.Table, table: str) -> ir.Table:
    """Return the good rows as all later steps see them, in the order in which they became known."""
    good = marked.filter(marked[REASONS] == "")
    occurred = CONTRACT[table].occurred or ("created_at" if "created_at" in good.columns else None)
    extra: dict[str, ir.Value] = {}
    if occurred is not None:
        extra["known_at"] = ibis.coalesce(good.recorded_at, good[occurred]) if "recorded_at" in good.columns else good[occurred]
    if table == "telemetry" and "events" not in good.columns:
        extra["events"] = ibis.literal(1).cast("float64")
    whole = good.mutate(**extra)
    return whole.order_by([*([whole.known_at] if extra.get("known_at") is not None else []), whole[_ID]]).drop(*_OWN)


def _together(table: TableConfig, sources: Sequence[MappedSource]) -> ir.Table:
    """Return the rows of all sources with the columns that any of them has, and the number of each row's source."""
    columns = [name for name in table_columns(table) if any(name in source.table.columns for source in sources)]
    types = {name: kind for source in sources for name, kind in source.table.schema().items()}
    parts = []
    for number, source in enumerate(sources):
        absent = {name: ibis.literal(_NOT_STATED.get((table.table, name)), types[name]) for name in columns}
        given = {name: source.table[name] if name in source.table.columns else absent[name] for name in columns}
        about = {name: source.table[name] for name in (FILE, ROW, HASH, REASONS, BLANKED)}
        parts.append(source.table.select(**given, **about, **{SOURCE: ibis.literal(number, "int16")}))
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _against_accounts(rows: ir.Table, table: TableConfig, accounts: ir.Table | None) -> ir.Table:
    if accounts is None or "account_id" not in rows.columns:
        return rows.mutate(**{DOUBTS: ibis.literal("")})
    created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp")
    known = accounts.select(__known=accounts.account_id, __created=created)
    joined = rows.left_join(known, rows.account_id == known["__known"])
    unknown = reason(joined.account_id.notnull() & joined["__known"].isnull(), "account_id: unknown account")
    occurred = CONTRACT[table.table].occurred
    is_early = ibis.literal(value=False) if occurred is None else ~known_by(joined["__created"], joined[occurred])
    early = reason(is_early, f"{occurred}: before the account was created")
    costs, doubts = (early, ibis.literal("")) if table.before_created_at == "quarantine" else (ibis.null("string"), early.coalesce(""))
    return with_reasons(joined, unknown, costs).mutate(**{DOUBTS: doubts}).drop("__known", "__created")


def _against_partners(rows: ir.Table, partners: ir.Table | None) -> ir.Table:
    if partners is None:
        return rows
    unknown = rows.partner_id.notnull() & ~rows.partner_id.isin(partners.partner_id)
    return with_reasons(rows, reason(unknown, "partner_id: unknown partner"))


def _repeated(staged: ir.Table, table: str) -> ir.Table:
    """Return the ids of rows that repeat an earlier one, with the reason."""
    columns = [name for name in staged.columns if name not in _OWN]
    seen = staged.filter(staged[HASH].notnull()).group_by(SOURCE, HASH).aggregate(rows=lambda t: t.count())
    often = staged.semi_join(seen.filter(seen.rows > 1), [SOURCE, HASH])
    # rows that agree in the hash and in every column taken are the same; the hash alone might collide
    exact = _later(often, [SOURCE, HASH, *columns], "exact duplicate of an earlier row")
    contract = CONTRACT[table]
    if not contract.unique:
        return exact
    key = [*contract.unique, *(["recorded_at"] if "recorded_at" in columns else [])]
    good = staged.filter(staged[REASONS] == "").anti_join(exact, _ID)
    return exact.union(_later(good, key, f"{', '.join(contract.unique)}: used by an earlier row"))


def _later(rows: ir.Table, key: Sequence[str], why: str) -> ir.Table:
    order = ibis.row_number().over(group_by=[rows[name] for name in key], order_by=[rows[SOURCE], rows[FILE], rows[ROW], rows[_ID]])
    numbered = rows.select(rows[_ID], place=order)
    return numbered.filter(numbered.place > 0).select(_ID, reason=ibis.literal(why))
