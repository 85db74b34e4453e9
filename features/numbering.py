"""Numbering: writing the checked pieces of telemetry once more, with numbers for texts and rows in the order in which they happened.

A piece that stays keeps its numbered files, so that one more day costs what came with it. Numbers are given once and never change; a user
is numbered within its account. A new folder takes over what stays as hard links, and is put in the place of the old one as a whole.

Beside the rows of a piece there are shorter files, where they are much shorter: the rows folded to days or to all of the piece, and those
that carry an amount (see `features.folding`). Where they are likely to do, the rows themselves are written when they are first asked for.

It takes 0.14 microseconds of CPU an event, once, and 8 bytes of disk, of the 98.5 M single events of `fightchurn_crm5`, which are folded;
0.5 and 54 of simulated ones, which carry times of recording and hardly ever repeat within a day (on 2 idle cores).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.ahead import in_advance
from features.coded import AMOUNTS, Coded, Uncoded
from features.folding import extracts
from features.forms import CARRYING, NOTHING, TEXTS, MonthRows, NumberedPiece, file_of, in_parts
from features.ledger import fingerprint, link_file, replace_file, replace_folder
from features.numbered import NumberedTelemetry
from features.pieces import Piece, read_manifest
from features.vocabulary import Vocabulary

__all__ = ["number_telemetry"]

_FORMAT = 10
"""Changes with what is written here, so that files of another version are written anew."""
_INDEX = "_numbered.json"
_ROWS_PER_GROUP = 1 << 19
"""Rows that are read at a time: few enough that the memory they take is used again for the next."""


def number_telemetry(pieces: Path, folder: Path) -> NumberedTelemetry | None:
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
            stored = _written(new, wanted, stored, pieces=pieces, earlier=folder)
    left_out = _LeftOut(pieces, folder, stored)
    return NumberedTelemetry(folder=folder, pieces=stored.pieces, texts=stored.texts, left_out=left_out)


@dataclass(frozen=True)
class _Index:
    """What the numbered files hold."""

    pieces: tuple[NumberedPiece, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict.fromkeys(TEXTS, ()))


def _read_index(folder: Path) -> _Index:
    try:
        stored = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Index()
    if stored["format"] != _FORMAT:
        return _Index()
    return _Index(
        tuple(NumberedPiece.from_json(piece) for piece in stored["pieces"]),
        {name: tuple(texts) for name, texts in stored["texts"].items()},
    )


def _written(folder: Path, wanted: Mapping[str, Piece], before: _Index, *, pieces: Path, earlier: Path) -> _Index:
    """Fill a new folder: keep the files of pieces that stay, number the others, and write what is there to the index."""
    kept = [piece for piece in before.pieces if piece.key in wanted]
    names = Vocabulary.read(earlier, before.texts) if kept else Vocabulary()
    shared = [*names.files(earlier), *(earlier / file_of(piece.name, form) for piece in kept for form in ("", *piece.extracts))]
    for file in shared if kept else ():
        if file.exists():  # rows that nobody asked for were not written
            link_file(file, folder / file.name)
    known = {piece.key for piece in kept}
    new = [(key, piece) for key, piece in wanted.items() if key not in known]
    reading = (Coded.of(Uncoded.read(pieces / piece.name), names) for _, piece in new)
    for (key, piece), coded in zip(new, in_advance(reading), strict=True):  # one thread looks users up, the other all else
        kept.append(_numbered(coded, names, folder, key=key, month=piece.month, source=piece.name))
    names.write(folder)
    found = _Index(tuple(sorted(kept, key=lambda piece: piece.name)), names.texts)
    (folder / _INDEX).write_text(json.dumps(asdict(found) | {"format": _FORMAT}), encoding="utf-8")
    return found


def _numbered(coded: Coded, names: Vocabulary, folder: Path, *, key: str, month: str, source: str) -> NumberedPiece:
    """Write the numbered files of a piece; not that of its rows, if its shorter forms may well do."""
    name, columns = f"{month}-{key[:16]}.parquet", coded.columns
    blocks = _in_time(coded.with_users(names))
    are_single = coded.are_single or all(bool(np.all(rows.columns["events"] == 1)) for rows in blocks)
    shorter = extracts(blocks, columns, are_single=are_single)
    piece = _described(blocks, shorter, name=name, source=source, key=key, month=month, columns=columns, are_single=are_single)
    for form, found in shorter.items():
        there = found[0].columns.keys() - ({"known"} - {*piece.stored})
        _write_rows(found, sorted(there), folder / file_of(name, form))
    if not piece.is_short:
        _write_rows(blocks, piece.stored, folder / name)
    return piece


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """The rows that were not written, from the checked pieces."""

    pieces: Path
    folder: Path
    index: _Index
    _lock: RLock = field(default_factory=RLock)
    """For who looks texts up, which changes the vocabulary, and who writes; only reading goes on in several threads."""

    def read(self, piece: NumberedPiece, *, of: npt.NDArray[np.bool_] | None = None) -> Sequence[MonthRows]:
        """Return the rows of a piece, block by block in the order of time; those of some accounts, given by number, or all if None."""
        file = self.pieces / piece.source
        with self._lock:
            names = self._names
        found = Uncoded.read(file) if of is None else Uncoded.read_accounts(file, of, names)
        if not len(found.rows):
            return ()
        with self._lock:
            blocks = Coded.of(found, names).with_users(names)
        return _in_time(blocks)

    def write(self, piece: NumberedPiece) -> None:
        """Write the file of a piece's rows, unless somebody else has done so while this waited."""
        with self._lock:
            if not (self.folder / piece.name).exists():
                with replace_file(self.folder / piece.name) as file:
                    _write_rows(self.read(piece), piece.stored, file)

    @cached_property
    def _names(self) -> Vocabulary:
        return Vocabulary.read(self.folder, self.index.texts)


