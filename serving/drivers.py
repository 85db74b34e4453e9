"""Drivers of many scores at once.

Which features form a driver is fixed for a model, so the parts of all rows are summed by driver and ranked in a few steps over whole
columns. `serving.reasons.explain_score` does the same for one score, object by object; both give the same numbers to the last digit,
in one row and in many, because every sum is rounded once (`math.fsum`).
"""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from features.feature import Feature
from serving.reasons import likeness, log_odds
from training.calibration import Calibrator

__all__ = ["DriverGroups", "RankedParts", "slopes"]

Numbers = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

_NEARLY_EQUAL = 1e-6


@dataclass(frozen=True, eq=False)
class DriverGroups:
    """Which features of a model form one driver.

    Parameters
    ----------
    features
        In the order of the model's columns.
    members
        For each driver the positions of its features; drivers in the order of their first feature.
    """

    features: tuple[Feature, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, features: Iterable[Feature], *, audience_of: Callable[[Feature], Hashable] | None = None) -> "DriverGroups":
        """Group features that say nearly the same over different windows and have the same audience."""
        listed = tuple(features)
        groups: dict[Hashable, list[int]] = {}
        for position, feature in enumerate(listed):
            groups.setdefault(likeness(feature, audience_of), []).append(position)
        return cls(listed, tuple(tuple(members) for members in groups.values()))

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def actionable(self) -> tuple[bool, ...]:
        """For each driver, whether somebody can act on one of its features."""
        return tuple(any(self.features[member].actionable for member in members) for members in self.members)

    def sums(self, parts: Numbers) -> Numbers:
        """Return the drivers' parts `(n, n_drivers)`, given the features' `(n, n_features)`; each sum is exact, rounded once."""
        sums = parts[:, self._first]
        pairs, second = self._second
        sums[:, pairs] += parts[:, second]
        many, members, spans = self._many
        sums[:, many] = [[math.fsum(row[start:end]) for start, end in spans] for row in parts[:, members].tolist()]
        return sums

    def rank(self, parts: Numbers) -> "RankedParts":
        """Sum parts `(n, n_features)` by driver and order the drivers by size; of equal ones the first comes first."""
        sums = self.sums(parts)
        order = np.argsort(-np.abs(sums), axis=1, kind="stable")
        return RankedParts(groups=self, parts=parts, sums=sums, order=order)

    @cached_property
    def _first(self) -> list[int]:
        return [members[0] for members in self.members]

    @cached_property
    def _second(self) -> tuple[list[int], list[int]]:
        pairs = [driver for driver, members in enumerate(self.members) if len(members) == 2]
        return pairs, [self.members[driver][1] for driver in pairs]

    @cached_property
    def _many(self) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """Return the drivers of more than two features, their features one after the other, and where each driver's start and end."""
        many = [driver for driver, members in enumerate(self.members) if len(members) > 2]
        ends = list(accumulate(len(self.members[driver]) for driver in many))
        return many, [member for driver in many for member in self.members[driver]], list(pairwise([0, *ends]))


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedParts:
    """The parts of `n` raw scores, summed by driver and ranked by size.

    Parameters
    ----------
    parts
        `(n, n_features)` log-odds.
    sums
        `(n, n_drivers)` log-odds.
    order
        `(n, n_drivers)` drivers, the largest first.
    """

    groups: DriverGroups
    parts: Numbers
    sums: Numbers
    order: Positions

    def named(self, row: int, visible: Sequence[bool], *, most: int) -> list[int]:
        """Return the largest drivers of a row that are visible and not zero, the largest first."""
        sums = self.sums[row].tolist()
        found: list[int] = []
        for driver in self.order[row].tolist():
            if len(found) == most or sums[driver] == 0.0:
                break
            if visible[driver]:
                found.append(driver)
        return found

    def members(self, row: int, drivers: Sequence[int]) -> list[list[int]]:
        """Return the features of some drivers of a row, the largest part of each first."""
        return [self._by_size(row, driver) for driver in drivers]

    def others(self, row: int, named: Collection[int], *, most: int) -> list[str]:
        """Return the names of the features that belong to none of the named drivers, those of the largest driver first."""
        found: list[str] = []
        for driver in self.order[row].tolist():
            if len(found) >= most:
                break
            if driver not in named:
                found += [self.groups.names[member] for member in self._by_size(row, driver)]
        return found[:most]

    def merged(self, row: int, named: Iterable[int]) -> float:
        """Return the exact sum of all parts of a row but those of the named features, rounded once."""
        parts = self.parts[row].tolist()
        return math.fsum([*parts, *(-parts[member] for member in named)])

    def _by_size(self, row: int, driver: int) -> list[int]:
        members = self.groups.members[driver]
        if len(members) == 1:
            return list(members)
        parts = self.parts[row]
        return sorted(members, key=lambda member: -abs(parts[member]))


def slopes(calibrator: Calibrator, base: Numbers, raw: Numbers) -> list[float]:
    """Return for each row `(n,)` the calibrated log-odds gained per raw log-odds between the base and the raw score.

    See `serving.reasons.log_odds_slope`, which does it for one row.
    """
    end = np.where(np.abs(raw - base) > _NEARLY_EQUAL, raw, base + 1e-3)
    low, high = calibrator.probability(base).tolist(), calibrator.probability(end).tolist()
    run = (end - base).tolist()
    return [(log_odds(after) - log_odds(before)) / along for before, after, along in zip(low, high, run, strict=True)]
