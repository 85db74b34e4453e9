"""Increments: a check of telemetry that reads only the files that have come or changed, and finds what a check of all of them would.

A row is judged by itself, by its account and by the rows that repeat it. So a file that has not changed is read again all the same if
anything about one of its rows may have: its account has come, gone or been created at another time; it was in the future and is no
longer; an earlier file now holds the same row, or the one that held it has gone; or its source turns out to have other columns. What
must be read again is found before anything is written, and the reading begins anew with it until nothing more is found.

Text is read as all values of a column allow, so of each file it is kept how its values are written: unless the files together decide
otherwise than they did, the new ones are read as all would be. A database, a source that SQL looks at as a whole, and text files whose
columns differ are read again whenever anything about them has changed; so is a source whose new files cannot be read by themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.batches import Batch, count_deliveries, hold_deliveries, with_deliveries
from features.clock import known_by
from features.config import Config, TableConfig
from features.contracts import CONTRACT
from features.deliveries import Found, Plan, evidence_of, find_deliveries, is_read_otherwise, plan_reading
from features.engine import Engine
from features.errors import RenewcastError
from features.expressions import HASH
from features.mapping import BLANKED, FUTURE_TOLERANCE, IN_FUTURE, REASONS, MappedSource, map_source, marker_notes
from features.pieces import DELIVERY, DIGEST, PLACE, Manifest, PieceWriter, SourceFacts, piece_files, read_manifest
from features.progress import Progress, silent
from features.quarantine import SOURCE, BrokenRows
from features.sources import FILE, ROW, OpenedSource, queries_before_reading
from features.staging import (
    ID,
    REPEATED,
    UNKNOWN_ACCOUNT,
    changed_accounts,
    find_repeated,
    finished_rows,
    stage_table,
    with_repeated,
)

__all__ = ["Increment", "Judged"]

_BROKEN = "_broken.parquet"
_READ, _JUDGED = 40, 48
"""Hundredths of the time (of a first check of Parquet files) until all is read, and until repeated rows are found."""
_MARKS = (SOURCE, FILE, ROW, HASH, REASONS, BLANKED, DELIVERY)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What a check of all rows would have found.

    Parameters
    ----------
    broken
        The rows for which there is a reason or in which a value was blanked; None if there are none.
    originals
        The values of these rows as their sources have them, by the number of the source.
    read, unchanged
        How many deliveries were read, and how many stayed as they were.
    """

    manifest: Manifest
    broken: BrokenRows | None
    originals: Mapping[int, OpenedSource]
    read: int
    unchanged: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Increment:
    """One check of a table of things that happened.

    Parameters
    ----------
    mark
        Digest of the settings and the code: what was read with others is not used.
    earlier
        The folder of the pieces of the last good check; it may not be there.
    accounts, earlier_accounts
        The checked accounts of now and then.
    staging
        A folder for temporary files.
    """

    engine: Engine
    table: TableConfig
    config: Config
    now: datetime
    mark: str
    earlier: Path
    accounts: ir.Table
    earlier_accounts: Path
    staging: Path
    on_progress: Progress = silent

    def run(self, folder: Path) -> Judged:
        """Read what must be read and write all pieces to an empty folder."""
        again = self._changed_in_judgement()
        while True:
            plan = self._plan(again)
            self._tell_reading(plan, 0.0)
            try:
                batch = self._read(plan)
            except RenewcastError:
                if not (beside := self._beside(plan)):
                    raise
                again |= beside
                continue
            more = self._of_changed_sources(plan, batch)
            if not more:
                self._tell_looking(0.0)
                with self.engine.watched(self._tell_looking, queries=3 if plan.kept else 1):
                    members = self._earlier_members(plan, batch)
                    repeated = self._repeated(members, batch)
                more = self._otherwise_repeated(members, repeated)
                if not more:
                    return self._write(plan, batch, repeated, folder)
            again |= more

    @cached_property
    def before(self) -> Manifest | None:
        """What the last good check left, if it can be used."""
        manifest = read_manifest(self.earlier)
        return manifest if manifest is not None and manifest.mark == self.mark and self.earlier_accounts.exists() else None

    @cached_property
    def _found(self) -> list[Found]:
        return find_deliveries(self.table)

    @property
    def _occurred(self) -> str:
        return str(CONTRACT[self.table.table].occurred)

    def _plan(self, again: Iterable[int]) -> Plan:
        if self.before is None:
            return Plan((), tuple(self._found))
        whole = [number for number, facts in self.before.sources.items() if not facts.row_by_row]
        sound = [delivery for delivery in self.before.deliveries if delivery.number not in set(again)]
        return plan_reading(self._found, sound, whole=whole)

    # What the last check left

    @cached_property
    def _earlier_broken(self) -> ir.Table | None:
        path = self.earlier / _BROKEN
        return self.engine.read_parquet(path) if self.before is not None and path.exists() else None

    def _changed_in_judgement(self) -> set[int]:
        """Return the deliveries with rows that would be judged otherwise today, by their account or by the clock."""
        if self.before is None:
            return set()
        changed = changed_accounts(self.engine, self.engine.read_parquet(self.earlier_accounts), self.accounts)
        found: set[int] = set()
        if self._earlier_broken is not None:
            broken = self._earlier_broken
            unknown = broken[REASONS].contains(UNKNOWN_ACCOUNT)
            late = broken[REASONS].contains(f"{self._occurred}: {IN_FUTURE}") & known_by(
                broken[self._occurred], ibis.timestamp(self.now + FUTURE_TOLERANCE)
            )
            late |= self._recorded_in_future(broken)
            found |= self._numbers(broken.filter((unknown & broken.account_id.isin(changed.account_id)) | late))
        if self.engine.count(changed.filter(~changed.is_new)):
            pieces = self.engine.read_parquet(piece_files(self.earlier))
            found |= self._numbers(pieces.semi_join(changed.filter(~changed.is_new), "account_id"))
            found |= self._numbers(self._earlier_broken.semi_join(changed, "account_id")) if self._earlier_broken is not None else set()
        return found

    def _recorded_in_future(self, broken: ir.Table) -> ir.BooleanValue:
        if "recorded_at" not in broken.columns:
            return ibis.literal(value=False)
        come = known_by(broken.recorded_at, ibis.timestamp(self.now + FUTURE_TOLERANCE))
        return broken[REASONS].contains(f"recorded_at: {IN_FUTURE}") & come

    def _numbers(self, rows: ir.Table) -> set[int]:
        return set(self.engine.to_arrow(rows.select(DELIVERY).distinct())[DELIVERY].to_pylist())

    # Reading

    def _read(self, plan: Plan) -> Batch | None:
        """Map and stage what is to be read; None if there is nothing."""
        if not plan.read:
            return None
        folder = self.staging / f"reading_{len(list(self.staging.iterdir()))}"
        folder.mkdir()
        first = self.before.next_delivery if self.before is not None else 0
        numbers = {found: first + place for place, found in enumerate(plan.read)}
        path, completed = folder / "mapped.parquet", partial(self._completed, numbers)
        queries = 1 + sum(queries_before_reading(self.table.sources[number], only=plan.files(number)) for number in plan.sources)
        with self.engine.watched(partial(self._tell_reading, plan), queries=queries):
            mapped = {number: self._map(plan, number, folder) for number in plan.sources}
            staged = stage_table(self.engine, self.table, mapped, path, accounts=self.accounts, completed=completed)
        columns = {name: str(kind) for name, kind in staged.schema().items() if name in CONTRACT[self.table.table].columns}
        deliveries = count_deliveries(self.engine, numbers, mapped, staged, columns=list(columns))
        return Batch(mapped=mapped, staged=staged, deliveries=deliveries, columns=columns)

    def _tell_reading(self, plan: Plan, share: float) -> None:
        self.on_progress(f"reading {len(plan.read):,} of {len(self._found):,} files", int(share * _READ), 100)

    def _tell_looking(self, share: float) -> None:
        self.on_progress("looking for repeated rows", _READ + int(share * (_JUDGED - _READ)), 100)

    def _map(self, plan: Plan, number: int, folder: Path) -> MappedSource:
        return map_source(
            self.engine,
            self.table.sources[number],
            self.table,
            self.config,
            now=self.now,
            staging=folder,
            only=plan.files(number),
            like=self.before.sources[number].types if self.before is not None and self._is_partial(plan, number) else None,
            may_be_empty=any(kept.source == number and kept.rows + kept.left_out for kept in plan.kept),
            beside=evidence_of(plan.kept, number),
        )

    def _is_partial(self, plan: Plan, source: int) -> bool:
        return any(delivery.source == source for delivery in plan.kept)

    def _beside(self, plan: Plan) -> set[int]:
        """Return the deliveries that are kept of sources of which others are read."""
        return {delivery.number for delivery in plan.kept if delivery.source in plan.sources}

    def _completed(self, numbers: Mapping[Found, int], rows: ir.Table) -> ir.Table:
        """Add the deliveries' numbers, and the columns that only sources have which are not read this time."""
        absent = {name: ibis.null(kind) for name, kind in self._earlier_columns.items() if name not in rows.columns}
        return with_deliveries(self.engine, rows.mutate(**absent), numbers)

    # Judging

    def _of_changed_sources(self, plan: Plan, batch: Batch | None) -> set[int]:
        """Return the deliveries of sources whose columns are no longer what they were, or that are no longer read row by row."""
        read = batch.mapped if batch is not None else {}
        before = self.before.deliveries if self.before is not None else ()
        now = [*plan.kept, *(batch.deliveries if batch is not None else ())]
        partial = {delivery.source for delivery in plan.kept}
        changed = {
            number
            for number in partial
            if (number in read and self._differs(number, read[number])) or is_read_otherwise(number, before, now)
        }
        return {delivery.number for delivery in plan.kept if delivery.source in changed}

    def _differs(self, number: int, source: MappedSource) -> bool:
        assert self.before is not None
        facts, opened = self.before.sources[number], source.opened
        alike = opened.layout == facts.layout and list(opened.types.items()) == list(facts.types.items())
        return not (alike and source.row_by_row and facts.row_by_row)

    def _repeated(self, members: ir.Table | None, batch: Batch | None) -> ir.Table | None:
        """Find the rows that repeat an earlier one, among those that were read and the earlier ones that they may meet."""
        rows = None if members is None else members.drop(DELIVERY, "__was")
        if batch is not None:
            new = batch.staged.drop(DELIVERY)
            rows = new if rows is None else rows.union(new.select(*rows.columns).cast(dict(rows.schema().items())))
        return None if rows is None else find_repeated(self.engine, rows, self.table.table)

    def _otherwise_repeated(self, members: ir.Table | None, repeated: ir.Table | None) -> set[int]:
        """Return the deliveries of earlier rows that repeated another and no longer do, or the reverse."""
        if members is None or repeated is None:
            return set()
        joined = members.left_join(repeated, ID)
        return self._numbers(joined.filter(joined.reason.notnull() != joined["__was"]))

    def _earlier_members(self, plan: Plan, batch: Batch | None) -> ir.Table | None:
        """Return the kept rows that agree in their hash with rows that came or went; None if there are none."""
        if self.before is None or not plan.kept:
            return None
        gone = self._gone(plan)
        earlier = self._earlier_rows(list(self._earlier_columns), gone, batch)
        kept = earlier.filter(earlier[DELIVERY].notin(sorted(gone))) if gone else earlier
        touched = earlier.filter(earlier[DELIVERY].isin(sorted(gone))).select(SOURCE, HASH) if gone else None
        if batch is not None:
            new = batch.staged.select(SOURCE, HASH).cast(dict(earlier.select(SOURCE, HASH).schema().items()))
            touched = new if touched is None else touched.union(new)
        if touched is None:
            return None
        touched = touched.filter(touched[HASH].notnull())
        hashes = self.engine.table(kept.select(HASH).semi_join(touched, HASH).distinct(), name="hashes_that_come_again")
        found = kept.semi_join(hashes, HASH).semi_join(touched, [SOURCE, HASH])  # all columns are read of the few rows only that have one
        members = self.engine.table(found.mutate(**{ID: -1 - ibis.row_number()}), name="earlier_members")
        return members if self.engine.count(members) else None

    @property
    def _earlier_columns(self) -> Mapping[str, str]:
        return self.before.columns if self.before is not None else {}

    def _gone(self, plan: Plan) -> set[int]:
        assert self.before is not None
        return {delivery.number for delivery in self.before.deliveries} - {delivery.number for delivery in plan.kept}

    def _earlier_rows(self, names: Sequence[str], gone: set[int], batch: Batch | None) -> ir.Table:
        """Return the earlier rows, good and broken, of the months in which one can be the same as a row that came or went."""
        assert self.before is not None
        months = {piece.month for piece in self.before.pieces if gone & set(piece.deliveries)}
        if batch is not None:
            months |= set(self._months(batch.staged))
        pieces = [piece for piece in self.before.pieces if piece.month in months] or list(self.before.pieces[:1])
        rows = self.engine.read_parquet([self.earlier / piece.name for piece in pieces])
        held = hold_deliveries(self.engine, {delivery.number: delivery for delivery in self.before.deliveries}, name="deliveries_before")
        good = rows.join(held, rows[DELIVERY] == held["__number"])
        marks = {SOURCE: good["__of"], FILE: good["__from"], ROW: good[PLACE], HASH: good[DIGEST], REASONS: ibis.literal("")}
        parts = [good.select(*names, DELIVERY, **marks, __was=ibis.literal(value=False))]
        if self._earlier_broken is not None:
            broken = self._earlier_broken.filter(self._earlier_broken[REASONS] != "")
            marked = broken.select(*names, DELIVERY, SOURCE, FILE, ROW, HASH, REASONS, __was=broken[REASONS].contains(REPEATED))
            parts.append(marked.cast(dict(parts[0].schema().items())))
        return parts[0] if len(parts) == 1 else ibis.union(*parts)

    def _months(self, staged: ir.Table) -> list[str]:
        found = staged.select(month=staged[self._occurred].strftime("%Y-%m")).distinct()
        return [month for month in self.engine.to_arrow(found)["month"].to_pylist() if month is not None]

    # Writing

    def _write(self, plan: Plan, batch: Batch | None, repeated: ir.Table | None, folder: Path) -> Judged:
        marked = None if batch is None or repeated is None else with_repeated(self.engine, batch.staged, repeated)
        writer = PieceWriter(self.engine, folder, next_piece=self.before.next_piece if self.before is not None else 0)
        gone = self._gone(plan) if self.before is not None else set()
        for piece in self.before.pieces if self.before is not None else ():
            if piece.month:
                writer.keep(piece, self.earlier, gone=gone)
        if marked is not None:
            more = {PLACE: ROW, DIGEST: HASH}
            writer.add_by_month(finished_rows(marked, self.table.table, more=more), self._occurred, on_progress=self._writing)
        writer.compact()
        manifest = self._manifest(plan, batch, writer)
        manifest.write(folder)
        broken, originals = self._broken(plan, batch, marked, folder)
        return Judged(manifest=manifest, broken=broken, originals=originals, read=len(plan.read), unchanged=len(plan.kept))

    def _writing(self, month: str, done: int, months: int) -> None:
        self.on_progress(f"writing {month}", _JUDGED + (100 - _JUDGED) * done // months, 100)

    def _manifest(self, plan: Plan, batch: Batch | None, writer: PieceWriter) -> Manifest:
        before = self.before
        sources = dict(before.sources) if before is not None else {}
        read = batch.mapped if batch is not None else {}
        for number, source in read.items():
            sources[number] = SourceFacts(
                types=source.opened.types,
                layout=source.opened.layout,
                row_by_row=source.row_by_row,
                taken=source.taken,
                unused=source.unused,
                notes=source.notes,
            )
        numbers = [delivery.number for delivery in batch.deliveries] if batch is not None else []
        deliveries = (*plan.kept, *(batch.deliveries if batch is not None else ()))
        for number, facts in sources.items():
            if facts.row_by_row:
                sources[number] = replace(facts, notes=marker_notes(evidence_of(deliveries, number)))
        return Manifest(
            mark=self.mark,
            columns=batch.columns if batch is not None else self._earlier_columns,
            sources=sources,
            deliveries=deliveries,
            pieces=tuple(writer.pieces),
            next_delivery=max([number + 1 for number in numbers], default=before.next_delivery if before is not None else 0),
            next_piece=writer.next_piece,
        )

    def _broken(
        self, plan: Plan, batch: Batch | None, marked: ir.Table | None, folder: Path
    ) -> tuple[BrokenRows | None, dict[int, OpenedSource]]:
        """Keep the broken rows, with their reasons and with their original values, and open both."""
        parts = []
        kept = self._kept_broken(plan)
        if kept is not None:
            parts.append(kept)
        if marked is not None:
            new = marked.filter((marked[REASONS] != "") | (marked[BLANKED] != ""))
            names = kept.columns if kept is not None else [*_MARKS, *(batch.columns if batch is not None else ())]
            parts.append(new.select(*names))
        path = folder / _BROKEN
        if not parts or not self.engine.write_parquet(ibis.union(*parts) if len(parts) > 1 else parts[0], path):
            path.unlink(missing_ok=True)
            return None, {}
        broken = self.engine.read_parquet(path)
        numbers = self.engine.to_arrow(broken.select(SOURCE).distinct())[SOURCE].to_pylist()
        return BrokenRows(broken), {number: self._originals(number, kept, batch, broken, folder) for number in sorted(numbers)}

    def _kept_broken(self, plan: Plan) -> ir.Table | None:
        if self._earlier_broken is None:
            return None
        gone = sorted(self._gone(plan))
        return self._earlier_broken.filter(self._earlier_broken[DELIVERY].notin(gone)) if gone else self._earlier_broken

    def _originals(self, number: int, kept: ir.Table | None, batch: Batch | None, broken: ir.Table, folder: Path) -> OpenedSource:
        """Write the values of a source's broken rows as the source has them."""
        name = f"_originals_{number}.parquet"
        parts = []
        if kept is not None and (self.earlier / name).exists():
            stored = self.engine.read_parquet(self.earlier / name)
            parts.append(stored.semi_join(kept.filter(kept[SOURCE] == number), [FILE, ROW]))
        if batch is not None and number in batch.mapped:
            raw = batch.mapped[number].opened.table.cast({ROW: "int64"})
            new = broken.filter((broken[SOURCE] == number) & broken[DELIVERY].isin([delivery.number for delivery in batch.deliveries]))
            parts.append(raw.semi_join(new, [FILE, ROW]))
        self.engine.write_parquet(ibis.union(*parts) if len(parts) > 1 else parts[0], folder / name)
        return OpenedSource(self.engine.read_parquet(folder / name), "", {})
