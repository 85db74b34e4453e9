"""From a raw score to a probability that can be taken at its word.

All calibrators are strictly rising functions of the raw score, so they never change who is ranked before whom and never make two
different scores equal. Plain isotonic regression would do both; its centred form does neither. Sources: Platt, "Probabilistic outputs for
support vector machines", 1999; Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017; Oron and Flournoy, "Centered isotonic
regression", Statistics in Biopharmaceutical Research 9, 2017.

They are fitted on rows that the scoring models were not trained on, twice the same: held out in time, scored by models of earlier rows,
and by account, scored by models of the same months and other accounts (`training.crossing`). Earlier models alone wrong a later one that
has learnt from what came between; for each judged model the curve is fitted again, on earlier test rows too once their labels are known.

They correct how sure a model is, not how common the outcome is: each fold gets a level of its own in the fit, and the level is then set
so that the mean probability stays as it was. How much more common the outcome became between a fold's earlier and later rows says little
of the next period. In forward trials of three targets on two real and three simulated books, carrying over what was missed in all, in
the last three or in the last month raised the log loss by 1.6 to 1.8 % on average, a quarter of it still by 0.1 %; knowing the level
beforehand would have lowered it by 1.3 %. A filter over what earlier models missed lowered it by 0.5 and 1.2 % where a real book drifted,
and raised it by up to 5.8 % where a simulated one had jumped once. What a model itself still misses in the newest months that it has
learnt from is another matter: that is followed by `training.latest_level`.

Choosing the curve as `choose_calibrator` does lowered the log loss by 0.3 % against Platt's line alone. Rows held out by account and the
level of the latest months lowered it by another 0.38 % on average over thirteen targets of three real or published books and five
simulated ones (0.3 % higher at worst, 1.9 % lower at best), most where the calibration had been worst.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, isotonic_regression, minimize
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

from features.errors import NotEnoughDataError, explain

__all__ = [
    "BetaCalibrator",
    "Calibrator",
    "IsotonicCalibrator",
    "PlattCalibrator",
    "calibrator_from_json",
    "choose_calibrator",
    "clustered_mean",
    "fit_beta",
    "fit_isotonic",
    "fit_platt",
    "level_at",
    "level_folds",
    "log_loss",
    "refit_calibrator",
    "row_losses",
    "share",
]

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]

_FLATTEST = 0.01
"""The smallest slope that a fit may choose: however little the scores say, the map keeps rising."""

_PARTS = 5
"""Into how many parts the accounts are put, to compare what was fitted on the others."""

_STEP_EVENTS = 20
"""Rows of either outcome that a step of an isotonic curve has at least."""


@dataclass(frozen=True)
class PlattCalibrator:
    """A straight line on the log-odds: `log-odds = slope * raw + intercept`.

    Examples
    --------
    >>> float(PlattCalibrator(slope=1.0, intercept=0.0).probability(np.array([0.0]))[0])
    0.5
    """

    slope: float
    intercept: float

    def log_odds(self, raw: Array) -> Array:
        """Return calibrated log-odds for raw scores `(n,)` in log-odds."""
        return self.slope * raw + self.intercept

    def probability(self, raw: Array) -> Array:
        """Return the probability for raw scores `(n,)` in log-odds."""
        return _probability(self.log_odds(raw))

    def shifted(self, shift: float) -> "PlattCalibrator":
        """Return the same line, higher by so many log-odds."""
        return replace(self, intercept=self.intercept + shift)

    def to_json(self) -> dict[str, Any]:
        """Return what `calibrator_from_json` reads."""
        return {"kind": "platt", **asdict(self)}


@dataclass(frozen=True)
class BetaCalibrator:
    """`log-odds = low * ln(p) - high * ln(1 - p) + intercept`, where `p` is the uncalibrated probability.

    Its two slopes bend the low and the high end by different amounts; with `low == high` it is Platt's line.
    """

    low: float
    high: float
    intercept: float

    def log_odds(self, raw: Array) -> Array:
        """Return calibrated log-odds for raw scores `(n,)` in log-odds."""
        # not a product of matrices: its last digit depends on how many rows there are
        rising, falling = _beta_terms(raw).T
        found: Array = self.low * rising + self.high * falling + self.intercept
        return found

    def probability(self, raw: Array) -> Array:
        """Return the probability for raw scores `(n,)` in log-odds."""
        return _probability(self.log_odds(raw))

    def shifted(self, shift: float) -> "BetaCalibrator":
        """Return the same curve, higher by so many log-odds."""
        return replace(self, intercept=self.intercept + shift)

    def to_json(self) -> dict[str, Any]:
        """Return what `calibrator_from_json` reads."""
        return {"kind": "beta", **asdict(self)}


@dataclass(frozen=True)
class IsotonicCalibrator:
    """A broken line on the log-odds that rises from each of its points to the next, and goes on with one slope beyond both ends.

    Parameters
    ----------
    raw
        Raw scores of the points, rising: the centres of the steps of an isotonic regression.
    at
        Calibrated log-odds at the points, rising.
    slope
        Beyond the first and the last point.

    Examples
    --------
    >>> curve = IsotonicCalibrator(raw=(-2.0, 0.0), at=(-3.0, 0.0), slope=0.5)
    >>> curve.log_odds(np.array([-4.0, -1.0, 2.0])).tolist()
    [-4.0, -1.5, 1.0]
    """

    raw: tuple[float, ...]
    at: tuple[float, ...]
    slope: float

    def log_odds(self, raw: Array) -> Array:
        """Return calibrated log-odds for raw scores `(n,)` in log-odds."""
        inside = np.clip(raw, self.raw[0], self.raw[-1])
        found: Array = np.interp(inside, self.raw, self.at) + self.slope * (raw - inside)
        return found

    def probability(self, raw: Array) -> Array:
        """Return the probability for raw scores `(n,)` in log-odds."""
        return _probability(self.log_odds(raw))

    def shifted(self, shift: float) -> "IsotonicCalibrator":
        """Return the same curve, higher by so many log-odds."""
        return replace(self, at=tuple(value + shift for value in self.at))

    def to_json(self) -> dict[str, Any]:
        """Return what `calibrator_from_json` reads."""
        return {"kind": "isotonic", "raw": list(self.raw), "at": list(self.at), "slope": self.slope}


Calibrator = PlattCalibrator | BetaCalibrator | IsotonicCalibrator
_Curve = TypeVar("_Curve", PlattCalibrator, BetaCalibrator, IsotonicCalibrator)
_Fit = Callable[[Array, Array, Labels], Calibrator]


def calibrator_from_json(data: Mapping[str, Any]) -> Calibrator:
    """Make a calibrator from what its `to_json` returned.

    Raises
    ------
    KeyError
        If the kind is unknown or a number is missing.
    """
    if data["kind"] == "platt":
        return PlattCalibrator(slope=float(data["slope"]), intercept=float(data["intercept"]))
    if data["kind"] == "beta":
        return BetaCalibrator(low=float(data["low"]), high=float(data["high"]), intercept=float(data["intercept"]))
    if data["kind"] == "isotonic":
        return IsotonicCalibrator(raw=_numbers(data["raw"]), at=_numbers(data["at"]), slope=float(data["slope"]))
    raise KeyError(f"a calibrator is 'platt', 'beta' or 'isotonic', not {data['kind']!r}")


def fit_platt(raw: Array, target: Array, folds: Labels) -> PlattCalibrator:
    """Fit the slope by maximum likelihood on raw scores, outcomes 0/1 and fold labels, `(n,)` each."""
    return _line(raw, _fit(raw[:, None], target, folds))


def fit_beta(raw: Array, target: Array, folds: Labels) -> BetaCalibrator:
    """Fit the two slopes by maximum likelihood on raw scores, outcomes 0/1 and fold labels, `(n,)` each."""
    slopes, _ = _fit(_beta_terms(raw), target, folds)
    return _at_mean(BetaCalibrator(low=float(slopes[0]), high=float(slopes[1]), intercept=0.0), raw)


def fit_isotonic(raw: Array, target: Array, folds: Labels) -> IsotonicCalibrator:
    """Fit a centred isotonic regression to raw scores, outcomes 0/1 and fold labels, `(n,)` each.

    A fold with a level of its own is brought to the level of the others by what its positives weigh: odds are proportional to it. Steps
    with few rows of either outcome are joined to their neighbours. Beyond the ends, and where there is one step, the curve has the slope
    of Platt's line.
    """
    return _broken_line(raw, target, folds, _fit(raw[:, None], target, folds))


def choose_calibrator(raw: Array, target: Array, *, folds: Labels, accounts: Labels) -> Calibrator:
    """Fit all calibrators and return the one with the lowest log loss on accounts that it was not fitted on.

    Beta is taken over Platt's line if its loss is lower; isotonic, which bends most freely, only if its loss is lower than that of the
    better of them by more than the standard error of the difference over accounts.

    Parameters
    ----------
    raw, target
        Scores and outcomes `(n,)` of rows that the scoring models were not trained on.
    folds
        `(n,)`, the model that scored the row.
    accounts
        `(n,)`, the account of the row; an account is never on both sides of the comparison.

    Raises
    ------
    NotEnoughDataError
        If the outcomes are all alike.
    """
    if not 0 < target.sum() < len(target):
        raise NotEnoughDataError(
            explain(
                "there is nothing to calibrate on: all rows held out have the same outcome",
                given=f"{len(target)} rows, {int(target.sum())} positives",
                todo="Load a longer history, or choose a shorter horizon.",
            )
        )
    parts = _parts(target, accounts)
    platt, beta, isotonic = _held_out_losses(raw, target, folds, parts)
    smooth, losses = (fit_beta, beta) if beta.mean() < platt.mean() else (fit_platt, platt)
    gain, error = clustered_mean(losses - isotonic, accounts)
    return fit_isotonic(raw, target, folds) if gain > error else smooth(raw, target, folds)


def refit_calibrator(calibrator: Calibrator, raw: Array, target: Array, folds: Labels) -> Calibrator:
    """Fit a curve of the same kind to other rows; see `choose_calibrator`."""
    fits: Mapping[type[Calibrator], _Fit] = {PlattCalibrator: fit_platt, BetaCalibrator: fit_beta, IsotonicCalibrator: fit_isotonic}
    return fits[type(calibrator)](raw, target, folds)


def clustered_mean(values: Array, accounts: Labels) -> tuple[float, float]:
    """Return the mean of values `(n,)` and its standard error, where rows of one account are not independent.

    Examples
    --------
    >>> clustered_mean(np.array([1.0, 1.0, -1.0, -1.0]), np.array(["a", "a", "b", "b"]))
    (0.0, 0.7071067811865476)
    """
    _, account = np.unique(accounts, return_inverse=True)
    off = np.bincount(account, weights=values - values.mean())
    return float(values.mean()), float(np.sqrt(off @ off) / len(values))


def log_loss(target: Array, probability: Array) -> float:
    """Return the mean negative log-likelihood of outcomes 0/1 `(n,)`, in nats."""
    tiny = np.finfo(np.float64).tiny
    return float(-np.mean(np.where(target == 1, np.log(np.maximum(probability, tiny)), np.log1p(-np.minimum(probability, 1 - 1e-16)))))


def row_losses(log_odds: Array, target: Array) -> Array:
    """Return the negative log-likelihood `(n,)` of each outcome 0/1, in nats."""
    losses: Array = np.logaddexp(0.0, log_odds) - target * log_odds
    return losses


def level_folds(log_odds: Array, target: Array, folds: Labels, *, known: Rows | None = None) -> Array:
    """Move each fold's log-odds so that their mean probability is the share of positives among its known rows."""
    rows = np.arange(len(target)) if known is None else known
    moved = log_odds.copy()
    for fold in np.unique(folds):
        own = rows[folds[rows] == fold]
        if len(own):
            moved[folds == fold] += level_at(log_odds[own], share(target[own]))
    return moved


