"""Checks a workspace's tables against the contract and writes those that all later steps read.

Each table is read once, mapped, and staged with the reasons that each row shows by itself; then come the reasons that need other
rows: unknown accounts, exact duplicates, keys that are used twice. Good rows go to `tables/`, sorted by the time at which they became
known so that a window skips most of a file; every other row has a line in `quarantine/`.
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import ibis
import ibis.expr.types as ir

from features.checks import CheckSummary, TableCheck
from features.clock import known_by
from features.config import TableConfig
from features.contracts import CONTRACT
from features.engine import Engine, QueryError
from features.errors import SourceError, explain
from features.expressions import HASH
from features.ledger import fingerprint, replace_file, replace_folder
from features.mapping import BLANKED, REASONS, SEPARATOR, MappedSource, map_source, table_columns
from features.progress import Progress, silent
from features.quarantine import SOURCE, BrokenRows, count_reasons, is_broken, refuse_broken_columns, refuse_too_many, write_quarantine
from features.readings import filled
from features.sources import FILE, PROBLEM, ROW, list_files
from features.workspace import Workspace

__all__ = ["check_workspace", "intake_fingerprint"]

DOUBTS = "__doubts"
_ID = "__id"
_OWN = (FILE, ROW, HASH, REASONS, BLANKED, DOUBTS, SOURCE, _ID)


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
    names = list(workspace.config.tables)
    with (
        replace_folder(workspace.tables) as tables,
        TemporaryDirectory(dir=_emptied(workspace.state), prefix=_STAGING) as staging,
        Engine(spill_folder=Path(staging) / "spill") as engine,
    ):
        with replace_folder(workspace.quarantine) as quarantine:
            check = _Check(workspace, engine, Path(staging), tables, quarantine, now)
            checks = []
            for number, name in enumerate(names):
                on_progress(f"checking {name}", number, len(names))
                checks.append(check.run(workspace.config.tables[name]))
        on_progress("checked", len(names), len(names))
        summary = check.summarise(checks, seconds=time.perf_counter() - started)
        with replace_file(workspace.check_report) as report:
            report.write_text(json.dumps(summary.to_dict(), indent=2), encoding="utf-8")
        refuse_too_many(engine, checks, workspace.quarantine)
    return summary


_STAGING = ".unfinished-check-"


def _emptied(state: Path) -> Path:
    """Remove what an interrupted check has left in the folder."""
    for left_over in state.glob(f"{_STAGING}*"):
        shutil.rmtree(left_over)
    return state


def intake_fingerprint(workspace: Workspace) -> str:
    """Return a digest of what a check reads: the config of the tables, and each file's name, size and time of change.

    A PostgreSQL database has no such facts, so with one the digest is new each time.

    Raises
    ------
    SourceError
        If a file is missing.
    """
    config = workspace.config
    facts: list[object] = []
    for table in config.tables.values():
        for source in table.sources:
            facts.append(uuid4().hex if source.database == "postgresql" else source.database)
            for location in filter(None, [source.location, *source.lookups.values()]):
                files = [*list_files(location, source.format), *location.parent.glob(f"{location.name}-wal")]
                facts.extend((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    settings = [asdict(table) for table in config.tables.values()]
    return fingerprint(settings, config.currency, dict(config.currencies), str(config.data_until), facts)


@dataclass(frozen=True)
class _Check:
    """One run over the tables of a workspace."""

    workspace: Workspace
    engine: Engine
    staging: Path
    tables: Path
    quarantine: Path
    now: datetime

    def run(self, table: TableConfig) -> TableCheck:
        """Check one table, write its good rows and list the others."""
        started = time.perf_counter()
        folder = self.staging / table.table
        folder.mkdir()
        sources = [map_source(self.engine, part, table, self.workspace.config, now=self.now, staging=folder) for part in table.sources]
        staged = self._staged(table, sources, folder)
        repeated = self.engine.table(_repeated(staged, table.table), name="repeated_rows")
        marked = _with_reasons(staged, repeated) if self.engine.count(repeated) else staged
        broken = BrokenRows(marked.filter((marked[REASONS] != "") | (marked[BLANKED] != "")))
        reasons, blanked = (count_reasons(broken.table, column) for column in (REASONS, BLANKED))
        file = self._list_broken(broken, sources, table) if reasons or blanked else None
        rows_out = self.engine.write_parquet(_finished(marked, table.table), self.tables / f"{table.table}.parquet")
        rows_in = self.engine.count(staged)
        return TableCheck(
            table=table.table,
            rows_in=rows_in,
            rows_out=rows_out,
            quarantined=rows_in - rows_out,
            left_out=sum(source.left_out for source in sources),
            reasons=reasons,
            blanked=blanked,
            noticed=_noticed(sources, staged),
            empty=_summed(self._empty(source) for source in sources),
            limit=table.quarantine_limit,
            columns={name: taken for source in reversed(sources) for name, taken in source.taken.items()},
            unused=tuple(dict.fromkeys(name for source in sources for name in source.unused)),
            missing=tuple(name for name in CONTRACT[table.table].columns if name not in staged.columns),
            quarantine_file=file,
            seconds=round(time.perf_counter() - started, 3),
        )

    def _staged(self, table: TableConfig, sources: Sequence[MappedSource], folder: Path) -> ir.Table:
        """Write the mapped rows with the reasons that they show by themselves or by their account."""
        columns = [name for name in table_columns(table) if any(name in source.table.columns for source in sources)]
        types = {name: kind for source in sources for name, kind in source.table.schema().items()}
        parts = [
            source.table.select(
                **{name: source.table[name] if name in source.table.columns else ibis.null(types[name]) for name in columns},
                **{name: source.table[name] for name in (FILE, ROW, HASH, REASONS, BLANKED)},
                **{SOURCE: ibis.literal(number, "int16")},
            )
            for number, source in enumerate(sources)
        ]
        path = folder / "mapped.parquet"
        rows = self._against_partners(self._against_accounts(ibis.union(*parts) if len(parts) > 1 else parts[0], table), table)
        try:
            self.engine.write_parquet(rows, path)
        except QueryError as error:
            given = "\n".join(source.opened.label for source in sources)
            todo = "In SQL of the config use TRY_CAST where a value may not fit; if a file is damaged, export it again."
            raise SourceError(explain(f"the table {table.table} cannot be read: {error}", given=given, todo=todo)) from error
        staged = self.engine.read_parquet(path, file_row_number=True).rename({_ID: "file_row_number"})
        filled = staged.aggregate(**{name: staged[name].count() for name in columns}).to_pyarrow().to_pylist()[0]
        self._refuse_broken_columns(table, staged, sources, filled)
        return staged

    def _refuse_broken_columns(
        self, table: TableConfig, staged: ir.Table, sources: Sequence[MappedSource], filled: Mapping[str, int]
    ) -> None:
        counts = count_reasons(staged, REASONS) | count_reasons(staged, BLANKED)
        if any(is_broken(filled, reason, count) for reason, count in counts.items()):
            path = self.staging / "broken.csv"
            rows = BrokenRows(staged.filter((staged[REASONS] != "") | (staged[BLANKED] != "")))
            write_quarantine(self.engine, rows, sources, path)
            refuse_broken_columns(self.engine, table.table, filled, counts, path)

    def _against_accounts(self, rows: ir.Table, table: TableConfig) -> ir.Table:
        if table.table == "accounts" or "account_id" not in rows.columns:
            return rows.mutate(**{DOUBTS: ibis.literal("")})
        accounts = self.engine.read_parquet(self.tables / "accounts.parquet")
        created = accounts.created_at if "created_at" in accounts.columns else ibis.null("timestamp")
        known = accounts.select(__known=accounts.account_id, __created=created)
        joined = rows.left_join(known, rows.account_id == known["__known"])
        unknown = _reason(joined.account_id.notnull() & joined["__known"].isnull(), "account_id: unknown account")
        occurred = CONTRACT[table.table].occurred
        is_early = ibis.literal(value=False) if occurred is None else ~known_by(joined["__created"], joined[occurred])
        early = _reason(is_early, f"{occurred}: before the account was created")
        costs, doubts = (early, ibis.literal("")) if table.before_created_at == "quarantine" else (ibis.null("string"), early.coalesce(""))
        return joined.mutate(**{REASONS: _joined([_filled(joined[REASONS]), unknown, costs]), DOUBTS: doubts}).drop("__known", "__created")

    def _against_partners(self, rows: ir.Table, table: TableConfig) -> ir.Table:
        path = self.tables / "partners.parquet"
        if table.table != "assignments" or not path.exists():
            return rows
        partners = self.engine.read_parquet(path)
        unknown = rows.partner_id.notnull() & ~rows.partner_id.isin(partners.partner_id)
        return rows.mutate(**{REASONS: _joined([_filled(rows[REASONS]), _reason(unknown, "partner_id: unknown partner")])})

    def _empty(self, source: MappedSource) -> dict[str, int]:
        raw = source.opened.table.filter(source.opened.table[PROBLEM].isnull())
        empty = {name: (filled(raw[name]) if raw[name].type().is_string() else raw[name]).isnull().sum() for name in source.opened.columns}
        counts = self.engine.to_arrow(raw.aggregate(**empty)).to_pylist()[0]
        return {name: int(count) for name, count in counts.items() if count}

    def _list_broken(self, broken: BrokenRows, sources: Sequence[MappedSource], table: TableConfig) -> str:
        path = self.quarantine / f"{table.table}.csv"
        write_quarantine(self.engine, broken, sources, path)
        return str(self.workspace.quarantine / path.name)

    def summarise(self, checks: Sequence[TableCheck], *, seconds: float) -> CheckSummary:
        """Put the tables' checks together, with the time that the data spans."""
        spans = [self._span(check) for check in checks if check.rows_out and _happens(check.table)]
        known = [(first, last) for first, last in spans if first is not None]
        return CheckSummary(
            tables=tuple(checks),
            missing_tables=tuple(name for name in CONTRACT if name not in self.workspace.config.tables),
            data_from=min((first for first, _ in known), default=None),
            data_until=self.workspace.config.data_until or max((last for _, last in known), default=None),
            seconds=round(seconds, 3),
        )

    def _span(self, check: TableCheck) -> tuple[datetime, datetime]:
        table = self.engine.read_parquet(self.tables / f"{check.table}.parquet")
        first, last = self.engine.to_arrow(table.aggregate(first=table.known_at.min(), last=table.known_at.max())).to_pylist()[0].values()
        return first, last


