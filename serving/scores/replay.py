"""What the present models say of the past: the values of earlier cutoffs, which hold only what was known then, scored today.

It shows how an account came to where it is, and nothing else. The models have learnt from those very months, so nobody may judge them by
it, and every point that comes from here is marked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.feature import Target
from features.snapshot_files import snapshot_files
from serving.scores.scoring import ScoreSet

__all__ = ["Replayed", "replay_scores"]

_ROWS_AT_ONCE = 8192

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Instants = npt.NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Replayed:
    """The present accounts as of earlier cutoffs, `(n,)` each.

    Parameters
    ----------
    row
        The account's row in the score set.
    cutoff
        datetime64[us], UTC.
    probability
        By target, rounded to the seven digits of a single-precision number, which halves the file that keeps them.
    arr
        As the snapshots' labels have it; NaN where there is none.
    """

    row: Rows
    cutoff: Instants
    probability: Mapping[Target, Array]
    arr: Array

    def at(self, positions: npt.NDArray[np.intp]) -> "Replayed":
        """Return some of them, in this order."""
        probability = {target: column[positions] for target, column in self.probability.items()}
        return Replayed(row=self.row[positions], cutoff=self.cutoff[positions], probability=probability, arr=self.arr[positions])


def replay_scores(score_set: ScoreSet, snapshots: Path, *, before: datetime) -> Replayed:
    """Score the values that a score set's accounts had at all cutoffs of the snapshots before an instant.

    The snapshots are read some rows at a time.
    """
    found: list[tuple[Rows, Instants, dict[Target, npt.NDArray[np.float32]]]] = []
    for rows, cutoffs, batch in _batches(score_set, snapshots / "features.parquet", tuple(score_set.features)):
        wanted = ~clock.not_after(np.full(len(cutoffs), before, dtype="datetime64[us]"), cutoffs)
        if wanted.any():
            frame = pa.table(batch.filter(pa.array(wanted))).to_pandas()
            scores = {target: package.score_rows(frame).probability.astype(np.float32) for target, package in score_set.packages.items()}
            found.append((rows[wanted], cutoffs[wanted], scores))
    row = np.concatenate([np.empty(0, np.int64), *(part[0] for part in found)])
    cutoff = np.concatenate([np.empty(0, "datetime64[us]"), *(part[1] for part in found)])
    probability = {
        target: np.concatenate([np.empty(0, np.float32), *(part[2][target] for part in found)]).astype(np.float64)
        for target in score_set.packages
    }
    return Replayed(row=row, cutoff=cutoff, probability=probability, arr=_arr(score_set, snapshots, row, cutoff))


def _batches(score_set: ScoreSet, path: Path, names: tuple[str, ...]) -> Iterator[tuple[Rows, Instants, pa.RecordBatch]]:
    """Yield the rows of the present accounts with their rows in the score set and their cutoffs."""
    for batch in _read(path, ["account_id", "cutoff", *names]):
        rows = np.array([score_set.index.get(account_id, -1) for account_id in batch["account_id"].to_pylist()], dtype=np.int64)
        there = rows >= 0
        known = batch.filter(pa.array(there))
        yield rows[there], known["cutoff"].to_numpy(zero_copy_only=False).astype("datetime64[us]"), known


def _read(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for file in snapshot_files(path):
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(_ROWS_AT_ONCE, columns=list(columns))


def _arr(score_set: ScoreSet, snapshots: Path, row: Rows, cutoff: Instants) -> Array:
    """Return the ARR of accounts at cutoffs, as the labels have it."""
    instants = np.unique(cutoff)
    keys, values = [np.empty(0, np.int64)], [np.empty(0)]
    for rows, cutoffs, batch in _batches(score_set, snapshots / "labels.parquet", ("arr",)):
        wanted = np.isin(cutoffs, instants)
        keys.append(_key(rows[wanted], cutoffs[wanted], instants))
        values.append(batch["arr"].to_numpy(zero_copy_only=False).astype(np.float64)[wanted])
    order = np.argsort(np.concatenate(keys))
    key, value, sought = np.concatenate(keys)[order], np.concatenate(values)[order], _key(row, cutoff, instants)
    if len(key) == 0:
        return np.full(len(sought), np.nan)
    place = np.minimum(np.searchsorted(key, sought), len(key) - 1)
    return np.where(key[place] == sought, value[place], np.nan)


def _key(rows: Rows, cutoffs: Instants, instants: Instants) -> npt.NDArray[Any]:
    """Return one number for each pair of an account and a cutoff."""
    return rows * max(len(instants), 1) + np.searchsorted(instants, cutoffs)
