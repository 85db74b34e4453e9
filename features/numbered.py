"""Numbered telemetry: the checked pieces once more, with numbers for texts and rows in the order in which they happened.

Features read telemetry many times, and most of the time goes into comparing texts. So each piece is written once more, without loss:
accounts, users, kinds of event and products as whole numbers, instants as microseconds. A piece that stays keeps its numbered file, so
that one more day costs what came with it. Numbers are given once and never change; a user is numbered within its account.

Whoever reads takes the rows of one month after the other, so that memory holds a month and what is made of it, not the book.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.clock import known_rows, reaches_into, was_known
from features.engine import Engine, quoted, quoted_name
from features.ledger import fingerprint, replace_folder
from features.pieces import Piece, read_manifest
from features.queries import QueryEngine

__all__ = ["MonthRows", "NumberedPiece", "NumberedTelemetry", "number_telemetry"]

Ints = npt.NDArray[np.int64]

_FORMAT = 1
"""Changes with what is written here, so that files of another version are written anew."""
_INDEX = "_numbered.json"
_TEXTS = ("event", "product")
_NUMBERS = ("events", "quantity", "users")


@dataclass(frozen=True, kw_only=True)
class NumberedPiece:
    """One file.

    Parameters
    ----------
    key
        Digest of what the piece holds.
    first, last, first_known, last_known
        The first and last time at which a row happened and at which one became known, in microseconds since 1970-01-01 UTC.
    are_single
        Whether each row stands for one event.
    lacks_events
        Whether a row does not say for how many events it stands.
    largest
        The largest amount either side of zero.
    busiest
        The most rows that one account has.
    kinds
        For each kind of event there is: its number, the events, and the rows that carry a quantity.
    columns
        The contract's columns in it.
    """

    name: str
    key: str
    month: str
    rows: int
    first: int
    last: int
    first_known: int
    last_known: int
    are_single: bool
    lacks_events: bool
    largest: float
    busiest: int
    kinds: tuple[tuple[int, float, int], ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MonthRows:
    """Rows that happened in one month, in that order.

    Parameters
    ----------
    time
        Microseconds since 1970-01-01 UTC, ascending, shape `(n,)`.
    columns
        Arrays of shape `(n,)`: `account`, `user_id`, `event` and `product` are numbers, -1 where there is none; amounts are floats, NaN
        where there is none.
    are_single
        Whether each row stands for one event.
    """

    time: Ints
    columns: Mapping[str, npt.NDArray[Any]]
    are_single: bool

    def take(self, rows: slice | npt.NDArray[np.bool_]) -> "MonthRows":
        """Return some of the rows, in their order."""
        return MonthRows(self.time[rows], {name: values[rows] for name, values in self.columns.items()}, self.are_single)


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberedTelemetry:
    """The numbered files of a workspace's telemetry.

    Parameters
    ----------
    texts
        The kinds of event and the products by their numbers.
    held_bytes
        How much of what was read stays in memory to be read again.
    """

    folder: Path
    pieces: tuple[NumberedPiece, ...]
    texts: Mapping[str, tuple[str, ...]]
    held_bytes: int = 1 << 30
    _held: dict[tuple[str, str], npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def columns(self) -> frozenset[str]:
        """The contract's columns that any piece has."""
        return frozenset(name for piece in self.pieces for name in piece.columns)

    @property
    def lacks_events(self) -> bool:
        """Whether a row does not say for how many events it stands."""
        return any(piece.lacks_events for piece in self.pieces)

    @property
    def largest(self) -> float:
        """The largest amount either side of zero."""
        return max((piece.largest for piece in self.pieces), default=0.0)

    @property
    def busiest(self) -> int:
        """At least as many rows as any account has."""
        return sum(piece.busiest for piece in self.pieces)

    @property
    def known_span(self) -> tuple[int, int]:
        """The first and last time at which a row became known, in microseconds since 1970-01-01 UTC."""
        return min(piece.first_known for piece in self.pieces), max(piece.last_known for piece in self.pieces)

    @property
    def kinds(self) -> pa.Table:
        """The kinds of event: `event`, the number of its `events`, and in how many rows it `carried` a quantity."""
        events, carried = dict.fromkeys(self.texts["event"], 0.0), dict.fromkeys(self.texts["event"], 0)
        for piece in self.pieces:
            for number, counted, carrying in piece.kinds:
                kind = self.texts["event"][number]
                events[kind], carried[kind] = events[kind] + counted, carried[kind] + carrying
        there = sorted({self.texts["event"][number] for piece in self.pieces for number, _, _ in piece.kinds})
        return pa.table({"event": there, "events": [events[kind] for kind in there], "carried": [carried[kind] for kind in there]})

    @cached_property
    def account_ids(self) -> pa.Array:
        """The accounts by their numbers: strings, shape `(n_accounts,)`."""
        return _in_order(self.folder, "accounts")["account_id"].combine_chunks()

    @cached_property
    def user_accounts(self) -> npt.NDArray[np.int32]:
        """The number of each user's account, shape `(n_users,)`."""
        return np.asarray(_in_order(self.folder, "users", columns=["account", "number"])["account"].to_numpy(), dtype=np.int32)

    def table(self, engine: QueryEngine, levels: Mapping[str, Sequence[str]]) -> ir.Table:
        """Return all rows as `features.slices.KnownTables` has them, computed only where they are asked for.

        Parameters
        ----------
        levels
            For `event`: the kinds that have features of their own, numbered in this order.
        """
        assert isinstance(engine, Engine)
        rows = engine.read_parquet([self.folder / piece.name for piece in self.pieces])
        columns: dict[str, ir.Value] = {"account": rows.account, "occurred_at": rows.time, "known_at": rows.known}
        for name in _TEXTS:
            if name in self.columns:
                columns[name] = _looked_up(rows[name], self.texts[name], "string")
        if "recorded_at" in self.columns:
            columns["recorded_at"] = ibis.ifelse(rows.unrecorded, None, rows.known)
        if "user_id" in self.columns:
            columns["user_id"] = rows.user_id.nullif(-1)
        columns |= {name: rows[name] for name in _NUMBERS if name in self.columns}
        for name, chosen in levels.items():
            numbers = {text: number for number, text in enumerate(chosen)}
            columns[f"{name}_level"] = _looked_up(rows[name], [numbers.get(text) for text in self.texts[name]], "int16")
        return rows.select(**columns)

    def months(self, columns: Sequence[str], *, since: int | None, until: int, cutoff: int) -> Iterator[MonthRows]:
        """Yield the rows of `(since, until]` that were known at a cutoff, of one month after the other.

        Parameters
        ----------
        columns
            Of `MonthRows`.
        since, until, cutoff
            Microseconds since 1970-01-01 UTC; from the first row if `since` is None.
        """
        by_month: dict[str, list[NumberedPiece]] = {}
        for piece in self.pieces:
            by_month.setdefault(piece.month, []).append(piece)
        for month in sorted(by_month):
            pieces = by_month[month]
            first, last = min(piece.first for piece in pieces), max(piece.last for piece in pieces)
            if reaches_into(first, last, since=since, until=until):
                yield self._read(pieces, columns, since=since, until=until, cutoff=cutoff)

    def _read(self, pieces: Sequence[NumberedPiece], columns: Sequence[str], *, since: int | None, until: int, cutoff: int) -> MonthRows:
        are_late = not all(was_known(piece.last_known, cutoff) for piece in pieces)
        names = ["time", *columns, *(["known"] if are_late else [])]
        read = {name: [self._column(piece, name) for piece in pieces] for name in names}
        arrays = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in read.items()}
        rows = MonthRows(arrays["time"], arrays, all(piece.are_single for piece in pieces))
        if len(pieces) > 1:
            order = np.argsort(rows.time, kind="stable")
            rows = MonthRows(rows.time[order], {name: values[order] for name, values in rows.columns.items()}, rows.are_single)
        first = 0 if since is None else int(np.searchsorted(rows.time, since, side="right"))
        rows = rows.take(slice(first, int(np.searchsorted(rows.time, until, side="right"))))
        return rows.take(known_rows(rows.columns["known"], cutoff)) if are_late else rows

    def _column(self, piece: NumberedPiece, name: str) -> npt.NDArray[Any]:
        """Read a column of a file, or take it from what was read before.

        Files are read in turn and from the beginning again, so what no longer finds room is not held, and nothing makes room for it.
        """
        key = piece.name, name
        if key not in self._held:
            with pq.ParquetFile(self.folder / piece.name) as file:
                values = np.asarray(file.read(columns=[name], use_threads=False)[name].to_numpy())  # threads cost twice the time here
            if sum(held.nbytes for held in self._held.values()) + values.nbytes > self.held_bytes:
                return values
            self._held[key] = values
        return self._held[key]