def _happens(table: str) -> bool:
    """Tell whether the rows of a table are things that happened, rather than terms that may begin in the future."""
    occurred = CONTRACT[table].occurred
    return occurred is not None and not CONTRACT[table].columns[occurred].future


def _reason(condition: ir.BooleanValue, reason: str) -> ir.StringValue:
    return ibis.ifelse(condition, reason, ibis.null("string"))


def _filled(reasons: ir.StringValue) -> ir.StringValue:
    return reasons.nullif("")


def _joined(reasons: Sequence[ir.StringValue]) -> ir.StringValue:
    return ibis.literal(SEPARATOR).join(list(reasons))


def _repeated(staged: ir.Table, table: str) -> ir.Table:
    """Return the ids of rows that repeat an earlier one, with the reason: the whole row, or the key of a good row."""
    columns = [name for name in staged.columns if name not in _OWN]
    seen = staged.filter(staged[HASH].notnull()).group_by(SOURCE, HASH).aggregate(rows=lambda t: t.count())
    often = staged.semi_join(seen.filter(seen.rows > 1), [SOURCE, HASH])
    # rows that agree in the hash and in every column taken are the same; the hash alone might collide
    exact = _later(often, [SOURCE, HASH, *columns], "exact duplicate of an earlier row")
    contract = CONTRACT[table]
    if not contract.unique:
        return exact
    key = [*contract.unique, *(["recorded_at"] if "recorded_at" in columns else [])]
    good = staged.filter(staged[REASONS] == "").anti_join(exact, _ID)
    return exact.union(_later(good, key, f"{', '.join(contract.unique)}: used by an earlier row"))


