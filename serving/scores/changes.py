"""What changed between two scores of an account, split exactly into its features and the model.

With the older model `f0` and its calibrator `c0` on the older values `x0`, and the newer `f1` and `c1` on `x1`, the calibrated log-odds
`L = logit c(f(x))` move by

    L1(x1) - L0(x0) = [L1(x1) - L1(x0)]  +  [L1(x0) - L0(x0)]
                       the features           the model

The features' part is split by the differences of the exact TreeSHAP parts, `phi1(x1) - phi1(x0)`, which add up to `f1(x1) - f1(x0)`, times
the slope of the calibrator's chord between the two raw scores. Where the calibrator has a level of its own for some segments, what a move
to another segment adds is the segment's. Health is linear in the log-odds of churn, so all of it holds in points of health too; a new
definition of health, and the cut to 0..100, are parts of their own.

A feature that the older score set does not hold is taken as it is now: what it does counts as the newer model's, which reads more.

But: the parts say what the model reacts to, not what made the customer change.
"""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress

import numpy as np
import numpy.typing as npt

from features.errors import PackageError, explain
from features.feature import Feature, Target
from serving.health import HealthDefinition, exact_health, health_points
from serving.scores.reasons import Contribution, Driver, group_drivers
from training.calibration import Calibrator
from training.package import Package

__all__ = ["HealthMove", "Move", "Standing", "apportion", "health_move", "log_odds_of", "score_move"]

Array = npt.NDArray[np.float64]
Value = float | str | None
Values = Mapping[str, Value]
AudienceOf = Callable[[Feature], Hashable]

_NEARLY_EQUAL = 1e-9
_ROUNDING = 1e-5
"""Log-odds that two ways to the same score may differ by, of which most is lost where a probability is nearly 0 or 1."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An account as of one cutoff: its features, and what was said of it.

    Parameters
    ----------
    score_set
        The version of the score set that said so; None for what was never said: values of the past that a later model scores, or a what-if.
    cutoff, scored_at
        UTC; `scored_at` is None for what was never said.
    definition
        What the health of that score set means.
    log_odds, probability
        Calibrated, by target.
    models
        By target, the hash of the package behind it.
    supplied
        By feature, the partners whose data the value was made from; see `serving.permissions.supplies`.
    """

    account_id: str
    score_set: str | None
    cutoff: datetime
    scored_at: datetime | None
    health: int
    definition: HealthDefinition
    values: Values
    log_odds: Mapping[Target, float]
    probability: Mapping[Target, float]
    models: Mapping[Target, str]
    supplied: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Move:
    """How one target's calibrated log-odds moved: `before + sum of the drivers' parts + model = after`.

    Parameters
    ----------
    contributions
        One a feature, parts in calibrated log-odds; the `value` is the newer one, `earlier` the older.
    model
        Log-odds that the newer model alone moved, on the older values; exactly 0 if it is the same model.
    new_features
        Features that the newer model reads and the older score set does not hold.
    older, newer
        The newer model's parts of the older and of the newer values, raw log-odds: what the contributions are the difference of.
    """

    target: Target
    before: float
    after: float
    contributions: tuple[Contribution, ...]
    model: float
    same_model: bool
    new_features: tuple[str, ...]
    older: tuple[float, ...]
    newer: tuple[float, ...]

    def drivers(self, audience_of: AudienceOf | None = None) -> tuple[Driver, ...]:
        """Return the contributions as drivers, the largest absolute part first; see `serving.scores.reasons.group_drivers`."""
        return group_drivers(self.contributions, slope=1.0, audience_of=audience_of)

    def beside(self, names: Collection[str]) -> tuple[list[float], list[float]]:
        """Return these features' parts of the older and of the newer values, which lead to those of the move by subtraction."""
        wanted = [contribution.feature.name in names for contribution in self.contributions]
        return list(compress(self.older, wanted)), list(compress(self.newer, wanted))


@dataclass(frozen=True, kw_only=True)
class HealthMove:
    """How health moved, in points: `features + model + definition + cut` is the exact move of the health that was shown.

    Parameters
    ----------
    before, after
        As shown: cut to 0..100 and rounded.
    definition
        What a new definition of health did by itself.
    cut
        What cutting to 0..100 took away, or gave back.
    """

    before: int
    after: int
    features: float
    model: float
    definition: float
    cut: float

    @property
    def exact(self) -> float:
        """The move before rounding."""
        return math.fsum((self.features, self.model, self.definition, self.cut))


