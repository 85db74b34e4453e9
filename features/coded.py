"""Coded telemetry: the rows of a checked piece, read with numbers for texts in place of these.

Parquet keeps a text that comes often as a number already, in a dictionary for each group of rows; so texts are looked up by dictionary
and not by row, but for the names of users where these hardly repeat (see `features.vocabulary`).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.forms import NOTHING, TEXTS, MonthRows
from features.vocabulary import Vocabulary, places_of

__all__ = ["AMOUNTS", "Coded", "Uncoded"]

Arrays = dict[str, npt.NDArray[Any]]

AMOUNTS = ("events", "quantity", "users")
"""Columns of numbers."""

_BLOCK = 1 << 17
"""Rows that are numbered at a time: they stay in the cache, and their memory is used again."""
_CODED = frozenset({"account_id", "user_id", *TEXTS})
_READ = (*sorted(_CODED), "occurred_at", "recorded_at", "known_at", *AMOUNTS)


@dataclass(frozen=True, eq=False)
class Uncoded:
    """Rows of a checked piece, their texts as places in dictionaries.

    Parameters
    ----------
    rows
        Names of users are texts where they hardly repeat.
    are_single
        Whether the piece says of itself that each row stands for one event; that column is then not read.
    """

    rows: pa.Table
    are_single: bool

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a piece."""
        about = pq.read_metadata(file)
        return cls(_encoded(pa.concat_tables(_groups(file, about)), _CODED - {"user_id"}), _are_single(about))

    @classmethod
    def read_accounts(cls, file: Path, of: npt.NDArray[np.bool_], names: Vocabulary) -> Self:
        """Read the rows of some accounts, given by number, of a piece of which memory holds one row group at a time."""
        about = pq.read_metadata(file)
        found = [_of_accounts(_encoded(group, _CODED), of, names) for group in _groups(file, about)]
        return cls(pa.concat_tables(found).unify_dictionaries().combine_chunks(), _are_single(about))


@dataclass(frozen=True, eq=False)
class Coded:
    """The rows of a piece as they stand, block by block, with numbers for texts, but for the names of users.

    Parameters
    ----------
    columns
        The contract's columns in it.
    are_single
        As of `Uncoded`.
    users
        The users' names, places in one dictionary in all blocks or in none; no blocks if the piece has no users.
    """

    columns: tuple[str, ...]
    are_single: bool
    blocks: Sequence[Arrays]
    users: Sequence[pa.Array]

    @classmethod
    def of(cls, uncoded: Uncoded, names: Vocabulary) -> Self:
        """Look up all texts but the users."""
        read = uncoded.rows
        batches = read.to_batches(max_chunksize=_BLOCK)
        found = {name: read[name].chunk(0).dictionary for name in ("account_id", *TEXTS) if name in read.column_names}
        accounts = names.of_accounts(found["account_id"])
        blocks = [_microseconds_of(batch) | {"account": accounts[places_of(batch["account_id"])]} for batch in batches]
        for name in found.keys() & {*TEXTS}:
            numbers = names.of_texts(name, found[name])
            for block, batch in zip(blocks, batches, strict=True):
                block[name] = numbers[places_of(batch[name])]
        if uncoded.are_single:
            blocks = [block | {"events": np.broadcast_to(NOTHING["events"], len(block["time"]))} for block in blocks]
        columns = (*read.column_names, *(["events"] if uncoded.are_single else []))
        return cls(columns, uncoded.are_single, blocks, [batch["user_id"] for batch in batches] if "user_id" in read.column_names else [])

    def with_users(self, names: Vocabulary) -> list[MonthRows]:
        """Look the users up as well."""
        blocks = self.blocks
        if self.users:
            asked = [(block["account"], users) for block, users in zip(blocks, self.users, strict=True)]
            blocks = [block | {"user_id": numbers} for block, numbers in zip(blocks, names.of_users(asked), strict=True)]
        return [MonthRows(block["time"], block) for block in blocks]