def level_at(log_odds: Array, mean: float) -> float:
    """Return what is to be added to log-odds for their mean probability to be this one."""
    target = float(logit(min(max(mean, 1e-300), 1 - 1e-16)))
    low, high = target - log_odds.max() - 1, target - log_odds.min() + 1
    return float(brentq(lambda level: expit(log_odds + level).mean() - mean, low, high))


def share(target: Array) -> float:
    """Return the share of positives, taking half a row of each outcome for granted, so that its odds are finite."""
    return float((target.sum() + 0.5) / (len(target) + 1))


def _parts(target: Array, accounts: Labels) -> list[tuple[Rows, Rows]]:
    """Part the rows by account, to fit on the first and look at the second; all on all if there is only one account."""
    _, account = np.unique(accounts, return_inverse=True)
    parts, rows = min(_PARTS, account.max() + 1), np.arange(len(target))
    return list(GroupKFold(parts).split(target, groups=account)) if parts > 1 else [(rows, rows)]


def _held_out_losses(raw: Array, target: Array, folds: Labels, parts: Sequence[tuple[Rows, Rows]]) -> Array:
    """Return each row's loss `(3, n)` under curves that were fitted on other accounts, each fold at the level that they have in it."""
    losses = np.empty((3, len(target)))
    for kept, held in parts:
        for number, curve in enumerate(_fit_each(raw[kept], target[kept], folds[kept])):
            losses[number, held] = row_losses(level_folds(curve.log_odds(raw), target, folds, known=kept)[held], target[held])
    return losses


