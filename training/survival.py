"""Survival to the renewal date: whether a customer whose contract renews inside the horizon is still there afterwards.

The churn score already says how likely a customer is to leave within the horizon; a renewal inside it is the day on which most of that is
decided. A logistic curve of the churn model's raw score, and where it helps of the days to the renewal, is fitted on held-out scores of
the rows whose renewal lay in the window, against what became of it. It never falls as the churn score falls.

But: rows whose customer left before its renewal count as not renewed, and what happens after the renewal is not told.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from training.dataset import Array

__all__ = ["SurvivalModel", "fit_survival", "survival_from_json"]

Labels = npt.NDArray[Any]

_FLATTEST = 0.01
_LEAST = 20
"""Rows of either outcome below which nothing is fitted."""

_PARTS = 5
_DAYS = 30.0
"""Days in the unit of the days' slope, so that numbers are of a size."""


@dataclass(frozen=True)
class SurvivalModel:
    """`log-odds of being lost = intercept + slope * raw + days_slope * days to renewal / 30`.

    Parameters
    ----------
    days_slope
        Zero where the days did not help.
    rows, lost
        What it was fitted on, and how many of these were lost.

    Examples
    --------
    >>> model = SurvivalModel(intercept=0.0, slope=1.0, days_slope=0.0, rows=100, lost=50)
    >>> model.probability(np.array([0.0]), np.array([10.0])).tolist()
    [0.5]
    """

    intercept: float
    slope: float
    days_slope: float
    rows: int
    lost: int

    def probability(self, raw: Array, days_to_renewal: Array) -> Array:
        """Return the probability of still being a customer after the renewal.

        Parameters
        ----------
        raw
            `(n,)` raw churn scores in log-odds.
        days_to_renewal
            `(n,)` days from the cutoff to the renewal, within the label window; the result is missing where they are.
        """
        days = np.where(np.isnan(days_to_renewal), np.nan, days_to_renewal / _DAYS)
        kept: Array = expit(-(self.intercept + self.slope * raw + self.days_slope * days))
        return kept

    def to_json(self) -> dict[str, Any]:
        """Return what `survival_from_json` reads."""
        return asdict(self)


def survival_from_json(data: Mapping[str, Any]) -> SurvivalModel:
    """Make a model from what its `to_json` returned.

    Raises
    ------
    KeyError
        If a number is missing.
    """
    numbers = {name: float(data[name]) for name in ("intercept", "slope", "days_slope")}
    return SurvivalModel(**numbers, rows=int(data["rows"]), lost=int(data["lost"]))


def fit_survival(raw: Array, days_to_renewal: Array, nonrenewal: Array, folds: Labels, accounts: Labels) -> SurvivalModel | None:
    """Fit survival to the renewal on held-out churn scores; None where there are fewer than 20 rows of either outcome.

    Parameters
    ----------
    raw
        `(n,)` raw churn scores of rows that the scoring models were not trained on.
    days_to_renewal
        `(n,)` days from the cutoff to the renewal.
    nonrenewal
        `(n,)` 1 where the customer was lost at or before the renewal, 0 where not, missing where none was due; such rows are left out.
    folds
        `(n,)` the model that scored the row: each gets a level of its own while the slopes are fitted, as when scores are calibrated.
    accounts
        `(n,)` the account of the row; whether the days help is judged on accounts that the fit has not seen.
    """
    due = ~np.isnan(nonrenewal) & ~np.isnan(days_to_renewal)
    lost, rows = int(nonrenewal[due].sum()), int(due.sum())
    if min(lost, rows - lost) < _LEAST:
        return None
    target, account = nonrenewal[due], np.unique(accounts[due], return_inverse=True)[1]
    levels = (folds[due][:, None] == np.unique(folds[due])).astype(np.float64)
    terms = np.column_stack([raw[due], days_to_renewal[due] / _DAYS])
    plain, timed = (_held_out_loss(np.column_stack([terms[:, :width], levels]), target, account) for width in (1, 2))
    width = 2 if _surely_less(timed, plain, account) else 1
    slopes = _fit(np.column_stack([terms[:, :width], levels]), target)[:width]
    return SurvivalModel(
        intercept=_level(terms[:, :width] @ slopes, target.mean()),
        slope=float(slopes[0]),
        days_slope=float(slopes[1]) if width == 2 else 0.0,
        rows=rows,
        lost=lost,
    )


def _held_out_loss(design: Array, target: Array, account: npt.NDArray[np.intp]) -> Array:
    """Return the log loss of each row under a fit on other accounts."""
    loss = np.empty(len(target))
    for kept, held in GroupKFold(min(_PARTS, len(np.unique(account)))).split(design, groups=account):
        score = design[held] @ _fit(design[kept], target[kept])
        loss[held] = np.logaddexp(0.0, score) - target[held] * score
    return loss


def _surely_less(new: Array, old: Array, account: npt.NDArray[np.intp]) -> bool:
    """Tell whether the new losses are less than the old ones by more than two standard errors over accounts."""
    gain = old - new
    return bool(gain.sum() > 2 * np.sqrt(np.sum(np.bincount(account, weights=gain) ** 2)))


def _fit(design: Array, target: Array) -> Array:
    """Return the weights of the greatest likelihood, the slope of the raw score not below the flattest."""

    def loss_and_gradient(weights: Array) -> tuple[float, Array]:
        score = design @ weights
        return float(np.mean(np.logaddexp(0.0, score) - target * score)), design.T @ (expit(score) - target) / len(target)

    start = np.zeros(design.shape[1])
    start[0] = 1.0
    bounds = [(_FLATTEST, None)] + [(None, None)] * (design.shape[1] - 1)
    options = {"maxfun": 1000, "ftol": 1e-14, "gtol": 1e-9, "xtol": 1e-12}
    weights: Array = minimize(loss_and_gradient, start, jac=True, method="TNC", bounds=bounds, options=options).x
    return weights


def _level(sloped: Array, share: float) -> float:
    """Return the intercept at which the mean probability is the share that was lost."""
    reach = float(np.abs(sloped).max() + 50)
    return float(brentq(lambda level: expit(sloped + level).mean() - share, -reach, reach))
