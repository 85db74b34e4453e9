"""Checks a workspace's tables against the contract and writes those that all later steps read.

Each table is read once, with what partners contributed to it, mapped, and staged with the reasons that each row shows by itself; then
come the reasons that need other rows: unknown accounts, exact duplicates, keys that are used twice. Good rows go to `tables/`, sorted by
the time at which they became known so that a window skips most of a file; every other row has a line in `quarantine/`.
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import ibis.expr.types as ir

from features.checks import CheckSummary, RowCounts, TableCheck
from features.config import TableConfig
from features.contracts import CONTRACT
from features.contributed import is_contributed, tables_with_contributions
from features.deliveries import source_files
from features.engine import Engine
from features.increments import Increment
from features.kept_tables import TableRecord, is_repeatable, look_at_files, read_record
from features.ledger import code_digest, fingerprint, replace_file, replace_folder
from features.mapping import BLANKED, REASONS, MappedSource, map_source
from features.pieces import read_manifest
from features.progress import Progress, WeightedProgress, silent
from features.quarantine import SOURCE, BrokenRows, count_reasons, is_broken, refuse_broken_columns, refuse_too_many, write_quarantine
from features.readings import is_empty
from features.sources import FILE, PROBLEM, OpenedSource
from features.staging import DOUBTS, changed_accounts, filled_values, find_repeated, finished_rows, stage_table, with_repeated
from features.workspace import Workspace

__all__ = ["check_workspace", "intake_fingerprint"]


def check_workspace(workspace: Workspace, *, now: datetime, on_progress: Progress = silent) -> CheckSummary:
    """Check all tables of a workspace and write the good rows.

    The caller holds the workspace's lock.

    Parameters
    ----------
    now
        The present, in UTC without a zone. What happened cannot be later.

    Raises
    ------
    SourceError
        If a source cannot be opened.
    ConfigError
        If an expression cannot be computed, or a currency has no rate.
    ContractError
        If a column is missing or of a wrong type.
    QuarantineError
        If more rows of a table are broken than it allows. The tables of the last good check stay; the quarantine shows the new rows.
    """
    started = time.perf_counter()
    configs = tables_with_contributions(workspace)
    with (
        replace_folder(workspace.tables) as tables,
        TemporaryDirectory(dir=_emptied(workspace.state), prefix=_STAGING) as staging,
        Engine(memory_limit=f"{workspace.config.memory_gigabytes}GB", spill_folder=Path(staging) / "spill") as engine,
    ):
        with replace_folder(workspace.quarantine) as quarantine:
            progress = WeightedProgress(on_progress, {name: _size(config) for name, config in configs.items()})
            check = _Check(workspace, engine, Path(staging), tables, quarantine, now, progress)
            checks = []
            for name, config in configs.items():
                progress.tell(name, name)
                checks.append(check.run(config))
        on_progress("done", 100, 100)
        summary = check.summarise(checks, seconds=time.perf_counter() - started)
        with replace_file(workspace.check_report) as report:
            report.write_text(json.dumps(summary.to_dict(), indent=2), encoding="utf-8")
        refuse_too_many(engine, checks, workspace.quarantine)
    return summary


_STAGING = ".unfinished-check-"
_IN_PIECES = "telemetry"
"""The table that grows by what happens, and is kept in pieces."""


def _emptied(state: Path) -> Path:
    """Remove what an interrupted check has left in the folder."""
    for left_over in state.glob(f"{_STAGING}*"):
        shutil.rmtree(left_over)
    return state


def intake_fingerprint(workspace: Workspace) -> str:
    """Return a digest of what a check reads: the config of the tables, and each file's name, size and time of change, contributions too.

    A PostgreSQL database or a catalogue of Spark has no such facts, so with one the digest is new each time.

    Raises
    ------
    SourceError
        If a file is missing.
    """
    config, tables = workspace.config, tables_with_contributions(workspace)
    facts: list[object] = []
    for table in tables.values():
        for source in table.sources:
            facts.append(uuid4().hex if source.database in ("postgresql", "spark") else source.database)
            facts.extend((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source_files(source))
    settings = [asdict(table) for table in tables.values()]
    return fingerprint(settings, config.currency, dict(config.currencies), str(config.data_until), facts)


def _size(table: TableConfig) -> int:
    """Return the bytes of a table's files; one for a database that has no files."""
    return sum(file.stat().st_size for source in table.sources for file in source_files(source)) or 1


