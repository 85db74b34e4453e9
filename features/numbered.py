"""Numbered telemetry: the checked pieces once more, with numbers for texts and rows in the order in which they happened.

Features read telemetry many times, and most of the time goes into comparing texts. So each piece is there once more, without loss:
accounts, users, kinds of event and products as whole numbers, instants as microseconds. `features.numbering` writes it.

Whoever reads takes them in the order in which they are seen, those of one month after the other, so that a row is read once for all
cutoffs and memory holds a month and what is made of it, not the book.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.engine import Engine
from features.forms import CARRYING, FOLDED, NOTHING, TEXTS, WHOLE, MonthRows, NumberedPiece, file_of
from features.queries import QueryEngine

__all__ = ["LeftOut", "NumberedTelemetry", "in_order"]

Ints = npt.NDArray[np.int64]

_NUMBERS = ("events", "quantity", "users")
_FOLDS = {*FOLDED, *WHOLE}


class LeftOut(Protocol):
    """Has the rows of pieces whose file was left out."""

    def read(self, piece: NumberedPiece, *, of: npt.NDArray[np.bool_] | None = None) -> Sequence[MonthRows]:
        """Return the rows of a piece, block by block in the order of time; those of some accounts, given by number, or all if None."""

    def write(self, piece: NumberedPiece) -> None:
        """Write the file of a piece's rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberedTelemetry:
    """The numbered files of a workspace's telemetry.

    Parameters
    ----------
    texts
        The kinds of event and the products by their numbers.
    left_out
        The rows of pieces that have no file of their rows, only shorter forms.
    held_bytes
        How much of what was read stays in memory to be read again.
    """

    folder: Path
    pieces: tuple[NumberedPiece, ...]
    texts: Mapping[str, tuple[str, ...]]
    left_out: LeftOut
    held_bytes: int = 1 << 30
    _held: dict[tuple[str, str, str], npt.NDArray[Any]] = field(default_factory=dict)

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
        return in_order(self.folder, "accounts")["account_id"].combine_chunks()

    @cached_property
    def user_accounts(self) -> npt.NDArray[np.int32]:
        """The number of each user's account, shape `(n_users,)`."""
        return np.asarray(in_order(self.folder, "users", columns=["account", "number"])["account"].to_numpy(), dtype=np.int32)

    def table(self, engine: QueryEngine, levels: Mapping[str, Sequence[str]]) -> ir.Table:
        """Return all rows as `features.slices.KnownTables` has them, computed only where they are asked for.

        Parameters
        ----------
        levels
            For `event`: the kinds that have features of their own, numbered in this order.
        """
        assert isinstance(engine, Engine)
        by_columns: dict[tuple[str, ...], list[NumberedPiece]] = {}
        for piece in self.pieces:
            by_columns.setdefault(piece.stored, []).append(piece)
        opened = [engine.read_parquet([self.file(piece) for piece in pieces]) for pieces in by_columns.values()]
        return self.looked_up(ibis.union(*map(_completed, opened)), levels)

    def looked_up(self, rows: ir.Table, levels: Mapping[str, Sequence[str]]) -> ir.Table:
        """Return rows of files as `table` does; columns may be left out in which there is nothing."""
        rows = _completed(rows)
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

    def arrivals(
        self,
        columns: Sequence[str],
        cutoffs: Iterable[int],
        *,
        days: int | None,
        lag_days: int = 0,
        carrying: str | None = None,
        ends: Iterable[int] | None = None,
    ) -> Iterator[Iterator[MonthRows]]:
        """Yield, for each cutoff, the rows that come into a window there and were not seen at the cutoff before, a month at a time.

        What lies outside of the window by the time it is seen never comes.

        Parameters
        ----------
        columns
            Of `MonthRows`; `rows` comes by itself where rows stand for several.
        cutoffs
            Microseconds since 1970-01-01 UTC, ascending.
        days, lag_days
            The window `(cutoff - lag - days, cutoff - lag]`; from the first row if `days` is None.
        carrying
            An amount that all rows have; each then stands for itself.
        ends
            Instants by which rows are told apart, beside the window's own. With them, a row may stand for several of several days.
        """
        cutoffs = np.asarray(list(cutoffs), dtype=np.int64)
        asked = _Asked(tuple(columns), carrying, is_midnight=clock.is_midnight(cutoffs), ends=None if ends is None else np.sort([*ends]))
        by_month: dict[str, list[NumberedPiece]] = {}
        for piece in self.pieces:
            if carrying is None or carrying in piece.columns:
                by_month.setdefault(piece.month, []).append(piece)
        before = None
        for cutoff in cutoffs.tolist():
            yield self._arriving(by_month, asked, _View(cutoff, before, days, lag_days))
            before = cutoff

    def _arriving(self, by_month: Mapping[str, Sequence[NumberedPiece]], asked: "_Asked", view: "_View") -> Iterator[MonthRows]:
        for month in sorted(by_month):
            if pieces := view.shows(by_month[month]):
                yield self._read(pieces, asked, view)

    def _read(self, pieces: Sequence[NumberedPiece], asked: "_Asked", view: "_View") -> MonthRows:
        is_whole = all(map(view.shows_whole, pieces))
        rows = self._joined(pieces, asked, view, [] if is_whole else ["known"])
        if len(pieces) > 1:
            rows = rows.take(np.argsort(rows.time, kind="stable"))
        rows = rows.take(clock.sorted_window(rows.time, view.cutoff, days=view.days, lag_days=view.lag_days))
        if is_whole:
            return rows
        return rows.take(clock.newly_seen(rows.time, rows.columns["known"], view.cutoff, before=view.before, lag_days=view.lag_days))

    def _joined(self, pieces: Sequence[NumberedPiece], asked: "_Asked", view: "_View", more: Sequence[str]) -> MonthRows:
        """Return the rows of pieces one after the other, each in its shortest form."""
        forms = [piece.form(asked.keys, asked.forms(piece, view)) for piece in pieces]
        names = ["time", *asked.keys, *more, *(["rows", *asked.oldest] if _FOLDS & {*forms} else [])]
        read = {name: [self._column(piece, form, name) for piece, form in zip(pieces, forms, strict=True)] for name in names}
        arrays = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in read.items()}
        rows = MonthRows(arrays["time"], arrays)
        if asked.carrying is None or all(forms):
            return rows
        return rows.take(np.flatnonzero(~np.isnan(arrays[asked.carrying])))

    def file(self, piece: NumberedPiece, form: str = "") -> Path:
        """Return the file of a piece, of its rows or of a shorter form of them, which must be one that it has."""
        file = self.folder / file_of(piece.name, form)
        if not form and not file.exists():
            self.left_out.write(piece)
        return file

    def release(self) -> None:
        """Let go of what is held in memory."""
        self._held.clear()

    def _column(self, piece: NumberedPiece, form: str, name: str) -> npt.NDArray[Any]:
        """Read a column of a file, or take it from what was read before.

        Files are read in turn and from the beginning again, so what no longer finds room is not held, and nothing makes room for it.
        """
        if form not in _FOLDS and name == "rows":
            return np.broadcast_to(np.int32(1), piece.rows)
        if (form not in _FOLDS and name == "oldest") or (name == "known" and (name not in piece.stored or form in WHOLE)):
            name = "time"
        if not form and name not in piece.stored:
            return np.broadcast_to(NOTHING[name], piece.rows)
        key = piece.name, form, name
        if key not in self._held:
            with pq.ParquetFile(self.file(piece, form)) as file:
                values = np.asarray(file.read(columns=[name], use_threads=False)[name].to_numpy())  # threads cost twice the time here
            if sum(held.nbytes for held in self._held.values()) + values.nbytes > self.held_bytes:
                return values
            self._held[key] = values
        return self._held[key]


