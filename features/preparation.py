"""The step from checked tables to features, labels, groups and movements of ARR: what `renewcast features` does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.contracts import CONTRACT
from features.engine import Engine
from features.families import VIEWS
from features.findings import Audit
from features.groups import build_groups
from features.hindsight import probed_cutoffs
from features.labels import build_labels
from features.ledger import code_digest, fingerprint, replace_folder
from features.movements import build_movements
from features.numbered import NumberedTelemetry
from features.numbering import number_telemetry
from features.own import build_matrix_of_own, own_fingerprint
from features.plan import SnapshotPlan, open_tables, plan_snapshots
from features.probes import PROBES_FILE, Book, earlier_hindsight, probe_tables
from features.progress import Progress, silent
from features.queries import QueryEngine
from features.reuse import Keys, cutoff_keys, find_reusable, read_keys
from features.slices import KnownTables, Spine
from features.spine import scoring_cutoff
from features.workspace import Workspace

_SPILL = ".unfinished-spill-"

__all__ = ["PreparationSummary", "prepare_workspace", "probe_snapshots", "summarise"]


@dataclass(frozen=True, kw_only=True)
class PreparationSummary:
    """What the step did.

    Parameters
    ----------
    rows, accounts, cutoffs
        Size of the feature matrix.
    features
        Number of features.
    dropped_tables
        Optional tables that are missing, whose features are therefore not there.
    scoring_cutoff
        The cutoff at which accounts are scored, UTC.
    accounts_to_score
        Accounts at that cutoff.
    labelled
        Rows with a churn label.
    """

    rows: int
    accounts: int
    cutoffs: int
    features: int
    dropped_tables: tuple[str, ...]
    scoring_cutoff: datetime
    accounts_to_score: int
    labelled: int


def prepare_workspace(workspace: Workspace, *, on_progress: Progress = silent) -> PreparationSummary:
    """Compute features, labels and groups of every customer and cutoff, and movements of ARR, and put them in the `snapshots` folder.

    Features of a cutoff at which nothing has changed of what was known then are taken from the last snapshots.

    Raises
    ------
    ConfigError
        If targets, cutoffs or a feature of one's own need a table or column that is not there.
    NotEnoughDataError
        If no account is a customer at any cutoff, or at the end of the data.
    """
    with (
        TemporaryDirectory(dir=workspace.state, prefix=_SPILL) as spilled,
        Engine(memory_limit=f"{workspace.config.memory_gigabytes}GB", spill_folder=Path(spilled)) as engine,
    ):
        tables = open_tables(engine, workspace.tables)
        telemetry = _numbered(engine, workspace)
        plan = plan_snapshots(engine, workspace, tables, telemetry=telemetry)
        keys = cutoff_keys(engine, workspace.tables, tables, plan.spine, mark=_mark(engine, workspace, plan), own=bool(plan.own))
        matrix = _matrix(engine, workspace, tables, plan, keys, telemetry=telemetry, on_progress=on_progress)
        known = KnownTables(engine, tables, plan.spine, levels=plan.levels, views=VIEWS, telemetry=telemetry)
        labels = build_labels(known, plan.spine, workspace.config.targets, data_until=plan.data_until)
        found = {"features": matrix, "labels": labels, "groups": build_groups(known, plan.spine)}
        if "subscriptions" in tables:
            grace_days = workspace.config.targets.grace_days
            found["movements"] = build_movements(engine, tables, data_until=plan.data_until, grace_days=grace_days)
        made = Keys(keys)
        made = replace(made, hindsight=made.of(probed_cutoffs(engine, tables, matrix)))
        earlier = earlier_hindsight(workspace) if read_keys(workspace.snapshots).hindsight == made.hindsight else None
        probed = probe_snapshots(engine, workspace, tables, plan, matrix, labels, hindsight=earlier)
    with replace_folder(workspace.snapshots) as folder:
        for name, table in found.items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        (folder / PROBES_FILE).write_text(json.dumps(probed.to_json(), indent=1), encoding="utf-8")
        (folder / "catalogue.json").write_text(plan.catalogue.to_json(), encoding="utf-8")
        made.write(folder)
    return summarise(matrix, labels, plan.catalogue, tables, scoring_cutoff(plan.data_until))


def _numbered(engine: Engine, workspace: Workspace) -> NumberedTelemetry | None:
    """Bring numbered telemetry up to date; a quarter of the memory may hold what was read of it."""
    held_bytes = int(workspace.config.memory_gigabytes * 1e9 / 4)
    return number_telemetry(engine, workspace.tables / "telemetry.parquet", workspace.numbered, held_bytes=held_bytes)


def _mark(engine: Engine, workspace: Workspace, plan: SnapshotPlan) -> str:
    """Return a digest of all but the tables that decides what the features of a row are; in which order they come does not."""
    levels = {column: sorted(names) for column, names in plan.levels.items()}
    made = sorted(fingerprint(feature) for feature in json.loads(plan.catalogue.to_json())["features"])
    return fingerprint(made, levels, own_fingerprint(workspace), engine.version, code_digest())


def _matrix(
    engine: Engine,
    workspace: Workspace,
    tables: Mapping[str, ir.Table],
    plan: SnapshotPlan,
    keys: Mapping[int, str],
    *,
    telemetry: NumberedTelemetry | None,
    on_progress: Progress,
) -> pa.Table:
    """Return the features of every row, computed only where the last snapshots do not have them."""
    reusable = find_reusable(workspace.snapshots, plan.spine, keys, columns=plan.catalogue.names)
    if not len(reusable.stale):
        return reusable.joined(None)
    spine = plan.spine.take(reusable.stale)
    known = KnownTables(engine, tables, spine, levels=plan.levels, views=VIEWS, telemetry=telemetry)
    return reusable.joined(build_matrix_of_own(known, spine, plan.catalogue, plan.own, on_progress=on_progress))


def probe_snapshots(
    engine: QueryEngine,
    workspace: Workspace,
    tables: Mapping[str, ir.Table],
    plan: SnapshotPlan,
    matrix: pa.Table,
    labels: pa.Table,
    *,
    hindsight: Audit | None = None,
) -> Audit:
    """Run the probes for leaks, which compute features of the past once more unless what that found before still holds."""

    def rebuild(tables: Mapping[str, ir.Table], spine: Spine) -> pa.Table:
        known = KnownTables(engine, tables, spine, levels=plan.levels, views=VIEWS)
        return build_matrix_of_own(known, spine, plan.catalogue, plan.own)

    targets = workspace.config.targets
    book = Book(
        engine=engine,
        tables=tables,
        matrix=matrix,
        labels=labels,
        catalogue=plan.catalogue,
        days_ahead=targets.lead_days + targets.horizon_days,
    )
    return probe_tables(book, rebuild, hindsight=hindsight)


def summarise(
    keys: pa.Table, labels: pa.Table, catalogue: Catalogue, tables: Mapping[str, ir.Table], scored_at: datetime
) -> PreparationSummary:
    """Return what was made; `keys` are the accounts and cutoffs of all rows."""
    return PreparationSummary(
        rows=len(keys),
        accounts=len(pc.unique(keys["account_id"])),
        cutoffs=len(pc.unique(keys["cutoff"])),
        features=len(catalogue),
        dropped_tables=tuple(name for name in CONTRACT if name not in tables),
        scoring_cutoff=scored_at,
        accounts_to_score=pc.sum(pc.equal(keys["cutoff"], pa.scalar(scored_at, pa.timestamp("us")))).as_py(),
        labelled=len(labels) - labels["churn"].null_count,
    )
