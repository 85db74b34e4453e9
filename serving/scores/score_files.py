"""The files of score sets: written once, sealed by their sums, believed only if the sums agree, and removed when they are old.

A score set is a folder `scores/<version>/`, and `scores/CURRENT` names the one that is served. Its `manifest.json` is written last, with
the SHA-256 of every other file, and `CURRENT` is switched after that, by an atomic rename: nobody reads a set before all of it is there.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ServiceError, explain
from features.ledger import replace_file

__all__ = [
    "MANIFEST",
    "VERSION",
    "Column",
    "ColumnWriter",
    "Columns",
    "StoredColumns",
    "check_sum",
    "current_version",
    "keep_newest",
    "make_current",
    "peer_columns",
    "publishing",
    "read_columns",
    "read_peers",
    "sum_of",
    "verified_manifest",
    "write_columns",
]

Column = npt.NDArray[Any]
Columns = Mapping[str, Column]

VERSION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")
"""What a score set is called: when it was made, and what by."""

MANIFEST = "manifest.json"
_CURRENT = "CURRENT"
_ROWS_TOGETHER = 2048
"""Rows of a row group, so that one account can be read without the others."""

_COUNT = "accounts: "
"""What the names of the columns of `peers.parquet` begin with that say of how many accounts a median is."""


def current_version(scores: Path) -> str:
    """Return the version that `scores/CURRENT` names.

    Raises
    ------
    ServiceError
        If nothing has been scored yet.
    """
    try:
        return (scores / _CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise ServiceError(
            explain("there are no scores yet", given=scores, todo="Run `renewcast score`, or `renewcast up` for all steps.")
        ) from error


@contextmanager
def publishing(scores: Path, version: str, manifest: Callable[[], Mapping[str, Any]], *, unsealed: str) -> Iterator[Path]:
    """Give the folder of a new version to fill, and seal it when the block ends; if the block raises, nothing is left of it.

    Parameters
    ----------
    manifest
        Returns what `manifest.json` is to say beside the sums; it is called when the files are there.
    unsealed
        A pattern of files that are not under the seal, because they may be removed while the set stays.
    """
    folder = scores / version
    folder.mkdir(parents=True)
    try:
        yield folder
        sums = {str(file.relative_to(folder)): sum_of(file) for file in _files(folder) if not file.match(unsealed)}
        (folder / MANIFEST).write_text(json.dumps({**manifest(), "files": sums}, indent=1), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def make_current(scores: Path, version: str) -> None:
    """Have a version served from now on."""
    with replace_file(scores / _CURRENT) as temporary:
        temporary.write_text(version, encoding="utf-8")


def verified_manifest(folder: Path) -> dict[str, Any]:
    """Return what `manifest.json` says, after all files that it names were found to be what they were when it was written.

    Raises
    ------
    ValueError
        If a file is missing or is another, or the manifest is damaged; it names the file.
    """
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sums = data.pop("files")
    except FileNotFoundError as error:
        raise ValueError(f"{MANIFEST} is missing") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is no manifest of this version: {error!r}") from error
    for name, expected in sums.items():
        check_sum(folder, name, expected)
    manifest: dict[str, Any] = data
    return manifest


def check_sum(folder: Path, name: str, expected: str) -> None:
    """Raise ValueError, with the file's name, if a file is missing or does not have this SHA-256."""
    try:
        found = sum_of(folder / name)
    except FileNotFoundError as error:
        raise ValueError(f"{name} is missing") from error
    if found != expected:
        raise ValueError(f"{name} has SHA-256 {found[:12]}..., not {expected[:12]}...: it is cut short, changed or of another score set")


def sum_of(path: Path) -> str:
    """Return the SHA-256 of a file, however large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_newest(scores: Path, *, sets: int, pieces: int, pattern: str) -> None:
    """Remove old score sets, and of those that are kept the files that only the newest need; the current one always stays.

    A set is moved out of the way first, so nobody finds half of one; who has its files open or mapped goes on reading them.

    Parameters
    ----------
    sets
        How many sets are kept.
    pieces, pattern
        How many of these keep the files of a pattern.
    """
    current = current_version(scores)
    versions = sorted((path.name for path in scores.iterdir() if VERSION.fullmatch(path.name) and path.name != current), reverse=True)
    for version in versions[sets - 1 :]:
        aside = scores / f".unfinished-{version}"
        (scores / version).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    for version in versions[pieces - 1 : sets - 1]:
        for file in sorted((scores / version).glob(pattern), key=lambda found: found.suffix != ".json"):
            file.unlink(missing_ok=True)


def write_columns(path: Path, columns: Columns) -> None:
    """Write columns `(n,)` as Parquet, missing values as null."""
    table = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    pq.write_table(table, path, compression="zstd", row_group_size=_ROWS_TOGETHER)


class ColumnWriter:
    """Writes columns to a Parquet file block by block, missing values as null; numbers are not looked up in a dictionary.

    Parameters
    ----------
    texts
        By name, in the file's order, whether a column holds text rather than numbers.
    """

    def __init__(self, path: Path, texts: Mapping[str, bool]) -> None:
        self._schema = pa.schema([(name, pa.string() if text else pa.float64()) for name, text in texts.items()])
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=[name for name, text in texts.items() if text])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, columns: Columns) -> None:
        """Write a block of rows."""
        arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in self._schema]
        self._file.write_table(pa.table(arrays, schema=self._schema), row_group_size=_ROWS_TOGETHER)


class StoredColumns(Mapping[str, Column]):
    """The columns of a Parquet file, each read when it is asked for and not kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = pq.read_schema(path).names

    def __getitem__(self, name: str) -> Column:
        if name not in self._names:
            raise KeyError(name)
        column: Column = pq.read_table(self._path, columns=[name])[name].to_numpy()
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def rows(self, start: int, stop: int) -> dict[str, Column]:
        """Return some rows of all columns; only the row groups that hold them are read."""
        with pq.ParquetFile(self._path) as file:
            ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
            first, last = np.searchsorted(ends, [start, stop - 1], side="right")
            table = file.read_row_groups(range(int(first), int(last) + 1))
            before = int(ends[first - 1]) if first else 0
        table = table.slice(start - before, stop - start)
        return {name: table[name].to_numpy() for name in table.column_names}


def read_columns(path: Path) -> dict[str, Column]:
    """Read the columns of a Parquet file."""
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def peer_columns(peers: Mapping[str, Mapping[str, float]], counts: Mapping[str, Mapping[str, int]]) -> Columns:
    """Return medians by segment and feature, and of how many accounts each is, as columns."""
    columns: dict[str, Column] = {"segment": np.array(list(peers), dtype=object)}
    for name in sorted({name for medians in peers.values() for name in medians}):
        columns[name] = np.array([medians.get(name, np.nan) for medians in peers.values()])
        columns[_COUNT + name] = np.array([own.get(name, 0) for own in counts.values()], dtype=np.int64)
    return columns


def read_peers(path: Path) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Return what `peer_columns` was given, from the file."""
    peers: dict[str, dict[str, float]] = {}
    counts: dict[str, dict[str, int]] = {}
    for row in pq.read_table(path).to_pylist():
        names = [name for name, value in row.items() if name != "segment" and not name.startswith(_COUNT) and value is not None]
        peers[row["segment"]] = {name: row[name] for name in names}
        counts[row["segment"]] = {name: row[_COUNT + name] for name in names}
    return peers, counts


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