def _in_time(blocks: Sequence[MonthRows]) -> Sequence[MonthRows]:
    """Return rows in the order of time, in which those of a piece without times of recording mostly are, with all columns."""
    in_order, late, newest = list[MonthRows](), list[MonthRows](), np.iinfo(np.int64).min
    for rows in blocks:
        times = np.append(newest, rows.time)
        if clock.came_after(times[:-1], times[1:]).any():
            times = np.maximum.accumulate(times)
            is_late = clock.came_after(times[:-1], rows.time)
            late.append(rows.take(is_late))
            rows = rows.take(~is_late)
        newest = times[-1]
        in_order += [rows] if len(rows.time) else []
    return [_completed(rows) for rows in (_merged(in_order, _sorted(MonthRows.joined(late))) if late else in_order)]


def _merged(blocks: Sequence[MonthRows], late: MonthRows) -> Iterator[MonthRows]:
    """Yield the blocks of rows in order, with late ones at their places; a block at a time takes memory that is used again."""
    ends = np.array([rows.time[-1] for rows in blocks[:-1]], dtype=np.int64)
    bounds = [0, *np.searchsorted(late.time, ends, side="right").tolist(), len(late.time)]
    for rows, bound in zip(blocks, pairwise(bounds), strict=True):
        yield rows if bound[0] == bound[1] else _sorted(MonthRows.joined([rows, late.take(slice(*bound))]))


def _sorted(rows: MonthRows) -> MonthRows:
    return rows.take(np.argsort(rows.time, kind="stable"))


def _completed(rows: MonthRows) -> MonthRows:
    """Add what there is of columns that a piece does not have; where it does not have `events`, nobody knows for how many rows stand."""
    missing = {name: np.broadcast_to(nothing, len(rows.time)) for name, nothing in ({**NOTHING, "events": np.nan}).items()}
    return MonthRows(rows.time, missing | {**rows.columns})


def _write_rows(blocks: Sequence[MonthRows], columns: Sequence[str], file: Path) -> None:
    """Write some columns, with nulls for NaN; not compressed, which is read several times as fast."""
    schema = pa.schema([pa.field(name, pa.from_numpy_dtype(blocks[0].columns[name].dtype), name in AMOUNTS) for name in columns])
    how = {"compression": "none", "use_dictionary": False, "write_statistics": ["time", "known"]}
    with pq.ParquetWriter(file, schema, **how) as writer:
        for part in in_parts(blocks, _ROWS_PER_GROUP):
            tables = [pa.table([pa.array(rows.columns[name], from_pandas=True) for name in columns], schema) for rows in part]
            writer.write_table(pa.concat_tables(tables))


def _described(
    blocks: Sequence[MonthRows], shorter: Mapping[str, Sequence[MonthRows]], *, columns: tuple[str, ...], are_single: bool, **known: Any
) -> NumberedPiece:
    """Return what is to be known of the rows of a piece, which are there, and of its shorter forms."""
    amounts = [rows.columns[name] for name in AMOUNTS if name in columns and (name, are_single) != ("events", True) for rows in blocks]
    of_kinds = next((shorter[form] for form in ("kinds", "days-of-kinds") if form in shorter), blocks)
    carrying = shorter.get(CARRYING["quantity"], blocks) if "quantity" in columns else []
    return NumberedPiece(
        rows=sum(len(rows.time) for rows in blocks),
        first=int(blocks[0].time[0]),
        last=int(blocks[-1].time[-1]),
        first_known=min(int(rows.columns["known"].min()) for rows in blocks),
        last_known=max(int(rows.columns["known"].max()) for rows in blocks),
        are_single=are_single,
        lacks_events=not are_single and any(bool(np.isnan(rows.columns["events"]).any()) for rows in blocks),
        largest=max([float(are_single), *map(_largest, amounts)]),
        busiest=int(_counted(of_kinds, "account").max()),
        kinds=_kinds(of_kinds, carrying, are_single=are_single),
        columns=columns,
        extracts=tuple(shorter),
        **known,
    )


def _largest(values: npt.NDArray[np.float64]) -> float:
    """Return the largest amount either side of zero, 0 if there is none."""
    return max(float(np.fmax.reduce(values, initial=0.0)), -float(np.fmin.reduce(values, initial=0.0)))


def _kinds(blocks: Sequence[MonthRows], carrying: Sequence[MonthRows], *, are_single: bool) -> tuple[tuple[int, float, int], ...]:
    """Return the number of each kind of event there is, its events, and the rows of it that carry a quantity; these are in `carrying`."""
    n_rows = _counted(blocks, "event")
    events, carried = n_rows * float(are_single), np.zeros(len(n_rows), dtype=np.int64)
    for rows in blocks if not are_single else ():
        events += np.bincount(rows.columns["event"], weights=np.nan_to_num(rows.columns["events"]), minlength=len(n_rows))
    for rows in carrying:
        carried += np.bincount(rows.columns["event"][~np.isnan(rows.columns["quantity"])], minlength=len(n_rows))
    return tuple((kind, float(events[kind]), int(carried[kind])) for kind in np.flatnonzero(n_rows).tolist())


def _counted(blocks: Sequence[MonthRows], name: str) -> npt.NDArray[np.int64]:
    """Return how many rows there are of each number of a column."""
    size = max(int(rows.columns[name].max()) for rows in blocks) + 1
    counted = sum(np.bincount(rows.columns[name], weights=rows.weights, minlength=size) for rows in blocks)
    return np.asarray(counted).astype(np.int64)
