"""Draw what may become of a cohort: account by account, quarter by quarter, under shocks that accounts share.

In each draw and each step, every account that is still there leaves with its probability of churn, else contracts, else expands, else
does neither; all probabilities are shifted on the log-odds by the shocks of that draw (`training.shocks`). Its ARR is then multiplied by
a ratio that is drawn for what happened (`training.change`). Who has left stays away.

After as many steps as a report asks for, an account's ARR stands against that at the start, as in `features.retention`: *churned* is the
ARR of those without any, *contracted* what others have lost, *expanded* what others have gained. So in every draw

    NDR = 1 + (expanded - contracted - churned) / ARR at the start,    GRR = 1 - (contracted + churned) / ARR at the start.

Accounts are drawn in blocks, so that memory does not grow with the book.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import expit

from training.change import ChangeModel
from training.dataset import Array
from training.history import Groups
from training.shocks import PARTS, Shocks

__all__ = ["BOOK", "Changes", "Draws", "Prospects", "simulate_cohort"]

BOOK = "book"
"""The kind of the one group that holds everybody."""

Single = npt.NDArray[np.float32]

_BLOCK = 1_000_000
"""So many pairs of account and draw are held at a time."""


@dataclass(frozen=True, eq=False)
class Changes:
    """The sizes of changes in one step, for each account of a cohort.

    Parameters
    ----------
    models
        Of contraction, of expansion and of neither, in this order.
    leaf
        `(3, n)` the leaf of each account in each of them.
    """

    models: tuple[ChangeModel, ChangeModel, ChangeModel]
    leaf: npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Prospects:
    """What is expected of each account of a cohort of `n`, step by step.

    Parameters
    ----------
    arr
        `(n,)` ARR at the start, above zero.
    log_odds
        `(n_steps, n, n_parts)` of churn, contraction and expansion, if still there.
    changes
        For each step.
    groups
        Breakdowns by kind; `BOOK` is always there.
    """

    arr: Array
    log_odds: Array
    changes: Sequence[Changes]
    groups: Mapping[str, Groups]

    @property
    def kinds(self) -> Mapping[str, Groups]:
        """The breakdowns, that of the whole book included."""
        return {BOOK: Groups((None,), np.zeros(len(self.arr), dtype=np.intp)), **self.groups}


@dataclass(frozen=True, eq=False)
class Draws:
    """What a cohort came to in each draw.

    Parameters
    ----------
    totals
        For each kind of group `(draws, n_groups, n_parts)`: ARR churned, contracted and expanded.
    expected
        `(n, n_parts)` the same for each account, on average over the draws.
    """

    totals: Mapping[str, Array]
    expected: Array


def simulate_cohort(prospects: Prospects, shocks: Shocks, *, reports: Sequence[int], draws: int, seed: int) -> tuple[Draws, ...]:
    """Draw what becomes of a cohort.

    Parameters
    ----------
    reports
        After how many steps it is looked at, in rising order.
    seed
        The same seed gives the same draws.

    Returns
    -------
    One result for each report.
    """
    rng = np.random.default_rng([seed, 0])
    shared = shocks.draw_periods(rng, draws=draws, periods=reports[-1]).astype(np.float32)
    of_groups = {
        kind: shocks.draw_groups(rng, kind, draws=draws, groups=len(groups.names)).astype(np.float32)
        for kind, groups in prospects.groups.items()
        if kind in shocks.groups
    }
    kinds = prospects.kinds
    results = [
        Draws({kind: np.zeros((draws, len(groups.names), len(PARTS))) for kind, groups in kinds.items()}, np.zeros((len(prospects.arr), 3)))
        for _ in reports
    ]
    size = max(1, _BLOCK // draws)
    for number, first in enumerate(range(0, len(prospects.arr), size)):
        block = np.arange(first, min(first + size, len(prospects.arr)))
        rng = np.random.default_rng([seed, 1, number])
        ratio = np.ones((draws, len(block)))
        against = sum((drawn[:, prospects.groups[kind].code[block]] for kind, drawn in of_groups.items()), np.float32(0))
        for step in range(reports[-1]):
            ratio *= _draw_ratios(rng, prospects, block, step, shared[step][:, None, :] + against)
            if step + 1 in reports:
                _add(results[reports.index(step + 1)], kinds, block, prospects.arr[block], ratio)
    return tuple(results)


def _draw_ratios(rng: np.random.Generator, prospects: Prospects, block: npt.NDArray[np.intp], step: int, shift: Single) -> Array:
    """Draw what one unit of ARR becomes in a step, `(draws, n_block)`."""
    probability = expit(prospects.log_odds[step, block].astype(np.float32) + shift)
    total = probability.sum(axis=2)
    uniform = rng.random(total.shape, dtype=np.float32) * np.maximum(total, 1)
    left = uniform < probability[..., 0]
    contracts = ~left & (uniform < probability[..., 0] + probability[..., 1])
    expands = ~left & ~contracts & (uniform < total)
    changes = prospects.changes[step]
    ratio = _drift(rng, changes, block, total.shape)
    for number, happened in enumerate((contracts, expands)):
        draw, account = np.nonzero(happened)
        ratio[draw, account] = changes.models[number].draw(rng, changes.leaf[number, block[account]], (len(account),))
    ratio[left] = 0.0
    return ratio


def _drift(rng: np.random.Generator, changes: Changes, block: npt.NDArray[np.intp], shape: tuple[int, ...]) -> Array:
    """Draw the ratios of those who do neither; most leaves hold no change at all, and cost nothing."""
    model, leaf = changes.models[2], changes.leaf[2, block]
    moves = np.flatnonzero(np.array([set(atoms) != {1.0} for atoms in model.atoms])[leaf])
    ratio = np.ones(shape)
    ratio[:, moves] = model.draw(rng, leaf[moves], (shape[0], len(moves)))
    return ratio


def _add(result: Draws, kinds: Mapping[str, Groups], block: npt.NDArray[np.intp], arr: Array, ratio: Array) -> None:
    """Add a block's ARR churned, contracted and expanded to the totals."""
    change = (ratio - 1) * arr
    churned = np.where(ratio == 0, arr, 0.0)
    parts = (churned, np.maximum(-change, 0) - churned, np.maximum(change, 0))
    for number, amounts in enumerate(parts):
        result.expected[block, number] = amounts.mean(axis=0)
        for kind, groups in kinds.items():
            member = csr_array((np.ones(len(block)), (groups.code[block], np.arange(len(block)))), shape=(len(groups.names), len(block)))
            result.totals[kind][:, :, number] += (member @ amounts.T).T
