"""Puts the mapped sources of a table together, and gives each row the reasons that other rows are needed for.

Those are an account or a partner that nobody knows, a row that is given twice, and a key that is used twice. What comes out is the table
with every row still in it; the intake of a workspace and the receipt of what a partner contributes take the good ones from here.
"""

from collections.abc import Callable, Mapping, Sequence
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
from features.sums import in_steps

__all__ = [
    "DOUBTS",
    "ID",
    "REPEATED",
    "UNKNOWN_ACCOUNT",
    "changed_accounts",
    "combined_rows",
    "filled_values",
    "find_repeated",
    "finished_rows",
    "good_rows",
    "reason",
    "stage_table",
    "with_reasons",
    "with_repeated",
]

DOUBTS, ID = "__doubts", "__id"
"""Columns of staged rows: what is odd about a row that is kept, and its number among the staged ones."""

REPEATED, UNKNOWN_ACCOUNT = "exact duplicate of an earlier row", "account_id: unknown account"

_OWN = (FILE, ROW, HASH, REASONS, BLANKED, DOUBTS, SOURCE, ID)

_NOT_STATED: Mapping[tuple[str, str], str] = {("engagement", "source"): "vendor"}
"""What a source means that lacks a column which another source of the table has: rows that name no supplier are the vendor's."""


def stage_table(
    engine: Engine,
    table: TableConfig,
    sources: Mapping[int, MappedSource],
    path: Path,
    *,
    accounts: ir.Table | None,
    partners: ir.Table | None = None,
    completed: Callable[[ir.Table], ir.Table] = lambda rows: rows,
) -> ir.Table:
    """Write the rows of all sources with the reasons that they show by themselves, by their account or by their partner.

    Parameters
    ----------
    sources
        The table's sources by their number, or those of them that are read this time.
    path
        A Parquet file to write, to be kept until the table was read.
    accounts, partners
        The accounts and partners that there are; None where nothing is to be held against them.
    completed
        Adds further columns to the rows before they are written.

    Raises
    ------
    SourceError
        If a source turns out to be damaged.
    """
    parts = {number: source.table for number, source in sources.items()}
    rows = completed(combined_rows(table, parts, accounts=accounts, partners=partners))
    try:
        engine.stage_parquet(rows, path)
    except QueryError as error:
        given = "\n".join(source.opened.label for source in sources.values())
        todo = "In SQL of the config use TRY_CAST where a value may not fit; if a file is damaged, export it again."
        raise SourceError(explain(f"the table {table.table} cannot be read: {error}", given=given, todo=todo)) from error
    return engine.read_parquet(path, file_row_number=True).rename({ID: "file_row_number"})


def filled_values(engine: Engine, staged: ir.Table, table: TableConfig) -> dict[str, int]:
    """Count the rows in which each of the table's columns has a value."""
    counts = {name: staged[name].count() for name in table_columns(table) if name in staged.columns}
    found: dict[str, int] = engine.to_arrow(staged.aggregate(**counts)).to_pylist()[0]
    return found


def with_repeated(engine: Engine, staged: ir.Table, repeated: ir.Table) -> ir.Table:
    """Give rows that repeat an earlier one, as `find_repeated` tells them, that reason too."""
    if not engine.count(repeated):
        return staged
    joined = staged.left_join(repeated, ID)
    return with_reasons(joined, joined.reason).select(*staged.columns)


def with_reasons(rows: ir.Table, *more: ir.StringValue) -> ir.Table:
    """Add reasons, each null where it does not hold, to those that the rows have."""
    return rows.mutate(**{REASONS: ibis.literal(SEPARATOR).join([rows[REASONS].nullif(""), *more])})


def reason(condition: ir.BooleanValue, text: str) -> ir.StringValue:
    """Return a reason where the condition holds, null elsewhere."""
    return ibis.ifelse(condition, text, ibis.null("string"))


def finished_rows(marked: ir.Table, table: str, *, more: Mapping[str, str] | None = None) -> ir.Table:
    """Return the good rows as all later steps see them, in the order in which they became known.

    Parameters
    ----------
    more
        Further columns of the marked rows to keep, by their new names.
    """
    whole = _good(marked, table)
    ordered = whole.order_by([*([whole.known_at] if "known_at" in whole.columns else []), whole[ID]])
    kept = [name for name in ordered.columns if name not in _OWN]
    return ordered.select(*kept, **{name: ordered[column] for name, column in (more or {}).items()})


def good_rows(marked: ir.Table, table: str) -> ir.Table:
    """Return the good rows as all later steps see them, in no order."""
    good = _good(marked, table)
    return good.select(*(name for name in good.columns if name not in _OWN))


