"""Reuse: rows of the last snapshots that stay, because nothing of what was known at their cutoff has changed.

A snapshot is a function of what was known at its cutoff. So each cutoff has a key: a digest of all rows and fields of all tables that
were known by then, of the accounts that are looked at, and of the features and the code that makes them. A cutoff whose key is the one
that it had when its rows were made keeps them; a row that comes late changes the keys of the cutoffs after the day on which it became
known, and of no other. Telemetry is not read for this: its pieces say what became known on each day.

Labels see all that is known today. A cutoff's key is a digest of all subscriptions, of whether the label window has closed, and, where
labels are made of telemetry, of all rows that happened in the months that its windows touch; a late row changes those of the cutoffs
around the month in which it happened. Movements of ARR have one key, of all tables that they are made of.

But: what an own feature reads from elsewhere than the tables does not change a key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.clock import day_number, day_of
from features.config import ATTRIBUTE, Targets
from features.contracts import CONTRACT
from features.engine import ROWS_PER_GROUP, Engine, quoted, quoted_name
from features.labels import is_closed
from features.ledger import fingerprint
from features.pieces import read_manifest
from features.slices import Spine
from features.snapshot_files import months_of, write_matrix

__all__ = [
    "KEYS_FILE",
    "KeptLabels",
    "Keys",
    "Month",
    "Reusable",
    "cutoff_keys",
    "find_labels",
    "find_movements",
    "find_reusable",
    "label_keys",
    "read_keys",
    "table_digest",
]

KEYS_FILE = "cutoffs.json"

_WRAP = 1 << 64
_HALF = 1 << 32
_WORDS = ("name", "csm")
"""Columns of accounts that no built-in feature looks at, and that change often."""

Days = dict[int, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Month:
    """The rows of a calendar month: which of the last snapshots stay, and which are to be computed.

    Parameters
    ----------
    file
        The month's file in the last snapshots; there is none if nothing stays.
    kept
        Which of the file's rows stay, in the order of the spine; shape `(n_rows_of_the_file,)`, `(0,)` if there are none.
    stale
        Which of the spine's rows must be computed; shape `(n_rows,)`.
    """

    file: Path
    kept: npt.NDArray[np.bool_]
    stale: npt.NDArray[np.bool_]

    def stays(self, schema: pa.Schema) -> bool:
        """Return whether the file stays as it is, with these columns."""
        return not self.stale.any() and bool(self.kept.all()) and pq.read_schema(self.file).equals(schema)

    def blocks(self, schema: pa.Schema, computed: "_Rows") -> Iterator[pa.Table]:
        """Yield the month in the order of the spine, `ROWS_PER_GROUP` rows at a time, so that memory holds a few of them."""
        rows = {False: _Rows(self._kept_rows(schema.names)), True: computed}
        for start in range(0, len(self.stale), ROWS_PER_GROUP):
            block = self.stale[start : start + ROWS_PER_GROUP]
            edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
            parts = [part for first, end in pairwise(edges) for part in rows[bool(block[first])].take(end - first)]
            yield pa.concat_tables([part.cast(schema) for part in parts]).combine_chunks()

    def _kept_rows(self, columns: list[str]) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.file) as file:
            start = 0
            for group in range(file.num_row_groups):
                kept = self.kept[start : start + file.metadata.row_group(group).num_rows]
                start += len(kept)
                if kept.any():
                    rows = file.read_row_group(group, columns=columns).select(columns)
                    yield rows if kept.all() else rows.filter(pa.array(kept))


@dataclass(frozen=True, eq=False)
class Reusable:
    """What of a feature matrix stays, by month, and what is to be computed.

    Parameters
    ----------
    schema
        The columns of the matrix.
    months
        All that the spine has, in their order.
    """

    schema: pa.Schema
    months: Sequence[Month]

    @property
    def stale(self) -> npt.NDArray[np.int64]:
        """Numbers of the spine's rows that must be computed, ascending."""
        return np.flatnonzero(np.concatenate([month.stale for month in self.months]))

    def write(self, path: Path, computed: pa.Table) -> None:
        """Write the whole matrix to a new folder.

        Parameters
        ----------
        computed
            The rows that did not stay, in their order.
        """
        unchanged = [month for month in self.months if month.stays(self.schema)]
        rows = _Rows(iter([computed]))
        blocks = (block for month in self.months if month not in unchanged for block in month.blocks(self.schema, rows))
        write_matrix(path, self.schema, blocks, unchanged=[month.file for month in unchanged])


