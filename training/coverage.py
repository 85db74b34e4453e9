"""Whether the intervals hold: forecasts from past cutoffs, each from what was known then, against what happened.

A forecast that says 80 % should hold what happens four times in five. Past cutoffs are those in the test period of the last training:
the models that scored them had not seen what came, and nothing was chosen on it. Their label windows overlap and groups make up the
book, so the shares rest on fewer independent cases than there are forecasts.

Few customers make few different outcomes: where nobody leaves in one of three futures, gross retention is whole in all of them, and an
interval that ends there holds more than it says. So an outcome that draws tie with counts for as much of its share as lies inside the
interval, as the nonrandomised probability integral transform does: Czado, Gneiting and Held, "Predictive model assessment for count
data", Biometrics 65, 2009.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from features.progress import Progress, silent
from training.dataset import Array
from training.evidence import ChangeModels, Evidence, fit_changes, weigh_evidence
from training.forecast import Outlook, Projection, forecast_retention, retention
from training.history import History

__all__ = ["Coverage", "PastForecast", "Rank", "backtest_forecasts", "measure_coverage", "weigh_periods", "what_happened"]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Where an outcome lies among the draws of its forecast.

    Parameters
    ----------
    below, equal
        Shares of the draws that were below, and just, what came.
    """

    below: float
    equal: float

    def inside(self, level: float) -> float:
        """Return how much of the outcome the central interval of that level holds: 0 to 1, broken only where draws tie with it.

        Examples
        --------
        >>> Rank(below=0.85, equal=0.0).inside(0.8), Rank(below=0.8, equal=0.2).inside(0.8)
        (1.0, 0.5)
        """
        low, high = (1 - level) / 2, (1 + level) / 2
        if not self.equal:
            return float(low <= self.below <= high)
        held = min(high, self.below + self.equal) - max(low, self.below)
        return round(min(1.0, max(0.0, held / self.equal)), 12)


