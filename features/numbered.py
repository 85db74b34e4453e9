"""Numbered telemetry: the checked pieces once more, with numbers for texts and rows in the order in which they happened.

Features read telemetry many times, and most of the time goes into comparing texts. So each piece is there once more, without loss:
accounts, users, kinds of event and products as whole numbers, instants as microseconds. `features.numbering` writes it.

Whoever reads takes them in the order in which they are seen, those of one month after the other, so that a row is read once for all
cutoffs and memory holds a part of a month and what is made of it, not the book.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from features.ordering import sorted_rows
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
    """

    folder: Path
    pieces: tuple[NumberedPiece, ...]
    texts: Mapping[str, tuple[str, ...]]
    left_out: LeftOut

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
        return np.asarray(in_order(self.folder, "users", columns=["account"])["account"].to_numpy(), dtype=np.int32)

    @cached_property
    def users_by_account(self) -> npt.NDArray[np.int32]:
        """The numbers of users, those of each account together: shape `(n_users,)`."""
        return sorted_rows(self.user_accounts.astype(np.int64))[0].astype(np.int32)

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
        """Yield, for each cutoff, the rows that come into a window there and were not seen at the cutoff before, some at a time.

        Months come one after the other, and of a month one piece after the other, each in the order of time (see `MonthRows` for rows
        that stand for all of a piece). What lies outside of the window by the time it is seen never comes.

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
            for piece in view.shows(by_month[month]):
                yield from self._coming(piece, asked, view)

    def _coming(self, piece: NumberedPiece, asked: "_Asked", view: "_View") -> Iterator[MonthRows]:
        """Yield the rows of a piece that come, from its shortest form that will do."""
        form, is_whole = piece.form(asked.keys, asked.forms(piece, view)), view.shows_whole(piece)
        names = ["time", *asked.keys, *([] if is_whole else ["known"]), *(["rows", *asked.oldest] if form in _FOLDS else [])]
        for rows in self.blocks(piece, form, names, reaches=view.reaches):
            if form in WHOLE:
                yield MonthRows(np.full(len(rows.time), piece.last), {**rows.columns, "newest": rows.time})
                continue
            rows = rows.take(clock.sorted_window(rows.time, view.cutoff, days=view.days, lag_days=view.lag_days))
            if not is_whole:
                known = rows.columns["known"]
                rows = rows.take(clock.newly_seen(rows.time, known, view.cutoff, before=view.before, lag_days=view.lag_days))
            if asked.carrying and not form:
                rows = rows.take(np.flatnonzero(~np.isnan(rows.columns[asked.carrying])))
            if len(rows.time):
                yield rows

    def blocks(
        self, piece: NumberedPiece, form: str, names: Collection[str], *, reaches: Callable[[int, int], bool] | None = None
    ) -> Iterator[MonthRows]:
        """Yield columns of a form of a piece, or of its rows, some at a time in the order of time; what files do not have is made up.

        What was read is not held to be read again: that takes memory which is new each time, and so ten times as long as reading. Files are
        mapped into memory, as they are not compressed; they are replaced by others of their name, but never written to again.

        Parameters
        ----------
        reaches
            Tells whether blocks are wanted whose times lie between a first and a last, in microseconds since 1970-01-01 UTC.
        """
        there = {name: column for name in names if (column := _column_of(piece, form, name))}
        with pq.ParquetFile(self.file(piece, form), memory_map=True, pre_buffer=False) as file:
            time = file.schema_arrow.get_field_index("time")
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                times = group.column(time).statistics
                if group.num_rows and (reaches is None or reaches(times.min, times.max)):
                    read = file.read_row_group(number, columns=[*{*there.values()}], use_threads=False)  # threads cost twice the time here
                    made_up = {name: np.broadcast_to(NOTHING[name], group.num_rows) for name in names if name not in there}
                    found = {name: np.asarray(read[column].to_numpy()) for name, column in there.items()}
                    yield MonthRows(found["time"], made_up | found)

    def file(self, piece: NumberedPiece, form: str = "") -> Path:
        """Return the file of a piece, of its rows or of a shorter form of them, which must be one that it has."""
        file = self.folder / file_of(piece.name, form)
        if not form and not file.exists():
            self.left_out.write(piece)
        return file


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
        there = [piece for piece in pieces if self.reaches(piece.first, piece.last)]
        return [piece for piece in there if not self._was_seen(max(clock.shifted(piece.last, self.lag_days), piece.last_known))]

    def shows_whole(self, piece: NumberedPiece) -> bool:
        """Tell whether all rows of a piece that happened in the window come."""
        return clock.was_known(piece.last_known, self.cutoff) and not self._was_seen(clock.shifted(piece.first, self.lag_days))

    def holds(self, piece: NumberedPiece) -> bool:
        """Tell whether the window does not cut a piece."""
        return all(self.reaches(time, time) for time in (piece.first, piece.last))

    def reaches(self, first: int, last: int) -> bool:
        """Tell whether the window holds a time between two, each included."""
        until = clock.shifted(self.cutoff, -self.lag_days)
        since = None if self.days is None else clock.shifted(until, -self.days)
        return clock.reaches_into(first, last, since=since, until=until)

    def _was_seen(self, instant: int) -> bool:
        return self.before is not None and clock.was_known(instant, self.before)


def _column_of(piece: NumberedPiece, form: str, name: str) -> str:
    """Return the column of a piece's file in which there is what is asked for, empty if there is none."""
    if form in WHOLE or (name == "known" and name not in piece.stored):
        return "time" if name == "known" else name
    return name if form or name in piece.stored else ""


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
    """Read the accounts or users that were numbered, in the order of their numbers: each file goes on where the one before ends."""
    return pa.concat_tables([pq.read_table(file, **options) for file in sorted(folder.glob(f"{name}-*.parquet"))])
