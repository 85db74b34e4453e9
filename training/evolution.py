"""How an account's chances evolve over the coming year: what the scores of one quarter tell of those of later ones.

The score of a later quarter is regressed on that of today, of the same account, over all pairs of past scores of accounts that were still
there::

    log-odds in h quarters = a + b * log-odds now + c * (the renewal falls into this quarter) + d * (it falls into that one)

where quarter stands for the horizon. The later probability is what is fitted (a fractional logistic regression: Papke and Wooldridge,
Journal of Applied Econometrics 1996), so that it is right on average, and an account that looks unusual today is expected to
look less so later. Each step has its own regression; none is chained.

But: a later score depends on today's only through these; what happens to an account on the way, such as growing, does not change its
chances. Where no pairs are known so far apart, the step before stands in, and the forecast says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from training.dataset import Array
from training.history import History
from training.shocks import PARTS

__all__ = ["Evolution", "fit_evolution"]

_LEAST_PAIRS = 200
_RIDGE = 1e-3
_TERMS = 4


@dataclass(frozen=True, eq=False)
class Evolution:
    """What today's scores tell of later ones.

    Parameters
    ----------
    weights
        `(n_steps, n_parts, 4)`: intercept, slope, renewal now, renewal then. The first step is the score itself.
    measured
        For each step, whether pairs so far apart were known.
    horizon_days
        Length of a step.
    """

    weights: Array
    measured: tuple[bool, ...]
    horizon_days: int

    def log_odds(self, now: Array, renewal_days: Array) -> Array:
        """Return the log-odds of each step, part and account.

        Parameters
        ----------
        now
            `(n, n_parts)` today's.
        renewal_days
            `(n,)` days to the next renewal, missing where there is none.

        Returns
        -------
        `(n_steps, n, n_parts)`; as today in the first step.
        """
        steps = [now, *(self._step(number, now, renewal_days) for number in range(1, len(self.weights)))]
        return np.array(steps)

    def _step(self, number: int, now: Array, renewal_days: Array) -> Array:
        weights = self.weights[number]
        parts = [
            _design(now[:, part], renewal_days, step=number, horizon_days=self.horizon_days) @ weights[part] for part in range(len(PARTS))
        ]
        return np.column_stack(parts)


def fit_evolution(history: History, *, steps: int, known: npt.NDArray[np.bool_]) -> Evolution:
    """Measure how scores evolved over `steps` horizons.

    Parameters
    ----------
    known
        `(n_periods,)` the periods whose scores may be used.
    """
    weights = np.zeros((steps, len(PARTS), _TERMS))
    weights[0, :, 1] = 1.0
    measured = [True]
    usable = known[history.period] & ~np.isnan(history.log_odds).any(axis=1)
    for step in range(1, steps):
        pairs = _pairs(usable, history.later(step))
        measured.append(len(pairs[0]) >= _LEAST_PAIRS)
        weights[step] = _fit_step(history, step, pairs) if measured[-1] else weights[step - 1]
    return Evolution(weights, tuple(measured), history.window.horizon_days)


def _pairs(usable: npt.NDArray[np.bool_], later: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the earlier and the later rows of pairs that may both be used."""
    earlier = np.flatnonzero(usable & (later >= 0) & usable[later])
    return earlier, later[earlier]


def _fit_step(history: History, step: int, pairs: Sequence[npt.NDArray[np.intp]]) -> Array:
    earlier, later = pairs
    horizon_days = history.window.horizon_days
    fitted = []
    for part in range(len(PARTS)):
        now, then = history.log_odds[earlier, part], history.log_odds[later, part]
        design = _design(now, history.renewal_days[earlier], step=step, horizon_days=horizon_days)
        fitted.append(_fit(design, expit(then)))
    return np.array(fitted)


def _design(now: Array, renewal_days: Array, *, step: int, horizon_days: int) -> Array:
    falls_into = np.where(np.isnan(renewal_days), -1.0, np.ceil(renewal_days / horizon_days) - 1)
    return np.column_stack([np.ones(len(now)), now, falls_into == 0, falls_into == step])


def _fit(design: Array, probability: Array) -> Array:
    """Return the weights under which the expected probabilities are nearest in likelihood; a whiff of a ridge towards no evolution."""
    start = np.array([0.0, 1.0, 0.0, 0.0])

    def loss_and_gradient(weights: Array) -> tuple[float, Array]:
        score, off = design @ weights, weights - start
        loss = np.mean(np.logaddexp(0.0, score) - probability * score) + _RIDGE * np.mean(off**2) * probability.mean()
        gradient = design.T @ (expit(score) - probability) / len(probability) + 2 * _RIDGE * off / _TERMS * probability.mean()
        return float(loss), gradient

    options = {"maxfun": 1000, "ftol": 1e-14, "gtol": 1e-9, "xtol": 1e-12}
    weights: Array = minimize(loss_and_gradient, start, jac=True, method="TNC", options=options).x
    return weights