def _looked_up(numbers: ir.IntegerColumn, values: Sequence[Any], kind: str) -> ir.Value:
    """Return the value of each number; missing for -1."""
    if not values:
        return ibis.null(kind)
    return ibis.ifelse(numbers >= 0, ibis.literal(list(values), f"array<{kind}>")[numbers], None)


def _in_order(folder: Path, name: str, **options: Any) -> pa.Table:
    files = sorted(folder.glob(f"{name}-*.parquet"))
    return pa.concat_tables([pq.read_table(file, **options) for file in files]).sort_by("number")


def number_telemetry(engine: Engine, pieces: Path, folder: Path, *, held_bytes: int = 1 << 30) -> NumberedTelemetry | None:
    """Bring the numbered files up to date with the pieces of a check, and open them.

    Parameters
    ----------
    pieces
        The folder of the checked pieces.
    folder
        Where numbered files are; it may not be there.

    Returns
    -------
    NumberedTelemetry or None
        None where there are no pieces or no rows.
    """
    manifest = read_manifest(pieces)
    if manifest is None or not manifest.rows:
        return None
    wanted = {fingerprint(asdict(piece)): piece for piece in manifest.pieces if piece.rows}
    stored = _read_index(folder)
    if {piece.key for piece in stored.pieces} != wanted.keys():
        with replace_folder(folder) as new:
            stored = _Writer(engine, pieces, folder, new).write(wanted, stored)
    return NumberedTelemetry(folder=folder, pieces=stored.pieces, texts=stored.texts, held_bytes=held_bytes)


