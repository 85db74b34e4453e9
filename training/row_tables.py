"""A model's boughs laid out for one row at a time: all of them are looked up at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from training.boughs import Bough
from training.leaves import OTHERS

__all__ = ["RowTables"]

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Cut:
    """What adds to the number of a pattern: being above a number, or, without one, a level."""

    feature: int = 0
    at: float = math.inf
    missing: bool = False
    weight: int = 0
    levels: Mapping[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RowTables:
    """A model's boughs, laid out for one row at a time.

    Parameters
    ----------
    feature, cut, missing, weight
        `(n_cuts,)`: a value that is above `cut`, or is missing where `missing` holds, adds `weight` to the number of its bough's pattern.
        The cuts of a bough stand together, the boughs in the order of their trees. A category has one, which no value is above.
    category, added
        The places of the categories among the cuts, and `(n_categories, n_levels + 1)` what each level adds; the last is any other.
    first
        `(n_boughs,)` where each bough's cuts begin.
    player, bough, start
        `(n_entries,)` what the numbers of an entry are added to: a feature, or the number of features for the raw score; the entry's
        bough; and where in `table` its numbers begin, one a pattern.
    """

    features: int
    feature: Places
    cut: Array
    missing: npt.NDArray[np.bool_]
    weight: Places
    category: Places
    added: Places
    first: Places
    player: Places
    bough: Places
    start: Places
    table: Array

    def totals(self, values: Array) -> Array:
        """Return `(n_features + 1,)` an encoded row's parts and last its raw score, summed in the order of the trees."""
        numbers = self.table.take(self._patterns(values).take(self.bough) + self.start)
        return np.bincount(self.player, numbers, self.features + 1).astype(np.float64, copy=False)

    def _patterns(self, values: Array) -> Places:
        """Return the number of the row's pattern in each bough."""
        asked = values.take(self.feature)
        above = asked > self.cut
        above |= self.missing & np.isnan(values).take(self.feature)
        counted = above * self.weight
        if len(self.category):
            level = asked[self.category]
            known = self.added.shape[1] - 1
            code = np.where((level >= 0) & (level < known), level, known).astype(np.intp)
            counted[self.category] = self.added[np.arange(len(code)), code]
        patterns: Places = np.add.reduceat(counted, self.first)
        return patterns

    @classmethod
    def of(cls, boughs: Sequence[Bough], table: Array, features: int) -> "RowTables":
        """Lay out boughs, of which `training.boughs.tabulated` gives the table."""
        asked = [_cuts(bough) for bough in boughs]
        cuts = [cut for own in asked for cut in own]
        levels = [cut.levels for cut in cuts if cut.levels is not None]
        players = [player for bough in boughs for player in (*bough.classes, features)]
        of_bough = [number for number, bough in enumerate(boughs) for _ in range(len(bough.classes) + 1)]
        return cls(
            features=features,
            feature=np.array([cut.feature for cut in cuts], dtype=np.intp),
            cut=np.array([cut.at for cut in cuts]),
            missing=np.array([cut.missing for cut in cuts]),
            weight=np.array([cut.weight for cut in cuts], dtype=np.intp),
            category=np.array([place for place, cut in enumerate(cuts) if cut.levels is not None], dtype=np.intp),
            added=_added(levels),
            first=np.array(list(accumulate(map(len, asked), initial=0))[:-1], dtype=np.intp),
            player=np.array(players, dtype=np.intp),
            bough=np.array(of_bough, dtype=np.intp),
            start=np.array(list(accumulate((boughs[number].patterns for number in of_bough), initial=0))[:-1], dtype=np.intp),
            table=table,
        )


def _cuts(bough: Bough) -> list[_Cut]:
    """Return a bough's cuts; one that adds nothing if it has no questions, being a tree without splits."""
    weights, cuts = bough.weights, []
    for feature, classes in bough.classes.items():
        weight = weights[feature]
        if classes.levels is None:
            cuts += [_Cut(feature, at, classes.missing > 0, weight) for at in classes.cuts]
        else:
            cuts.append(_Cut(feature, levels={level: number * weight for level, number in classes.levels.items()}))
    return cuts or [_Cut()]


def _added(categories: Sequence[Mapping[int, int]]) -> Places:
    known = max((max(levels) for levels in categories), default=OTHERS) + 1
    added = np.empty((len(categories), known + 1), dtype=np.intp)
    for row, levels in enumerate(categories):
        added[row] = levels[OTHERS]
        for level in levels.keys() - {OTHERS}:
            added[row, level] = levels[level]
    return added
