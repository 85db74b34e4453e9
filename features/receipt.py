"""The receipt of what a partner contributes: the contract's check of its rows, one by one, before any of them is kept.

It is the check that the workspace's own tables go through, on one file, with two differences. The accounts that there are, are those of
the partner: a row about any other is one about an unknown account. And a broken row stops nothing: it is listed, the others are kept.

But: words about an account (`note`) belong to no table of the contract. They are handed back beside the rows, and kept elsewhere.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from features.config import ColumnMap, FileFormat, TableConfig, TableSource
from features.contributed import HEALTH_NOTE, MOST_ROWS, TABLE, engagement_config
from features.engine import Engine
from features.errors import SourceError, explain
from features.mapping import BLANKED, REASONS, SEPARATOR, MappedSource, map_source
from features.sources import PROBLEM, ROW
from features.staging import reason, stage_table, with_reasons
from features.workspace import Workspace

__all__ = ["COLUMNS", "BrokenRow", "Received", "check_contribution"]

COLUMNS = ("account_id", "occurred_at", "channel", "kind", "contact_id", "value")
"""The columns of the contract that a partner fills; who supplied a row and when it was received is not for it to say."""

_NOTE = "note"
_LONGEST = {**dict.fromkeys(("account_id", "channel", "kind", "contact_id"), 200), _NOTE: 4_000}
_MOST_BYTES = 256 * 1024**2
_MEMORY = "512MB"


@dataclass(frozen=True, kw_only=True)
class BrokenRow:
    """A row that was left out, or that lost a value, and why.

    Parameters
    ----------
    row
        Its number in what was given, from 1, a header not counted.
    kept
        Whether it was kept without the value.
    """

    row: int
    kept: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Received:
    """What a check of contributed rows found; `given = len(rows) + duplicates + quarantined`.

    Parameters
    ----------
    rows
        The rows to keep: `COLUMNS`, `note`, `row` and `row_hash`.
    duplicates
        Rows that were given before, in this contribution or in an earlier one.
    quarantined
        Rows left out because they are broken.
    broken
        The first of them, and of the rows that lost a value.
    reasons
        Broken rows and blanked values by reason.
    ignored
        Columns that were given and are not used.
    """

    rows: pa.Table
    given: int
    duplicates: int
    quarantined: int
    broken: tuple[BrokenRow, ...]
    reasons: Mapping[str, int]
    ignored: tuple[str, ...]


def check_contribution(
    workspace: Workspace,
    file: Path,
    *,
    kind: FileFormat,
    accounts: pa.Table,
    earlier: Collection[str],
    now: datetime,
    most_listed: int,
) -> Received:
    """Check a file of engagement rows.

    Parameters
    ----------
    accounts
        Those that the partner may speak of: account_id, created_at.
    earlier
        Hashes of the rows that it has given before and that stand.
    now
        The time of receipt, naive in UTC. What happened cannot be later.
    most_listed
        How many broken rows are listed; all are counted.

    Raises
    ------
    SourceError
        If the file cannot be read as what it is said to be, or is too large.
    ContractError
        If a column is missing, or its values cannot be read in one way only.
    """
    _refuse_bombs(file, kind)
    with TemporaryDirectory(prefix="renewcast-receipt-") as scratch, Engine(memory_limit=_MEMORY, threads=1) as engine:
        table = _table_of(workspace, file, kind, now)
        mapped = map_source(engine, table.sources[0], table, workspace.config, now=now, staging=Path(scratch))
        known = engine.hold(accounts, name="contributing_accounts")
        staged = stage_table(engine, table, {0: mapped}, Path(scratch) / "mapped.parquet", accounts=known)
        given = engine.count(staged)
        _refuse_many(given)
        marked = engine.layer(_with_own_reasons(_with_notes(staged, mapped)))
        good = engine.to_arrow(_selected(marked.filter(marked[REASONS] == "")))
        broken = engine.to_arrow(
            marked.filter((marked[REASONS] != "") | (marked[BLANKED] != "")).select(ROW, REASONS, BLANKED).order_by(ROW)
        ).to_pylist()
    kept = _first_given(good, earlier)
    listed = [_broken_row(row) for row in broken]
    return Received(
        rows=kept,
        given=given,
        duplicates=len(good) - len(kept),
        quarantined=given - len(good),
        broken=tuple(listed[:most_listed]),
        reasons=dict(Counter(why for row in listed for why in row.reasons).most_common()),
        ignored=tuple(name for name in mapped.unused if name.lower() != _NOTE),
    )


def _table_of(workspace: Workspace, file: Path, kind: FileFormat, now: datetime) -> TableConfig:
    """Return the workspace's engagement table with the file as its only source."""
    fixed = {
        name: ColumnMap(name=name, constant=value) for name, value in (("source", "partner"), ("recorded_at", now), ("withdrawn_at", now))
    }
    source = TableSource(table=TABLE, location=file, format=kind, columns=fixed)
    own = workspace.config.tables.get(TABLE) or engagement_config(workspace.config)
    return TableConfig(table=TABLE, sources=(source,), quarantine_limit=1.0, before_created_at=own.before_created_at)


