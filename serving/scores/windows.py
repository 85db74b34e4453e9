"""A book in windows: some tens of thousands of accounts at a time, each window a score set of its own.

What is worked out account by account while a book is scored goes from window to window, so that the memory does not grow with the book.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.feature import Target
from serving.scores.score_files import Columns, StoredColumns
from serving.scores.scoring import BASE, ScoreSet
from training.package import Package

__all__ = ["StoredParts", "bounds", "windows"]

Array = npt.NDArray[np.float64]

_ROWS = 65_536
"""Accounts in a window, at most."""


class StoredParts(Mapping[Target, Array]):
    """The parts of a score set's raw scores in its files, each target's read when it is asked for and not kept."""

    def __init__(self, folder: Path, packages: Mapping[Target, Package]) -> None:
        self._columns = {target: StoredColumns(folder / f"parts-{target}.parquet") for target in packages}
        self._names = {target: (*package.features, BASE) for target, package in packages.items()}

    def __getitem__(self, target: Target) -> Array:
        return np.column_stack([self._columns[target][name] for name in self._names[target]])

    def __iter__(self) -> Iterator[Target]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def rows(self, start: int, stop: int) -> dict[Target, Array]:
        """Return the parts of some rows."""
        found = {target: columns.rows(start, stop) for target, columns in self._columns.items()}
        return {target: np.column_stack([found[target][name] for name in names]) for target, names in self._names.items()}


def bounds(accounts: int) -> list[tuple[int, int]]:
    """Return where windows of nearly one size begin and end.

    Examples
    --------
    >>> bounds(100_000)
    [(0, 50000), (50000, 100000)]
    """
    count = -(-accounts // _ROWS)
    return list(pairwise(accounts * number // count for number in range(count + 1))) if accounts else []


def windows(score_set: ScoreSet) -> Iterator[tuple[int, ScoreSet]]:
    """Yield a score set in windows, each with the row that it begins at; rows within one count from there."""
    for start, stop in bounds(len(score_set)):
        parts = score_set.parts
        yield (
            start,
            replace(
                score_set,
                accounts=_rows(score_set.accounts, start, stop),
                values=_rows(score_set.values, start, stop),
                earlier=_rows(score_set.earlier, start, stop),
                parts=parts.rows(start, stop) if isinstance(parts, StoredParts) else {one: own[start:stop] for one, own in parts.items()},
                assignments=score_set.assignments.slice(start, stop),
                supplies=score_set.supplies.slice(start, stop),
                fragments=None,
                memory={},
            ),
        )


def _rows(columns: Columns, start: int, stop: int) -> Columns:
    if isinstance(columns, StoredColumns):
        return columns.rows(start, stop)
    return {name: column[start:stop] for name, column in columns.items()}
