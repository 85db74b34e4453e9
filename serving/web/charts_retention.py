"""Geometry of the charts of net and gross retention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from serving.answers.schema_portfolio import ForecastInterval, RetentionWindow

__all__ = ["Fan", "RetentionPlot", "SpanBar", "retention_plot", "span_bar"]

_WIDTH, _HEIGHT = 760.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 640.0, 14.0, 226.0
_ROUND = 0.05


@dataclass(frozen=True, kw_only=True)
class Fan:
    """One rate: its past as a line, and where the future lies, as bars of 80 and 95 %."""

    name: str
    line: str
    last: tuple[float, float]
    value: float
    middle: float | None
    inner: tuple[float, float] | None
    outer: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RetentionPlot:
    """Rates over time, in a view box of 760 by 260; the forecast stands right of the past."""

    fans: tuple[Fan, ...]
    ticks: tuple[tuple[float, float], ...]
    first: datetime
    last: datetime
    left: float = _LEFT
    right: float = _RIGHT
    bottom: float = _BOTTOM
    ahead: float = _RIGHT + 34.0


def retention_plot(windows: Sequence[RetentionWindow], forecasts: Sequence[tuple[str, ForecastInterval]] = ()) -> RetentionPlot | None:
    """Lay out net and gross retention by month, and the forecast; None with fewer than two months.

    Parameters
    ----------
    forecasts
        By name of the rate, `ndr` and `grr`.
    """
    known = [window for window in windows if window.ndr is not None and window.grr is not None]
    if len(known) < 2:
        return None
    ahead = dict(forecasts)
    values = [value for window in known for value in (window.ndr or 0.0, window.grr or 0.0)]
    values += [end for interval in ahead.values() for end in (interval.low95, interval.high95)]
    low, high = _ROUND * int(min(values) / _ROUND), _ROUND * (int(max(values) / _ROUND) + 1)

    def up(value: float) -> float:
        return round(_BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP), 1)

    fans = []
    for name in ("ndr", "grr"):
        rates = [float(getattr(window, name)) for window in known]
        points = [(round(_LEFT + (_RIGHT - _LEFT) * place / (len(rates) - 1), 1), up(rate)) for place, rate in enumerate(rates)]
        fans.append(_fan(name, points, rates[-1], ahead.get(name), up))
    steps = round((high - low) / _ROUND)
    every = max(1, round(steps / 5))
    ticks = tuple((up(low + step * _ROUND), low + step * _ROUND) for step in range(0, steps + 1, every))
    return RetentionPlot(fans=tuple(fans), ticks=ticks, first=known[0].end, last=known[-1].end)


def _fan(
    name: str, points: Sequence[tuple[float, float]], value: float, interval: ForecastInterval | None, up: Callable[[float], float]
) -> Fan:
    return Fan(
        name=name,
        line=" ".join(f"{x},{y}" for x, y in points),
        last=points[-1],
        value=value,
        middle=None if interval is None else up(interval.median),
        inner=None if interval is None else (up(interval.high80), up(interval.low80)),
        outer=None if interval is None else (up(interval.high95), up(interval.low95)),
    )


@dataclass(frozen=True, kw_only=True)
class SpanBar:
    """A forecast rate on a small scale, in a view box of 160 by 18."""

    inner: tuple[float, float]
    outer: tuple[float, float]
    middle: float
    whole: float | None


def span_bar(interval: ForecastInterval, beside: Sequence[ForecastInterval] = ()) -> SpanBar:
    """Lay out a forecast rate on a scale that it shares with others; `whole` is where 100 % lies."""
    low, high = min(one.low95 for one in (interval, *beside)), max(1.0, *(one.high95 for one in (interval, *beside)))
    if high - low < _ROUND:
        low = high - _ROUND

    def across(value: float) -> float:
        return round(4 + 152 * (value - low) / (high - low), 1)

    return SpanBar(
        inner=(across(interval.low80), across(interval.high80)),
        outer=(across(interval.low95), across(interval.high95)),
        middle=across(interval.median),
        whole=across(1.0),
    )
