"""Files of the snapshots: the feature matrix as a folder with one file for each calendar month of cutoffs, all else as one file.

`features.parquet` is a folder of Parquet files such as `2026-11.parquet`, which have the same columns, and in the order of their names the
rows of the spine. Beside them `_parts.json` names them all: a file that somebody removed is missed, and one that is not named is not
read. As most months stay what they were, new snapshots take their files over as hard links.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.ledger import link_file

__all__ = ["matrix_schema", "months_of", "snapshot_columns", "snapshot_files", "write_matrix"]

_PARTS = "_parts.json"


def snapshot_files(path: Path) -> list[Path]:
    """Return the files of a table of the snapshots in the order of their rows, whether they are there or not."""
    try:
        names = json.loads((path / _PARTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return [path]
    return [path / name for name in names]


def snapshot_columns(path: Path) -> list[str]:
    """Return the names of the columns of a table of the snapshots.

    Raises
    ------
    FileNotFoundError
        If it is not there, or one of its files.
    """
    names: list[str] = pq.ParquetDataset(snapshot_files(path)).schema.names
    return names


def matrix_schema(catalogue: Catalogue) -> pa.Schema:
    """Return the columns of a feature matrix: accounts, cutoffs in UTC, and features in the catalogue's order."""
    types = {"account_id": pa.string(), "cutoff": pa.timestamp("us")}
    types |= {feature.name: pa.string() if feature.kind == "category" else pa.float64() for feature in catalogue}
    return pa.schema(list(types.items()))


def months_of(cutoffs: npt.NDArray[np.datetime64]) -> list[tuple[str, slice]]:
    """Return the calendar months (UTC) of cutoffs `(n,)` in their order, each with its rows.

    Examples
    --------
    >>> months_of(np.array(["2026-10-01", "2026-11-01", "2026-11-23"], "M8[us]"))
    [('2026-10', slice(0, 1, None)), ('2026-11', slice(1, 3, None))]
    """
    months = cutoffs.astype("M8[M]")
    edges = [0, *(np.flatnonzero(months[1:] != months[:-1]) + 1).tolist(), len(months)]
    return [(str(months[start]), slice(start, end)) for start, end in pairwise(edges) if end > start]


def write_matrix(path: Path, schema: pa.Schema, blocks: Iterable[pa.Table], *, unchanged: Iterable[Path] = ()) -> None:
    """Write a feature matrix to a new folder, of which memory holds one block at a time.

    Parameters
    ----------
    blocks
        The rows in the order of their cutoffs, but for those of files that are taken over.
    unchanged
        Files of other matrices with the same columns, for months of which no block has a row.

    Raises
    ------
    FileExistsError
        If a month comes twice.
    """
    path.mkdir()
    for there in unchanged:
        link_file(there, path / there.name)
    for month, parts in groupby((part for block in blocks for part in _by_month(block)), key=itemgetter(0)):
        with (path / f"{month}.parquet").open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for _, rows in parts:
                writer.write_table(rows)
    names = sorted(file.name for file in path.iterdir())
    (path / _PARTS).write_text(json.dumps(names), encoding="utf-8")


def _by_month(block: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    for month, rows in months_of(block["cutoff"].to_numpy()):
        yield month, block[rows]
