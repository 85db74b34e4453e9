"""What past periods tell a forecast: how large changes were, and how far each period came out from what its scores let expect.

Everything is as it was known at a period's own cutoff: its scores come from models that had not seen it, and the sizes of its changes are
expected from periods that had closed by then. So what is learnt here about surprises is what a forecast would really have met.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from training.change import ChangeModel, fit_change
from training.dataset import Array
from training.history import History
from training.shocks import PARTS, SHIFTS, GroupOutcomes, PeriodTotal, Shocks, fit_correlation, fit_level, fit_spread
from training.simulation import Changes

__all__ = ["ChangeModels", "Evidence", "changes_of", "fit_changes", "fit_shocks", "weigh_evidence"]

Positions = npt.NDArray[np.intp]
ChangeModels = tuple[ChangeModel, ChangeModel, ChangeModel]
"""Of contraction, of expansion and of neither."""

_UNCHANGED = ChangeModel(atoms=((1.0,),), tree="", rows=0)
_MOST_ROWS = 20_000
_ROWS_AT_A_TIME = 20_000
_HALF_LIFE_DAYS = 180.0
"""Older periods count less for the shocks: half as much after so many days."""
_SHOCK_HALF_LIFE_DAYS = 90.0
"""How long a shock lasts: half of it is left after so many days."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one closed period tells.

    Parameters
    ----------
    totals
        For each part, what it came to and what was expected; each of weight 1.
    rows
        The rows of the period that have both scores and outcomes.
    """

    totals: tuple[PeriodTotal, ...]
    rows: Positions


def fit_changes(history: History, period: int, *, step: int, seed: int = 0) -> ChangeModels:
    """Fit the sizes of changes in a later step by what is known of an account today, from the year that had closed by a period's cutoff.

    Parameters
    ----------
    step
        0 for the coming horizon, 1 for the one after it, and so on.
    seed
        For the choice of rows where there are more than are needed.
    """
    pairs = _earlier_and_later(history, period, step)
    kinds = _kinds(history, pairs[1])
    return tuple(_fit_kind(history, [rows[kinds == kind] for rows in pairs], seed) for kind in range(3))  # type: ignore[return-value]


def changes_of(history: History, models: ChangeModels, rows: Positions) -> Changes:
    """Return the sizes of changes that models let expect of rows."""
    return Changes(models, np.array([model.leaf(history.matrix[rows]) for model in models]))


def weigh_evidence(history: History, period: int, models: ChangeModels) -> Evidence:
    """Hold what a closed period came to against what its scores, and the sizes of changes known by then, let expect."""
    rows = history.rows(period)
    rows = rows[~np.isnan(history.ratio[rows])]
    expected = _expected_totals(history, rows, models)
    arr, ratio = history.arr[rows], history.ratio[rows]
    actual = [arr[ratio == 0].sum(), (arr * np.where(ratio > 0, np.maximum(1 - ratio, 0), 0)).sum(), (arr * np.maximum(ratio - 1, 0)).sum()]
    totals = [PeriodTotal(float(seen), mean, variance, 1.0) for seen, (mean, variance) in zip(actual, expected, strict=True)]
    return Evidence(tuple(totals), rows)


def fit_shocks(history: History, evidence: Mapping[int, Evidence], period: int) -> Shocks:
    """Estimate the shocks from the periods that had closed by a period's cutoff.

    Parameters
    ----------
    evidence
        Of the periods that have any.
    """
    known = [number for number in np.flatnonzero(history.closed(period)).tolist() if number in evidence]
    newest = history.age_days(period)[known].min() if known else 0.0
    weight = 0.5 ** ((history.age_days(period)[known] - newest) / _HALF_LIFE_DAYS) / history.overlap
    past = [evidence[number] for number in known]
    levels = [
        fit_level([replace(found.totals[part], weight=float(share)) for found, share in zip(past, weight, strict=True)])
        for part in range(len(PARTS))
    ]
    groups = {
        kind: {name: fit_spread(_outcomes(history, kind, part, [found.rows for found in past], weight)) for part, name in enumerate(PARTS)}
        for kind in history.groups
    }
    persistence = 0.5 ** (history.window.horizon_days / _SHOCK_HALF_LIFE_DAYS)
    return Shocks(dict(zip(PARTS, levels, strict=True)), fit_correlation(levels), groups, persistence)


def _earlier_and_later(history: History, period: int, step: int) -> list[Positions]:
    """Return rows and those of the same accounts so many steps later, which lie in the last closed year, in periods that do not overlap."""
    closed = np.flatnonzero(history.closed(period))[::-1][:: history.overlap][: history.steps]
    later = history.later(step) if step else np.arange(len(history.period))
    chosen = np.flatnonzero((later >= 0) & np.isin(history.period[later], closed) & (history.ratio[later] > 0))
    return [chosen, later[chosen]]


def _kinds(history: History, rows: Positions) -> npt.NDArray[np.intp]:
    """Return 0 for contraction, 1 for expansion, 2 for neither, -1 for what cannot be told; who did both goes by the ARR."""
    churned, contracted, expanded = (history.outcome[rows] == 1).T
    known = ~np.isnan(history.outcome[rows]).any(axis=1) & ~churned
    both = contracted & expanded
    falls = history.ratio[rows] < 1
    kinds = np.select([contracted & (~both | falls), expanded & (~both | ~falls)], [0, 1], default=2)
    return np.where(known, kinds, -1)


def _fit_kind(history: History, pairs: Sequence[Positions], seed: int) -> ChangeModel:
    earlier, later = pairs
    if not len(earlier):
        return _UNCHANGED
    if len(earlier) > _MOST_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(earlier), _MOST_ROWS, replace=False))
        earlier, later = earlier[chosen], later[chosen]
    return fit_change(
        history.matrix[earlier],
        history.ratio[later],
        arr=history.arr[later],
        account=history.account[earlier],
        categories=history.categories,
    )


def _expected_totals(history: History, rows: Positions, models: ChangeModels) -> list[tuple[Array, Array]]:
    """Return mean and variance of each part's total at each shift of its log-odds, `(n_shifts,)` each."""
    sums = np.zeros((len(PARTS), 2, len(SHIFTS)))
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows[first : first + _ROWS_AT_A_TIME]
        changes = changes_of(history, models, some)
        nothing, everything = np.zeros(len(some)), np.ones(len(some))
        churned = [everything, nothing, nothing, nothing]
        sums[0] += _moments(history, some, 0, churned, churned)
        for part, share in enumerate((_fallen, _risen), start=1):
            sizes, squares = ([nothing, *_of_atoms(changes, share, power)] for power in (1, 2))
            sums[part] += _moments(history, some, part, sizes, squares)
    return [(mean, variance) for mean, variance in sums]