def _later(rows: ir.Table, key: Sequence[str], reason: str) -> ir.Table:
    order = ibis.row_number().over(group_by=[rows[name] for name in key], order_by=[rows[SOURCE], rows[FILE], rows[ROW], rows[_ID]])
    numbered = rows.select(rows[_ID], place=order)
    return numbered.filter(numbered.place > 0).select(_ID, reason=ibis.literal(reason))


def _with_reasons(staged: ir.Table, repeated: ir.Table) -> ir.Table:
    joined = staged.left_join(repeated, _ID)
    return joined.mutate(**{REASONS: _joined([_filled(joined[REASONS]), joined.reason])}).select(*staged.columns)


def _finished(marked: ir.Table, table: str) -> ir.Table:
    """Return the good rows as all later steps see them, in the order in which they became known."""
    good = marked.filter(marked[REASONS] == "")
    occurred = CONTRACT[table].occurred or ("created_at" if "created_at" in good.columns else None)
    extra: dict[str, ir.Value] = {}
    if occurred is not None:
        extra["known_at"] = ibis.coalesce(good.recorded_at, good[occurred]) if "recorded_at" in good.columns else good[occurred]
    if table == "telemetry" and "events" not in good.columns:
        extra["events"] = ibis.literal(1).cast("float64")
    whole = good.mutate(**extra)
    return whole.order_by([*([whole.known_at] if extra.get("known_at") is not None else []), whole[_ID]]).drop(*_OWN)


def _noticed(sources: Sequence[MappedSource], staged: ir.Table) -> dict[str, int]:
    return _summed(source.notes for source in sources) | count_reasons(staged, DOUBTS)


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for what, count in part.items():
            total[what] = total.get(what, 0) + count
    return total