@dataclass(frozen=True)
class _Index:
    """What the numbered files hold."""

    pieces: tuple[NumberedPiece, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict.fromkeys(_TEXTS, ()))
    accounts: int = 0
    users: int = 0


def _read_index(folder: Path) -> _Index:
    try:
        stored = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Index()
    if stored["format"] != _FORMAT:
        return _Index()
    pieces = tuple(
        NumberedPiece(**piece | {"kinds": tuple(map(tuple, piece["kinds"])), "columns": tuple(piece["columns"])})
        for piece in stored["pieces"]
    )
    return _Index(pieces, {name: tuple(texts) for name, texts in stored["texts"].items()}, stored["accounts"], stored["users"])


@dataclass(frozen=True, eq=False)
class _Writer:
    """Fills a new folder from the pieces and from the earlier folder."""

    engine: Engine
    pieces: Path
    earlier: Path
    folder: Path

    def write(self, wanted: Mapping[str, Piece], before: _Index) -> _Index:
        """Keep the files of pieces that stay, number the others, and write what is there to the index."""
        kept = [piece for piece in before.pieces if piece.key in wanted]
        before = before if kept else _Index()
        names = [file.name for table in ("accounts", "users") for file in self.earlier.glob(f"{table}-*.parquet")] if kept else []
        for name in [*names, *(piece.name for piece in kept)]:
            os.link(self.earlier / name, self.folder / name)
        known = {piece.key for piece in kept}
        new = {key: piece for key, piece in wanted.items() if key not in known}
        index = before
        if new:
            index = self._with_new_names(before, new)
            kept += [self._numbered(key, piece) for key, piece in new.items()]
        found = _Index(tuple(sorted(kept, key=lambda piece: piece.name)), index.texts, index.accounts, index.users)
        (self.folder / _INDEX).write_text(json.dumps(asdict(found) | {"format": _FORMAT}), encoding="utf-8")
        return found

    def _with_new_names(self, before: _Index, new: Mapping[str, Piece]) -> _Index:
        """Give numbers to the accounts, users, kinds and products that no earlier piece had."""
        rows = self.engine.read_parquet([self.pieces / piece.name for piece in new.values()])
        view = quoted_name(rows.get_name())
        texts = {}
        for name in _TEXTS:
            there = self.engine.rows(f"SELECT DISTINCT {name} FROM {view} WHERE {name} IS NOT NULL") if name in rows.columns else []
            texts[name] = (*before.texts[name], *sorted({text for (text,) in there} - set(before.texts[name])))
            held = {name: pa.array(texts[name], pa.string()), "number": pa.array(np.arange(len(texts[name]), dtype=np.int32))}
            self.engine.table(self.engine.hold(pa.table(held), name=f"held_{name}"), name=f"numbers_of_{name}")
        accounts = self._added("accounts", ["account_id"], f"SELECT DISTINCT account_id FROM {view}", before.accounts)
        users = before.users
        if "user_id" in rows.columns:
            numbered = f"{view} JOIN numbers_of_accounts USING (account_id)"
            found = f"SELECT DISTINCT number AS account, user_id FROM {numbered} WHERE user_id IS NOT NULL"
            users = self._added("users", ["account", "user_id"], found, before.users)
        return _Index((), texts, accounts, users)

    def _added(self, name: str, columns: Sequence[str], found: str, n_before: int) -> int:
        """Give numbers to what is new of what was found, keep them, and return how many there are in all."""
        key, files = ", ".join(columns), f"{name}-*.parquet"
        if n_before:
            self.engine.run(f"CREATE OR REPLACE TEMP TABLE numbers_of_{name} AS FROM read_parquet({quoted(self.folder / files)})")
            found = f"{found} EXCEPT SELECT {key} FROM numbers_of_{name}"
        numbered = f"SELECT {key}, ({n_before} - 1 + row_number() OVER (ORDER BY {key}))::INTEGER AS number FROM ({found})"
        path = self.folder / f"{name}-{n_before:010}.parquet"
        n_new = self.engine.write_parquet(numbered, path)
        if not n_new:
            path.unlink()
        self.engine.run(f"CREATE OR REPLACE TEMP TABLE numbers_of_{name} AS FROM read_parquet({quoted(self.folder / files)})")
        return n_before + n_new

    def _numbered(self, key: str, piece: Piece) -> NumberedPiece:
        """Write the numbered file of a piece."""
        rows = self.engine.read_parquet(self.pieces / piece.name)
        name = f"{piece.month}-{key[:16]}.parquet"
        self.engine.write_parquet(_numbering(rows), self.folder / name, compression="snappy")
        file = quoted(self.folder / name)
        found = self.engine.rows(_FACTS.format(file=file))[0]
        return NumberedPiece(
            name=name,
            key=key,
            month=piece.month,
            rows=piece.rows,
            first=found[0],
            last=found[1],
            first_known=found[2],
            last_known=found[3],
            are_single=found[4],
            lacks_events=found[5],
            largest=found[6] or 0.0,
            busiest=found[7],
            kinds=tuple(self.engine.rows(_KINDS.format(file=file))),
            columns=tuple(rows.columns),
        )


