"""The newest points of every account's health, for lists: read once for a score set and kept as two arrays.

`serving.scores.timeline` writes them; the whole past of one account is read from the disk when somebody opens it.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from serving.health import AMBER_FROM
from serving.scores.scoring import ScoreSet
from serving.scores.standings import Archive
from serving.scores.timeline import RECENT

__all__ = ["Courses", "Movement", "courses_of"]

_KEY: Hashable = "courses"


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How many accounts moved since the score before: into the red band and out of it, and to any lower or higher health."""

    since: datetime
    turned_red: int
    left_red: int
    worse: int
    better: int


@dataclass(frozen=True, eq=False)
class Courses:
    """The newest points of every account, oldest first.

    Parameters
    ----------
    places
        `(n + 1,)`: the points of the account in row `i` stand from `places[i]` up to `places[i + 1]`.
    cutoffs, healths
        All points.
    """

    places: npt.NDArray[np.int64]
    cutoffs: npt.NDArray[np.datetime64]
    healths: npt.NDArray[np.int64]

    def of(self, row: int) -> tuple[tuple[datetime, int], ...]:
        """Return the points of the account in a row: cutoff in UTC, and health."""
        here = slice(self.places[row], self.places[row + 1])
        cutoffs = self.cutoffs[here].astype("datetime64[us]").tolist()
        return tuple(zip(cutoffs, self.healths[here].tolist(), strict=True))

    def movement(self, rows: npt.NDArray[np.intp]) -> Movement | None:
        """Return how many of some accounts changed their band since the score before; None if none was scored before."""
        known = rows[np.diff(self.places)[rows] >= 2]
        if not len(known):
            return None
        last, before = (self.healths[self.places[known + 1] - back] for back in (1, 2))
        return Movement(
            since=self.cutoffs[self.places[known + 1] - 2].max().astype("datetime64[us]").item(),
            turned_red=int(((last < AMBER_FROM) & (before >= AMBER_FROM)).sum()),
            left_red=int(((last >= AMBER_FROM) & (before < AMBER_FROM)).sum()),
            worse=int((last < before).sum()),
            better=int((last > before).sum()),
        )


def courses_of(archive: Archive, score_set: ScoreSet) -> Courses | None:
    """Return the newest points of all accounts of a score set; None for a score set from before they were kept."""
    if _KEY not in score_set.memory:
        score_set.memory[_KEY] = _read(archive, score_set)
    found: Courses | None = score_set.memory[_KEY]
    return found


def _read(archive: Archive, score_set: ScoreSet) -> Courses | None:
    path = archive.folder(score_set.manifest.version) / RECENT
    if not path.exists():
        return None
    table = pq.read_table(path)
    rows = np.array([score_set.index.get(account_id, -1) for account_id in table["account_id"].to_pylist()])
    healths, cutoffs = table["health"].combine_chunks(), table["cutoffs"].combine_chunks()
    lengths = np.zeros(len(score_set) + 1, dtype=np.int64)
    lengths[rows[rows >= 0] + 1] = np.diff(healths.offsets.to_numpy())[rows >= 0]
    starts = healths.offsets.to_numpy()[:-1]
    order = [np.arange(starts[place], starts[place + 1] if place + 1 < len(starts) else len(healths.values)) for place in _by_row(rows)]
    taken = np.concatenate(order) if order else np.array([], dtype=np.int64)
    return Courses(
        places=np.cumsum(lengths),
        cutoffs=cutoffs.values.to_numpy(zero_copy_only=False)[taken],
        healths=healths.values.to_numpy(zero_copy_only=False)[taken].astype(np.int64),
    )


def _by_row(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the places of the accounts that are there, in the order of their rows."""
    order = np.argsort(rows, kind="stable")
    return order[rows[order] >= 0]