@dataclass(frozen=True, kw_only=True)
class PastForecast:
    """A forecast from a past cutoff, and what happened.

    Parameters
    ----------
    cutoff
        UTC.
    outlook
        What was forecast.
    ndr, grr
        What came.
    ndr_rank, grr_rank
        Where that lies among the draws.
    """

    cutoff: datetime
    outlook: Outlook
    ndr: float
    grr: float
    ndr_rank: Rank
    grr_rank: Rank


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals held what happened.

    Parameters
    ----------
    kind, days
        Which forecasts: of the book, of partners or of segments, so many days ahead.
    forecasts
        How many there were; groups with fewer than ten accounts are left out.
    ndr80, ndr95, grr80, grr95
        Shares of them that fell into the 80 and 95 % intervals, ties in part.
    """

    kind: str
    days: int
    forecasts: int
    ndr80: float
    ndr95: float
    grr80: float
    grr95: float


def weigh_periods(history: History, *, on_progress: Progress = silent) -> tuple[dict[int, Evidence], dict[int, ChangeModels]]:
    """Return the evidence of each period that was scored and has closed, and the sizes of changes as they were known at each scored one."""
    scored = np.flatnonzero(history.scored).tolist()
    models: dict[int, ChangeModels] = {}
    evidence: dict[int, Evidence] = {}
    for done, period in enumerate(scored):
        on_progress("weighing past periods", done, len(scored))
        models[period] = fit_changes(history, period, step=0)
        if models[period][2].rows and not np.isnan(history.ratio[history.rows(period)]).all():
            evidence[period] = weigh_evidence(history, period, models[period])
    return evidence, models


def backtest_forecasts(
    history: History,
    evidence: Mapping[int, Evidence],
    models: Mapping[int, ChangeModels],
    *,
    draws: int,
    seed: int,
    on_progress: Progress = silent,
) -> tuple[PastForecast, ...]:
    """Forecast from every past cutoff of the test period whose horizon, or year, is over, and hold it against what happened."""
    past: list[PastForecast] = []
    origins = [period for period in evidence if history.test[period]]
    for done, period in enumerate(origins):
        on_progress("forecasting from past cutoffs", done, len(origins))
        actual = {step: what_happened(history, period, step) for step in dict.fromkeys((1, history.steps))}
        steps = [step for step, parts in actual.items() if parts is not None]
        projection = forecast_retention(history, period, evidence, steps=steps, draws=draws, seed=seed, models=models[period])
        for number, step in enumerate(steps):
            past += _compared(history, period, projection, number, actual[step])
    return tuple(past)


def what_happened(history: History, period: int, step: int) -> Array | None:
    """Return what the accounts of a period churned, contracted and expanded in so many horizons, `(n, n_parts)`; None if not known yet."""
    rows = history.rows(period)
    last = rows if step == 1 else history.later(step - 1)[rows]
    there = last >= 0
    if not there.any() or np.isnan(history.ratio[last[there]]).any():
        return None
    arr = history.arr[rows]
    end = np.where(there, history.arr[last] * history.ratio[last], 0.0)
    return np.column_stack([np.where(end == 0, arr, 0), np.where(end > 0, np.maximum(arr - end, 0), 0), np.maximum(end - arr, 0)])


def measure_coverage(past: Sequence[PastForecast]) -> tuple[Coverage, ...]:
    """Count how often the intervals of past forecasts held what happened, by kind of group and time ahead."""
    kinds = dict.fromkeys((one.outlook.days, one.outlook.kind) for one in past)
    return tuple(
        _covered([one for one in past if (one.outlook.days, one.outlook.kind) == (days, kind) and not one.outlook.few], kind, days)
        for days, kind in sorted(kinds)
        if any((one.outlook.days, one.outlook.kind) == (days, kind) and not one.outlook.few for one in past)
    )


def _covered(past: Sequence[PastForecast], kind: str, days: int) -> Coverage:
    ranks = [(one.ndr_rank, one.grr_rank) for one in past]
    held = np.array([(ndr.inside(0.8), ndr.inside(0.95), grr.inside(0.8), grr.inside(0.95)) for ndr, grr in ranks])
    ndr80, ndr95, grr80, grr95 = held.mean(axis=0).tolist()
    return Coverage(kind=kind, days=days, forecasts=len(past), ndr80=ndr80, ndr95=ndr95, grr80=grr80, grr95=grr95)


def _compared(history: History, period: int, projection: Projection, number: int, actual: Array | None) -> list[PastForecast]:
    assert actual is not None
    cutoff = history.cutoffs[period].astype("datetime64[us]").item()
    prospects, drawn = projection.prospects, projection.draws[number]
    outlooks = {(outlook.kind, outlook.group): outlook for outlook in projection.outlooks if outlook.days == projection.days[number]}
    found = []
    for kind, groups in prospects.kinds.items():
        arr = groups.sums(prospects.arr)
        ndr, grr = retention(groups.sums(actual), arr)
        ranked = [_ranks(draws, came) for draws, came in zip(retention(drawn.totals[kind], arr), (ndr, grr), strict=True)]
        for position, name in enumerate(groups.names):
            found.append(
                PastForecast(
                    cutoff=cutoff,
                    outlook=outlooks[kind, name],
                    ndr=float(ndr[position]),
                    grr=float(grr[position]),
                    ndr_rank=ranked[0][position],
                    grr_rank=ranked[1][position],
                )
            )
    return found


def _ranks(draws: Array, came: Array) -> list[Rank]:
    """Return the rank of each group's outcome `(n_groups,)` among its draws `(n_draws, n_groups)`."""
    close = np.isclose(draws, came, rtol=0, atol=1e-9)
    below = ((draws < came) & ~close).mean(axis=0)
    return [Rank(below=float(lower), equal=float(tied)) for lower, tied in zip(below, close.mean(axis=0), strict=True)]