@dataclass(frozen=True)
class _Check:
    """One run over the tables of a workspace."""

    workspace: Workspace
    engine: Engine
    staging: Path
    tables: Path
    quarantine: Path
    now: datetime
    progress: WeightedProgress
    kept: set[str] = field(default_factory=set)
    """Names of the tables that were taken over."""

    def run(self, table: TableConfig) -> TableCheck:
        """Check one table, write its good rows and list the others; or take over what the last check made of the same."""
        if table.table == _IN_PIECES:
            return self._run_increment(table)
        started, mark = time.perf_counter(), self._mark(table)
        record = self._kept(table, mark)
        if record is not None:
            self.kept.add(table.table)
            record.take_over(self.workspace.tables, self.tables, self.quarantine)
            return self._of_record(record, started)
        files = look_at_files(table) if is_repeatable(table) else None
        check = self._run_whole(table)
        if files is not None:
            record = TableRecord(mark=mark, now=self.now, files=files, check=check)
            record.store(self.tables, self.quarantine / f"{table.table}.csv")
        return check

    def _kept(self, table: TableConfig, mark: str) -> TableRecord | None:
        """Return what the last check found, if it holds: nothing of the table has changed, and nothing that its rows are held against."""
        record = read_record(self.workspace.tables, table.table)
        if record is None or (table.table == "assignments" and not self._same("partners")):
            return None
        of_accounts = table.table != "accounts" and "account_id" in CONTRACT[table.table].columns
        if of_accounts and not self._same("accounts") and self._accounts_changed:
            return None
        return record.seen_again(table, mark=mark, now=self.now)

    def _same(self, table: str) -> bool:
        """Tell whether a table was taken over, or is not there now and was not."""
        return table in self.kept or not any((folder / f"{table}.parquet").exists() for folder in (self.workspace.tables, self.tables))

    @cached_property
    def _accounts_changed(self) -> bool:
        earlier, later = (folder / "accounts.parquet" for folder in (self.workspace.tables, self.tables))
        if not earlier.exists():
            return True
        then, now = (self.engine.read_parquet(path) for path in (earlier, later))
        return self.engine.count(changed_accounts(self.engine, then, now)) > 0

    def _of_record(self, record: TableRecord, started: float) -> TableCheck:
        place = None if record.check.quarantine_file is None else str(self.workspace.quarantine / f"{record.check.table}.csv")
        return replace(record.check, quarantine_file=place, seconds=round(time.perf_counter() - started, 3), unchanged=len(record.files))

    def _run_whole(self, table: TableConfig) -> TableCheck:
        """Check a table of which everything is read."""
        started = time.perf_counter()
        folder = self.staging / table.table
        folder.mkdir()
        mapped = [map_source(self.engine, part, table, self.workspace.config, now=self.now, staging=folder) for part in table.sources]
        sources = dict(enumerate(mapped))
        own = [source for source, part in zip(mapped, table.sources, strict=True) if not is_contributed(part, self.workspace)]
        staged = self._staged(table, sources, folder)
        marked = with_repeated(self.engine, staged, find_repeated(self.engine, staged, table.table))
        broken = BrokenRows(marked.filter((marked[REASONS] != "") | (marked[BLANKED] != "")))
        reasons, blanked = (count_reasons(self.engine, broken.table, column) for column in (REASONS, BLANKED))
        opened = {number: source.opened for number, source in sources.items()}
        file = self._list_broken(broken, opened, table) if reasons or blanked else None
        rows_out = self.engine.write_parquet(finished_rows(marked, table.table), self.tables / f"{table.table}.parquet")
        rows_in = self.engine.count(staged)
        return TableCheck(
            table=table.table,
            rows_in=rows_in,
            rows_out=rows_out,
            quarantined=rows_in - rows_out,
            left_out=sum(source.left_out for source in own),
            reasons=reasons,
            blanked=blanked,
            noticed=_summed(source.notes for source in mapped) | count_reasons(self.engine, staged, DOUBTS),
            empty=_summed(self._empty(source) for source in own),
            limit=table.quarantine_limit,
            columns={name: taken for source in reversed(mapped) for name, taken in source.taken.items()},
            unused=tuple(dict.fromkeys(name for source in own for name in source.unused)),
            missing=tuple(name for name in CONTRACT[table.table].columns if name not in staged.columns),
            quarantine_file=file,
            seconds=round(time.perf_counter() - started, 3),
            contributed=self._counts_by_file(marked.filter(marked[SOURCE] >= len(own))),
        )

    def _run_increment(self, table: TableConfig) -> TableCheck:
        """Check a table of which only what has come or changed is read."""
        started = time.perf_counter()
        place = f"{table.table}.parquet"
        folder, staging = self.tables / place, self.staging / table.table
        folder.mkdir()
        staging.mkdir()
        increment = Increment(
            engine=self.engine,
            table=table,
            config=self.workspace.config,
            now=self.now,
            mark=self._mark(table),
            earlier=self.workspace.tables / place,
            accounts=self.engine.read_parquet(self.tables / "accounts.parquet"),
            earlier_accounts=self.workspace.tables / "accounts.parquet",
            staging=staging,
            on_progress=lambda what, done, total: self.progress.tell(table.table, f"{table.table}: {what}", share=done / total),
        )
        judged = increment.run(folder)
        manifest, sources = judged.manifest, [facts for _, facts in sorted(judged.manifest.sources.items())]
        broken, file = judged.broken, None
        reasons, blanked = (count_reasons(self.engine, broken.table, column) if broken else {} for column in (REASONS, BLANKED))
        filled = _summed(delivery.filled for delivery in manifest.deliveries)
        if broken is not None:
            file = self._list_broken(broken, judged.originals, table)
            refuse_broken_columns(self.engine, table.table, filled, reasons | blanked, self.quarantine / f"{table.table}.csv")
        rows_in = sum(delivery.rows for delivery in manifest.deliveries)
        return TableCheck(
            table=table.table,
            rows_in=rows_in,
            rows_out=manifest.rows,
            quarantined=rows_in - manifest.rows,
            left_out=sum(delivery.left_out for delivery in manifest.deliveries),
            reasons=reasons,
            blanked=blanked,
            noticed=_summed([*(facts.notes for facts in sources), *(delivery.doubts for delivery in manifest.deliveries)]),
            empty=_summed(delivery.empty for delivery in manifest.deliveries),
            limit=table.quarantine_limit,
            columns={name: taken for facts in reversed(sources) for name, taken in facts.taken.items()},
            unused=tuple(dict.fromkeys(name for facts in sources for name in facts.unused)),
            missing=tuple(name for name in CONTRACT[table.table].columns if name not in manifest.columns),
            quarantine_file=file,
            seconds=round(time.perf_counter() - started, 3),
            read=judged.read,
            unchanged=judged.unchanged,
        )

    def _mark(self, table: TableConfig) -> str:
        """Return a digest of all but the sources' contents that decides what becomes of rows."""
        config = self.workspace.config
        return fingerprint(asdict(table), config.currency, dict(config.currencies), self.engine.version, code_digest())

    def _staged(self, table: TableConfig, sources: Mapping[int, MappedSource], folder: Path) -> ir.Table:
        """Write the mapped rows with the reasons that they show by themselves, by their account or by their partner."""
        accounts = None if table.table == "accounts" else self.engine.read_parquet(self.tables / "accounts.parquet")
        path = self.tables / "partners.parquet"
        partners = self.engine.read_parquet(path) if table.table == "assignments" and path.exists() else None
        staged = stage_table(self.engine, table, sources, folder / "mapped.parquet", accounts=accounts, partners=partners)
        self._refuse_broken_columns(table, staged, sources)
        return staged

    def _refuse_broken_columns(self, table: TableConfig, staged: ir.Table, sources: Mapping[int, MappedSource]) -> None:
        filled = filled_values(self.engine, staged, table)
        counts = count_reasons(self.engine, staged, REASONS) | count_reasons(self.engine, staged, BLANKED)
        if any(is_broken(filled, reason, count) for reason, count in counts.items()):
            path = self.staging / "broken.csv"
            rows = BrokenRows(staged.filter((staged[REASONS] != "") | (staged[BLANKED] != "")))
            write_quarantine(self.engine, rows, {number: source.opened for number, source in sources.items()}, path)
            refuse_broken_columns(self.engine, table.table, filled, counts, path)

    def _counts_by_file(self, rows: ir.Table) -> dict[str, RowCounts]:
        """Count the rows of each contribution: each has a file of its own."""
        counts = rows.group_by(FILE).aggregate(rows_in=rows.count(), quarantined=(rows[REASONS] != "").sum())
        found = self.engine.to_arrow(counts.order_by(FILE)).to_pylist()
        return {Path(row[FILE]).stem: RowCounts(rows_in=int(row["rows_in"]), quarantined=int(row["quarantined"])) for row in found}

    def _empty(self, source: MappedSource) -> dict[str, int]:
        raw = source.opened.table.filter(source.opened.table[PROBLEM].isnull())
        empty = {name: is_empty(raw[name]).sum() for name in source.opened.columns}
        counts = self.engine.to_arrow(raw.aggregate(**empty)).to_pylist()[0]
        return {name: int(count) for name, count in counts.items() if count}

    def _list_broken(self, broken: BrokenRows, sources: Mapping[int, OpenedSource], table: TableConfig) -> str:
        path = self.quarantine / f"{table.table}.csv"
        write_quarantine(self.engine, broken, sources, path)
        return str(self.workspace.quarantine / path.name)

    def summarise(self, checks: Sequence[TableCheck], *, seconds: float) -> CheckSummary:
        """Put the tables' checks together, with the time that the data spans."""
        spans = [self._span(check) for check in checks if check.rows_out and _happens(check.table)]
        known = [(first, last) for first, last in spans if first is not None and last is not None]
        return CheckSummary(
            tables=tuple(checks),
            missing_tables=tuple(name for name in CONTRACT if name not in {check.table for check in checks}),
            data_from=min((first for first, _ in known), default=None),
            data_until=self.workspace.config.data_until or max((last for _, last in known), default=None),
            seconds=round(seconds, 3),
        )

    def _span(self, check: TableCheck) -> tuple[datetime | None, datetime | None]:
        manifest = read_manifest(self.tables / f"{check.table}.parquet")
        if manifest is not None:
            return manifest.span
        table = self.engine.read_parquet(self.tables / f"{check.table}.parquet")
        first, last = self.engine.to_arrow(table.aggregate(first=table.known_at.min(), last=table.known_at.max())).to_pylist()[0].values()
        return first, last


def _happens(table: str) -> bool:
    """Tell whether the rows of a table are things that happened, rather than terms that may begin in the future."""
    occurred = CONTRACT[table].occurred
    return occurred is not None and not CONTRACT[table].columns[occurred].future


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for what, count in part.items():
            total[what] = total.get(what, 0) + count
    return total
