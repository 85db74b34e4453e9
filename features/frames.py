"""A workspace's tables and snapshots as data frames: the door for notebooks."""

from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet as pq

from features.contracts import CONTRACT
from features.errors import WorkspaceError, explain, nearest
from features.snapshot_files import snapshot_files
from features.workspace import Workspace

__all__ = ["SnapshotPart", "read_snapshot", "read_table"]

SnapshotPart = Literal["features", "labels", "groups", "movements"]


def read_table(workspace: Workspace, table: str) -> pd.DataFrame:
    """Read a checked table: the contract's columns, times in UTC.

    Raises
    ------
    WorkspaceError
        If the workspace has no such table, or it has not been checked yet.
    """
    if table not in CONTRACT:
        todo = nearest(table, CONTRACT)
        raise WorkspaceError(explain("there is no table of this name", given=table, allowed=", ".join(CONTRACT), todo=todo))
    todo = "Run `renewcast check`." if table in workspace.config.tables else f"Add [tables.{table}] to the config."
    if workspace.config.engine == "spark":
        todo = "On Spark tables stay where they lie: read it there."
    path = workspace.tables / f"{table}.parquet"
    return _read(path, path, f"the table {table} is not there", todo)


def read_snapshot(workspace: Workspace, part: SnapshotPart) -> pd.DataFrame:
    """Read what was computed for every customer and cutoff.

    `features`, `labels` and `groups` have the same rows in the same order, keyed by `account_id` and `cutoff` (UTC); `movements` has one
    row for each account and month, and is there for books with subscriptions.

    Raises
    ------
    WorkspaceError
        If it has not been computed yet.
    """
    path = workspace.snapshots / f"{part}.parquet"
    return _read(path, snapshot_files(path), f"the {part} of this workspace are not there", "Run `renewcast features`.")


def _read(path: Path, source: Path | list[Path], wrong: str, todo: str) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(source).to_pandas()
    except FileNotFoundError as error:
        raise WorkspaceError(explain(wrong, given=path, todo=todo)) from error
    return frame
