"""A level of its own for a segment in which the outcome is more or less common than the calibrator says.

The model knows the segments, so that most books need none of this. It is done only where a segment has enough of both outcomes and other
accounts confirm it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

from training.calibration import Array, Calibrator, Labels, clustered_mean, level_at, level_folds, row_losses, share

__all__ = ["SegmentLevels", "fit_segment_levels", "segment_levels_from_json"]

_EVENTS = 100
"""Rows of either outcome that a segment needs to be given a level of its own."""

_PARTS = 5


@dataclass(frozen=True)
class SegmentLevels:
    """How much higher or lower a calibrator is to be in some segments.

    Within a segment the probability stays a strictly rising function of the raw score; across segments it is not one any more.

    Parameters
    ----------
    feature
        The category feature whose levels are the segments.
    shifts
        Log-odds by which the calibrator is higher in a segment.
    other
        The same for all segments that are not among them, and for rows that have none.

    Examples
    --------
    >>> from training.calibration import PlattCalibrator
    >>> levels = SegmentLevels(feature="segment", shifts={"small": 0.5}, other=-0.1)
    >>> levels.calibrator(PlattCalibrator(slope=1.0, intercept=0.0), "small")
    PlattCalibrator(slope=1.0, intercept=0.5)
    """

    feature: str
    shifts: Mapping[str, float]
    other: float

    def shift(self, level: object) -> float:
        """Return the log-odds for one level of the feature, which may be missing."""
        return self.shifts.get(level, self.other) if isinstance(level, str) else self.other

    def calibrator(self, base: Calibrator, level: object) -> Calibrator:
        """Return the calibrator of the rows of one level."""
        return base.shifted(self.shift(level))

    def probability(self, base: Calibrator, raw: Array, levels: Labels) -> Array:
        """Return the probability for raw scores and levels of the feature, `(n,)` each."""
        found: Array = expit(base.log_odds(raw) + self._of(levels))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what `segment_levels_from_json` reads."""
        return {"feature": self.feature, "shifts": dict(self.shifts), "other": self.other}

    def _of(self, levels: Labels) -> Array:
        return np.array([self.shift(level) for level in levels])


def segment_levels_from_json(data: Mapping[str, Any]) -> SegmentLevels:
    """Make levels from what their `to_json` returned.

    Raises
    ------
    KeyError
        If a part is missing.
    """
    shifts = {str(level): float(shift) for level, shift in data["shifts"].items()}
    return SegmentLevels(feature=str(data["feature"]), shifts=shifts, other=float(data["other"]))


def fit_segment_levels(
    calibrator: Calibrator, raw: Array, target: Array, *, feature: str, levels: Labels, folds: Labels, accounts: Labels
) -> SegmentLevels | None:
    """Find the segments in which the outcome is more or less common than the calibrator says.

    A segment is given a level of its own if it has at least 100 positives and 100 negatives, and if that level, estimated on four fifths
    of its accounts, lowers the log loss on the others by more than the standard error over accounts. An estimated shift is shrunk by the
    share of it that is noise (James and Stein, positive part).

    Parameters
    ----------
    feature, levels
        A category feature and its values `(n,)`; missing ones belong to no segment.
    raw, target, folds, accounts
        As for `choose_calibrator`.

    Returns
    -------
    None if no segment has a level of its own.
    """
    log_odds = level_folds(calibrator.log_odds(raw), target, folds)
    shifts = {}
    for level in sorted({level for level in levels if isinstance(level, str)}):
        rows = levels == level
        if _has_own_level(log_odds[rows], target[rows], accounts[rows]):
            shifts[level] = _shrunk_shift(log_odds[rows], target[rows], accounts[rows])
    if not any(shifts.values()):
        return None
    found = SegmentLevels(feature=feature, shifts=shifts, other=0.0)
    other = level_at(logit(found.probability(calibrator, raw, levels)), float(calibrator.probability(raw).mean()))
    return SegmentLevels(feature=feature, shifts={level: shift + other for level, shift in shifts.items()}, other=other)


def _has_own_level(log_odds: Array, target: Array, accounts: Labels) -> bool:
    events = min(target.sum(), len(target) - target.sum())
    parts = min(_PARTS, len(np.unique(accounts)))
    if events < _EVENTS or parts < 2:
        return False
    gains = np.empty_like(target)
    for kept, held in GroupKFold(parts).split(log_odds, target, accounts):
        shift = _shrunk_shift(log_odds[kept], target[kept], accounts[kept])
        gains[held] = row_losses(log_odds[held], target[held]) - row_losses(log_odds[held] + shift, target[held])
    gain, error = clustered_mean(gains, accounts)
    return gain > error


def _shrunk_shift(log_odds: Array, target: Array, accounts: Labels) -> float:
    shift = level_at(log_odds, share(target))
    probability = expit(log_odds + shift)
    _, error = clustered_mean(target - probability, accounts)
    noise = error / float((probability * (1 - probability)).mean())
    return shift * max(0.0, 1 - (noise / shift) ** 2) if shift else 0.0