@dataclass(eq=False)
class _Rows:
    """Rows of tables that come one after the other, from the first on."""

    tables: Iterator[pa.Table]
    _front: pa.Table | None = None

    def take(self, n_rows: int) -> Iterator[pa.Table]:
        """Yield the next so many rows."""
        while n_rows:
            front = next(self.tables) if self._front is None or not len(self._front) else self._front
            part, self._front = front.slice(0, n_rows), front.slice(n_rows)
            n_rows -= len(part)
            yield part


def cutoff_keys(engine: Engine, folder: Path, tables: Mapping[str, ir.Table], spine: Spine, *, mark: str, own: bool) -> dict[int, str]:
    """Return the key of each cutoff of the spine, in microseconds since 1970-01-01 UTC.

    Parameters
    ----------
    folder
        The folder of the checked tables.
    mark
        Digest of the features and of all else that decides what is made of the tables.
    own
        Whether there are features of one's own, which may look at any column.
    """
    known = {name: _Known.of(_days(engine, folder, name, table)) for name, table in sorted(tables.items()) if name != "accounts"}
    accounts = _account_hashes(engine, tables["accounts"], spine, without=() if own else _WORDS)
    keys = {}
    for cutoff in spine.cutoffs.tolist():
        looked_at = accounts[spine.instants == cutoff]
        total = int(np.add.reduce(looked_at, dtype=np.uint64))
        seen = {name: table.by(day_of(cutoff)) for name, table in known.items()}
        keys[cutoff] = fingerprint(mark, seen, len(looked_at), total)
    return keys


@dataclass(frozen=True, eq=False)
class _Known:
    """How many rows and fields of a table had become known by the end of each day, and the sums of their hashes."""

    days: npt.NDArray[np.int64]
    totals: list[tuple[int, int]]

    @classmethod
    def of(cls, days: Days) -> "_Known":
        totals, rows, total = [(0, 0)], 0, 0
        for day in sorted(days):
            rows, total = rows + days[day][0], (total + days[day][1]) % _WRAP
            totals.append((rows, total))
        return cls(np.array(sorted(days), dtype=np.int64), totals)

    def by(self, day: int) -> tuple[int, int]:
        return self.totals[int(np.searchsorted(self.days, day, side="right"))]


def _days(engine: Engine, folder: Path, name: str, table: ir.Table) -> Days:
    """Return what became known on each day; what has no time was always known."""
    manifest = read_manifest(folder / f"{name}.parquet")
    if manifest is None:
        return _counted_days(engine, name, table)
    return _added(piece.days for piece in manifest.pieces)