def _groups(file: Path, about: pq.FileMetaData) -> Iterator[pa.Table]:
    """Yield the row groups of a piece; texts that most of them keep as places in dictionaries come so in all."""
    kept_so = [_kept_as_places(about.row_group(number)) for number in range(about.num_row_groups)]
    coded = {name for name in _CODED if 2 * sum(name in kept for kept in kept_so) > len(kept_so)}
    names = _columns(about)
    with ExitStack() as stack:
        opened = {
            kept: stack.enter_context(pq.ParquetFile(file, metadata=about, read_dictionary=kept & coded, memory_map=True, pre_buffer=False))
            for kept in {*kept_so}
        }
        for number, kept in enumerate(kept_so):
            read = opened[kept].read_row_group(number, columns=names, use_threads=False)  # threads cost half as much again here
            yield pa.table([read[name].dictionary_encode() if name in coded else read[name] for name in names], names)


def _encoded(read: pa.Table, names: Collection[str]) -> pa.Table:
    """Return rows with some texts as places in one dictionary for each column, and others so where they are places already."""
    for place, name in enumerate(read.column_names):
        if pa.types.is_dictionary(read[name].type):
            read = read.set_column(place, name, read[name].unify_dictionaries())
        elif name in names:
            read = read.set_column(place, name, read[name].dictionary_encode())
    return read


def _columns(piece: pq.FileMetaData) -> list[str]:
    """Return the columns of a piece that are read."""
    names = piece.schema.names
    told = ({"events"} if _are_single(piece) else set()) | (set() if "recorded_at" in names else {"known_at"})
    return [name for name in _READ if name in names and name not in told]


def _are_single(piece: pq.FileMetaData) -> bool:
    """Tell whether a piece says of itself that each row stands for one event; that leaves out NaN, which no checked number is."""
    if "events" not in piece.schema.names:
        return False
    place = piece.schema.names.index("events")
    return all(_is_one(piece.row_group(number).column(place).statistics) for number in range(piece.num_row_groups))


def _is_one(found: pq.Statistics | None) -> bool:
    return found is not None and found.has_min_max and found.has_null_count and (found.min, found.max, found.null_count) == (1, 1, 0)


def _kept_as_places(group: pq.RowGroupMetaData) -> frozenset[str]:
    """Return the texts that a row group keeps as places in dictionaries; others cost twice as much to read so as afterwards."""
    columns = [group.column(place) for place in range(group.num_columns)]
    kept = frozenset(column.path_in_schema for column in columns if any("DICTIONARY" in encoding for encoding in column.encodings))
    return kept & _CODED


def _of_accounts(read: pa.Table, of: npt.NDArray[np.bool_], names: Vocabulary) -> pa.Table:
    """Return the rows of some accounts, given by number, and in the dictionary of users only those who are in them."""
    accounts = read["account_id"].chunks
    chosen = of[names.of_accounts(accounts[0].dictionary)]
    found = read.filter(pa.array(chosen[np.concatenate([places_of(chunk) for chunk in accounts])])).combine_chunks()
    if "user_id" not in found.column_names or not len(found):
        return found
    users = found["user_id"].chunk(0)
    codes, is_there = places_of(users), np.zeros(len(users.dictionary) + 1, dtype=bool)
    is_there[codes] = True
    there = np.flatnonzero(is_there[:-1])
    places = np.full(len(is_there), -1, dtype=np.int32)
    places[there] = np.arange(len(there))
    coded = pa.DictionaryArray.from_arrays(pa.array(places[codes], mask=codes < 0), users.dictionary.take(pa.array(there)))
    return found.set_column(found.column_names.index("user_id"), "user_id", coded)


def _microseconds_of(block: pa.RecordBatch) -> Arrays:
    """Return the columns of a block that need no numbers."""
    found: Arrays = {"time": _microseconds(block["occurred_at"])}
    found["known"] = found["time"]
    if "recorded_at" in block.schema.names:
        found["known"] = _microseconds(block["known_at"])
        found["unrecorded"] = block["recorded_at"].is_null().to_numpy(zero_copy_only=False)
    return found | {name: block[name].to_numpy(zero_copy_only=False) for name in AMOUNTS if name in block.schema.names}


def _microseconds(times: pa.Array) -> npt.NDArray[np.int64]:
    return np.asarray(times.cast(pa.timestamp("us")).view(pa.int64()).to_numpy())
