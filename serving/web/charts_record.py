"""Geometry of the charts that hold what was said against what happened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serving.answers.schema_track import CalibrationBin

__all__ = ["CalibrationPlot", "Mark", "Tick", "calibration_plot"]

_WIDTH, _HEIGHT = 520.0, 360.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 500.0, 14.0, 314.0
_LEAST = 0.002
"""The lowest chance that has a place of its own: the scale is logarithmic, because most chances are small."""

_TICKS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Tick:
    """A line across the chart, and what it stands for."""

    at: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One group of accounts: what it was told, how many left, and between what the share may lie."""

    x: float
    y: float
    low: float
    high: float
    bin: CalibrationBin


@dataclass(frozen=True, kw_only=True)
class CalibrationPlot:
    """Chances that were given, and shares that left, in a view box of 520 by 360; where both are the same is a diagonal."""

    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    left: float = _LEFT
    right: float = _RIGHT
    top: float = _TOP
    bottom: float = _BOTTOM


def calibration_plot(bins: Sequence[CalibrationBin]) -> CalibrationPlot | None:
    """Lay out the bins of a calibration curve on logarithmic scales; None if there are none to see.

    A share of nothing stands at the lower edge.
    """
    known = [one for one in bins if one.probability is not None and one.frequency is not None]
    if not known:
        return None
    top = max(max(one.probability or 0.0, one.high or one.frequency or 0.0) for one in known)
    end = next(tick for tick in _TICKS if tick >= min(top, 1.0))
    ticks = [tick for tick in _TICKS if tick <= end]
    return CalibrationPlot(
        across=tuple(Tick(_place(tick, end, _LEFT, _RIGHT), tick) for tick in ticks),
        up=tuple(Tick(_place(tick, end, _BOTTOM, _TOP), tick) for tick in ticks),
        marks=tuple(_mark(one, end) for one in known),
    )


def _mark(one: CalibrationBin, end: float) -> Mark:
    frequency = one.frequency or 0.0
    return Mark(
        x=_place(one.probability or 0.0, end, _LEFT, _RIGHT),
        y=_place(frequency, end, _BOTTOM, _TOP),
        low=_place(one.low if one.low is not None else frequency, end, _BOTTOM, _TOP),
        high=_place(one.high if one.high is not None else frequency, end, _BOTTOM, _TOP),
        bin=one,
    )


def _place(value: float, end: float, first: float, last: float) -> float:
    share = math.log(max(value, _LEAST) / _LEAST) / math.log(end / _LEAST)
    return round(first + min(share, 1.0) * (last - first), 1)
