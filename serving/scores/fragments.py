"""Pieces of JSON that are kept in files, for a service to put answers together from without making them.

A score set has them twice: for the vendor, and for the partner that managed the account when they were made. Each file is one string of
bytes that is mapped into memory, so that all workers share one copy of it; beside it is a table of where each account's pieces lie.

    fragments.json               who wrote them and under which policy, and the sums of the other files
    fragments-vendor.bin         the pieces of one account after another
    fragments-vendor.npy         `(n, 6)` where each piece of each account begins, and where the last one ends
    fragments-partner.bin, .npy  the same for the partners; nothing for an account without one
"""

import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.scores.score_files import check_sum, sum_of

__all__ = ["PATTERN", "Fragments", "Pieces", "Shelf", "Side", "Stamp", "read_fragments", "seal_fragments", "write_shelf"]

Side = Literal["vendor", "partner"]
_SIDES: tuple[Side, ...] = ("vendor", "partner")
_SEAL = "fragments.json"

PATTERN = "fragments*"
"""The files' names; a score set is whole without them."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """One account's JSON for one view, in pieces.

    Parameters
    ----------
    prediction, notes
        A `Prediction` up to its scores, and from there to its end.
    summary
        A whole `AccountSummary`.
    account
        An `Account` up to its scores.
    scores
        The array of its scores.
    """

    prediction: bytes
    notes: bytes
    summary: bytes
    account: bytes
    scores: bytes


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What the pieces depend on beside the score set.

    Parameters
    ----------
    policy
        Fingerprint of the policy.
    writer
        Fingerprint of the code that wrote them.
    at
        Partners' pieces are for those that managed the accounts at this instant, UTC.
    """

    policy: str
    writer: str
    at: datetime


class Shelf:
    """The pieces of a book's accounts for one side.

    Parameters
    ----------
    pieces
        All bytes.
    bounds
        `(n, 6)` where each account's pieces begin, and where the last one ends; the same number six times for an account without.
    """

    def __init__(self, pieces: mmap.mmap | bytes, bounds: npt.NDArray[np.int64]) -> None:
        self._pieces = pieces
        self._bounds = bounds

    def of(self, row: int) -> Pieces | None:
        """Return an account's pieces; None if there are none."""
        bounds: list[int] = self._bounds[row].tolist()
        if bounds[0] == bounds[-1]:
            return None
        return Pieces(*(self._pieces[start:end] for start, end in pairwise(bounds)))


@dataclass(frozen=True)
class Fragments:
    """The pieces of a score set's accounts."""

    stamp: Stamp
    vendor: Shelf
    partner: Shelf


def write_shelf(folder: Path, side: Side, accounts: int, chunks: Iterable[tuple[Sequence[int], Sequence[Pieces]]]) -> None:
    """Write the pieces of a side, which come in chunks of rows and their pieces, in any order."""
    bounds = np.zeros((accounts, len(Pieces.__slots__) + 1), dtype=np.int64)
    written = 0
    with (folder / f"fragments-{side}.bin").open("wb") as file:
        for rows, chunk in chunks:
            for row, pieces in zip(rows, chunk, strict=True):
                parts = (pieces.prediction, pieces.notes, pieces.summary, pieces.account, pieces.scores)
                bounds[row] = list(accumulate(map(len, parts), initial=written))
                written += file.write(b"".join(parts))
    np.save(folder / f"fragments-{side}.npy", bounds, allow_pickle=False)


def seal_fragments(folder: Path, stamp: Stamp) -> None:
    """Write down what the pieces depend on, and the sums of their files; without this they are not read."""
    sums = {name: sum_of(folder / name) for side in _SIDES for name in (f"fragments-{side}.bin", f"fragments-{side}.npy")}
    content = {**asdict(stamp), "at": stamp.at.isoformat(), "files": sums}
    (folder / _SEAL).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_fragments(folder: Path) -> Fragments | None:
    """Map a score set's pieces into memory; None if it has none.

    Raises
    ------
    ValueError
        If a file is damaged; it names the file.
    """
    try:
        data = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    for name, expected in data["files"].items():
        check_sum(folder, name, expected)
    stamp = Stamp(policy=data["policy"], writer=data["writer"], at=datetime.fromisoformat(data["at"]))
    vendor, partner = (_shelf(folder, side) for side in _SIDES)
    return Fragments(stamp, vendor, partner)


def _shelf(folder: Path, side: Side) -> Shelf:
    path = folder / f"fragments-{side}.bin"
    bounds = np.load(folder / f"fragments-{side}.npy", allow_pickle=False)
    if path.stat().st_size == 0:
        return Shelf(b"", bounds)  # an empty file cannot be mapped
    with path.open("rb") as file:
        return Shelf(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), bounds)
