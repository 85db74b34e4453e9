"""Figures of how good a model is: for whom, when, and against what; and of what its forecasts add up to.

Each function takes the part of a report that it draws, as JSON holds it, or plain arrays, and returns a figure.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.canvas import (
    ACCENT,
    INK,
    LINE,
    MODEL,
    MUTED,
    OTHER,
    SHADE,
    Mark,
    band,
    bare_rows,
    dots,
    in_percent,
    name_axes,
    say,
    sheet,
    show_rows,
)
from training.curves import GRID, gain_curves, threshold_curves
from training.dataset import Array
from training.evaluation import resample
from training.phrases import Json, estimate, number_of, percent, shorten, with_sign

__all__ = [
    "draw_baselines",
    "draw_calibration",
    "draw_capacity",
    "draw_folds",
    "draw_gain",
    "draw_retention",
    "draw_roc",
    "draw_slices",
]

_CAPACITIES = (5, 10, 20)
_LABEL = 24
"""Letters of the name of a part or a baseline."""

_TICKS = np.array([0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def draw_calibration(curve: Sequence[Json], *, target: str, ece: float | None = None) -> Figure:
    """Draw how often the outcome happened among rows of about the same probability.

    Parameters
    ----------
    curve
        Bins with `probability`, `frequency`, `low` and `high`.
    ece
        The expected calibration error.
    """
    error = "" if ece is None else f" ECE: {ece:.3f}."
    subtitle = f"Groups of equally many rows, with 95 % intervals. On the line, what was said happened.{error}"
    figure, axes = sheet(f"Calibration of {target}", subtitle, height=3.3)
    said, happened, low, high = (np.array([point[name] for point in curve]) for name in ("probability", "frequency", "low", "high"))
    end = min(1.0, 1.08 * float(max(said.max(), high.max())))
    axes.plot([0, 1], [0, 1], color=OTHER, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for side, place in ((axes.set_xscale, axes.set_xlim), (axes.set_yscale, axes.set_ylim)):
        side("function", functions=(_root, np.square))
        place(0, end)
    axes.vlines(said, low, high, color=MODEL, linewidth=1.6)
    axes.plot(said, happened, "o", color=MODEL, markersize=5.5, markeredgecolor="white", zorder=3)
    ticks = _TICKS[end >= _TICKS]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    in_percent(axes.xaxis, axes.yaxis)
    name_axes(axes, "Probability that was said", "Share to which it happened")
    return figure


def draw_roc(target: Array, probability: Array, *, name: str, auc: Json) -> Figure:
    """Draw the receiver operating characteristic of scores `(n,)` with outcomes `(n,)`."""
    figure, axes = sheet(
        f"ROC curve of {name}", "Each point is a threshold: what is found above it, and what is found in vain.", height=3.4
    )
    found, vain = threshold_curves(target, probability, np.ones((len(target), 1)))
    axes.plot([0, 1], [0, 1], color=OTHER, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(vain[:, 0], found[:, 0], color=MODEL, linewidth=1.8)
    say(axes, 0.97, 0.06, f"AUC {estimate(auc)}", color=MODEL, size=10, ha="right", fontweight="bold")
    say(axes, 0.6, 0.56, "chance", color=MUTED, rotation=_slope(axes))
    _share_axes(axes, "Share of the negatives above the threshold", "Share of the positives above it")
    return figure


def draw_gain(target: Array, probability: Array, account_id: npt.NDArray[Any], *, name: str, resamples: int = 100, seed: int = 0) -> Figure:
    """Draw what share of the positives is found if only those with the highest scores are looked at, with a 95 % band over accounts.

    Parameters
    ----------
    target, probability, account_id
        `(n,)` of test rows.
    """
    subtitle = "If a team looks only at those with the highest scores. The band holds 95 % of resampled books."
    figure, axes = sheet(f"What is found by looking at the highest scores first: {name}", subtitle, height=3.4)
    drawn = resample(account_id, resamples=resamples, seed=seed)
    curves = gain_curves(target, probability, drawn.counts[drawn.account].astype(np.float64))
    axes.plot([0, 1], [0, 1], color=OTHER, linewidth=1, linestyle=(0, (4, 3)))
    band(axes, GRID, *np.nanquantile(curves[:, 1:], [0.025, 0.975], axis=1))
    axes.plot(GRID, curves[:, 0], color=MODEL, linewidth=1.8, zorder=2)
    for capacity in _CAPACITIES:
        value = float(np.interp(capacity / 100, GRID, curves[:, 0]))
        axes.plot([capacity / 100], [value], "o", color=MODEL, markersize=5.5, markeredgecolor="white", zorder=3)
        say(axes, capacity / 100 + 0.015, value - 0.03, f"top {capacity} %: {percent(value)}", va="top")
    say(axes, 0.6, 0.56, "chance", color=MUTED, rotation=_slope(axes))
    _share_axes(axes, "Share of the accounts looked at", "Share of the positives among them")
    return figure


def draw_capacity(metrics: Json, *, target: str) -> Figure:
    """Draw what a team that can look at 5, 10 or 20 % of the accounts finds: positives, and ARR at stake where it is known."""
    kinds = {"recall": "Share of the positives found", "arr_caught": "Share of the ARR at stake found"}
    present = [kind for kind in kinds if all(f"{kind}_top_{capacity}" in metrics for capacity in _CAPACITIES)]
    block = len(_CAPACITIES) + 1
    rows = block * len(present)
    subtitle = "With 95 % intervals; the grey mark is what chance would find."
    figure, axes = sheet(f"What is found at a team's capacity: {target}", subtitle, height=0.25 * rows, left=0.9, right=1.9, bottom=0.4)
    for number, kind in enumerate(present):
        start = block * number
        say(axes, -0.02, start, kinds[kind], fontweight="bold", transform=axes.get_yaxis_transform(), va="center")
        for row, capacity in enumerate(_CAPACITIES, start=start + 1):
            axes.plot([capacity / 100] * 2, [row - 0.25, row + 0.25], color=OTHER, linewidth=2)
            mark = Mark.of(
                f"top {capacity} %", metrics[f"{kind}_top_{capacity}"], note=_lift(metrics, capacity) if kind == "recall" else ""
            )
            show_rows(axes, [mark], show=percent, start=row)
    axes.set_xlim(0, 1)
    in_percent(axes.xaxis)
    return figure


def draw_slices(slices: Mapping[str, Mapping[str, Json]], overall: Json, *, target: str, measure: str = "auc") -> Figure:
    """Draw the AUC for parts of the book.

    Parameters
    ----------
    slices
        By dimension and level: `rows`, `positives`, `metrics` or the `reason` why there are none.
    overall
        The estimate on all rows.
    """
    listed: list[tuple[str, Json | None]] = []
    for dimension, levels in slices.items():
        listed += [(dimension, None), *((name, level) for name, level in levels.items())]
    subtitle = (
        "AUC with 95 % intervals. The line is the whole book, the band its interval; orange parts lie below the line with all of theirs."
    )
    figure, axes = sheet(f"For whom the scores are good: {target}", subtitle, height=0.21 * len(listed), left=1.75, right=2.35, bottom=0.4)
    if overall["low"] is not None:
        axes.axvspan(overall["low"], overall["high"], color=SHADE, alpha=0.6, linewidth=0)
    axes.axvline(overall["value"], color=MODEL, linewidth=1)
    for row, (name, level) in enumerate(listed):
        if level is None:
            say(axes, -0.02, row, name.capitalize(), fontweight="bold", ha="right", va="center", transform=axes.get_yaxis_transform())
        else:
            show_rows(axes, [_slice_mark(name, level, measure)], color=_noticed(level, overall, measure), start=row)
    bare_rows(axes, len(listed))
    _auc_axis(axes, [level["metrics"][measure] for _, level in listed if level and level.get("metrics")] + [overall])
    return figure


def draw_baselines(baselines: Mapping[str, Json], model: Json, *, target: str) -> Figure:
    """Draw the AUC of the model beside that of single rules and a logistic regression.

    Parameters
    ----------
    baselines
        By name: `auc`, and the model's paired `gain` over it.
    model
        The model's AUC.
    """
    ordered = sorted(baselines, key=lambda name: -float(baselines[name]["auc"]["value"]))
    subtitle = "AUC with 95 % intervals; on the right the gain over each baseline on the same rows."
    figure, axes = sheet(f"Against what is easier: {target}", subtitle, height=0.25 * (len(ordered) + 1), left=1.5, right=2.6, bottom=0.4)
    axes.axvline(model["value"], color=MODEL, linewidth=0.8, alpha=0.6)
    show_rows(axes, [Mark.of("the model", model)])
    for row, name in enumerate(ordered, start=1):
        auc, gain = baselines[name]["auc"], baselines[name].get("gain")
        dots(axes, [row], [Mark.of(name, auc)], color=OTHER)
        beside = axes.get_yaxis_transform()
        say(axes, -0.02, row, shorten(name, _LABEL), ha="right", va="center", transform=beside)
        beaten = gain is None or (gain["low"] is not None and gain["low"] > 0)
        words = f"{auc['value']:.3f}" if gain is None else f"{auc['value']:.3f}  gain {estimate(gain, with_sign)}"
        say(axes, 1.02, row, words, color=MUTED if beaten else ACCENT, size=7.5, ha="left", va="center", transform=beside)
    bare_rows(axes, len(ordered) + 1)
    _auc_axis(axes, [model, *(baselines[name]["auc"] for name in ordered)])
    return figure


def draw_folds(folds: Sequence[Json], overall: Json, *, target: str, measure: str = "auc") -> Figure:
    """Draw the backtest: the AUC in each block of the test period, by a model that had not seen it.

    Parameters
    ----------
    folds
        `test_from`, `test_to`, `rows`, `positives` and `metrics`, or None where there are too few rows.
    overall
        The estimate on all of them.
    """
    subtitle = "AUC with 95 % intervals. Each block is scored by a model of what was known at its start; the line is all blocks."
    figure, axes = sheet(f"The backtest, block by block: {target}", subtitle, height=2.4, bottom=0.75)
    marks = [Mark.of("", fold["metrics"][measure] if fold.get("metrics") else None) for fold in folds]
    if overall["low"] is not None:
        axes.axhspan(overall["low"], overall["high"], color=SHADE, alpha=0.6, linewidth=0)
    axes.axhline(overall["value"], color=MODEL, linewidth=1)
    dots(axes, range(len(folds)), marks, vertical=True)
    for place, mark in enumerate(marks):
        words = "too few rows" if mark.value is None else f"{mark.value:.3f}"
        known = [number for number in (mark.high, mark.value, overall["value"]) if number is not None]
        say(axes, place, known[0] + 0.005, words, ha="center", va="bottom")
    axes.set_xticks(range(len(folds)), [_block(fold) for fold in folds])
    axes.set_xlim(-0.5, len(folds) - 0.5)
    axes.grid(visible=False, axis="x")
    low, high = _auc_range([fold["metrics"][measure] for fold in folds if fold.get("metrics")] + [overall])
    axes.set_ylim(low, high + 0.03)
    say(axes, len(folds) - 0.5, 0.5, "chance", color=MUTED, size=7, ha="right", va="bottom")
    return figure


def draw_retention(
    months: Sequence[datetime],
    actual: Sequence[float],
    *,
    ahead: Sequence[datetime],
    middle: Sequence[float],
    low_80: Sequence[float],
    high_80: Sequence[float],
    low_95: Sequence[float],
    high_95: Sequence[float],
    name: str = "Net Dollar Retention",
    window: str = "a year",
) -> Figure:
    """Draw retention as it was, and the forecast as a fan of 80 and 95 % intervals.

    Parameters
    ----------
    months, actual
        When a window of retention ended, and what it was as a ratio.
    ahead, middle, low_80, high_80, low_95, high_95
        The forecast.
    """
    subtitle = f"As a share of the ARR {window} before. The darker fan holds 80 of 100 outcomes, the lighter one 95."
    figure, axes = sheet(name, subtitle, height=3.0, right=1.15)
    axes.axhline(1.0, color=OTHER, linewidth=1, linestyle=(0, (4, 3)))
    joined = (_days([months[-1], *ahead]), actual[-1])
    for low, high, shade in ((low_95, high_95, SHADE), (low_80, high_80, "#9fc0d8")):
        band(axes, joined[0], [joined[1], *low], [joined[1], *high], color=shade)
    axes.plot(_days(months), actual, color=INK, linewidth=1.8, zorder=3)
    axes.plot(joined[0], [joined[1], *middle], color=MODEL, linewidth=1.8, linestyle=(0, (3, 1.5)), zorder=3)
    end = float(joined[0][-1].astype("datetime64[D]").astype(np.float64))
    say(axes, end, middle[-1], f" {percent(middle[-1])}", color=MODEL, va="bottom", fontweight="bold")
    say(axes, end, middle[-1], f" {percent(low_95[-1])} to {percent(high_95[-1])}", color=MUTED, size=7.5, va="top")
    axes.xaxis_date()
    in_percent(axes.yaxis)
    return figure


def _root(value: Array) -> Array:
    return np.sqrt(np.maximum(value, 0))


def _days(months: Sequence[datetime]) -> npt.NDArray[np.datetime64]:
    return np.array(months, dtype="datetime64[D]")


def _share_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    in_percent(axes.xaxis, axes.yaxis)
    name_axes(axes, x, y)


def _slope(axes: Axes) -> float:
    box = axes.get_window_extent()
    return float(np.degrees(np.arctan2(box.height, box.width)))


def _auc_range(estimates: Sequence[Json]) -> tuple[float, float]:
    lows = [float(found["value"] if found["low"] is None else found["low"]) for found in estimates]
    highs = [float(found["value"] if found["high"] is None else found["high"]) for found in estimates]
    return max(0.0, min(0.5, *lows) - 0.02), min(1.0, max(highs) + 0.02)


def _auc_axis(axes: Axes, estimates: Sequence[Json]) -> None:
    low, high = _auc_range(estimates)
    axes.set_xlim(low, high)
    if low < 0.5:
        axes.axvline(0.5, color=LINE, linewidth=1.4, zorder=0)
        say(axes, 0.5, -0.62, "chance", color=MUTED, size=7, ha="center", va="bottom")


def _slice_mark(name: str, level: Json, measure: str) -> Mark:
    if not level.get("metrics"):
        return Mark(shorten(name, _LABEL), None, note=f"too few: {number_of(level['positives'], 'positive')}")
    return Mark.of(shorten(name, _LABEL), level["metrics"][measure], note=number_of(level["positives"], "positive"))


def _noticed(level: Json, overall: Json, measure: str) -> str:
    """Return the accent for a part that the model serves worse than the whole by more than the part's interval."""
    found = (level.get("metrics") or {}).get(measure)
    return ACCENT if found and found["high"] is not None and found["high"] < overall["value"] else MODEL


def _block(fold: Json) -> str:
    first, last = (datetime.fromisoformat(fold[end]) for end in ("test_from", "test_to"))
    period = f"{first:%Y-%m-%d}" if first == last else f"{first:%Y-%m-%d}\nto {last:%Y-%m-%d}"
    return f"{period}\n{fold['positives']:,} of {fold['rows']:,} positive"


def _lift(metrics: Json, capacity: int) -> str:
    lift = metrics.get(f"lift_top_{capacity}")
    return f"lift {lift['value']:.1f}" if lift else ""
