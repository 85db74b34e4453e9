"""The step from a lake's tables to features and labels on Spark: what `renewcast features` does with `engine = "spark"`.

Features are computed and written by Spark, partitioned by the day of their cutoff, and never pass through this process. Labels and groups
are a few numbers a row, and are made here from what Spark counts. To this machine come whole rows of some accounts only, as many as
`sample_rows` allows: on them models are trained and probed as ever. Of all accounts come their rows at the scoring cutoff and about a
quarter before, and what pages tell of them beside features: with those the book is scored and served here.

What a table of the lake held stays until all of the new has been written.

But: features, labels and groups are replaced one after the other. This process holds the spine and the labels, some 200 bytes for each
account and cutoff, and two rows of features for each account.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.families import VIEWS
from features.groups import build_groups
from features.labels import build_labels
from features.lake import open_lake
from features.lake_copies import copy_book_tables
from features.ledger import replace_folder
from features.matrix_query import matrix_query
from features.movements import build_movements
from features.own import refuse_infinite
from features.plan import SnapshotPlan, plan_snapshots
from features.preparation import PreparationSummary, probe_snapshots, summarise
from features.probes import PROBES_FILE
from features.progress import Progress, silent
from features.slices import KnownTables, Spine
from features.snapshot_files import matrix_schema, snapshot_files, write_matrix
from features.spark_engine import SparkEngine
from features.spine import earlier_rows, scoring_cutoff
from features.workspace import Workspace

__all__ = ["PARTITION", "lake_folder", "prepare_lake", "sampled_rows"]

PARTITION = "cutoff_day"
"""The column by which snapshots in the lake are partitioned: the day of the cutoff, UTC, such as `2025-01-31`."""

_ROWS_AT_ONCE = 250_000
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def lake_folder(workspace: Workspace, name: str) -> str:
    """Return the path or address of a table in the workspace's lake, such as that of `features`; a path starts at the workspace."""
    lake = workspace.config.spark.lake
    if lake is not None and _ADDRESS.match(lake):
        return f"{lake.rstrip('/')}/{name}"
    return str((workspace.folder / lake if lake else workspace.state / "lake").absolute() / name)


def prepare_lake(workspace: Workspace, *, now: datetime, on_progress: Progress = silent) -> PreparationSummary:
    """Write features, labels and groups of every customer and cutoff to the lake, and a sample of them to the `snapshots` folder.

    Raises
    ------
    ConfigError
        If targets, cutoffs or a feature of one's own need a table or column that is not there.
    NotEnoughDataError
        If no account is a customer at any cutoff, or at the end of the data.

    And what `features.lake.open_lake` raises.
    """
    with SparkEngine(workspace.config.spark.settings) as engine, replace_folder(workspace.snapshots) as folder:
        tables = open_lake(engine, workspace, now=now)
        plan = plan_snapshots(engine, workspace, tables)
        known = KnownTables(engine, tables, plan.spine, levels=plan.levels, views=VIEWS)
        on_progress("features", 0, 4)
        _write(engine, workspace, "features", matrix_query(known, plan.catalogue), plan.spine)
        on_progress("labels", 1, 4)
        found = _beside_features(known, workspace, plan)
        for name in ("labels", "groups"):
            _write(engine, workspace, name, engine.hold(found[name], name=f"{name}_to_write"), plan.spine)
        on_progress("what is kept here", 2, 4)
        end = scoring_cutoff(plan.data_until)
        copy_book_tables(engine, tables, workspace.book_tables, end=end)
        rows = sampled_rows(plan.spine, end, limit=workspace.config.spark.sample_rows, seed=workspace.config.training.seed)
        kept = np.union1d(rows, earlier_rows(plan.spine, end))
        matrix = _fetch(engine, workspace, plan.catalogue, kept, folder / "features.parquet")
        for own in plan.own:
            refuse_infinite(own, matrix)
        for name, table in found.items():
            held = table.take(pa.array(rows)) if name in ("labels", "groups") else table
            pq.write_table(held, folder / f"{name}.parquet", compression="zstd")
        on_progress("probes", 3, 4)
        sample = matrix.filter(pa.array(np.isin(kept, rows)))
        probed = probe_snapshots(engine, workspace, tables, plan, sample, found["labels"].take(pa.array(rows)))
        (folder / PROBES_FILE).write_text(json.dumps(probed.to_json(), indent=1), encoding="utf-8")
        (folder / "catalogue.json").write_text(plan.catalogue.to_json(), encoding="utf-8")
        on_progress("written", 4, 4)
    return summarise(found["labels"], found["labels"], plan.catalogue, tables, end)


def _beside_features(known: KnownTables, workspace: Workspace, plan: SnapshotPlan) -> Mapping[str, pa.Table]:
    """Return labels and groups of all rows, and movements where there are subscriptions."""
    targets = workspace.config.targets
    found = {
        "labels": build_labels(known, plan.spine, targets, data_until=plan.data_until),
        "groups": build_groups(known, plan.spine),
    }
    if "subscriptions" in known:
        found["movements"] = build_movements(known.engine, known.tables, data_until=plan.data_until, grace_days=targets.grace_days)
    return found


def _write(engine: SparkEngine, workspace: Workspace, name: str, table: ir.Table, spine: Spine) -> None:
    days = set(np.datetime_as_string(np.unique(spine.cutoff.to_numpy(zero_copy_only=False)), unit="D"))
    dated = table.mutate(**{PARTITION: table.cutoff.date().cast("string")})
    engine.write_partitioned(dated, lake_folder(workspace, name), by=PARTITION, values=days)


def sampled_rows(spine: Spine, end: datetime, *, limit: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows of the spine that come to this machine, in their order.

    Parameters
    ----------
    end
        The scoring cutoff, UTC: of it all rows are taken, and they do not count.
    limit
        How many rows of other cutoffs there may be. Whole accounts are drawn, so that each keeps its history.

    Returns
    -------
    Positions in the spine, sorted, shape `(n_sampled,)`.
    """
    at_end = spine.cutoff.to_numpy(zero_copy_only=False) == np.datetime64(end, "us")
    _, account = np.unique(spine.account_id.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    history = np.bincount(account[~at_end], minlength=int(account.max()) + 1)
    order = np.random.default_rng(seed).permutation(len(history))
    drawn = np.zeros(len(history), dtype=bool)
    drawn[order[np.cumsum(history[order]) <= limit]] = True
    return np.flatnonzero(at_end | drawn[account])


def _fetch(engine: SparkEngine, workspace: Workspace, catalogue: Catalogue, rows: npt.NDArray[np.int64], path: Path) -> pa.Table:
    """Bring rows of the lake's features to this machine, so many at once that memory stays bounded, and return them."""
    lake = engine.read_parquet(lake_folder(workspace, "features"))
    wanted = engine.hold(pa.table({"row": rows.astype(np.int32)}), name="sampled_rows")
    sampled, schema = lake.semi_join(wanted, "row"), matrix_schema(catalogue)

    def blocks() -> Iterator[pa.Table]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            found = engine.to_arrow(sampled.filter(sampled.row.between(int(part[0]), int(part[-1]))).order_by("row"))
            yield found.select(schema.names).cast(schema)

    write_matrix(path, schema, blocks())
    return pq.read_table(snapshot_files(path))
