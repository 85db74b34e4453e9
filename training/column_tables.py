"""A model's boughs laid out for many rows at a time: a block of rows goes from bough to bough, column by column.

A value is first replaced by its *rank*: how many of all the numbers that the model cuts its feature at it is above. What a bough asks is
then a comparison of bytes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.boughs import Bough, Classes
from training.leaves import OTHERS

__all__ = ["ColumnTables"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[Any]

_BLOCK = 16_384
"""Rows of a block: enough that calls cost little, and few enough that its columns stay near the processor."""


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Ranks of one feature: one more than how many of the cuts `(n_cuts,)` a value is above; for a missing one each of `missing`."""

    feature: int
    cuts: Array
    missing: tuple[int, ...]

    def codes(self, matrix: Array) -> Iterator[Codes]:
        """Return the ranks `(n,)` of the feature in encoded rows `(n, n_features)`, once for each rank of a missing value."""
        values = matrix[:, self.feature]
        ranks = (self.cuts.searchsorted(values) + 1).astype(np.min_scalar_type(len(self.cuts) + 2))
        missing = np.isnan(values)
        for rank in self.missing:
            ranks[missing] = rank
            yield ranks.copy()

    def rank(self, cut: float) -> int:
        """Return the rank that exactly the values above a cut are above; all numbers are above `-inf`, and missing values are not."""
        return 0 if cut == -np.inf else int(self.cuts.searchsorted(cut)) + 1


@dataclass(frozen=True, eq=False)
class _Levels:
    """Levels of one feature: their codes, and `known` for any other."""

    feature: int
    known: int
    missing: tuple[int, ...] = (0,)

    def codes(self, matrix: Array) -> Iterator[Codes]:
        """Return the levels `(n,)` of the feature in encoded rows `(n, n_features)`."""
        values = matrix[:, self.feature]
        yield np.where((values >= 0) & (values < self.known), values, self.known).astype(np.intp)

    def spread(self, classes: Classes, weight: int) -> npt.NDArray[np.intp]:
        """Return by code what a level adds to the number of a pattern."""
        assert classes.levels is not None
        return np.array([classes.levels.get(level, classes.levels[OTHERS]) * weight for level in (*range(self.known), OTHERS)])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lookup:
    """One bough.

    Parameters
    ----------
    cuts
        Codes, by their place, the rank that they have to be above, and what is added to the number of the pattern if they are.
    levels
        Codes, by their place, and what each of them adds.
    entries
        What is added to, a feature or the number of features for the raw score, and what is added under each pattern.
    code
        The type of a pattern's number.
    """

    cuts: tuple[tuple[int, int, int], ...]
    levels: tuple[tuple[int, Codes], ...]
    entries: tuple[tuple[int, Array], ...]
    code: np.dtype[Any]


class _Desk:
    """Room for what a block of rows has in hand at a bough, so that nothing is allocated there."""

    def __init__(self, rows: int) -> None:
        self.above = np.empty(rows, dtype=bool)
        self.number = {size: np.empty(rows, dtype=size) for size in (np.dtype(np.uint8), np.dtype(np.uint16))}
        self.added = {size: np.empty(rows, dtype=size) for size in self.number}
        self.pattern = np.empty(rows, dtype=np.intp)
        self.found = np.empty(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnTables:
    """A model's boughs, laid out for many rows at a time."""

    features: int
    codes: tuple[_Ranks | _Levels, ...]
    boughs: tuple[_Lookup, ...]

    def totals(self, matrix: Array, *, threads: int) -> Array:
        """Return `(n, n_features + 1)` the parts of encoded rows `(n, n_features)` and last their raw scores, summed as for one row."""
        totals = np.empty((len(matrix), self.features + 1))
        starts = range(0, len(matrix), _BLOCK)

        def fill(start: int) -> None:
            totals[start : start + _BLOCK] = self._block(matrix[start : start + _BLOCK]).T

        if threads == 1 or len(starts) == 1:
            for start in starts:
                fill(start)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, starts))
        return totals

    def _block(self, matrix: Array) -> Array:
        codes = [codes for each in self.codes for codes in each.codes(matrix)]
        totals = np.zeros((self.features + 1, len(matrix)))
        desk = _Desk(len(matrix))
        for bough in self.boughs:
            np.copyto(desk.pattern, _patterns(bough, codes, desk))
            for player, table in bough.entries:
                np.take(table, desk.pattern, out=desk.found, mode="clip")  # any other mode takes a detour; no pattern is out of range
                np.add(totals[player], desk.found, out=totals[player])
        return totals

    @classmethod
    def of(cls, boughs: Sequence[Bough], table: Array, features: int) -> "ColumnTables":
        """Lay out boughs, of which `training.boughs.tabulated` gives the table; the lookups are views of it."""
        plan = _Plan(boughs)
        tables = np.split(table, np.cumsum([bough.numbers for bough in boughs])[:-1])
        lookups = tuple(plan.lookup(bough, own.reshape(-1, bough.patterns), features) for bough, own in zip(boughs, tables, strict=True))
        return cls(features=features, codes=plan.codes, boughs=lookups)


def _patterns(bough: _Lookup, codes: Sequence[Codes], desk: _Desk) -> Codes:
    """Return the number of each row's pattern."""
    number, added = desk.number[bough.code], desk.added[bough.code]
    number.fill(0)
    for place, rank, weight in bough.cuts:
        np.greater(codes[place], rank, out=desk.above)
        np.multiply(desk.above.view(np.uint8), weight, out=added, dtype=bough.code)
        np.add(number, added, out=number)
    for place, adds in bough.levels:
        np.add(number, adds.take(codes[place]), out=number)
    return number


class _Plan:
    """Which codes the boughs need, and how a bough reads them."""

    def __init__(self, boughs: Sequence[Bough]) -> None:
        asked: dict[int, list[Classes]] = {}
        for bough in boughs:
            for feature, classes in bough.classes.items():
                asked.setdefault(feature, []).append(classes)
        self.codes = tuple(_codes(feature, own) for feature, own in asked.items())
        self._of = {codes.feature: codes for codes in self.codes}
        places = [(codes.feature, missing > 0) for codes in self.codes for missing in codes.missing]
        self._place = {key: place for place, key in enumerate(places)}

    def lookup(self, bough: Bough, table: Array, features: int) -> _Lookup:
        """Return how a bough is looked up."""
        weights, code = bough.weights, np.dtype(np.min_scalar_type(bough.patterns - 1))
        cuts, levels = [], []
        for feature, classes in bough.classes.items():
            place, codes = self._place[feature, classes.missing > 0], self._of[feature]
            if isinstance(codes, _Ranks):
                cuts += [(place, codes.rank(cut), weights[feature]) for cut in classes.cuts]
            else:
                levels.append((place, codes.spread(classes, weights[feature]).astype(code)))
        entries = zip((*bough.classes, features), table, strict=True)
        return _Lookup(cuts=tuple(cuts), levels=tuple(levels), entries=tuple(entries), code=code)


def _codes(feature: int, asked: Sequence[Classes]) -> _Ranks | _Levels:
    if any(classes.levels is not None for classes in asked):
        return _Levels(feature, max(max(classes.levels or ()) for classes in asked) + 1)
    cuts = np.unique([cut for classes in asked for cut in classes.cuts if cut > -np.inf])
    return _Ranks(feature, cuts, tuple(len(cuts) + 2 if highest else 0 for highest in {classes.missing > 0 for classes in asked}))