@dataclass(frozen=True)
class _Asked:
    """What is asked of the rows of pieces; see `NumberedTelemetry.arrivals`."""

    columns: tuple[str, ...]
    carrying: str | None
    is_midnight: bool
    ends: Ints | None

    @property
    def keys(self) -> list[str]:
        """The columns that a form must have of its own."""
        return [name for name in self.columns if name != "oldest"]

    @property
    def oldest(self) -> list[str]:
        """The column of rows that stand for several, if it is asked for."""
        return [name for name in self.columns if name == "oldest"]

    def forms(self, piece: NumberedPiece, view: "_View") -> Mapping[str, Collection[str]]:
        """Return the forms in which a piece may be read, the shortest first, and the columns of each."""
        if self.carrying:
            return {CARRYING[self.carrying]: {"account", "event", self.carrying}}
        return (WHOLE if self._is_uncut(piece, view) else {}) | (FOLDED if self.is_midnight else {})

    def _is_uncut(self, piece: NumberedPiece, view: "_View") -> bool:
        """Tell whether all rows of a piece come at once and are not told apart."""
        if self.ends is None or not (view.shows_whole(piece) and view.holds(piece)):
            return False
        before_first, before_last = np.searchsorted(self.ends, [piece.first, piece.last])
        return bool(before_first == before_last)


