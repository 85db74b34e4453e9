"""The features of a whole book at one cutoff, streamed from the snapshots into the files of a score set.

Neither the snapshots nor the book have to fit into memory: DuckDB picks and orders the rows, and spills to disk where it must.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from features import clock
from features.engine import Engine
from features.errors import NotEnoughDataError, WorkspaceError, explain
from features.feature import Feature
from features.snapshot_files import snapshot_columns, snapshot_files
from features.spine import EARLIER_DAYS, EARLIEST_DAYS, LATEST_DAYS
from serving.scores.score_files import Column, ColumnWriter, StoredColumns
from training.dataset import require_columns

__all__ = ["BookFiles", "write_book"]

_ROWS = 16_384
_TOLD = 6
"""Cutoffs that are named where another was asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BookFiles:
    """The accounts of one cutoff, in the order of their ids.

    Parameters
    ----------
    cutoff
        UTC.
    account_ids, earlier_at
        `(n,)` the ids, and the cutoff of the earlier values, datetime64[us], NaT where there are none.
    values, earlier
        The features at the cutoff, and about a quarter before.
    """

    cutoff: datetime
    account_ids: Column
    earlier_at: Column
    values: StoredColumns
    earlier: StoredColumns


def write_book(engine: Engine, snapshots: Path, features: Sequence[Feature], *, cutoff: datetime | None, folder: Path) -> BookFiles:
    """Write the features of a cutoff's accounts to `values.parquet` and `earlier.parquet` in a folder.

    The earlier values of an account are those at the cutoff that lies nearest to a quarter (91 days) before. Cutoffs less than 28 or at
    least 182 days before are not taken: they would say little about the account's own past.

    Parameters
    ----------
    snapshots
        The path of the snapshots' features.
    cutoff
        The latest one if None.

    Raises
    ------
    WorkspaceError
        If the snapshots have not been made.
    NotEnoughDataError
        If they hold no account, or none at the cutoff.
    PackageError
        If they lack a feature.
    """
    try:
        columns = snapshot_columns(snapshots)
    except FileNotFoundError as error:
        raise WorkspaceError(
            explain("the snapshots have not been made yet", given=snapshots, todo="Run `renewcast features` first.")
        ) from error
    require_columns(columns, [feature.name for feature in features])
    rows = engine.read_parquet(snapshot_files(snapshots))
    at = _cutoff(engine, rows, snapshots, cutoff)
    present = rows.filter(rows.cutoff == ibis.literal(at, rows.cutoff.type()))
    instant = ibis.literal(clock.microseconds(at), "int64")
    past = _past(engine, present, rows, instant)
    ids = _write(engine, present, "account_id", features, folder / "values.parquet")
    earlier_at = _write(engine, past, "earlier_at", features, folder / "earlier.parquet")
    return BookFiles(
        cutoff=at,
        account_ids=ids,
        earlier_at=earlier_at.astype("datetime64[us]"),
        values=StoredColumns(folder / "values.parquet"),
        earlier=StoredColumns(folder / "earlier.parquet"),
    )


def _cutoff(engine: Engine, rows: ir.Table, snapshots: Path, wanted: datetime | None) -> datetime:
    """Return the wanted cutoff, or the latest one, after a look whether it is there."""
    there = sorted(engine.to_arrow(rows.select("cutoff").distinct())["cutoff"].to_pylist())
    if not there:
        raise NotEnoughDataError(
            explain("the snapshots hold no account to score", given=snapshots, todo="See what `renewcast check` reports.")
        )
    if wanted is not None and wanted not in there:
        latest = ", ".join(f"{each:%Y-%m-%d}" for each in there[-_TOLD:])
        raise NotEnoughDataError(explain("the snapshots have no such cutoff", given=wanted, allowed=f"the latest ones are {latest}"))
    found: datetime = there[-1] if wanted is None else wanted
    return found


def _past(engine: Engine, present: ir.Table, rows: ir.Table, instant: ir.IntegerValue) -> ir.Table:
    """Return the present accounts' features at the earlier cutoff; an account without one has nothing but its id."""
    at = engine.microseconds(rows.cutoff)
    past = rows.filter(clock.in_window(at, instant, days=EARLIEST_DAYS - LATEST_DAYS, lag_days=LATEST_DAYS))
    distance = (clock.age_days(engine.microseconds(past.cutoff), instant) - EARLIER_DAYS).abs()
    nearest = ibis.row_number().over(ibis.window(group_by=past.account_id, order_by=[distance, past.cutoff]))
    keys = past.select("account_id", "cutoff", nearness=nearest).filter(lambda ranked: ranked.nearness == 0).drop("nearness")
    chosen = rows.semi_join(keys, ["account_id", "cutoff"]).rename(earlier_at="cutoff")
    return present.select("account_id").left_join(chosen, "account_id")


def _write(engine: Engine, rows: ir.Table, kept: str, features: Sequence[Feature], path: Path) -> Column:
    """Write the features of rows in the order of their accounts' ids, and return one further column."""
    ordered = rows.order_by("account_id").select(kept, *[name for name in (feature.name for feature in features) if name != kept])
    found = []
    with ColumnWriter(path, {feature.name: feature.kind == "category" for feature in features}) as writer:
        for batch in engine.batches(ordered, rows=_ROWS):
            found.append(batch[kept].to_numpy(zero_copy_only=False))
            writer.write({feature.name: _column(batch[feature.name], feature) for feature in features})
    return np.concatenate(found)


def _column(values: pa.Array, feature: Feature) -> Column:
    column: Column = values.cast(pa.string() if feature.kind == "category" else pa.float64()).to_numpy(zero_copy_only=False)
    return column
