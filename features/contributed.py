"""What partners contributed: rows of engagement in the workspace's state, one Parquet file a contribution, read beside its own tables.

A file holds the rows that were accepted, as the contract has them: `source` is the partner, `recorded_at` the time of receipt, and
`withdrawn_at` the time from which the contribution is withdrawn, empty as long as it stands. So a cutoff sees what had been received and
not yet been taken back by then. Files appear and change as a whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.config import Config, TableConfig, TableSource
from features.contracts import CONTRACT
from features.ledger import replace_file
from features.workspace import Workspace

__all__ = [
    "HEALTH_NOTE",
    "MOST_ROWS",
    "TABLE",
    "VENDOR_SOURCE",
    "contribution_file",
    "engagement_config",
    "given_rows",
    "is_contributed",
    "tables_with_contributions",
    "withdraw_contribution",
    "write_contribution",
]

TABLE = "engagement"
"""The table of the contract that partners contribute to."""

VENDOR_SOURCE = "vendor"
"""Who supplied a row of that table, in small letters, where it was no partner."""

HEALTH_NOTE = "health_note"
"""The channel of rows that are somebody's words about an account: they are kept, and no feature is made of them."""

MOST_ROWS = 20_000
"""Rows of one contribution."""

_TIME = pa.timestamp("us")


def contribution_file(workspace: Workspace, contribution_id: str) -> Path:
    """Return where the rows of a contribution are."""
    return workspace.contributions / f"{contribution_id}.parquet"


def write_contribution(workspace: Workspace, contribution_id: str, rows: pa.Table, *, partner_id: str, received_at: datetime) -> None:
    """Keep the rows of a contribution, known from its receipt on.

    Parameters
    ----------
    rows
        What `features.receipt` let through, without words: columns of the contract, row and row_hash.
    """
    n = len(rows)
    stamped = rows.append_column("source", pa.array([partner_id] * n, pa.string()))
    stamped = stamped.append_column("recorded_at", pa.array([received_at] * n, _TIME)).append_column("withdrawn_at", pa.nulls(n, _TIME))
    _write(stamped, contribution_file(workspace, contribution_id))


def withdraw_contribution(workspace: Workspace, contribution_id: str, *, at: datetime) -> None:
    """Mark the rows of a contribution as withdrawn; cutoffs before that still see them."""
    path = contribution_file(workspace, contribution_id)
    rows = pq.read_table(path)
    marked = rows.set_column(rows.column_names.index("withdrawn_at"), "withdrawn_at", pa.array([at] * len(rows), _TIME))
    _write(marked, path)


def given_rows(workspace: Workspace, contribution_ids: Iterable[str]) -> set[str]:
    """Return the hashes of all rows of these contributions; of one that kept no row there is no file."""
    files = (contribution_file(workspace, contribution_id) for contribution_id in contribution_ids)
    columns = (pq.read_table(file, columns=["row_hash"])["row_hash"] for file in files if file.exists())
    return {digest for column in columns for digest in column.to_pylist()}


def _write(rows: pa.Table, path: Path) -> None:
    with replace_file(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")


def is_contributed(source: TableSource, workspace: Workspace) -> bool:
    """Tell whether a source is the one of all contributions."""
    return source.location == workspace.contributions


def tables_with_contributions(workspace: Workspace) -> Mapping[str, TableConfig]:
    """Return the workspace's tables, what partners contributed as a further source of its table; a workspace without it gets one."""
    config = workspace.config
    if not any(workspace.contributions.glob("[!.]*.parquet")):
        return config.tables
    source = TableSource(table=TABLE, location=workspace.contributions, format="parquet", where=f"lower(channel) <> '{HEALTH_NOTE}'")
    table = config.tables.get(TABLE) or engagement_config(config)
    extended = {**config.tables, TABLE: replace(table, sources=(*table.sources, source))}
    return {name: extended[name] for name in CONTRACT if name in extended}


def engagement_config(config: Config) -> TableConfig:
    """Return an engagement table that has no source of its own."""
    return TableConfig(table=TABLE, sources=(), quarantine_limit=config.quarantine_limit)
