"""The step from checked tables to features, labels, groups and movements of ARR: what `renewcast features` does."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.ahead import meanwhile
from features.arrow_memory import memory_used_again
from features.catalogue import Catalogue
from features.contracts import CONTRACT
from features.engine import Engine
from features.families import VIEWS
from features.findings import Audit
from features.groups import build_groups
from features.hindsight import probed_accounts, probed_cutoffs, probed_instant
from features.labels import build_labels
from features.ledger import code_digest, fingerprint, replace_folder
from features.movements import MOVEMENTS_OF, build_movements
from features.numbered import NumberedTelemetry
from features.numbering import number_telemetry
from features.own import build_matrix_of_own, own_fingerprint
from features.piece_times import PieceTimes, count_times
from features.plan import SnapshotPlan, open_tables, plan_snapshots
from features.probes import PROBES_FILE, Book, earlier_hindsight, probe_tables
from features.progress import Progress, silent
from features.queries import QueryEngine
from features.reuse import Keys, Reusable, cutoff_keys, find_labels, find_movements, find_reusable, label_keys, read_keys, table_digest
from features.row_times import beginnings
from features.sampled import SampledTelemetry
from features.slices import KnownTables, Spine
from features.snapshot_files import matrix_schema, snapshot_files
from features.spine import scoring_cutoff
from features.workspace import Workspace

_SPILL = ".unfinished-spill-"
_HELD_BY_QUERIES = 0.75
"""The share of the memory that queries may hold; in the rest telemetry is counted."""
_TIMES = "times"
"""The folder of the snapshots in which there is what was counted of the times of telemetry."""
_NOBODY = pa.array([], pa.string())

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
        memory_used_again(),
        TemporaryDirectory(dir=workspace.state, prefix=_SPILL) as spilled,
        Engine(memory_limit=f"{_HELD_BY_QUERIES * workspace.config.memory_gigabytes}GB", spill_folder=Path(spilled)) as engine,
        replace_folder(workspace.snapshots) as folder,
    ):
        step = _Step.of(engine, workspace)
        keys = step.keys()
        earlier = earlier_hindsight(workspace) if read_keys(workspace.snapshots).hindsight == keys.hindsight else None
        accounts = step.probed() if earlier is None else _NOBODY
        reusable, computed = step.features(keys, on_progress=on_progress)
        matrix = folder / "features.parquet"
        with meanwhile(partial(reusable.write, matrix, computed)):
            found = step.beside_features(keys)
            for name, table in found.items():
                pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
            times = step.times(folder / _TIMES)
        is_whole = len(computed) == len(step.plan.spine)
        probed = _rows_of(accounts, [computed] if is_whole else map(pq.read_table, snapshot_files(matrix)))
        del computed  # it may be large, and what follows computes another
        audit = probe_snapshots(
            engine, workspace, step.tables, step.plan, probed, found["labels"], hindsight=earlier, times=times, telemetry=step.telemetry
        )
        (folder / PROBES_FILE).write_text(json.dumps(audit.to_json(), indent=1), encoding="utf-8")
        (folder / "catalogue.json").write_text(step.plan.catalogue.to_json(), encoding="utf-8")
        keys.write(folder)
    return summarise(found["labels"], found["labels"], step.plan.catalogue, step.tables, scoring_cutoff(step.plan.data_until))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """What a run works with; see `SnapshotPlan` and `NumberedTelemetry`."""

    workspace: Workspace
    engine: Engine
    tables: Mapping[str, ir.Table]
    telemetry: NumberedTelemetry | None
    plan: SnapshotPlan

    @classmethod
    def of(cls, engine: Engine, workspace: Workspace) -> "_Step":
        """Bring numbered telemetry up to date and find out what there is to compute."""
        tables = open_tables(engine, workspace.tables)
        telemetry = number_telemetry(workspace.tables / "telemetry.parquet", workspace.numbered)
        plan = plan_snapshots(engine, workspace, tables, telemetry=telemetry)
        return cls(workspace=workspace, engine=engine, tables=tables, telemetry=telemetry, plan=plan)

    def keys(self) -> Keys:
        """Return the keys of the cutoffs, and of those that are probed."""
        spine, mark = self.plan.spine, self._mark()
        keys = Keys(cutoff_keys(self.engine, self.workspace.tables, self.tables, spine, mark=mark, own=bool(self.plan.own)))
        keys = replace(keys, hindsight=keys.of(probed_cutoffs(spine)), labels=self._label_keys())
        return replace(keys, movements=fingerprint(self._made_of(*MOVEMENTS_OF), self.workspace.config.targets.grace_days))

    def _label_keys(self) -> dict[int, str]:
        mark, until = self._made_of("subscriptions"), self.plan.data_until
        return label_keys(self.workspace.tables, self.plan.spine, self.workspace.config.targets, data_until=until, mark=mark)

    def _made_of(self, *tables: str) -> str:
        """Return a digest of some of the tables, as far as they are there, and of what makes something of them."""
        digests = [table_digest(self.engine, self.tables[name]) for name in tables if name in self.tables]
        return fingerprint(digests, self.engine.version, code_digest())

    def probed(self) -> pa.Array:
        """Return the accounts whose features are computed again."""
        return probed_accounts(self.engine, self.tables, self.plan.spine, probed_instant(self.plan.spine))

    def _mark(self) -> str:
        """Return a digest of all but the tables that decides what the features of a row are; in which order they come does not."""
        levels = {column: sorted(names) for column, names in self.plan.levels.items()}
        made = sorted(fingerprint(feature) for feature in json.loads(self.plan.catalogue.to_json())["features"])
        return fingerprint(made, levels, own_fingerprint(self.workspace), self.engine.version, code_digest())

    def _known(self, spine: Spine) -> KnownTables:
        return KnownTables(self.engine, self.tables, spine, levels=self.plan.levels, views=VIEWS, telemetry=self.telemetry)

    def features(self, keys: Keys, *, on_progress: Progress) -> tuple[Reusable, pa.Table]:
        """Return what of the last snapshots stays, and the features of the rows that are not there."""
        schema = matrix_schema(self.plan.catalogue)
        reusable = find_reusable(self.workspace.snapshots, self.plan.spine, keys.cutoffs, schema=schema)
        if not len(reusable.stale):
            return reusable, schema.empty_table()
        spine = self.plan.spine.take(reusable.stale)
        return reusable, build_matrix_of_own(self._known(spine), spine, self.plan.catalogue, self.plan.own, on_progress=on_progress)

    def _labels(self, keys: Keys) -> pa.Table:
        """Return the labels of all rows, made anew only where the last snapshots do not have them."""
        kept = find_labels(self.workspace.snapshots, self.plan.spine, keys.labels)
        spine = self.plan.spine.take(kept.stale)
        return kept.completed(build_labels(self._known(spine), spine, self.workspace.config.targets, data_until=self.plan.data_until))

    def beside_features(self, keys: Keys) -> dict[str, pa.Table]:
        """Return labels and groups of all rows, and movements where there are subscriptions."""
        groups, targets = build_groups(self._known(self.plan.spine), self.plan.spine), self.workspace.config.targets
        found = {"labels": self._labels(keys), "groups": groups}
        if "subscriptions" in self.tables:
            earlier = find_movements(self.workspace.snapshots, keys.movements)
            until, grace_days = self.plan.data_until, targets.grace_days
            found["movements"] = build_movements(self.engine, self.tables, data_until=until, grace_days=grace_days, earlier=earlier)
        return found

    def times(self, folder: Path) -> PieceTimes | None:
        """Count the times of numbered telemetry, where the last snapshots do not have it."""
        if self.telemetry is None:
            return None
        earlier = self.workspace.snapshots / _TIMES
        return count_times(self.engine, self.telemetry, beginnings(self.tables), earlier=earlier, folder=folder)


def _rows_of(accounts: pa.Array, tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of some accounts from tables of which memory need not hold more than one."""
    if not len(accounts):
        return pa.table({})
    return pa.concat_tables([table.filter(pc.is_in(table["account_id"], value_set=accounts)) for table in tables])


def probe_snapshots(
    engine: QueryEngine,
    workspace: Workspace,
    tables: Mapping[str, ir.Table],
    plan: SnapshotPlan,
    matrix: pa.Table,
    labels: pa.Table,
    *,
    hindsight: Audit | None = None,
    times: PieceTimes | None = None,
    telemetry: NumberedTelemetry | None = None,
) -> Audit:
    """Run the probes for leaks, which compute features of the past once more unless what that found before still holds.

    Parameters
    ----------
    matrix
        The features, at least those of `features.hindsight.probed_accounts`; not looked at where `hindsight` is given.
    """

    def rebuild(tables: Mapping[str, ir.Table], sampled: SampledTelemetry | None, spine: Spine) -> pa.Table:
        known = KnownTables(engine, tables, spine, levels=plan.levels, views=VIEWS, sampled=sampled)
        return build_matrix_of_own(known, spine, plan.catalogue, plan.own)

    targets = workspace.config.targets
    book = Book(
        engine=engine,
        tables=tables,
        matrix=matrix,
        labels=labels,
        catalogue=plan.catalogue,
        days_ahead=targets.lead_days + targets.horizon_days,
        instant=probed_instant(plan.spine),
        times=times,
        telemetry=telemetry,
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