def _moments(history: History, rows: Positions, part: int, sizes: Sequence[Array], squares: Sequence[Array]) -> Array:
    """Return mean and variance of a part's total at each shift, `(2, n_shifts)`.

    Parameters
    ----------
    sizes, squares
        Mean and mean square of the share of ARR that the part takes, `(n,)`, of those who churn, contract, expand, do neither.
    """
    arr = history.arr[rows, None]
    chance = expit(history.log_odds[rows])
    own = expit(history.log_odds[rows, part][:, None] + SHIFTS)
    chances = [*chance.T[:, :, None], np.maximum(1 - chance.sum(axis=1), 0)[:, None]]
    chances[part] = own
    mean = arr * sum(likely * size[:, None] for likely, size in zip(chances, sizes, strict=True))
    mean_square = arr**2 * sum(likely * square[:, None] for likely, square in zip(chances, squares, strict=True))
    return np.array([mean.sum(axis=0), np.maximum(mean_square - mean**2, 0).sum(axis=0)])


def _of_atoms(changes: Changes, share: Callable[[Array], Array], power: int) -> list[Array]:
    """Return, for contraction, expansion and neither, the mean power of a share of ARR for each account."""
    return [
        np.array([np.mean(share(np.array(atoms)) ** power) for atoms in model.atoms])[leaf]
        for model, leaf in zip(changes.models, changes.leaf, strict=True)
    ]


def _fallen(ratio: Array) -> Array:
    return np.maximum(1 - ratio, 0)


def _risen(ratio: Array) -> Array:
    return np.maximum(ratio - 1, 0)


def _outcomes(history: History, kind: str, part: int, periods: Sequence[Positions], weight: Array) -> GroupOutcomes:
    """Return a part's outcomes by group and period."""
    parts = [rows[~np.isnan(history.outcome[rows, part])] for rows in periods]
    rows = np.concatenate([np.zeros(0, dtype=np.intp), *parts])
    period = np.repeat(np.arange(len(parts)), [len(some) for some in parts])
    groups = len(history.groups[kind].names)
    cells, cell = np.unique(period * groups + history.groups[kind].code[rows], return_inverse=True)
    return GroupOutcomes(history.log_odds[rows, part], history.outcome[rows, part], cell, cells // groups, weight)
