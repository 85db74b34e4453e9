"""Counts broken rows by reason, lists each with its original values, and stops a run that has too many of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir

from features.checks import TableCheck
from features.engine import Engine, quoted, quoted_name
from features.errors import ContractError, QuarantineError, explain
from features.mapping import BLANKED, REASONS, SEPARATOR
from features.sources import FILE, LINE, ROW, OpenedSource

__all__ = [
    "SOURCE",
    "UNREADABLE",
    "BrokenRows",
    "count_reasons",
    "is_broken",
    "refuse_broken_columns",
    "refuse_too_many",
    "write_quarantine",
]

SOURCE = "__source"
"""Column with the number of the source within its table."""

UNREADABLE = (": not a time", ": not a number", ": neither true nor false")
"""How the reasons end that say that a value is there and cannot be read."""

_OWN = ("file", "row", "fate", "reasons", "line")


@dataclass(frozen=True)
class BrokenRows:
    """The rows of a table for which there is a reason, or in which a value was blanked."""

    table: ir.Table

    @property
    def left_out(self) -> ir.Table:
        """The rows that go to quarantine."""
        return self.table.filter(self.table[REASONS] != "")


def count_reasons(engine: Engine, rows: ir.Table, column: str) -> dict[str, int]:
    """Count the rows that have each reason, the most frequent first."""
    filled = rows.filter(rows[column] != "")
    split = filled.select(reason=filled[column].split(SEPARATOR).unnest())
    counts = engine.to_arrow(split.group_by("reason").aggregate(rows=lambda t: t.count())).to_pylist()
    return {row["reason"]: row["rows"] for row in sorted(counts, key=lambda row: (-row["rows"], row["reason"]))}


def write_quarantine(engine: Engine, broken: BrokenRows, sources: Mapping[int, OpenedSource], path: Path) -> int:
    """Write one line for each broken row: file, row, fate, reasons, and the original values under the source's own names.

    Parameters
    ----------
    sources
        Where the original values are, by the number of the source.

    Returns
    -------
    int
        The number of lines.
    """
    held = engine.table(broken.table.select(SOURCE, FILE, ROW, REASONS, BLANKED), name="broken_rows")
    parts = [_originals(engine, held, source, number) for number, source in sources.items()]
    return engine.write_csv(f"{' UNION ALL BY NAME '.join(parts)} ORDER BY file, row", path)


def _originals(engine: Engine, held: ir.Table, source: OpenedSource, number: int) -> str:
    raw = engine.view(engine.compile(source.table))
    columns = "".join(f", raw.{quoted_name(name)} AS {quoted_name(_original(name))}" for name in source.columns)
    reasons = f"concat_ws({quoted(SEPARATOR)}, nullif({REASONS}, ''), nullif({BLANKED}, ''))"
    return (
        f"SELECT raw.{FILE} AS file, raw.{ROW} AS row, if({REASONS} = '', 'value blanked', 'row left out') AS fate, "
        f"{reasons} AS reasons, {LINE} AS line{columns} FROM {quoted_name(raw.get_name())} AS raw "
        f"JOIN (SELECT * FROM {quoted_name(held.get_name())} WHERE {SOURCE} = {number}) AS held "
        f"ON raw.{FILE} = held.{FILE} AND raw.{ROW} = held.{ROW}"
    )


def _original(name: str) -> str:
    return f"{name} (original)" if name.lower() in _OWN else name


def is_broken(filled: Mapping[str, int], reason: str, count: int) -> bool:
    """Tell whether a reason says that more than half of a column's values cannot be read."""
    return reason.endswith(UNREADABLE) and count > filled.get(reason.split(":", 1)[0], 0)


def refuse_broken_columns(engine: Engine, table: str, filled: Mapping[str, int], counts: Mapping[str, int], path: Path) -> None:
    """Stop if more than half of a column's values cannot be read: it is another column than the one that was meant.

    Parameters
    ----------
    filled
        How many values of each column could be read.
    counts
        Rows by reason.
    path
        The table's quarantine file, for the first rows.

    Raises
    ------
    ContractError
        If there is such a column.
    """
    for reason, count in counts.items():
        column = reason.split(":", 1)[0]
        if is_broken(filled, reason, count):
            share = count / (count + filled.get(column, 0))
            todo = f'Map {column} onto another column, or convert it: {column} = {{ sql = "..." }} in [tables.{table}.columns].'
            wrong = f"{share:.0%} of the values of {table}.{column} cannot be read ({reason.split(': ', 1)[1]})"
            raise ContractError(explain(wrong, given="first rows:\n" + _first_lines(engine, path, reason), todo=todo))


def _first_lines(engine: Engine, path: Path, reason: str) -> str:
    read = f"read_csv({quoted(path)}, all_varchar = true, header = true)"
    rows = engine.rows(f"SELECT * EXCLUDE (fate, line) FROM {read} WHERE contains(reasons, {quoted(reason)}) LIMIT 3")
    return "\n".join(", ".join(str(value) for value in row if value is not None)[:300] for row in rows)


def refuse_too_many(engine: Engine, checks: Sequence[TableCheck], folder: Path) -> None:
    """Stop if more rows of a table are broken than it allows.

    Raises
    ------
    QuarantineError
        With the counts by reason, the first three rows and where all of them are listed.
    """
    over = [check for check in checks if check.share_quarantined > check.limit or 0 < check.own.rows_in == check.own.quarantined]
    if not over:
        return
    parts = []
    for check in over:
        counts = "\n".join(f"  {count:,} {reason}" for reason, count in check.reasons.items())
        first = _first_lines(engine, folder / f"{check.table}.csv", "")
        share = (
            f"{check.table}: {check.own.quarantined:,} of {check.own.rows_in:,} rows "
            f"({check.share_quarantined:.1%}), {check.limit:.1%} are allowed"
        )
        parts.append(f"{share}\n{counts}\nfirst rows:\n{first}")
    todo = f"Look at the files in {folder}, correct the source or its mapping, or raise quarantine_limit of the table."
    raise QuarantineError(explain("too many rows are broken; the tables of the last good check stay", given="\n".join(parts), todo=todo))
