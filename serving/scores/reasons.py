"""Why an account scores as it does, as drivers that a CSM can read.

The parts of the raw score are exact (`base + sum(parts) = raw score`), and so are the sums here. Features that say nearly the same over
different windows form one driver, whose part is the sum of theirs. A part is shown as a factor on the calibrated odds: the model's
average account times all factors is the account, so a factor of 1.8 reads "multiplies the odds of leaving by 1.8".
"""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from features.feature import Feature, Sensitivity, Target
from serving.wording import amount, moved, sentence_case
from training.calibration import Calibrator

__all__ = [
    "EVENT",
    "Contribution",
    "Driver",
    "Effect",
    "Explanation",
    "explain_score",
    "group_drivers",
    "likeness",
    "log_odds",
    "log_odds_slope",
    "worded",
]

Effect = Literal["raises", "lowers"]
Value = float | str | None

EVENT: Mapping[Target, str] = {"churn": "leaving", "contraction": "shrinking", "expansion": "growing"}
"""What the target's odds are the odds of, as readers say it."""

_WINDOW = re.compile(r"_\d+d(?=_|$)")
_NEARLY_EQUAL = 1e-6


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """One feature's exact part of one raw score, with the values that put it in perspective.

    Parameters
    ----------
    part
        Log-odds.
    value, earlier
        The account's value at the cutoff, and at the earlier snapshot; None if missing.
    peers
        The median of the account's segment at the cutoff; None for categories and for fewer than ten peers.
    """

    feature: Feature
    part: float
    value: Value = None
    earlier: Value = None
    peers: float | None = None


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Features that say nearly the same, and what they do to the odds together.

    Parameters
    ----------
    members
        Largest part first; the first one gives the driver its words.
    part
        Exact sum of the members' parts, log-odds.
    odds_factor
        What the driver multiplies the calibrated odds by.
    """

    members: tuple[Contribution, ...]
    part: float
    odds_factor: float

    @property
    def main(self) -> Contribution:
        """The member with the largest part."""
        return self.members[0]

    @property
    def sensitivity(self) -> Sensitivity:
        """Who may see it; the same for all members."""
        return self.main.feature.sensitivity

    @property
    def effect(self) -> Effect:
        """Whether it raises or lowers the odds."""
        return "raises" if self.part > 0 else "lowers"

    @property
    def sentence(self) -> str:
        """What the account does, in a CSM's words, without the effect on the odds."""
        said = self.main
        return worded(said.feature, said.value, said.earlier)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A whole score, split into drivers.

    Parameters
    ----------
    raw, base
        The raw score and the model's average, log-odds; `base + sum of the drivers' parts = raw`.
    probability, base_probability
        The same two, calibrated.
    drivers
        All of them, largest absolute part first; those of zero included.
    """

    target: Target
    raw: float
    base: float
    probability: float
    base_probability: float
    drivers: tuple[Driver, ...]


def explain_score(
    target: Target,
    contributions: Iterable[Contribution],
    *,
    base: float,
    raw: float,
    probability: float,
    calibrator: Calibrator,
    audience_of: Callable[[Feature], Hashable] | None = None,
) -> Explanation:
    """Group the parts of one raw score into drivers and measure each on the calibrated odds; see `group_drivers`."""
    return Explanation(
        target=target,
        raw=raw,
        base=base,
        probability=probability,
        base_probability=float(calibrator.probability(np.array([base]))[0]),
        drivers=group_drivers(contributions, slope=log_odds_slope(calibrator, base, raw), audience_of=audience_of),
    )


def group_drivers(
    contributions: Iterable[Contribution], *, slope: float, audience_of: Callable[[Feature], Hashable] | None = None
) -> tuple[Driver, ...]:
    """Group contributions into drivers, the largest absolute part first.

    Parameters
    ----------
    slope
        Calibrated log-odds that a driver gives per unit of its part.
    audience_of
        Features of different audiences are kept apart; without it those of different sensitivity are.
    """
    groups: dict[Hashable, list[Contribution]] = {}
    for contribution in contributions:
        groups.setdefault(likeness(contribution.feature, audience_of), []).append(contribution)
    drivers = [_driver(members, slope) for members in groups.values()]
    return tuple(sorted(drivers, key=lambda driver: -abs(driver.part)))


def log_odds_slope(calibrator: Calibrator, base: float, raw: float) -> float:
    """Return the calibrated log-odds gained per raw log-odds between the base and the raw score.

    On Platt's line it is the line's slope; on a beta calibrator the slope of the chord, so that the factors of all parts together
    lead exactly from the odds at the base to the odds of the account.
    """
    end = raw if abs(raw - base) > _NEARLY_EQUAL else base + 1e-3
    low, high = calibrator.probability(np.array([base, end]))
    return float((log_odds(high) - log_odds(low)) / (end - base))


def worded(feature: Feature, value: Value, earlier: Value) -> str:
    """Fill a feature's sentence template with how its value moved."""
    if value is None:
        return sentence_case(f"{feature.meaning}: not known")
    template = feature.sentence
    said = {"moved": moved(value, earlier, feature.unit)} if "{moved}" in template else {}
    return sentence_case(template.format(**said, value=amount(value, feature.unit)) if "{value}" in template else template.format(**said))


def likeness(feature: Feature, audience_of: Callable[[Feature], Hashable] | None = None) -> Hashable:
    """Return what features of one driver have in common: all but the window they look back over."""
    common = feature.family, _WINDOW.sub("", feature.name), feature.sensitivity
    return common if audience_of is None else (*common, audience_of(feature))


def log_odds(probability: float) -> float:
    """Return the logarithm of the odds of a probability between 0 and 1."""
    return math.log(probability) - math.log1p(-probability)


def _driver(members: list[Contribution], slope: float) -> Driver:
    part = math.fsum(member.part for member in members)
    ranked = tuple(sorted(members, key=lambda member: -abs(member.part)))
    return Driver(members=ranked, part=part, odds_factor=math.exp(slope * part))
