"""Which model is used: the champion, or the newcomer that challenges it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from features.clock import not_after
from features.errors import PackageError
from training.baseline import LOGISTIC_REGRESSION
from training.dataset import Array, Dataset
from training.evaluation import Estimate, auc_within, compare
from training.package import Package
from training.splits import ForwardSplit, LabelWindow

__all__ = ["Comparison", "Decision", "Incumbent", "Role", "compare_tracks", "decide", "face_champion", "score_track"]

Role = Literal["champion", "challenger"]

_FEWEST = 10
"""Positives and negatives without which two models are not compared."""


@dataclass(frozen=True)
class Comparison:
    """A newcomer against the champion on rows that neither had learnt from.

    Parameters
    ----------
    gain
        The newcomer's AUC within the blocks of the backtest less the champion's, paired; None where they cannot be compared.
    rows, positives
        The rows that both could be judged on.
    obstacle
        Why they cannot be compared, if so.
    """

    gain: Estimate | None
    rows: int
    positives: int
    obstacle: str = ""


@dataclass(frozen=True)
class Incumbent:
    """What is known of the present champion when a newcomer comes.

    Parameters
    ----------
    unfit
        Why the champion can no longer be used at all, if so.
    comparison
        The newcomer against it; None where the champion is unfit.
    refreshed
        Whether the newcomer is the same recipe over the same features, trained on rows that are no older.
    """

    unfit: str = ""
    comparison: Comparison | None = None
    refreshed: bool = False


@dataclass(frozen=True)
class Decision:
    """The newcomer's role, and why, in a sentence.

    Parameters
    ----------
    provisional
        Whether accounts are scored with it although it is no champion, because there is none: it ranks better than every single rule, if
        not by more than its interval, and no worse than the logistic regression.
    """

    role: Role
    reason: str
    provisional: bool = False


def decide(gains: Mapping[str, Estimate], *, leaks: Sequence[str] = (), incumbent: Incumbent | None) -> Decision:
    """Decide whether a new model becomes champion.

    Parameters
    ----------
    gains
        By how much the new model's AUC is above that of each baseline, on the same rows.
    leaks
        What the leakage audit found, a sentence each.
    incumbent
        The present champion; None if there is none.

    Examples
    --------
    >>> better, unsure = Estimate(0.04, 0.02, 0.06), Estimate(0.01, -0.01, 0.03)
    >>> decide({"recency": better}, incumbent=None).role
    'champion'
    >>> decide({"recency": better, "tenure": unsure}, incumbent=None).reason.partition(". ")[0]
    'It does not beat tenure by more than its interval: the gain in AUC is +0.010 (-0.010 to +0.030)'
    >>> decide({}, incumbent=Incumbent(comparison=Comparison(unsure, 900, 60))).reason
    'The champion stays: on the same 900 rows the gain in AUC is +0.010 (-0.010 to +0.030).'
    """
    if leaks:
        return Decision("challenger", f"The audit found a leak: {' '.join(leaks)}")
    for name in sorted(gains, key=lambda name: gains[name].value):
        if not _is_above(gains[name]):
            reason = f"It does not beat {name} by more than its interval: the gain in AUC is {_shown(gains[name])}."
            provisional = incumbent is None and all(_is_bearable(name, gain) for name, gain in gains.items())
            used = " As there is no champion, it is used provisionally." if provisional else ""
            return Decision("challenger", reason + used, provisional)
    if incumbent is None:
        return Decision("champion", "It is the first model that beats all baselines by more than its interval.")
    if incumbent.unfit or incumbent.comparison is None:
        return Decision("champion", f"The previous champion can no longer be used: {incumbent.unfit}.")
    return _against(incumbent.comparison, refreshed=incumbent.refreshed)


def face_champion(
    champion: Sequence[Package],
    newcomer: Sequence[Package],
    data: Dataset,
    splits: Sequence[ForwardSplit],
    window: LabelWindow,
    *,
    seed: int,
) -> Incumbent:
    """Hold a newcomer against the champion.

    Parameters
    ----------
    champion, newcomer
        All packages of a model, the one that scores last: those of its backtest score rows that the later ones have learnt from.
    data, splits
        The rows and the blocks of the newcomer's backtest.
    """
    latest, new = champion[-1], newcomer[-1]
    if (latest.horizon_days, latest.lead_days) != (window.horizon_days, window.lead_days):
        return Incumbent(unfit=f"it predicts {latest.horizon_days} days ahead with a lead of {latest.lead_days}")
    try:
        latest.encode(data.features.iloc[:1])
    except PackageError as error:
        return Incumbent(unfit=str(error).splitlines()[0])
    same = (latest.catalogue.hash, latest.recipe) == (new.catalogue.hash, new.recipe)
    comparison = compare_tracks(champion, newcomer, data, splits, window, seed=seed)
    return Incumbent(comparison=comparison, refreshed=same and bool(not_after(np.array(latest.cutoff, dtype="datetime64[us]"), new.cutoff)))


def compare_tracks(
    champion: Sequence[Package],
    newcomer: Sequence[Package],
    data: Dataset,
    splits: Sequence[ForwardSplit],
    window: LabelWindow,
    *,
    seed: int,
) -> Comparison:
    """Compare two models on the blocks of a backtest, each by the package that it would have scored with at the time."""
    old, new = (score_track(packages, data, splits, window) for packages in (champion, newcomer))
    block = np.full(len(data), -1)
    for number, split in enumerate(splits):
        block[split.test] = number
    both = np.flatnonzero(np.isfinite(old) & np.isfinite(new))
    target = data.target[both]
    rows, positives = len(both), int(target.sum())
    if not rows:
        return Comparison(None, 0, 0, "the champion has already seen labels of the test period")
    if min(positives, rows - positives) < _FEWEST:
        return Comparison(
            None, rows, positives, f"the champion had not yet seen the labels of only {rows} rows, {positives} of them positive"
        )

    def measure(score: Array, weights: Array) -> Array:
        return auc_within(target, score, block[both], weights)

    return Comparison(compare(measure, new[both], old[both], data.account_id[both], seed=seed), rows, positives)


def score_track(packages: Sequence[Package], data: Dataset, splits: Sequence[ForwardSplit], window: LabelWindow) -> Array:
    """Score the test rows of a backtest as a model would have done at the time.

    Returns
    -------
    Probabilities `(n,)`: in each block those of the newest package whose label windows had all closed at the block's first cutoff; missing
    where there is none, and outside the test period.
    """
    probability = np.full(len(data), np.nan)
    for split in splits:
        closed = [package for package in packages if window.closed_at(package.cutoff, split.first_test)]
        if closed:
            newest = max(closed, key=lambda package: package.cutoff)
            probability[split.test] = newest.score_rows(data.features[split.test]).probability
    return probability


def _against(comparison: Comparison, *, refreshed: bool) -> Decision:
    gain = comparison.gain
    if gain is None:
        return Decision("challenger", f"The champion stays, because the two cannot be compared: {comparison.obstacle}. Promote by hand.")
    found = f"on the same {comparison.rows:,} rows the gain in AUC is {_shown(gain)}"
    if _is_above(gain):
        return Decision("champion", f"It beats the previous champion: {found}.")
    if refreshed and gain.high is not None and gain.high >= 0:
        return Decision("champion", f"It is the champion's recipe, trained on the newest rows, and no worse: {found}.")
    return Decision("challenger", f"The champion stays: {found}.")


def _is_bearable(name: str, gain: Estimate) -> bool:
    return gain.high is not None and gain.high > 0 if name == LOGISTIC_REGRESSION else gain.value > 0


def _is_above(gain: Estimate) -> bool:
    return gain.low is not None and gain.low > 0


def _shown(gain: Estimate) -> str:
    interval = "no interval" if gain.low is None or gain.high is None else f"{gain.low:+.3f} to {gain.high:+.3f}"
    return f"{gain.value:+.3f} ({interval})"
