"""Pieces: the checked rows of telemetry as Parquet files by the month in which they happened, and a manifest that says what is in them.

A piece is never changed: rows that came later are a further piece of their month, and a piece that holds rows of a file which is no
longer as it was read is written anew without them. Where a month has too many pieces, they are put together. A new folder takes
unchanged pieces over as hard links, so that it costs what has changed, and is put in the place of the old one as a whole.

Beside the contract's columns the rows carry where they came from, in columns that `open_pieces` hides.
"""

import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from features.clock import day_number, known_by, month_starts
from features.deliveries import Delivery
from features.engine import Engine, quoted_name
from features.ledger import link_file
from features.progress import Progress, silent

__all__ = ["DELIVERY", "DIGEST", "PLACE", "Manifest", "Piece", "PieceWriter", "SourceFacts", "open_pieces", "piece_files", "read_manifest"]

DELIVERY, PLACE, DIGEST = "__delivery", "__place", "__digest"
"""Columns of the rows in pieces: number of the delivery, the row's number in its file, hash of the whole raw row."""

MOST_PIECES = 8
"""So many pieces of one month are not yet put together."""

_MANIFEST = "_manifest.json"
_INSTANT, _MONTH = timedelta(microseconds=1), timedelta(days=31)
_HALF = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One file.

    Parameters
    ----------
    month
        The month in which its rows happened, such as `2024-05`; empty in a piece without rows.
    deliveries
        Numbers of the deliveries that its rows came from.
    first, last
        The first and last time at which a row became known, ISO 8601 in UTC; None without rows.
    days
        By number of the day on which rows became known: how many, and the sum of their hashes modulo 2^64.
    """

    name: str
    month: str
    rows: int
    deliveries: tuple[int, ...]
    first: str | None
    last: str | None
    days: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the pieces of a folder hold and what they were made from.

    Parameters
    ----------
    mark
        Digest of the settings and the code; with others everything is read again.
    columns
        The contract's columns that the sources offer, with their types.
    sources
        By number of the source: the types of its own columns, the layout of its text, whether it is read row by row, where columns are
        taken from, unused columns and what was noticed.
    next_delivery, next_piece
        Numbers that were never used.
    """

    mark: str
    columns: Mapping[str, str]
    sources: Mapping[int, "SourceFacts"]
    deliveries: tuple[Delivery, ...]
    pieces: tuple[Piece, ...]
    next_delivery: int
    next_piece: int

    @property
    def rows(self) -> int:
        """The number of good rows."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def span(self) -> tuple[datetime | None, datetime | None]:
        """The first and last time at which a row became known, naive in UTC."""
        first = min((piece.first for piece in self.pieces if piece.first), default=None)
        last = max((piece.last for piece in self.pieces if piece.last), default=None)
        return first and datetime.fromisoformat(first), last and datetime.fromisoformat(last)  # type: ignore[return-value]

    def write(self, folder: Path) -> None:
        """Write the manifest beside its pieces."""
        (folder / _MANIFEST).write_text(json.dumps(vars(self), default=vars), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What is true of a source as a whole; see `Manifest`."""

    types: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    row_by_row: bool = False
    taken: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder of pieces; None if there is none."""
    try:
        stored = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Manifest(
        **stored
        | {
            "sources": {
                int(number): SourceFacts(**facts | {"unused": tuple(facts["unused"])}) for number, facts in stored["sources"].items()
            },
            "deliveries": tuple(Delivery(**delivery) for delivery in stored["deliveries"]),
            "pieces": tuple(_piece(piece) for piece in stored["pieces"]),
        }
    )


def _piece(stored: dict[str, Any]) -> Piece:
    days = {int(day): (found[0], found[1]) for day, found in stored["days"].items()}
    return Piece(**stored | {"days": days, "deliveries": tuple(stored["deliveries"])})


def piece_files(path: Path) -> list[Path]:
    """Return the files of a checked table, which is one file or a folder of pieces."""
    return sorted(path.glob("[!_.]*.parquet")) if path.is_dir() else [path]


def open_pieces(engine: Engine, path: Path) -> ir.Table:
    """Open a checked table, one file or a folder of pieces, with the contract's columns only."""
    table = engine.read_parquet(piece_files(path))
    hidden = [name for name in table.columns if name in (DELIVERY, PLACE, DIGEST)]
    return table.drop(*hidden) if hidden else table