def _with_notes(staged: ir.Table, mapped: MappedSource) -> ir.Table:
    """Add the column of words, and the columns that the contract knows and the file does not have."""
    absent = {name: ibis.null("float64" if name == "value" else "string") for name in COLUMNS if name not in staged.columns}
    named = next((name for name in mapped.opened.columns if name.lower() == _NOTE), None)
    if named is None:
        return staged.mutate(**absent, **{_NOTE: ibis.null("string")})
    raw = mapped.opened.table
    words = raw.filter(raw[PROBLEM].isnull()).select(**{ROW: raw[ROW].cast("int64"), _NOTE: raw[named].cast("string").strip().nullif("")})
    return staged.mutate(**absent).left_join(words, ROW).drop(f"{ROW}_right")


def _with_own_reasons(rows: ir.Table) -> ir.Table:
    """Add the reasons that hold for contributions only."""
    long = [reason(rows[name].length() > most, f"{name}: longer than {most:,} characters") for name, most in _LONGEST.items()]
    silent = reason((rows.channel.lower() == HEALTH_NOTE) & rows[_NOTE].isnull(), f"{_NOTE}: empty")
    unkept = reason(rows[_NOTE].contains("\0"), f"{_NOTE}: not text")
    return with_reasons(rows, *long, silent, unkept)


def _selected(good: ir.Table) -> ir.Table:
    return good.select(*COLUMNS, _NOTE, row=good[ROW]).order_by("row")


def _first_given(good: pa.Table, earlier: Collection[str]) -> pa.Table:
    """Keep the rows that were not given before, and add their hashes."""
    seen = set(earlier)
    kept, hashes = [], []
    for position, row in enumerate(good.to_pylist()):
        digest = _row_hash(row)
        if digest not in seen:
            seen.add(digest)
            kept.append(position)
            hashes.append(digest)
    return good.take(pa.array(kept, pa.int64())).append_column("row_hash", pa.array(hashes, pa.string()))


def _row_hash(row: Mapping[str, Any]) -> str:
    """Return a digest of what a row says, however it was written down."""
    said = [row[name].isoformat() if isinstance(row[name], datetime) else row[name] for name in (*COLUMNS, _NOTE)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def _broken_row(row: Mapping[str, Any]) -> BrokenRow:
    parts: Sequence[str] = [part for text in (row[REASONS], row[BLANKED]) for part in text.split(SEPARATOR) if part]
    return BrokenRow(row=int(row[ROW]), kept=row[REASONS] == "", reasons=tuple(parts))


def _refuse_bombs(file: Path, kind: FileFormat) -> None:
    """Refuse a Parquet file that says itself that it is too large, before anything of it is unpacked."""
    if kind != "parquet":
        return
    try:
        facts = pq.ParquetFile(file).metadata
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        columns = [group.column(number) for group in groups for number in range(group.num_columns)]
        unpacked = sum(column.total_uncompressed_size for column in columns)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(explain("the file cannot be read as parquet", todo="Write it again.")) from error
    _refuse_many(facts.num_rows)
    if unpacked > _MOST_BYTES:
        allowed = f"{_MOST_BYTES // 1024**2} MB unpacked"
        raise SourceError(explain("the file is too large", given=f"{unpacked // 1024**2} MB", allowed=allowed, todo="Send fewer rows."))


def _refuse_many(rows: int) -> None:
    if rows > MOST_ROWS:
        todo = "Send them in several contributions."
        raise SourceError(explain("there are too many rows", given=f"{rows:,}", allowed=f"{MOST_ROWS:,}", todo=todo))