def _good(marked: ir.Table, table: str) -> ir.Table:
    good = marked.filter(marked[REASONS] == "")
    occurred = CONTRACT[table].occurred or ("created_at" if "created_at" in good.columns else None)
    extra: dict[str, ir.Value] = {}
    if occurred is not None:
        extra["known_at"] = ibis.coalesce(good.recorded_at, good[occurred]) if "recorded_at" in good.columns else good[occurred]
    if table == "telemetry":
        extra["events"] = in_steps(good.events) if "events" in good.columns else ibis.literal(1).cast("float64")
    return good.mutate(**extra)


def combined_rows(table: TableConfig, parts: Mapping[int, ir.Table], *, accounts: ir.Table | None, partners: ir.Table | None) -> ir.Table:
    """Return the rows of mapped sources, by their number, with the reasons that their account or partner gives.

    Parameters
    ----------
    accounts, partners
        The accounts and partners that there are; None where nothing is to be held against them.
    """
    return _against_partners(_against_accounts(_together(table, parts), table, accounts), partners)


def _together(table: TableConfig, parts: Mapping[int, ir.Table]) -> ir.Table:
    """Return the rows of all sources with the columns that any of them has, and the number of each row's source."""
    columns = [name for name in table_columns(table) if any(name in part.columns for part in parts.values())]
    types = {name: kind for part in parts.values() for name, kind in part.schema().items()}
    numbered = []
    for number, part in parts.items():
        absent = {name: ibis.literal(_NOT_STATED.get((table.table, name)), types[name]) for name in columns}
        given = {name: part[name] if name in part.columns else absent[name] for name in columns}
        about = {name: part[name] for name in (FILE, ROW, HASH, REASONS, BLANKED)}
        numbered.append(part.select(**given, **about, **{SOURCE: ibis.literal(number, "int16")}))
    return ibis.union(*numbered) if len(numbered) > 1 else numbered[0]


def _against_accounts(rows: ir.Table, table: TableConfig, accounts: ir.Table | None) -> ir.Table:
    if accounts is None or "account_id" not in rows.columns:
        return rows.mutate(**{DOUBTS: ibis.literal("")})
    created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp")
    known = accounts.select(__known=accounts.account_id, __created=created)
    joined = rows.left_join(known, rows.account_id == known["__known"])
    unknown = reason(joined.account_id.notnull() & joined["__known"].isnull(), UNKNOWN_ACCOUNT)
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


def changed_accounts(engine: Engine, then: ir.Table, now: ir.Table) -> ir.Table:
    """Return the accounts that have come, gone or been created at another time, and whether each is new."""
    before, after = _born(then), _born(now)
    changed = before.union(after).group_by("account_id", "created_at").agg(checks=lambda t: t.count())
    once = changed.filter(changed.checks == 1).select("account_id").distinct()
    joined = once.left_join(before.select("account_id", is_old=ibis.literal(value=True)), "account_id")
    return engine.table(joined.select("account_id", is_new=joined.is_old.isnull()), name="changed_accounts")


def _born(accounts: ir.Table) -> ir.Table:
    created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp(6)")
    return accounts.select("account_id", created_at=created.cast("timestamp(6)"))


def find_repeated(engine: Engine, staged: ir.Table, table: str) -> ir.Table:
    """Find the rows that repeat an earlier one: the whole row, or the key of a good row; their `ID` and the reason."""
    return engine.table(_repeated(staged, table), name="repeated_rows")


def _repeated(staged: ir.Table, table: str) -> ir.Table:
    columns = [name for name in staged.columns if name not in _OWN]
    seen = staged.filter(staged[HASH].notnull()).group_by(SOURCE, HASH).aggregate(rows=lambda t: t.count())
    often = staged.semi_join(seen.filter(seen.rows > 1), [SOURCE, HASH])
    # rows that agree in the hash and in every column taken are the same; the hash alone might collide
    exact = _later(often, [SOURCE, HASH, *columns], REPEATED)
    contract = CONTRACT[table]
    if not contract.unique:
        return exact
    key = [*contract.unique, *(["recorded_at"] if "recorded_at" in columns else [])]
    good = staged.filter(staged[REASONS] == "").anti_join(exact, ID)
    return exact.union(_later(good, key, f"{', '.join(contract.unique)}: used by an earlier row"))


def _later(rows: ir.Table, key: Sequence[str], why: str) -> ir.Table:
    order = ibis.row_number().over(group_by=[rows[name] for name in key], order_by=[rows[SOURCE], rows[FILE], rows[ROW], rows[ID]])
    numbered = rows.select(rows[ID], place=order)
    return numbered.filter(numbered.place > 0).select(ID, reason=ibis.literal(why))