def score_move(package: Package, *, before: Standing, after: Standing) -> Move:
    """Split the move of the target that the newer package scores.

    Parameters
    ----------
    before, after
        `after` was scored by this package; `before` by any that has the target.

    Raises
    ------
    PackageError
        If `after` was not scored by this package.
    """
    target = package.target
    new = tuple(name for name in package.features if name not in before.values)
    older = {**before.values, **{name: after.values[name] for name in new}}
    parts = package.explain_matrix(package.encode_rows([older, after.values]))
    at_older, at_newer = (package.calibrator_at(values.get) for values in (older, after.values))
    raw_newer, differences = math.fsum(parts[1]), parts[1, :-1] - parts[0, :-1]
    raw_older = raw_newer - math.fsum(differences)
    same_model = before.models.get(target) == package.hash and not new
    middle = before.log_odds[target] if same_model else _at(at_older, raw_older)
    own = _slope(at_newer, raw_older, raw_newer) * differences
    if package.levels is not None:
        own[package.features.index(package.levels.feature)] += _at(at_newer, raw_older) - _at(at_older, raw_older)
    exact = _adding_up(own, after.log_odds[target] - middle)
    contributions = tuple(
        Contribution(feature=feature, part=part, value=after.values[feature.name], earlier=older[feature.name])
        for feature, part in zip(package.catalogue, exact, strict=True)
    )
    return Move(
        target=target,
        before=before.log_odds[target],
        after=after.log_odds[target],
        contributions=contributions,
        model=middle - before.log_odds[target],
        same_model=same_model,
        new_features=new,
        older=tuple(map(float, parts[0, :-1])),
        newer=tuple(map(float, parts[1, :-1])),
    )


def health_move(churn: Move, *, before: Standing, after: Standing) -> HealthMove:
    """Return the move of health that goes with a move of the log-odds of churn."""
    older, redefined = (exact_health(churn.before, standing.definition) for standing in (before, after))
    newer = exact_health(churn.after, after.definition)
    return HealthMove(
        before=before.health,
        after=after.health,
        features=health_points(math.fsum(contribution.part for contribution in churn.contributions)),
        model=health_points(churn.model),
        definition=redefined - older,
        cut=(_cut(newer) - newer) - (_cut(older) - older),
    )


def apportion(parts: Sequence[float], total: int) -> list[int]:
    """Round parts so that they add up to a whole total: those with the largest remainders are rounded up (Hamilton's method).

    Examples
    --------
    >>> apportion([-5.6, -2.2, -1.9, 0.8], -9)
    [-6, -2, -2, 1]
    """
    rounded = [math.floor(part) for part in parts]
    left = total - sum(rounded)
    by_remainder = sorted(range(len(parts)), key=lambda position: rounded[position] - parts[position])
    for position in by_remainder[:left] if left >= 0 else by_remainder[left:]:
        rounded[position] += 1 if left >= 0 else -1
    return rounded


def log_odds_of(probability: float) -> float:
    """Return log-odds, finite for a probability that was rounded to 0 or 1."""
    bounded = min(max(probability, 1e-300), 1 - 1e-16)
    return math.log(bounded) - math.log1p(-bounded)


def _at(calibrator: Calibrator, raw: float) -> float:
    return float(calibrator.log_odds(np.array([raw]))[0])


def _slope(calibrator: Calibrator, older: float, newer: float) -> float:
    """Return the slope of the chord; of the curve itself where the two are one."""
    end = newer if abs(newer - older) > _NEARLY_EQUAL else older + 1e-6
    return (_at(calibrator, end) - _at(calibrator, older)) / (end - older)


def _adding_up(parts: Array, total: float) -> list[float]:
    """Give what the rounding of floating-point numbers left to the largest part.

    Raises
    ------
    PackageError
        If more is left than that: then the package is not the one that scored the newer values.
    """
    exact = [float(part) for part in parts]
    left = total - math.fsum(exact)
    if abs(left) > _ROUNDING:
        raise PackageError(
            explain("the parts of a score do not lead from one to the other", given=f"{left:+.3g} log-odds are left", todo="Score again.")
        )
    largest = max(range(len(exact)), key=lambda position: abs(exact[position]))
    if exact[largest]:
        exact[largest] += left
    return exact


def _cut(health: float) -> float:
    return min(max(health, 0.0), 100.0)
