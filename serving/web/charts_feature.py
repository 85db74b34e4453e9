"""Geometry of the small charts of a feature: how it went for one account, beside what is usual for it and what its peers have."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from serving.answers.schema import Driver
from serving.scores.feature_courses import FeatureCourse
from serving.web.charts import Point

__all__ = ["FeaturePlot", "Level", "feature_plot"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 5.0, 124.0, 7.0, 39.0
_LINE = 12.0
"""Height of a label."""

_LONGEST_GAP = timedelta(days=100)
"""Where nothing is known for longer, the line breaks."""

_LEAST_SPAN = 0.1
"""The scale spans at least this share of the largest value, so that a wobble does not look like a fall."""

_FARTHEST = 3.0
"""Peers that lie farther than so many times the account's own span away are shown at the edge, with an arrow: else nothing else is seen."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level line across the chart: what is usual for the account itself, or its peers' median.

    Parameters
    ----------
    at, label_at
        Where the line is, and the middle of its label; labels keep clear of each other.
    beyond
        Where the value lies outside of the chart: above, below, or not at all.
    """

    name: Literal["usually", "peers"]
    value: float
    at: float
    label_at: float
    beyond: Literal["", "↑", "↓"]


@dataclass(frozen=True, kw_only=True)
class FeaturePlot:
    """A feature over time, in a view box of 208 by 46; labels stand right of the lines.

    Parameters
    ----------
    lines
        The points of SVG polylines.
    alone
        Points that no line leads to.
    now
        The newest point; None if the value is not known now.
    low, high
        The range of the values.
    """

    lines: tuple[str, ...]
    alone: tuple[Point, ...]
    now: Point | None
    levels: tuple[Level, ...]
    first: datetime
    last: datetime
    low: float
    high: float
    left: float = _LEFT
    right: float = _RIGHT


def feature_plot(course: FeatureCourse | None, driver: Driver) -> FeaturePlot | None:
    """Lay out how a driver's feature went; None where fewer than two values are known, and for flags."""
    known = [(when, value) for when, value in course.points if value is not None] if course else []
    if course is None or len(known) < 2 or driver.unit == "flag":
        return None
    values = [value for _, value in known]
    wanted = {"usually": _usual(known, driver.unit), "peers": driver.peers}
    low, high = _scale(values, driver.peers)
    first, last = course.points[0][0], course.points[-1][0]

    def place(when: datetime, value: float) -> Point:
        across = (when - first) / (last - first)
        return Point(round(_LEFT + across * (_RIGHT - _LEFT), 1), _up(value, low, high))

    runs = _runs([(when, place(when, value)) for when, value in known])
    return FeaturePlot(
        lines=tuple(" ".join(f"{point.x},{point.y}" for point in run) for run in runs if len(run) > 1),
        alone=tuple(run[0] for run in runs if len(run) == 1),
        now=place(*known[-1]) if known[-1][0] == last else None,
        levels=_levels(wanted, low, high),
        first=first,
        last=last,
        low=min(values),
        high=max(values),
    )


def _usual(points: Sequence[tuple[datetime, float]], unit: str) -> float | None:
    """Return the median of the values before the last; a clock, as the days to the next renewal, has nothing usual.

    Examples
    --------
    >>> months = [datetime(2025, month, 1) for month in range(1, 6)]
    >>> _usual(list(zip(months, [40.0, 44.0, 38.0, 41.0, 12.0])), "users")
    40.5
    >>> _usual(list(zip(months, [1.0, 32.0, 60.0, 91.0, 121.0])), "days") is None
    True
    """
    steps = [(abs(value - before), later - earlier) for (earlier, before), (later, value) in itertools.pairwise(points)]
    ticks = [step for step, days in steps if abs(step - days / timedelta(days=1)) < 1]
    if len(points) < 5 or (unit == "days" and 2 * len(ticks) > len(steps)):
        return None
    return median(value for _, value in points[:-1])


def _scale(values: Sequence[float], peers: float | None) -> tuple[float, float]:
    """Return the ends of the scale: those of the values, and of the peers if they are not far off."""
    low, high = min(values), max(values)
    spare = max(0.0, _LEAST_SPAN * max(abs(low), abs(high)) - (high - low)) / 2
    low, high = low - spare, high + spare
    reach = _FARTHEST * (high - low)
    if peers is not None and low - reach <= peers <= high + reach:
        low, high = min(low, peers), max(high, peers)
    return (low, high) if high > low else (low - 1.0, high + 1.0)


def _up(value: float, low: float, high: float) -> float:
    return round(_BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP), 1)


def _runs(points: Sequence[tuple[datetime, Point]]) -> list[list[Point]]:
    """Part a course where nothing is known for long."""
    runs: list[list[Point]] = []
    before: datetime | None = None
    for when, point in points:
        if before is not None and when - before <= _LONGEST_GAP:
            runs[-1].append(point)
        else:
            runs.append([point])
        before = when
    return runs


def _levels(wanted: dict[str, float | None], low: float, high: float) -> tuple[Level, ...]:
    """Lay out the level lines from the top, the labels at least a line apart and inside of the chart."""
    known = sorted(((name, value) for name, value in wanted.items() if value is not None), key=lambda level: -level[1])
    places = [_up(min(max(value, low), high), low, high) for _, value in known]
    labels = list(places)
    if len(labels) == 2 and labels[1] - labels[0] < _LINE:
        middle = min(max(sum(labels) / 2, _TOP + _LINE / 2), _BOTTOM - _LINE / 2)
        labels = [middle - _LINE / 2, middle + _LINE / 2]
    return tuple(
        Level(
            name="usually" if name == "usually" else "peers",
            value=value,
            at=at,
            label_at=round(label_at, 1),
            beyond="↑" if value > high else "↓" if value < low else "",
        )
        for (name, value), at, label_at in zip(known, places, labels, strict=True)
    )
