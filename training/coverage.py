"""Whether the intervals hold: forecasts from past cutoffs, each from what was known then, against what happened.

A forecast that says 80 % should hold what happens four times in five. Past cutoffs are those in the test period of the last training:
the models that scored them had not seen what came, and nothing was chosen on it. Their label windows overlap and groups make up the
book, so the shares rest on fewer independent cases than there are forecasts.
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

__all__ = ["Coverage", "PastForecast", "backtest_forecasts", "measure_coverage", "weigh_periods", "what_happened"]


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
    below, equal
        Shares of the draws whose NDR was below, and just, what came: few customers make few different outcomes.
    """

    cutoff: datetime
    outlook: Outlook
    ndr: float
    grr: float
    below: float
    equal: float


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
        Shares of them that fell into the 80 and 95 % intervals.
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
    held = np.array(
        [
            (
                one.outlook.ndr.covers80(one.ndr),
                one.outlook.ndr.covers95(one.ndr),
                one.outlook.grr.covers80(one.grr),
                one.outlook.grr.covers95(one.grr),
            )
            for one in past
        ]
    )
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
        draws, _ = retention(drawn.totals[kind], arr)
        close = np.isclose(draws, ndr, rtol=0, atol=1e-9)
        for position, name in enumerate(groups.names):
            found.append(
                PastForecast(
                    cutoff=cutoff,
                    outlook=outlooks[kind, name],
                    ndr=float(ndr[position]),
                    grr=float(grr[position]),
                    below=float((draws < ndr)[:, position].mean() - ((draws < ndr) & close)[:, position].mean()),
                    equal=float(close[:, position].mean()),
                )
            )
    return found