def _fit_each(raw: Array, target: Array, folds: Labels) -> tuple[Calibrator, ...]:
    line = _fit(raw[:, None], target, folds)
    return _line(raw, line), fit_beta(raw, target, folds), _broken_line(raw, target, folds, line)


def _line(raw: Array, fitted: tuple[Array, Array]) -> PlattCalibrator:
    return _at_mean(PlattCalibrator(slope=float(fitted[0][0]), intercept=0.0), raw)


def _broken_line(raw: Array, target: Array, folds: Labels, fitted: tuple[Array, Array]) -> IsotonicCalibrator:
    slope, levels = fitted
    _, fold = np.unique(folds, return_inverse=True)
    weight = np.where(target == 1, np.exp(np.median(levels) - levels)[fold], 1.0)
    steps = _steps(raw, target, weight)
    centres = tuple(float(np.average(raw[step], weights=weight[step])) for step in steps)
    heights = tuple(_weighted_log_odds(target[step], weight[step]) for step in steps) if len(steps) > 1 else (0.0,)
    return _at_mean(IsotonicCalibrator(raw=centres, at=heights, slope=float(slope[0])), raw)


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _weighted_log_odds(target: Array, weight: Array) -> float:
    positives = float(target @ weight)
    return float(np.log(positives) - np.log(weight.sum() - positives))


