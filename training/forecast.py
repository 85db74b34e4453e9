"""The retention that a book's scores add up to: NDR and GRR of the customers of one day, after a horizon and after about a year.

The cohort are the accounts that pay at the cutoff, each with the partner and the segment that it has then; new customers are left out.
What becomes of it is drawn many times (`training.simulation`), with the shocks that past periods showed (`training.shocks`), chances that
evolve as past scores did (`training.evolution`), and changes of ARR of the sizes that were seen (`training.change`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.dataset import Array
from training.evidence import ChangeModels, Evidence, changes_of, fit_changes, fit_shocks
from training.evolution import Evolution, fit_evolution
from training.history import History
from training.shocks import Shocks
from training.simulation import BOOK, Draws, Prospects, simulate_cohort

__all__ = ["FEW_ACCOUNTS", "Interval", "Outlook", "Projection", "forecast_retention", "measure", "retention"]

FEW_ACCOUNTS = 10
"""A group with fewer accounts is flagged: its retention hangs on single customers."""

_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True)
class Interval:
    """A forecast number: what is expected, the middle, and where it lies with 80 and 95 % probability."""

    mean: float
    median: float
    low80: float
    high80: float
    low95: float
    high95: float

    def covers80(self, value: float) -> bool:
        """Tell whether the 80 % interval holds the value."""
        return self.low80 <= value <= self.high80

    def covers95(self, value: float) -> bool:
        """Tell whether the 95 % interval holds the value."""
        return self.low95 <= value <= self.high95


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of the book or one group of it.

    Parameters
    ----------
    kind
        `book`, `partner` or `segment`.
    group
        The partner's id or the segment; None for the book, and for those without one.
    days
        How far ahead, from the cutoff.
    accounts, arr
        Size of the cohort: customers, and their ARR at the cutoff.
    ndr, grr
        Net and gross dollar retention, ratios.
    churned, contracted, expanded
        The parts, in ARR: NDR = 1 + (expanded - contracted - churned) / ARR, also on average over the draws.
    """

    kind: str
    group: str | None
    days: int
    accounts: int
    arr: float
    ndr: Interval
    grr: Interval
    churned: Interval
    contracted: Interval
    expanded: Interval

    @property
    def few(self) -> bool:
        """Whether the group has too few accounts for its retention to mean much."""
        return self.accounts < FEW_ACCOUNTS


@dataclass(frozen=True, eq=False)
class Projection:
    """One forecast, with what it was drawn from.

    Parameters
    ----------
    prospects
        The cohort and what is expected of each account.
    days
        After how many days it is looked at, for each of `draws`.
    draws
        For each of `days`.
    evolution
        How chances evolve over the year.
    shocks
        What accounts share.
    """

    prospects: Prospects
    days: tuple[int, ...]
    draws: tuple[Draws, ...]
    evolution: Evolution
    shocks: Shocks

    @property
    def outlooks(self) -> tuple[Outlook, ...]:
        """The forecast in numbers: by time, then the book, then its groups."""
        return tuple(
            outlook for days, drawn in zip(self.days, self.draws, strict=True) for outlook in _outlooks(self.prospects, drawn, days=days)
        )


def forecast_retention(
    history: History,
    period: int,
    evidence: Mapping[int, Evidence],
    *,
    steps: Sequence[int],
    draws: int,
    seed: int,
    models: ChangeModels | None = None,
) -> Projection:
    """Forecast what becomes of the accounts that pay at a period's cutoff, from what was known then.

    Parameters
    ----------
    evidence
        Of earlier periods; those that had not closed by the cutoff are not used.
    steps
        After how many horizons the cohort is looked at, in rising order.
    models
        The sizes of changes in the first step, if they are there already.
    """
    rows = history.rows(period)
    every_step = range(steps[-1])
    changes = [models or fit_changes(history, period, step=0)]
    for step in every_step[1:]:
        later = fit_changes(history, period, step=step)
        changes.append(tuple(new if new.rows else old for new, old in zip(later, changes[-1], strict=True)))  # type: ignore[arg-type]
    evolution = fit_evolution(history, steps=steps[-1], known=history.closed(period))
    prospects = Prospects(
        arr=history.arr[rows],
        log_odds=evolution.log_odds(history.log_odds[rows], history.renewal_days[rows]),
        changes=[changes_of(history, found, rows) for found in changes],
        groups={kind: groups.at(rows) for kind, groups in history.groups.items()},
    )
    shocks = fit_shocks(history, evidence, period)
    drawn = simulate_cohort(prospects, shocks, reports=steps, draws=draws, seed=seed)
    days = tuple(step * history.window.horizon_days + history.window.lead_days for step in steps)
    return Projection(prospects, days, drawn, evolution, shocks)


def retention(totals: Array, arr: Array) -> tuple[Array, Array]:
    """Return NDR and GRR of totals `(..., n_parts)` churned, contracted and expanded, and of ARR at the start `(...)`.

    Examples
    --------
    >>> ndr, grr = retention(np.array([20.0, 5.0, 15.0]), np.array(100.0))
    >>> round(float(ndr), 6), round(float(grr), 6)
    (0.9, 0.75)
    """
    churned, contracted, expanded = np.moveaxis(totals, -1, 0)
    return 1 + (expanded - contracted - churned) / arr, 1 - (contracted + churned) / arr


def measure(values: Array) -> Interval:
    """Return the intervals of draws `(n_draws,)`.

    Examples
    --------
    >>> measure(np.arange(101.0)).high80
    90.0
    """
    low95, low80, median, high80, high95 = (float(value) for value in np.quantile(values, _LEVELS))
    return Interval(mean=float(values.mean()), median=median, low80=low80, high80=high80, low95=low95, high95=high95)


def _outlooks(prospects: Prospects, drawn: Draws, *, days: int) -> list[Outlook]:
    found = []
    for kind, groups in prospects.kinds.items():
        arr = groups.sums(prospects.arr)
        ndr, grr = retention(drawn.totals[kind], arr)
        for number, name in enumerate(groups.names):
            churned, contracted, expanded = (measure(drawn.totals[kind][:, number, part]) for part in range(3))
            found.append(
                Outlook(
                    kind=kind,
                    group=name,
                    days=days,
                    accounts=int((groups.code == number).sum()),
                    arr=float(arr[number]),
                    ndr=measure(ndr[:, number]),
                    grr=measure(grr[:, number]),
                    churned=churned,
                    contracted=contracted,
                    expanded=expanded,
                )
            )
    return sorted(found, key=lambda outlook: (outlook.kind != BOOK, outlook.kind, -outlook.arr))
