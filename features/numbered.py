"""Numbered telemetry: the checked pieces once more, with numbers for texts and rows in the order in which they happened.

Features read telemetry many times, and most of the time goes into comparing texts. So each piece is there once more, without loss:
accounts, users, kinds of event and products as whole numbers, instants as microseconds. `features.numbering` writes it.

Whoever reads takes the rows of one month after the other, so that memory holds a month and what is made of it, not the book.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from features.engine import Engine
from features.queries import QueryEngine

__all__ = ["TEXTS", "MonthRows", "NumberedPiece", "NumberedTelemetry"]

Ints = npt.NDArray[np.int64]

TEXTS = ("event", "product")
"""Columns of texts that have numbers of their own."""

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
        for name in TEXTS:
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