@dataclass(frozen=True)
class _View:
    """What is seen of a window at a cutoff, and was not at the cutoff before; all in microseconds or days."""

    cutoff: int
    before: int | None
    days: int | None
    lag_days: int

    def shows(self, pieces: Sequence[NumberedPiece]) -> list[NumberedPiece]:
        """Return the pieces of which rows may come."""
        until = clock.shifted(self.cutoff, -self.lag_days)
        since = None if self.days is None else clock.shifted(until, -self.days)
        there = [piece for piece in pieces if clock.reaches_into(piece.first, piece.last, since=since, until=until)]
        return [piece for piece in there if not self._was_seen(max(clock.shifted(piece.last, self.lag_days), piece.last_known))]

    def shows_whole(self, piece: NumberedPiece) -> bool:
        """Tell whether all rows of a piece that happened in the window come."""
        return clock.was_known(piece.last_known, self.cutoff) and not self._was_seen(clock.shifted(piece.first, self.lag_days))

    def holds(self, piece: NumberedPiece) -> bool:
        """Tell whether the window does not cut a piece."""
        until = clock.shifted(self.cutoff, -self.lag_days)
        since = None if self.days is None else clock.shifted(until, -self.days)
        return all(clock.reaches_into(time, time, since=since, until=until) for time in (piece.first, piece.last))

    def _was_seen(self, instant: int) -> bool:
        return self.before is not None and clock.was_known(instant, self.before)


def _completed(rows: ir.Table) -> ir.Table:
    """Add the columns that files do not have."""
    nothing = {
        name: (ibis.null() if np.isnan(value) else ibis.literal(int(value))).cast(str(value.dtype)) for name, value in NOTHING.items()
    }
    missing = {name: value for name, value in ({"known": rows.time} | nothing).items() if name not in rows.columns}
    return rows.mutate(**missing).select("time", "account", "known", *NOTHING)


def _looked_up(numbers: ir.IntegerColumn, values: Sequence[Any], kind: str) -> ir.Value:
    """Return the value of each number; missing for -1."""
    if not values:
        return ibis.null(kind)
    return ibis.ifelse(numbers >= 0, ibis.literal(list(values), f"array<{kind}>")[numbers], None)


def in_order(folder: Path, name: str, **options: Any) -> pa.Table:
    """Read the accounts or users that were numbered, in the order of their numbers."""
    files = sorted(folder.glob(f"{name}-*.parquet"))
    return pa.concat_tables([pq.read_table(file, **options) for file in files]).sort_by("number")
