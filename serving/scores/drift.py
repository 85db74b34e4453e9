"""How far the book that is scored has moved away from the rows that the models were trained on.

Each feature is compared by its population stability index, PSI = sum over the bins of (now - then) * ln(now / then), with the bins between
the quantiles that the model's package keeps, one bin for each level of a category, and one for missing values (Siddiqi, Credit Risk
Scorecards, 2006). Below 0.1 is called stable there, above 0.25 moved much; both are conventions. Bins in which fewer than five accounts are
expected are joined, and what n accounts show on average without any drift, (bins - 1) / n, is taken off. What is not seen: features that
move together while each keeps its own distribution.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.feature import Family, Feature
from serving.scores.scoring import Column, ScoreSet
from training.package import Reference

__all__ = ["THRESHOLDS", "Drift", "FamilyDrift", "drift_of", "read_drift", "stability_index", "write_drift"]

THRESHOLDS = (0.1, 0.25)
"""Above the first a feature has moved, above the second much."""

_FILE = "drift.json"
_EXPECTED = 5
"""Accounts that a bin needs."""

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FamilyDrift:
    """How far the features of one family have moved.

    Parameters
    ----------
    largest
        The largest index of its features.
    moved, moved_much
        How many of its features are above the thresholds.
    """

    features: int
    largest: float
    moved: int
    moved_much: int


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a book has moved, by family of features; and by target the average probability, now and where the model was trained."""

    families: Mapping[str, FamilyDrift]
    average: Mapping[str, float]
    trained: Mapping[str, float]


def drift_of(score_set: ScoreSet) -> Drift:
    """Compare the book of a score set with the rows that its models were trained on; of several models, with the one farthest away."""
    by_family: dict[Family, dict[str, float]] = {}
    for name, feature in score_set.features.items():
        column = score_set.values[name]  # of a book that is being scored, each is read from a file
        present = np.sort(column[~_absent(column)])
        references = [package.reference for package in score_set.packages.values() if name in package.features]
        indices = [_index_of(feature, present, len(column), reference) for reference in references]
        by_family.setdefault(feature.family, {})[name] = max(indices)
    models = score_set.manifest.models
    return Drift(
        families={family: _family(list(found.values())) for family, found in sorted(by_family.items())},
        average={target: model.average_probability for target, model in models.items()},
        trained={target: package.base_rate for target, package in score_set.packages.items()},
    )


def stability_index(now: Shares, then: Shares, *, accounts: int) -> float:
    """Return the PSI of two `(n_bins,)` distributions, less what so few accounts show without any drift.

    Examples
    --------
    >>> round(stability_index(np.array([0.5, 0.5]), np.array([0.2, 0.8]), accounts=1000), 3)
    0.415
    >>> stability_index(np.array([0.5, 0.5]), np.array([0.5, 0.5]), accounts=1000)
    0.0
    """
    least = 1 / (2 * accounts)  # an empty bin would make the index infinite
    now, then = np.maximum(now, least), np.maximum(then, least)
    return max(float(np.sum((now - then) * np.log(now / then))) - (len(now) - 1) / accounts, 0.0)


def write_drift(score_set: ScoreSet, folder: Path) -> None:
    """Write beside a score set how far its book has moved."""
    (folder / _FILE).write_text(json.dumps(asdict(drift_of(score_set)), indent=1), encoding="utf-8")


def read_drift(folder: Path) -> Drift | None:
    """Read how far the book of a score set has moved; None for a set that was written without."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    families = {family: FamilyDrift(**values) for family, values in found["families"].items()}
    return Drift(families=families, average=found["average"], trained=found["trained"])


def _family(indices: Sequence[float]) -> FamilyDrift:
    moved, moved_much = (sum(index > threshold for index in indices) for threshold in THRESHOLDS)
    return FamilyDrift(features=len(indices), largest=round(max(indices), 4), moved=moved, moved_much=moved_much)


def _index_of(feature: Feature, present: Column, accounts: int, reference: Reference) -> float:
    """Return how far a feature has moved, given the values of those accounts that have one, in order."""
    if feature.kind == "number":
        now, then = _number_shares(present, reference.quantiles[feature.name], reference.levels)
    else:
        now, then = _level_shares(present, reference.shares[feature.name])
    missing_now, missing_then = 1 - len(present) / accounts, reference.missing[feature.name]
    now, then = _joined(now * (1 - missing_now), then * (1 - missing_then), least=_EXPECTED / accounts)
    unknown = max(1 - missing_now - float(now.sum()), 0.0)  # levels that the reference has never seen
    return stability_index(np.append(now, [missing_now, unknown]), np.append(then, [missing_then, 0.0]), accounts=accounts)


def _number_shares(present: Column, quantiles: Sequence[float] | None, levels: Sequence[float]) -> tuple[Shares, Shares]:
    """Return the shares of the values between the reference's quantiles: now, and then.

    Where many values are equal, as counts are, a quantile stands for all levels between the values below it and those up to it; so of the
    shares that it may stand for the one that is nearest to the level is taken.
    """
    if quantiles is None:
        return np.zeros(1), np.zeros(1)
    inner, edges = np.asarray(levels)[1:-1], np.asarray(quantiles)[1:-1]
    below, up_to = (np.searchsorted(present, edges, side=side) / max(len(present), 1) for side in ("left", "right"))
    return np.diff(np.clip(inner, below, up_to), prepend=0.0, append=1.0), np.diff(inner, prepend=0.0, append=1.0)


def _level_shares(present: Column, shares: Mapping[str, float]) -> tuple[Shares, Shares]:
    """Return the shares of the levels that the reference knows, rare ones first: now, and then."""
    known = sorted(shares, key=lambda level: shares[level])
    now = [float(np.mean(present == level)) if len(present) else 0.0 for level in known]
    return np.array(now), np.array([shares[level] for level in known])


def _joined(now: Shares, then: Shares, *, least: float) -> tuple[Shares, Shares]:
    """Join neighbouring bins until each has at least this share of the reference."""
    joined: list[tuple[float, float]] = []
    share_now, share_then = 0.0, 0.0
    for one_now, one_then in zip(now.tolist(), then.tolist(), strict=True):
        share_now, share_then = share_now + one_now, share_then + one_then
        if share_then >= least:
            joined.append((share_now, share_then))
            share_now, share_then = 0.0, 0.0
    if joined:
        last_now, last_then = joined.pop()
        share_now, share_then = share_now + last_now, share_then + last_then
    joined.append((share_now, share_then))
    return np.array([one for one, _ in joined]), np.array([one for _, one in joined])


def _absent(column: Column) -> npt.NDArray[np.bool_]:
    return np.array([value is None or value != value for value in column]) if column.dtype == object else np.isnan(column)
