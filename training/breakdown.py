"""For whom the scores are good and for whom not: the same measures on parts of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.dataset import Array
from training.evaluation import Estimate, Positions, Suite, TestRows, estimate_all, rank_measures, resample, standard_measures
from training.reliability import ece_expected

__all__ = ["Level", "Slice", "WeakSpot", "account_size", "break_down", "slice_rows", "weak_spots"]

Mask = npt.NDArray[np.bool_]

_RESAMPLES = 100
_MOST_LEVELS = 12
_FEWEST_ACCOUNTS = 10
_LEAD_DAYS = 30
_MOST_LEADS = 6
_OTHER = "other"
_SIZES = ("smallest third", "middle third", "largest third")
_USERS = ("active_users_28d", "active_users_91d", "users_peak_28d", "seats")


@dataclass(frozen=True, eq=False)
class Slice:
    """A way to part rows.

    Parameters
    ----------
    levels
        The parts' names, in the order in which they are shown.
    level
        `(n,)` the position of the row's part, -1 where it is in none.
    shared
        `(n,)` rows that count in every part.
    """

    levels: tuple[str, ...]
    level: Positions
    shared: Mask

    def rows(self, position: int) -> Mask:
        """Return which rows count in a part, `(n,)`."""
        return np.asarray((self.level == position) | self.shared)


@dataclass(frozen=True)
class Level:
    """A part of the rows and its measures; where there are none, the reason."""

    name: str
    rows: int
    positives: int
    metrics: Mapping[str, Estimate] | None
    reason: str = ""


@dataclass(frozen=True)
class WeakSpot:
    """A part of the rows that the scores serve worse than the whole."""

    slice: str
    level: str
    measure: str
    found: Estimate
    against: float


def slice_rows(context: pd.DataFrame, cutoff: npt.NDArray[np.datetime64], target: Array, *, size: Array | None) -> dict[str, Slice]:
    """Part rows by `lead time`, `segment`, `partner type`, `account size` and `quarter`, each where it is known and has several levels.

    Parameters
    ----------
    context
        `(n, ...)` with `left_at`, `segment`, `partner_type`, as far as there.
    cutoff
        `(n,)` datetime64, UTC; its calendar quarter is taken.
    target
        `(n,)`; a part of the lead time holds the positives that left so many days after the cutoff, against all negatives.
    size
        `(n,)` what large accounts have more of, see `account_size`; its thirds among the rows are taken.
    """
    nowhere = np.zeros(len(target), dtype=bool)
    slices = {
        "lead time": _by_lead(context, cutoff, target),
        "segment": _by_name(context, "segment", "no segment"),
        "partner type": _by_name(context, "partner_type", "no partner"),
        "account size": None if size is None else Slice(_SIZES, _thirds(size), nowhere),
        "quarter": _by_quarter(cutoff),
    }
    return {name: parted for name, found in slices.items() if found and len((parted := _limited(found)).levels) > 1}


def account_size(arr: Array, features: pd.DataFrame) -> Array | None:
    """Return what tells large accounts from small ones: ARR `(n,)`, else active users or seats if a feature counts them, else None.

    Examples
    --------
    >>> account_size(np.array([np.nan, np.nan]), pd.DataFrame({"active_users_28d": [3.0, 8.0]}))
    array([3., 8.])
    """
    if np.nan_to_num(arr).any():
        return arr
    for name in _USERS:
        if name in features:
            return np.asarray(features[name].to_numpy(dtype=np.float64, na_value=np.nan))
    return None


def break_down(
    rows: TestRows,
    probability: Array,
    slices: Mapping[str, Slice],
    *,
    suite: Suite = standard_measures,
    resamples: int = _RESAMPLES,
    seed: int,
) -> dict[str, tuple[Level, ...]]:
    """Measure calibrated probabilities `(n,)` on each part of each slice.

    A part is measured if at least ten accounts have a positive row in it and at least ten a negative one; otherwise it says so.
    Where parts share rows, only the ranking is measured: their base rate is not that of any rows the probabilities were meant for.
    Accounts are resampled from all rows, so that the size of a part varies as it would in another book.
    """
    drawn = resample(rows.account_id, resamples=resamples, seed=seed)

    def measured(name: str, inside: Mask, measures: Suite) -> Level:
        part, resampled, own = rows.at(inside), drawn.at(inside), probability[inside]
        reason = _too_few(part.target, resampled.account)
        if reason:
            return Level(name, len(part), int(part.target.sum()), None, reason)
        metrics = estimate_all(measures(part, own), resampled)
        if "ece" in metrics:
            metrics["ece_expected"] = Estimate(ece_expected(part.target, own, resampled.account, seed=seed), None, None)
        return Level(name, len(part), int(part.target.sum()), metrics)

    found = {}
    for name, parted in slices.items():
        measures = rank_measures if parted.shared.any() else suite
        found[name] = tuple(measured(level, parted.rows(position), measures) for position, level in enumerate(parted.levels))
    return found


def weak_spots(overall: Mapping[str, Estimate], breakdown: Mapping[str, tuple[Level, ...]]) -> tuple[WeakSpot, ...]:
    """Return the parts whose AUC lies below that of all rows by more than its interval, or whose calibration error exceeds chance.

    But: of forty parts without any weakness, one or two look weak by either test.
    """
    found = []
    for name, levels in breakdown.items():
        for level in levels:
            if level.metrics is None:
                continue
            auc, error, chance = (level.metrics.get(measure) for measure in ("auc", "ece", "ece_expected"))
            if auc and auc.high is not None and auc.high < overall["auc"].value:
                found.append(WeakSpot(name, level.name, "auc", auc, overall["auc"].value))
            if error and chance and error.value > chance.value:
                found.append(WeakSpot(name, level.name, "ece", error, chance.value))
    return tuple(found)


def _too_few(target: Array, account: Positions) -> str:
    """Return why rows are too few to be measured, or nothing."""
    for outcome, word in ((1.0, "positive"), (0.0, "negative")):
        accounts = len(np.unique(account[target == outcome]))
        if accounts < _FEWEST_ACCOUNTS:
            counted = "1 account has" if accounts == 1 else f"{accounts or 'no'} accounts have"
            return f"too few to be measured: {counted} a {word} row, at least {_FEWEST_ACCOUNTS} are needed"
    return ""


def _by_lead(context: pd.DataFrame, cutoff: npt.NDArray[np.datetime64], target: Array) -> Slice | None:
    if "left_at" not in context or not context["left_at"].notna().any():
        return None
    ahead = (context["left_at"].to_numpy(dtype="datetime64[us]") - cutoff.astype("datetime64[us]")) / np.timedelta64(1, "D")
    known = (target == 1) & np.isfinite(ahead)
    if not known.any():
        return None
    width = _LEAD_DAYS * int(np.ceil(ahead[known].max() / (_LEAD_DAYS * _MOST_LEADS)))
    level = np.full(len(target), -1)
    level[known] = np.maximum(np.ceil(ahead[known] / width).astype(int) - 1, 0)
    names = tuple(f"{number * width + 1} to {(number + 1) * width} days" for number in range(int(level.max()) + 1))
    return Slice(names, level, target == 0)


def _by_name(context: pd.DataFrame, column: str, missing: str) -> Slice | None:
    if column not in context or not context[column].notna().any():
        return None
    names = context[column].astype(object).where(context[column].notna(), missing)
    counts = names.value_counts()
    order = sorted(counts.index, key=lambda name: (name == missing, -counts[name], name))
    return Slice(tuple(order), pd.Index(order).get_indexer(pd.Index(names)), np.zeros(len(names), dtype=bool))


def _by_quarter(cutoff: npt.NDArray[np.datetime64]) -> Slice:
    quarters, level = np.unique(cutoff.astype("datetime64[M]").astype(np.int64) // 3, return_inverse=True)
    names = tuple(f"{1970 + quarter // 4} Q{quarter % 4 + 1}" for quarter in quarters)
    return Slice(names, level, np.zeros(len(cutoff), dtype=bool))


def _thirds(size: Array) -> Positions:
    known = np.isfinite(size)
    level = np.full(len(size), -1)
    if known.any():
        level[known] = np.searchsorted(np.quantile(size[known], [1 / 3, 2 / 3]), size[known])
    return level


def _limited(parted: Slice) -> Slice:
    """Leave out empty parts, and put the smallest of too many into one."""
    sizes: npt.NDArray[Any] = np.bincount(parted.level[parted.level >= 0], minlength=len(parted.levels))
    present = np.flatnonzero(sizes)
    kept = present
    if len(present) > _MOST_LEVELS:
        kept = np.sort(present[np.argsort(-sizes[present], kind="stable")[: _MOST_LEVELS - 1]])
    names = [parted.levels[position] for position in kept] + ([_OTHER] if len(kept) < len(present) else [])
    to = np.full(len(parted.levels) + 1, len(kept))
    to[kept], to[-1] = np.arange(len(kept)), -1  # the last is for rows in no part, whose position is -1
    return Slice(tuple(names), to[parted.level], parted.shared)
