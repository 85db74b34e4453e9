"""Shared shocks: how far a whole period, and groups within it, stray from what the scores of single accounts add up to.

Accounts do not leave independently of each other: a recession, a new competitor, a price round or a model that has drifted moves many of
them at once. So the log-odds of all accounts of a period `t` are shifted by one number for each part (churn, contraction, expansion)::

    shift_t = level + spread * noise_t,    noise_t with a Student distribution of 4 degrees of freedom

`level` is how far off the scores are in the large, `spread` how much periods differ beyond chance; the heavy tails keep one period unlike
any other from ruling the rest (Lee and Thompson, "Flexible parametric models for random-effects distributions", Statistics in Medicine
2008). Both are estimated from past periods that were scored without being seen, from the ARR that the part came to against what the
scores let expect: a normal quasi-likelihood of the total (its mean and variance at each shift come from the accounts), the shift
integrated out on a grid. This is a random-intercept model (Breslow and Clayton, "Approximate inference in generalized linear mixed
models", JASA 1993) on totals of ARR, because it is ARR that is forecast.

There are few periods, so nothing is fixed at an estimate. Level and spread have weakly informative priors, `Normal(0, 0.2^2)` and a
half-normal of scale 0.2 (Gelman, "Prior distributions for variance parameters", Bayesian Analysis 2006), and every draw takes its own
pair from the posterior: with little evidence the tails are wide. A shift of 0.2 is about a fifth more or less of a rare outcome.

Monthly cutoffs with label windows of a quarter tell of the same event three times, so a period counts by the share that is its own
(composite likelihood: Varin, Reid and Firth, "An overview of composite likelihood methods", Statistica Sinica 2011).

Groups (a partner's, a segment's accounts) are shifted against the period in the same way around zero; their spread is estimated from the
numbers of accounts, with the exact likelihood of each account's outcome, since a small group's total is far from normal. A group's shift
stays the same over a forecast.

But: the scales of the priors and how long a shock lasts are fixed; they were chosen by the coverage of backtests on simulated books
(tests/benchmarks/forecast_coverage.py), and no history is long enough to estimate them well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from features.feature import Target
from training.dataset import Array

__all__ = [
    "PARTS",
    "SHIFTS",
    "GroupOutcomes",
    "LevelPosterior",
    "PeriodTotal",
    "Shocks",
    "SpreadPosterior",
    "fit_correlation",
    "fit_level",
    "fit_spread",
]

PARTS: tuple[Target, ...] = get_args(Target)
"""What may happen to the ARR of an account, in the order of every axis of parts: churn, contraction, expansion."""

SHIFTS: Array = np.linspace(-2.5, 2.5, 101)
"""The grid of shifts of log-odds on which totals are given."""

_LEVELS: Array = np.linspace(-1.2, 1.2, 49)
_SPREADS: Array = np.array([0.01, 0.03, 0.06, 0.1, 0.14, 0.18, 0.22, 0.27, 0.33, 0.4, 0.5, 0.62, 0.77, 0.95])
_LEVEL_SCALE = 0.2
_SPREAD_SCALE = 0.2
_FREEDOM = 4.0
_CORRELATION_PRIOR = 8.0
"""So many periods without any correlation are added to those that were seen."""
_OUTCOME_SHIFTS: Array = np.linspace(-2.5, 2.5, 41)


@dataclass(frozen=True, eq=False)
class PeriodTotal:
    """What a part came to in a past period, and what the scores let expect.

    Parameters
    ----------
    actual
        The ARR that the part came to.
    mean, variance
        `(n_shifts,)` of the total, were all log-odds shifted by each of `SHIFTS`.
    weight
        How much the period counts: 1 for a recent one that overlaps with no other.
    """

    actual: float
    mean: Array
    variance: Array
    weight: float

    @property
    def log_likelihood(self) -> Array:
        """The log-likelihood of each shift `(n_shifts,)`."""
        variance = np.maximum(self.variance, 1e-12 * max(1.0, self.actual**2))
        likelihood: Array = -0.5 * ((self.actual - self.mean) ** 2 / variance + np.log(variance))
        return likelihood


@dataclass(frozen=True, eq=False)
class GroupOutcomes:
    """Outcomes of accounts in groups within periods.

    Parameters
    ----------
    log_odds
        `(n,)` the scores.
    outcome
        `(n,)` 1.0 or 0.0.
    cell
        `(n,)` the number of the account's group in its period, from 0.
    period
        `(n_cells,)` the number of each cell's period, from 0.
    weight
        `(n_periods,)` how much each period counts.
    """

    log_odds: Array
    outcome: Array
    cell: npt.NDArray[np.intp]
    period: npt.NDArray[np.intp]
    weight: Array


@dataclass(frozen=True, eq=False)
class LevelPosterior:
    """What is known of a part's level and spread.

    Parameters
    ----------
    probability
        `(n_levels, n_spreads)`, adding up to 1.
    shifts
        `(n_periods,)` the expected shift of each past period.
    weight
        `(n_periods,)` as they were given.
    """

    probability: Array
    shifts: Array
    weight: Array

    @property
    def level(self) -> float:
        """The expected level."""
        return float(_LEVELS @ self.probability.sum(axis=1))

    @property
    def spread(self) -> float:
        """The expected spread."""
        return float(_SPREADS @ self.probability.sum(axis=0))

    def draw(self, rng: np.random.Generator, draws: int) -> tuple[Array, Array]:
        """Draw pairs of level and spread, `(draws,)` each."""
        chosen = rng.choice(self.probability.size, draws, p=self.probability.ravel())
        return _LEVELS[chosen // len(_SPREADS)], _SPREADS[chosen % len(_SPREADS)]


@dataclass(frozen=True, eq=False)
class SpreadPosterior:
    """What is known of the spread of groups; `probability` is `(n_spreads,)`, adding up to 1."""

    probability: Array

    @property
    def spread(self) -> float:
        """The expected spread."""
        return float(_SPREADS @ self.probability)

    def draw(self, rng: np.random.Generator, draws: int) -> Array:
        """Draw spreads `(draws,)`."""
        return _SPREADS[rng.choice(len(_SPREADS), draws, p=self.probability)]


@dataclass(frozen=True, eq=False)
class Shocks:
    """All shocks of a forecast, ready to be drawn.

    Parameters
    ----------
    levels
        For each part.
    correlation
        `(n_parts, n_parts)` between the parts' shifts of a period.
    groups
        For each kind of group, such as `partner`, the spread of each part.
    persistence
        The correlation between the shift of one period and that of the next.
    """

    levels: Mapping[Target, LevelPosterior]
    correlation: Array
    groups: Mapping[str, Mapping[Target, SpreadPosterior]]
    persistence: float = 0.0

    def draw_periods(self, rng: np.random.Generator, *, draws: int, periods: int) -> Array:
        """Draw the shifts of consecutive periods, `(periods, draws, n_parts)`; a draw has one level and one spread for all of them."""
        normal = rng.standard_normal((periods, draws, len(PARTS))) @ np.linalg.cholesky(self.correlation).T
        for number in range(1, periods):
            normal[number] = self.persistence * normal[number - 1] + np.sqrt(1 - self.persistence**2) * normal[number]
        student = normal / np.sqrt(rng.chisquare(_FREEDOM, (periods, draws, 1)) / _FREEDOM)
        shifts = np.empty_like(student)
        for number, part in enumerate(PARTS):
            level, spread = self.levels[part].draw(rng, draws)
            shifts[:, :, number] = level + spread * student[:, :, number]
        return np.clip(shifts, SHIFTS[0], SHIFTS[-1])

    def draw_groups(self, rng: np.random.Generator, kind: str, *, draws: int, groups: int) -> Array:
        """Draw the shifts of one kind of group against the whole, `(draws, groups, n_parts)`."""
        spreads = np.column_stack([self.groups[kind][part].draw(rng, draws) for part in PARTS])
        shifts: Array = spreads[:, None, :] * rng.standard_t(_FREEDOM, (draws, groups, len(PARTS)))
        return shifts


def fit_level(totals: Sequence[PeriodTotal]) -> LevelPosterior:
    """Return what past periods tell of a part's level and spread; without any, the priors.

    Examples
    --------
    >>> round(fit_level([]).spread, 1)
    0.2
    """
    log_posterior = -0.5 * (_LEVELS[:, None] / _LEVEL_SCALE) ** 2 + _log_prior_of_spread()
    prior = _log_density(SHIFTS - _LEVELS[:, None, None], _SPREADS[:, None])
    joint = [prior + total.log_likelihood for total in totals]
    marginal = [logsumexp(part, axis=2) for part in joint]
    for total, seen in zip(totals, marginal, strict=True):
        log_posterior = log_posterior + total.weight * seen
    probability = np.exp(log_posterior - logsumexp(log_posterior))
    shifts = [float(np.sum(probability * (np.exp(part - seen[:, :, None]) @ SHIFTS))) for part, seen in zip(joint, marginal, strict=True)]
    return LevelPosterior(probability, np.array(shifts), np.array([total.weight for total in totals]))


def fit_spread(outcomes: GroupOutcomes) -> SpreadPosterior:
    """Return what past outcomes tell of how much groups differ within a period beyond chance and beyond their scores."""
    cells, periods = len(outcomes.period), len(outcomes.weight)
    likelihood = np.empty((cells, len(_OUTCOME_SHIFTS)))
    for number, shift in enumerate(_OUTCOME_SHIFTS):
        score = outcomes.log_odds + shift
        each = outcomes.outcome * score - np.logaddexp(0.0, score)
        likelihood[:, number] = np.bincount(outcomes.cell, weights=each, minlength=cells)
    of_period = np.zeros((periods, len(_OUTCOME_SHIFTS)))
    np.add.at(of_period, outcomes.period, likelihood)
    centre = of_period.argmax(axis=1)[outcomes.period]
    density = _log_density(_OUTCOME_SHIFTS - _OUTCOME_SHIFTS[centre][:, None, None], _SPREADS[:, None])
    marginal = logsumexp(density + likelihood[:, None, :], axis=2)
    log_posterior = _log_prior_of_spread() + outcomes.weight[outcomes.period] @ marginal
    return SpreadPosterior(np.exp(log_posterior - logsumexp(log_posterior)))


def fit_correlation(levels: Sequence[LevelPosterior]) -> Array:
    """Return the correlation between the parts' shifts, pulled towards none: few periods show large correlations by chance.

    The parts must have been fitted on the same periods in the same order.
    """
    weight = levels[0].weight
    if weight.sum() <= 1:
        return np.eye(len(levels))
    centred = np.column_stack([posterior.shifts - np.average(posterior.shifts, weights=weight) for posterior in levels])
    covariance = (centred * weight[:, None]).T @ centred
    scale = np.sqrt(np.diag(covariance))
    seen = covariance / np.where(scale > 0, scale, 1.0)[:, None] / np.where(scale > 0, scale, 1.0)
    np.fill_diagonal(seen, 1.0)
    share = weight.sum() / (weight.sum() + _CORRELATION_PRIOR)
    pulled: Array = share * seen + (1 - share) * np.eye(len(levels))
    return pulled


def _log_density(distance: Array, spread: Array) -> Array:
    """Return the log of the noise's density on the last axis's grid, adding up to 1 there: narrow ones stay densities."""
    log_density = -(_FREEDOM + 1) / 2 * np.log1p((distance / spread) ** 2 / _FREEDOM)
    normed: Array = log_density - logsumexp(log_density, axis=-1, keepdims=True)
    return normed


def _log_prior_of_spread() -> Array:
    prior: Array = -0.5 * (_SPREADS / _SPREAD_SCALE) ** 2 + np.log(np.gradient(_SPREADS))
    return prior