def _counted_days(engine: Engine, name: str, table: ir.Table) -> Days:
    late = {column: declared.known_from for column, declared in CONTRACT[name].columns.items() if declared.known_from}
    late |= {column: column for column, kind in table.schema().items() if column.startswith(ATTRIBUTE) and kind.is_timestamp()}
    base = ", ".join(quoted_name(column) for column in table.columns if column not in late)
    view = quoted_name(engine.layer(table).get_name())
    known_at = "known_at" if "known_at" in table.columns else "NULL::TIMESTAMP"
    parts = [f"SELECT {known_at} AS known_at, hash({base}) AS hash FROM {view}"]
    for column, known_from in late.items():
        if {column, known_from} <= set(table.columns):
            field = f"hash({quoted(column)}, {base}, {quoted_name(column)})"
            there = f"{quoted_name(column)} IS NOT NULL AND {quoted_name(str(known_from))} IS NOT NULL"
            parts.append(f"SELECT {quoted_name(str(known_from))}, {field} FROM {view} WHERE {there}")
    pieces = engine.view(" UNION ALL ".join(parts))
    numbered = pieces.select(
        day=day_number(engine.microseconds(pieces.known_at)),
        low=(pieces.hash % _HALF).cast("int64"),
        high=(pieces.hash // _HALF).cast("int64"),
    )
    found = engine.to_arrow(numbered.group_by("day").agg(rows=numbered.count(), low=numbered.low.sum(), high=numbered.high.sum()))
    always = np.iinfo(np.int32).min
    return {
        int(always if row["day"] is None else row["day"]): (row["rows"], (int(row["low"]) + int(row["high"]) * _HALF) % _WRAP)
        for row in found.to_pylist()
    }


def _account_hashes(engine: Engine, accounts: ir.Table, spine: Spine, *, without: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return a hash of what is known of the account of each of the spine's rows."""
    columns = ", ".join(quoted_name(column) for column in accounts.columns if column not in without)
    found = engine.fetch(f"SELECT account_id, hash({columns}) AS hash FROM {quoted_name(engine.layer(accounts).get_name())}")
    place = pc.index_in(spine.account_id, value_set=found["account_id"])
    hashes: npt.NDArray[np.uint64] = found["hash"].take(place).to_numpy()
    return hashes


def table_digest(engine: Engine, table: ir.Table) -> str:
    """Return a digest of the rows of a table, in whatever order they are."""
    columns = ", ".join(quoted_name(column) for column in sorted(table.columns))
    counted = f"SELECT count(*) AS n_rows, sum(hash({columns}))::VARCHAR AS total FROM {quoted_name(engine.layer(table).get_name())}"
    return fingerprint(sorted(table.schema().items(), key=str), engine.fetch(counted).to_pylist())


def label_keys(folder: Path, spine: Spine, targets: Targets, *, data_until: datetime, mark: str) -> dict[int, str]:
    """Return the key of each cutoff's labels.

    Parameters
    ----------
    folder
        The folder of the checked tables.
    mark
        Digest of all but telemetry of which labels are made: the subscriptions, the code and the engine.
    """
    measures = {targets.contraction.measure, targets.expansion.measure}
    is_used = targets.kind == "usage" or bool(measures & {"active_users", "events"})
    manifest = read_manifest(folder / "telemetry.parquet") if is_used else None
    pieces = [] if manifest is None else sorted(manifest.pieces, key=lambda piece: piece.month)
    months = {month: _added(piece.days for piece in alike) for month, alike in groupby(pieces, key=lambda piece: piece.month)}
    keys = {}
    for instant in spine.cutoffs.tolist():
        cutoff: datetime = np.datetime64(instant, "us").item()
        end = cutoff + timedelta(days=targets.lead_days + targets.horizon_days)
        first, last = (f"{time:%Y-%m}" for time in (cutoff - timedelta(days=targets.horizon_days), end))
        closed = is_closed(cutoff, targets, data_until=data_until)
        seen = [(month, sorted(days.items())) for month, days in months.items() if first <= month <= last] if closed else []
        keys[instant] = fingerprint(mark, asdict(targets), closed, seen)
    return keys


def _added(parts: Iterable[Mapping[int, tuple[int, int]]]) -> Days:
    """Add up by day the rows of several pieces and the sums of their hashes."""
    days: Days = {}
    for part in parts:
        for day, (rows, total) in part.items():
            before = days.get(day, (0, 0))
            days[day] = before[0] + rows, (before[1] + total) % _WRAP
    return days


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """Labels of the last snapshots that stay, and the numbers of the spine's rows that are without, ascending."""

    rows: pa.Table | None
    stale: npt.NDArray[np.int64]

    def completed(self, computed: pa.Table) -> pa.Table:
        """Return the labels of all rows of the spine, from those that were computed for the stale ones, in their order."""
        if self.rows is None:
            return computed
        stays = np.ones(len(self.rows) + len(self.stale), dtype=bool)
        stays[self.stale] = False
        order = np.empty(len(stays), dtype=np.int64)
        order[stays], order[~stays] = np.arange(len(self.rows)), np.arange(len(self.rows), len(stays))
        return pa.concat_tables([self.rows.cast(computed.schema), computed]).take(pa.array(order)).combine_chunks()


def find_labels(folder: Path, spine: Spine, keys: Mapping[int, str]) -> KeptLabels:
    """Take the labels of the last snapshots whose cutoffs have the keys that they had, if they are of the same accounts."""
    stored = read_keys(folder).labels
    same = np.array([cutoff for cutoff, key in keys.items() if stored.get(cutoff) == key], dtype=np.int64)
    fresh = np.isin(spine.instants, same)
    if fresh.any():
        there = pq.read_table(folder / "labels.parquet")
        stays = np.isin(there["cutoff"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(), same)
        rows, kept = there.filter(pa.array(stays)), spine.take(np.flatnonzero(fresh))
        if rows["account_id"].combine_chunks().equals(kept.account_id) and rows["cutoff"].combine_chunks().equals(kept.cutoff):
            return KeptLabels(rows, np.flatnonzero(~fresh))
    return KeptLabels(None, np.arange(len(spine), dtype=np.int64))


def find_movements(folder: Path, key: str) -> pa.Table | None:
    """Take the movements of the last snapshots, up to the end that the data had then, if they have this key; None if not."""
    file = folder / "movements.parquet"
    return pq.read_table(file) if read_keys(folder).movements == key and file.exists() else None


def find_reusable(folder: Path, spine: Spine, keys: Mapping[int, str], *, schema: pa.Schema) -> Reusable:
    """Take the rows of the last snapshots whose cutoffs have the keys that they had.

    Parameters
    ----------
    folder
        The folder of the snapshots; it may not be there.
    schema
        The columns of the matrix.
    """
    stored = read_keys(folder).cutoffs
    same = np.array([cutoff for cutoff, key in keys.items() if stored.get(cutoff) == key], dtype=np.int64)
    months = [
        _month(folder / "features.parquet" / f"{month}.parquet", Spine(spine.account_id[rows], spine.cutoff[rows]), same, schema)
        for month, rows in months_of(spine.instants.astype("M8[us]"))
    ]
    return Reusable(schema, months)


def _month(file: Path, spine: Spine, same: npt.NDArray[np.int64], schema: pa.Schema) -> Month:
    """Return what stays of a month: nothing, unless its file has the accounts of the spine at each cutoff that stays."""
    fresh = np.isin(spine.instants, same)
    nothing = Month(file, np.zeros(0, dtype=bool), np.ones(len(spine), dtype=bool))
    there = _keys_of(file, schema) if fresh.any() else None
    if there is None:
        return nothing
    kept = np.isin(there["cutoff"].cast(pa.int64()).to_numpy(), same)
    there = there.filter(pa.array(kept))
    wanted = pa.table({"account_id": spine.account_id, "cutoff": spine.cutoff}).filter(pa.array(fresh))
    return Month(file, kept, ~fresh) if there.equals(wanted) else nothing


def _keys_of(file: Path, schema: pa.Schema) -> pa.Table | None:
    """Read accounts and cutoffs of a month; None if there is no such file, or one with other columns."""
    try:
        with pq.ParquetFile(file) as opened:
            return opened.read(columns=["account_id", "cutoff"]) if set(opened.schema_arrow) == set(schema) else None
    except (OSError, pa.ArrowInvalid):
        return None


@dataclass(frozen=True)
class Keys:
    """The keys that snapshots were made with: of each cutoff, of rows computed again without the future, of labels and movements."""

    cutoffs: Mapping[int, str] = field(default_factory=dict)
    hindsight: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    movements: str = ""

    def of(self, cutoffs: Sequence[int]) -> str:
        """Return a key of several cutoffs."""
        return fingerprint([(cutoff, self.cutoffs[cutoff]) for cutoff in cutoffs])

    def write(self, folder: Path) -> None:
        """Write the keys beside the snapshots that they belong to."""
        (folder / KEYS_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_keys(folder: Path) -> Keys:
    """Read the keys of snapshots; without snapshots there are none."""
    try:
        stored = json.loads((folder / KEYS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Keys()
    cutoffs, labels = ({int(cutoff): key for cutoff, key in stored.get(name, {}).items()} for name in ("cutoffs", "labels"))
    return Keys(cutoffs, stored["hindsight"], labels, stored.get("movements", ""))