def _beta_terms(raw: Array) -> Array:
    # ln(p) and -ln(1 - p) for p = expit(raw), without the rounding to 0 or 1
    return np.column_stack([-np.logaddexp(0.0, -raw), np.logaddexp(0.0, raw)])


def _probability(log_odds: Array) -> Array:
    probability: Array = expit(log_odds)
    return probability


def _fit(terms: Array, target: Array, folds: Labels) -> tuple[Array, Array]:
    """Return slopes and folds' levels of the greatest likelihood, the slopes not below the flattest."""
    slopes = terms.shape[1]
    design = np.column_stack([terms, *(folds == fold for fold in np.unique(folds))])

    def loss_and_gradient(weights: Array) -> tuple[float, Array]:
        score = design @ weights
        return float(row_losses(score, target).mean()), design.T @ (expit(score) - target) / len(target)

    start = np.repeat([1.0, 0.0], [slopes, design.shape[1] - slopes])
    bounds = [(_FLATTEST, None)] * slopes + [(None, None)] * (design.shape[1] - slopes)
    # not L-BFGS-B: for a few numbers its calls of LAPACK on all cores cost a hundred times as much as the fit
    options = {"maxfun": 1000, "ftol": 1e-14, "gtol": 1e-9, "xtol": 1e-12}
    result = minimize(loss_and_gradient, start, jac=True, method="TNC", bounds=bounds, options=options)
    return result.x[:slopes], result.x[slopes:]


def _steps(raw: Array, target: Array, weight: Array) -> list[Rows]:
    """Return the rows of each step of the isotonic regression, lowest first, those with few rows of either outcome joined to neighbours."""
    order = np.argsort(raw, kind="stable")
    _, first = np.unique(raw[order], return_index=True)  # rows of equal scores belong together
    weights, positives = (np.add.reduceat(values[order], first) for values in (weight, weight * target))
    blocks = isotonic_regression(positives / weights, weights=weights).blocks
    ends: list[int] = []
    for end in np.append(first, len(raw))[blocks[1:]]:
        if _events(target[order[ends[-1] if ends else 0 : end]]) >= _STEP_EVENTS:
            ends.append(int(end))
    return np.split(order, ends[:-1])


def _events(target: Array) -> float:
    """Return how many rows of the rarer outcome there are."""
    return float(min(target.sum(), len(target) - target.sum()))


def _at_mean(calibrator: _Curve, raw: Array) -> _Curve:
    """Move a curve so that the mean probability stays what the raw scores say."""
    return calibrator.shifted(level_at(calibrator.log_odds(raw), float(expit(raw).mean())))
