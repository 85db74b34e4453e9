"""Forms of numbered telemetry: what a piece of it is, in which shorter forms it may be there, and rows that were read of one.

`features.numbering` writes them, with `features.folding` for the shorter ones, and `features.numbered` reads them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CARRYING", "FOLDED", "NOTHING", "TEXTS", "WHOLE", "MonthRows", "NumberedPiece", "file_of", "in_parts"]

Ints = npt.NDArray[np.int64]

TEXTS = ("event", "product")
"""Columns of texts that have numbers of their own."""

FOLDED = {"days-of-accounts": ("account",), "days-of-kinds": ("account", "event"), "days-of-users": ("user_id",)}
"""The forms of a piece in which rows are folded to days, and by what; the shorter ones first."""
WHOLE = {"kinds": ("account", "event"), "users": ("user_id",)}
"""The forms of a piece in which all of its rows are folded, and by what; their rows are in the order of accounts."""
CARRYING = {"quantity": "with-quantity", "users": "with-users"}
"""The forms of a piece that hold the rows which carry an amount."""

NOTHING: Mapping[str, Any] = {
    "event": np.int32(-1),
    "product": np.int32(-1),
    "user_id": np.int32(-1),
    "unrecorded": np.True_,
    "events": np.float64(1),
    "quantity": np.float64(np.nan),
    "users": np.float64(np.nan),
}
"""What each row of a piece has of a column that its file does not have; what it knows is known when it happens."""


@dataclass(frozen=True, kw_only=True)
class NumberedPiece:
    """The files of one piece.

    Parameters
    ----------
    source
        The name of the checked piece.
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
    extracts
        The shorter forms of it that there are, of `FOLDED`, `CARRYING` and `WHOLE`.
    """

    name: str
    source: str
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
    extracts: tuple[str, ...]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "NumberedPiece":
        """Return the piece that was stored as the JSON of its fields."""
        kinds = tuple(map(tuple, stored["kinds"]))
        return cls(**{**stored, "kinds": kinds, "columns": tuple(stored["columns"]), "extracts": tuple(stored["extracts"])})

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns of the file of its rows."""
        recorded = ("known", "unrecorded") if "recorded_at" in self.columns else ()
        found = [name for name in NOTHING if name != "events" and name in self.columns]
        return ("time", "account", *recorded, *found, *(() if self.are_single else ("events",)))

    @property
    def is_short(self) -> bool:
        """Whether shorter forms have all that is counted of the rows at cutoffs at midnight."""
        wanted = {*FOLDED, *(form for name, form in CARRYING.items() if name in self.columns)}
        return wanted <= {*self.extracts} and not {"recorded_at", "product"} & {*self.columns}

    def form(self, columns: Collection[str], forms: Mapping[str, Collection[str]]) -> str:
        """Return the first of some forms that is there and has the columns, empty for the rows themselves."""
        return next((form for form, there in forms.items() if form in self.extracts and set(columns) <= set(there)), "")


def file_of(name: str, form: str) -> str:
    """Return the name of the file of a form of a piece, of the rows themselves if it is empty."""
    return name.replace(".parquet", f".{form}.parquet") if form else name


@dataclass(frozen=True, eq=False)
class MonthRows:
    """Rows that happened in one month, in that order.

    Parameters
    ----------
    time
        Microseconds since 1970-01-01 UTC, ascending, shape `(n,)`; the newest, where a row stands for several of one day.
    columns
        Arrays of shape `(n,)`: `account`, `user_id`, `event` and `product` are numbers, -1 where there is none; amounts are floats, NaN
        where there is none. Where a row stands for several, `rows` says for how many and, if asked for, `oldest` when the oldest
        happened; where one stands for all of a piece, `newest` says when the newest did, and the time is that of the piece's last.
    """

    time: Ints
    columns: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def joined(cls, parts: Sequence["MonthRows"]) -> "MonthRows":
        """Return the rows of several, one after the other."""
        time = np.concatenate([part.time for part in parts])
        others = [name for name in parts[0].columns if any(part.columns[name] is not part.time for part in parts)]
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in others}
        return cls(time, dict.fromkeys(parts[0].columns, time) | columns)

    @property
    def weights(self) -> npt.NDArray[np.int32] | None:
        """For how many rows each stands; None if each is one."""
        return self.columns.get("rows")

    @property
    def newest(self) -> Ints:
        """When the newest of the rows happened for which each stands, shape `(n,)`; ascending, or else there is one row of a kind."""
        return self.columns.get("newest", self.time)

    @property
    def oldest(self) -> Ints:
        """When the oldest of the rows happened for which each stands, shape `(n,)`; not always ascending."""
        return self.time if self.weights is None else self.columns["oldest"]

    def take(self, rows: slice | npt.NDArray[Any]) -> "MonthRows":
        """Return some of the rows, in the order asked for."""
        time = self.time[rows]
        return MonthRows(time, {name: time if values is self.time else values[rows] for name, values in self.columns.items()})


def in_parts(blocks: Sequence[MonthRows], n_rows: int) -> Iterator[Sequence[MonthRows]]:
    """Yield blocks that follow each other, as many as have so many rows together, at least one."""
    n_blocks = max(1, n_rows // max(1, *(len(rows.time) for rows in blocks)))
    for first in range(0, len(blocks), n_blocks):
        yield blocks[first : first + n_blocks]