_FACTS = """
SELECT min(time), max(time), min(known), max(known), bool_and(events IS NOT DISTINCT FROM 1), bool_or(events IS NULL),
       max(greatest(abs(events), abs(quantity), abs(users))),
       (SELECT max(rows) FROM (SELECT count(*) AS rows FROM read_parquet({file}) GROUP BY account))
FROM read_parquet({file})
"""

_KINDS = "SELECT event, coalesce(sum(events), 0), count(quantity) FROM read_parquet({file}) GROUP BY event ORDER BY event"


def _numbering(rows: ir.Table) -> str:
    """Return the query for the rows of a piece with numbers for texts, in the order in which they happened."""
    there = set(rows.columns)
    columns = ["epoch_us(occurred_at) AS time", "numbers_of_accounts.number AS account", "epoch_us(known_at) AS known"]
    joins = ["JOIN numbers_of_accounts USING (account_id)"]
    for name in _TEXTS:
        columns.append(f"coalesce(numbers_of_{name}.number, -1)::INTEGER AS {name}" if name in there else f"(-1)::INTEGER AS {name}")
        joins += [f"LEFT JOIN numbers_of_{name} USING ({name})"] if name in there else []
    if "user_id" in there:
        joins.append("LEFT JOIN numbers_of_users u ON u.account = numbers_of_accounts.number AND u.user_id = p.user_id")
    columns.append("coalesce(u.number, -1)::INTEGER AS user_id" if "user_id" in there else "(-1)::INTEGER AS user_id")
    columns.append("recorded_at IS NULL AS unrecorded" if "recorded_at" in there else "true AS unrecorded")
    columns += [name if name in there else f"NULL::DOUBLE AS {name}" for name in _NUMBERS]
    return f"SELECT {', '.join(columns)} FROM {quoted_name(rows.get_name())} p {' '.join(joins)} ORDER BY time"
