"""Drivers of many scores at once.

Which features form a driver is fixed for a model, so the parts of all rows are summed by driver and ranked in a few steps over whole
columns. `serving.scores.reasons.explain_score` does the same for one score, object by object; both give the same numbers to the last digit,
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
from serving.scores.reasons import likeness, log_odds, log_odds_slope
from training.calibration import Calibrator

__all__ = ["Calibrated", "DriverGroups", "RankedParts", "slope"]

_FEW = 8
"""Below so many rows, plain numbers are faster than arrays."""

Numbers = npt.NDArray[np.float64]

_NEARLY_EQUAL = 1e-6


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A raw score in log-odds, and the probability that its calibrator gives it."""

    raw: float
    probability: float


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

    def rank(self, parts: Numbers) -> list["RankedParts"]:
        """Sum the parts of each row `(n, n_features)` by driver and order the drivers by size; of equal ones the first comes first."""
        if len(parts) < _FEW:
            return [self._rank_one(row) for row in parts.tolist()]
        sums = self.sums(parts)
        order = np.argsort(-np.abs(sums), axis=1, kind="stable")
        return [RankedParts(self, *row) for row in zip(parts.tolist(), sums.tolist(), order.tolist(), strict=True)]

    def leads(self, parts: Numbers, visible: Sequence[bool], *, most: int) -> npt.NDArray[np.intp]:
        """Return for each row `(n, n_features)` of parts the driver to look at first, of the largest visible ones; -1 where none is.

        It is the largest that somebody can act on, one that raises the risk first, or the largest of all; see
        `serving.scores.explained.lead_of`, which chooses among drivers that have their words.
        """
        sums = self.sums(parts)
        sizes = np.where(visible, np.abs(sums), 0.0)
        named = np.argsort(-sizes, axis=1, kind="stable")[:, :most]
        there = np.take_along_axis(sizes, named, axis=1) > 0.0
        actionable = there & np.array(self.actionable)[named]
        can_act = np.where(actionable.any(axis=1, keepdims=True), actionable, there)
        raising = can_act & (np.take_along_axis(sums, named, axis=1) > 0.0)
        chosen = np.where(raising.any(axis=1), raising.argmax(axis=1), can_act.argmax(axis=1))
        return np.where(there.any(axis=1), named[np.arange(len(named)), chosen], -1)

    def largest_first(self, driver: int, parts: Sequence[float]) -> Sequence[int]:
        """Return the features of a driver, the largest part first, given the parts `(n_features,)` of all features."""
        members = self.members[driver]
        return members if len(members) == 1 else sorted(members, key=lambda member: -abs(parts[member]))

    def _rank_one(self, parts: list[float]) -> "RankedParts":
        """Do for one row, with plain numbers, what costs many times as much with arrays."""
        sums = [parts[members[0]] if len(members) == 1 else math.fsum([parts[member] for member in members]) for members in self.members]
        sizes = [abs(part) for part in sums]
        return RankedParts(self, parts, sums, sorted(range(len(sums)), key=sizes.__getitem__, reverse=True))

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


@dataclass(frozen=True, eq=False, slots=True)
class RankedParts:
    """The parts of one raw score in log-odds, summed by driver and ranked by size.

    Parameters
    ----------
    parts
        Of each feature.
    sums
        Of each driver.
    order
        The drivers, the largest first.
    """

    groups: DriverGroups
    parts: list[float]
    sums: list[float]
    order: list[int]

    def named(self, visible: Sequence[bool], *, most: int) -> list[int]:
        """Return the largest drivers that are visible and not zero, the largest first."""
        found: list[int] = []
        for driver in self.order:
            if len(found) == most or self.sums[driver] == 0.0:
                break
            if visible[driver]:
                found.append(driver)
        return found

    def members(self, driver: int) -> Sequence[int]:
        """Return the features of a driver, the largest part first."""
        return self.groups.largest_first(driver, self.parts)

    def others(self, named: Collection[int], *, most: int) -> list[str]:
        """Return the names of the features that belong to none of the named drivers, those of the largest driver first."""
        found: list[str] = []
        for driver in self.order:
            if len(found) >= most:
                break
            if driver not in named:
                found += [self.groups.names[member] for member in self.members(driver)]
        return found[:most]

    def merged(self, named: Iterable[int]) -> float:
        """Return the exact sum of all parts but those of the named drivers, rounded once."""
        members = self.groups.members
        return math.fsum([*self.parts, *[-self.parts[member] for driver in named for member in members[driver]]])

    def hidden(self, visible: Sequence[bool]) -> list[float]:
        """Return the parts of the features whose drivers are not visible."""
        return [self.parts[member] for driver, members in enumerate(self.groups.members) if not visible[driver] for member in members]


def slope(calibrator: Calibrator, base: "Calibrated", account: "Calibrated") -> float:
    """Return the calibrated log-odds gained per raw log-odds between the base and the raw score.

    See `serving.scores.reasons.log_odds_slope`, which does it without knowing the probabilities at both ends.
    """
    if abs(account.raw - base.raw) <= _NEARLY_EQUAL:
        return log_odds_slope(calibrator, base.raw, account.raw)
    return (log_odds(account.probability) - log_odds(base.probability)) / (account.raw - base.raw)
