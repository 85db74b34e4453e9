"""Health: one measure of an account for the vendor and all partners.

`health = 50 - 10 * log2(odds of churn / reference odds)`, cut to 0..100 and rounded half up. 50 is the average of the reference book,
and every 10 points halve the odds of churn. The reference odds are frozen when the definition is published, at the first scoring of a
workspace, and outlive retrained models: a health of 40 means the same this year and next.
"""

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from features.errors import WorkspaceError, explain
from features.ledger import replace_file

__all__ = [
    "AMBER_FROM",
    "AMBER_TO",
    "BANDS",
    "Band",
    "HealthDefinition",
    "band_of",
    "exact_health",
    "health_of",
    "health_points",
    "published_definition",
]

Band = Literal["red", "amber", "green"]
BANDS: tuple[Band, ...] = ("red", "amber", "green")

AMBER_FROM, AMBER_TO = 40, 60
"""The amber band, both ends included; red lies below it and green above."""

_AVERAGE = 50
_POINTS_PER_HALVING = 10


@dataclass(frozen=True, kw_only=True)
class HealthDefinition:
    """What health 50 stands for.

    Parameters
    ----------
    version
        Rises by one with each new publication.
    reference_odds
        Odds of churn of the reference book's average account.
    published
        The cutoff whose book is the reference, UTC, in ISO 8601.
    accounts
        How many accounts the reference book had.
    """

    version: int
    reference_odds: float
    published: str
    accounts: int

    @property
    def reference_probability(self) -> float:
        """Probability of churn at health 50."""
        return self.reference_odds / (1.0 + self.reference_odds)

    @property
    def published_at(self) -> datetime:
        """The cutoff whose book is the reference, UTC."""
        return datetime.fromisoformat(self.published)


def health_of(probability: npt.NDArray[np.float64], definition: HealthDefinition) -> npt.NDArray[np.int64]:
    """Return the health `(n,)`, 0 to 100, of accounts with these probabilities of churn `(n,)`.

    Examples
    --------
    >>> definition = HealthDefinition(version=1, reference_odds=1 / 29, published="2024-01-01T00:00:00", accounts=100)
    >>> health_of(np.array([0.0, 1 / 30, 2 / 31, 1.0]), definition).tolist()
    [100, 50, 40, 0]
    """
    with np.errstate(divide="ignore"):
        log_odds = np.log2(probability) - np.log2(1.0 - probability)
    exact = _AVERAGE - _POINTS_PER_HALVING * (log_odds - math.log2(definition.reference_odds))
    # 1e-9 keeps a point that is exactly half in real numbers from falling to the error of the logarithm
    rounded: npt.NDArray[np.int64] = np.floor(np.clip(exact, 0.0, 100.0) + 0.5 + 1e-9).astype(np.int64)
    return rounded


def exact_health(log_odds: float, definition: HealthDefinition) -> float:
    """Return the health of an account with these log-odds of churn as the formula has it: not rounded, and not cut to 0..100.

    Examples
    --------
    >>> definition = HealthDefinition(version=1, reference_odds=0.25, published="2024-01-01T00:00:00", accounts=100)
    >>> exact_health(math.log(0.5), definition)
    40.0
    """
    return _AVERAGE + health_points(log_odds - math.log(definition.reference_odds))


def health_points(log_odds: float) -> float:
    """Return the points of health, before any cut, that so many log-odds of churn give; negative for log-odds that rise.

    Examples
    --------
    >>> health_points(math.log(2))
    -10.0
    """
    return -_POINTS_PER_HALVING * log_odds / math.log(2)


def band_of(health: int) -> Band:
    """Return the band of a rounded health.

    Examples
    --------
    >>> [band_of(health) for health in (39, 40, 60, 61)]
    ['red', 'amber', 'amber', 'green']
    """
    if health < AMBER_FROM:
        return "red"
    return "amber" if health <= AMBER_TO else "green"


def published_definition(path: Path, churn: npt.NDArray[np.float64], cutoff: datetime) -> HealthDefinition:
    """Return the definition in the file; the first call publishes it with the average of these probabilities of churn `(n,)`.

    Raises
    ------
    WorkspaceError
        If the file is damaged. It is never made anew on its own, because every health would silently change its meaning.
    """
    if path.exists():
        return _read(path)
    average = float(churn.mean())
    definition = HealthDefinition(version=1, reference_odds=average / (1.0 - average), published=cutoff.isoformat(), accounts=len(churn))
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(definition), indent=1), encoding="utf-8")
    return definition


def _read(path: Path) -> HealthDefinition:
    try:
        definition = HealthDefinition(**json.loads(path.read_text(encoding="utf-8")))
        usable = definition.published_at is not None and math.isfinite(definition.reference_odds) and definition.reference_odds > 0
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error
    if not usable:
        raise _damaged(path)
    return definition


def _damaged(path: Path) -> WorkspaceError:
    return WorkspaceError(
        explain(
            "the published definition of health is damaged",
            given=path,
            allowed="version, reference_odds > 0, published, accounts",
            todo="Restore the file from a backup; delete it only if every health may change its meaning.",
        )
    )