class PieceWriter:
    """Fills a new folder with pieces.

    Parameters
    ----------
    folder
        An empty folder.
    next_piece
        A number that no piece has had.
    """

    def __init__(self, engine: Engine, folder: Path, *, next_piece: int) -> None:
        self.engine = engine
        self.folder = folder
        self.next_piece = next_piece
        self.pieces: list[Piece] = []

    def keep(self, piece: Piece, earlier: Path, *, gone: Set[int]) -> None:
        """Take a piece over from an earlier folder, without the rows of deliveries that are gone."""
        if not gone & set(piece.deliveries):
            link_file(earlier / piece.name, self.folder / piece.name)
            self.pieces.append(piece)
            return
        rows = self.engine.read_parquet(earlier / piece.name)
        self.add(rows.filter(rows[DELIVERY].notin(sorted(gone))).order_by("known_at", DELIVERY, PLACE), piece.month)

    def add(self, rows: ir.Table, month: str) -> None:
        """Write a piece of rows in the order in which they became known; none is written if there are no rows."""
        name = f"{month or 'none'}-{self.next_piece:06}.parquet"
        if self.engine.write_parquet(rows, self.folder / name) or not month:
            self.pieces.append(self._described(name, month))
            self.next_piece += 1
        else:
            (self.folder / name).unlink()

    def add_by_month(self, rows: ir.Table, occurred: str, *, on_progress: Progress = silent) -> None:
        """Write one piece for each month that the rows happened in."""
        time, months = rows[occurred], self._months(rows, occurred)
        for done, first in enumerate(months):
            on_progress(f"{first:%Y-%m}", done, len(months))
            before, last = first - _INSTANT, next(month_starts(first + _INSTANT, first + _MONTH)) - _INSTANT
            inside = known_by(time, ibis.timestamp(last)) & ~known_by(time, ibis.timestamp(before))  # lets most of a file be skipped
            self.add(rows.filter(inside), f"{first:%Y-%m}")
        if not self.pieces:
            self.add(rows, "")

    def _months(self, rows: ir.Table, occurred: str) -> list[datetime]:
        """Return the first instants of the months that the rows happened in."""
        found = rows.select(month=rows[occurred].truncate("M").cast("timestamp(6)")).distinct().order_by("month")
        months: list[datetime] = self.engine.to_arrow(found)["month"].to_pylist()
        return months

    def compact(self) -> None:
        """Put the pieces of months together that have too many."""
        by_month: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            by_month.setdefault(piece.month, []).append(piece)
        for month, alike in by_month.items():
            if len(alike) > MOST_PIECES:
                files = [self.folder / piece.name for piece in alike]
                self.add(self.engine.read_parquet(files).order_by("known_at", DELIVERY, PLACE), month)
                self.pieces = [piece for piece in self.pieces if piece not in alike]
                for file in files:
                    file.unlink()

    def _described(self, name: str, month: str) -> Piece:
        rows = self.engine.read_parquet(self.folder / name)
        content = ", ".join(quoted_name(column) for column in rows.columns if column not in (DELIVERY, PLACE, DIGEST))
        hashed = self.engine.view(f"SELECT {DELIVERY} AS delivery, known_at, hash({content}) AS hash FROM {quoted_name(rows.get_name())}")
        numbered = hashed.mutate(
            day=day_number(self.engine.microseconds(hashed.known_at)),
            low=(hashed.hash % _HALF).cast("int64"),
            high=(hashed.hash // _HALF).cast("int64"),
        )
        found = self.engine.to_arrow(
            numbered.group_by("day", "delivery").agg(
                rows=numbered.count(),
                low=numbered.low.sum(),
                high=numbered.high.sum(),
                first=numbered.known_at.min(),
                last=numbered.known_at.max(),
            )
        ).to_pylist()
        return Piece(
            name=name,
            month=month,
            rows=sum(part["rows"] for part in found),
            deliveries=tuple(sorted({part["delivery"] for part in found})),
            first=min((part["first"].isoformat() for part in found), default=None),
            last=max((part["last"].isoformat() for part in found), default=None),
            days=_by_day(found),
        )


def _by_day(found: Iterable[Mapping[str, Any]]) -> dict[int, tuple[int, int]]:
    days: dict[int, tuple[int, int]] = {}
    for part in found:
        rows, total = days.get(part["day"], (0, 0))
        days[part["day"]] = rows + part["rows"], (total + int(part["low"]) + int(part["high"]) * _HALF) % _HALF**2
    return dict(sorted(days.items()))
