"""From a raw score to a probability that can be taken at its word.

Both calibrators are strictly rising functions of the raw score, so they never change who is ranked before whom and never make two
different scores equal; isotonic regression would do both. Sources: Platt, "Probabilistic outputs for support vector machines", 1999;
Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from features.errors import NotEnoughDataError, explain

__all__ = [
    "BetaCalibrator",
    "Calibrator",
    "PlattCalibrator",
    "calibrator_from_json",
    "choose_calibrator",
    "fit_beta",
    "fit_platt",
    "log_loss",
]

Array = npt.NDArray[np.float64]

_FLATTEST = 0.01
"""The smallest slope that a fit may choose: however little the scores say, the map keeps rising."""

_FOLDS = 5


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

    def probability(self, raw: Array) -> Array:
        """Return the probability for raw scores `(n,)` in log-odds."""
        return _probability(_platt_terms(raw), np.array([self.slope, self.intercept]))

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

    def probability(self, raw: Array) -> Array:
        """Return the probability for raw scores `(n,)` in log-odds."""
        return _probability(_beta_terms(raw), np.array([self.low, self.high, self.intercept]))

    def to_json(self) -> dict[str, Any]:
        """Return what `calibrator_from_json` reads."""
        return {"kind": "beta", **asdict(self)}


Calibrator = PlattCalibrator | BetaCalibrator


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
    raise KeyError(f"a calibrator is 'platt' or 'beta', not {data['kind']!r}")


def fit_platt(raw: Array, target: Array) -> PlattCalibrator:
    """Fit the line by maximum likelihood on raw scores `(n,)` and outcomes 0/1 `(n,)`."""
    slope, intercept = _fit(_platt_terms(raw), target, start=np.array([1.0, 0.0]))
    return PlattCalibrator(slope=slope, intercept=intercept)


def fit_beta(raw: Array, target: Array) -> BetaCalibrator:
    """Fit the three numbers by maximum likelihood on raw scores `(n,)` and outcomes 0/1 `(n,)`."""
    low, high, intercept = _fit(_beta_terms(raw), target, start=np.array([1.0, 1.0, 0.0]))
    return BetaCalibrator(low=low, high=high, intercept=intercept)


def choose_calibrator(raw: Array, target: Array, groups: npt.NDArray[Any]) -> Calibrator:
    """Fit both calibrators and return the one with the lower log loss on accounts that it was not fitted on.

    Parameters
    ----------
    raw, target
        Scores and outcomes `(n,)` of rows that the scoring model was not trained on.
    groups
        The account of each row; an account is never on both sides of a fold.

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
    platt, beta = (_held_out_loss(fit, raw, target, groups) for fit in (fit_platt, fit_beta))
    return fit_beta(raw, target) if beta < platt else fit_platt(raw, target)


def log_loss(target: Array, probability: Array) -> float:
    """Return the mean negative log-likelihood of outcomes 0/1 `(n,)`, in nats."""
    tiny = np.finfo(np.float64).tiny
    return float(-np.mean(np.where(target == 1, np.log(np.maximum(probability, tiny)), np.log1p(-np.minimum(probability, 1 - 1e-16)))))


def _held_out_loss(fit: Callable[[Array, Array], Calibrator], raw: Array, target: Array, groups: npt.NDArray[Any]) -> float:
    folds = min(_FOLDS, len(np.unique(groups)))
    if folds < 2:
        return log_loss(target, fit(raw, target).probability(raw))
    probability = np.empty_like(raw)
    for kept, held in GroupKFold(folds).split(raw, target, groups):
        probability[held] = fit(raw[kept], target[kept]).probability(raw[held])
    return log_loss(target, probability)


def _platt_terms(raw: Array) -> Array:
    return np.column_stack([raw, np.ones_like(raw)])


def _beta_terms(raw: Array) -> Array:
    # ln(p) and -ln(1 - p) for p = expit(raw), without the rounding to 0 or 1
    return np.column_stack([-np.logaddexp(0.0, -raw), np.logaddexp(0.0, raw), np.ones_like(raw)])


def _probability(terms: Array, weights: Array) -> Array:
    probability: Array = expit(terms @ weights)
    return probability


def _fit(terms: Array, target: Array, *, start: Array) -> list[float]:
    def loss_and_gradient(weights: Array) -> tuple[float, Array]:
        score = terms @ weights
        loss = np.logaddexp(0.0, score) - target * score
        return float(loss.mean()), terms.T @ (expit(score) - target) / len(target)

    bounds = [(_FLATTEST, None)] * (len(start) - 1) + [(None, None)]
    # not L-BFGS-B: for three numbers its calls of LAPACK on all cores cost a hundred times as much as the fit
    result = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="TNC",
        bounds=bounds,
        options={"maxfun": 1000, "ftol": 1e-14, "gtol": 1e-9, "xtol": 1e-12},
    )
    return [float(weight) for weight in result.x]
