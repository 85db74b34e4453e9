"""Geometry of the pages' charts, in the units of their SVG view boxes; the templates draw it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from serving.answers.schema import Score
from serving.health import AMBER_FROM, AMBER_TO, BANDS, Band, band_of

__all__ = [
    "SCALE",
    "Bar",
    "Course",
    "Dot",
    "Point",
    "Share",
    "Spark",
    "Waterfall",
    "Zone",
    "band_shares",
    "hundred",
    "over_time",
    "sparkline",
    "waterfall",
]

SCALE = 1000.0
"""Width of every view box."""

_MARGIN = 20.0
_THINNEST = 4.0


@dataclass(frozen=True)
class Bar:
    """One step of a waterfall: from where the odds stood to where they stand, left is lower."""

    start: float
    end: float

    @property
    def left(self) -> float:
        """Where the bar begins."""
        return min(self.start, self.end) - max(0.0, _THINNEST - abs(self.end - self.start)) / 2

    @property
    def width(self) -> float:
        """How wide it is; the smallest effects keep a visible sliver."""
        return max(_THINNEST, abs(self.end - self.start))


@dataclass(frozen=True)
class Waterfall:
    """The way from the model's average account to this one, on the scale of log-odds.

    Parameters
    ----------
    average, account
        Where the average account and this one stand.
    drivers, other
        One bar a named driver, and one for all other factors.
    """

    average: float
    account: float
    drivers: tuple[Bar, ...]
    other: Bar


def waterfall(score: Score) -> Waterfall | None:
    """Lay out a score's drivers; None where their sizes are withheld."""
    parts = [*(driver.part for driver in score.drivers), score.other_factors.part]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    stops = [0.0]
    for part in known:
        stops.append(stops[-1] + part)
    low, high = min(stops), max(stops)
    stretch = (SCALE - 2 * _MARGIN) / (high - low) if high > low else 0.0
    points = [round(_MARGIN + (stop - low) * stretch, 1) for stop in stops]
    bars = tuple(Bar(start, end) for start, end in itertools.pairwise(points))
    return Waterfall(average=points[0], account=points[-1], drivers=bars[:-1], other=bars[-1])


@dataclass(frozen=True)
class Share:
    """One band's piece of a stacked bar."""

    band: Band
    left: float
    width: float


def band_shares(counts: Mapping[Band, int], bands: Sequence[Band] = BANDS) -> tuple[Share, ...]:
    """Lay out how many accounts each band has, as pieces of one bar.

    Examples
    --------
    >>> [(share.left, share.width) for share in band_shares({"red": 1, "amber": 1, "green": 2})]
    [(0.0, 250.0), (250.0, 250.0), (500.0, 500.0)]
    """
    total = sum(counts.values())
    shares, left = [], 0.0
    for band in bands:
        width = round(SCALE * counts[band] / total, 1) if total else 0.0
        shares.append(Share(band, round(left, 1), width))
        left += width
    return tuple(shares)


@dataclass(frozen=True)
class Point:
    """A place in a chart."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Spark:
    """A small line of health: where it goes along, and where it ends.

    Parameters
    ----------
    line
        The points of an SVG polyline.
    first, before, last
        Health where it begins, at the score before the last, and where it ends.
    """

    line: str
    end: Point
    band: Band
    first: int
    before: int
    last: int

    @property
    def change(self) -> int:
        """Points of health since the score before."""
        return self.last - self.before


_SPARK = Point(84.0, 26.0)
_SPARK_PAD = 4.0
_LEAST_SPAN = 30.0
"""Points of health that a small line spans at least, so that a wobble does not look like a fall."""


def sparkline(healths: Sequence[int | None]) -> Spark | None:
    """Lay out a course of health, oldest first; None where fewer than two are known.

    Examples
    --------
    >>> sparkline([40, None, 70]).line
    '4.0,22.0 80.0,4.0'
    >>> sparkline([50, None]) is None
    True
    """
    known = [(position, health) for position, health in enumerate(healths) if health is not None]
    if len(known) < 2:
        return None
    values = [health for _, health in known]
    middle, span = (max(values) + min(values)) / 2, max(_LEAST_SPAN, max(values) - min(values))
    low = middle - span / 2
    width, height = _SPARK.x - 2 * _SPARK_PAD, _SPARK.y - 2 * _SPARK_PAD
    points = [
        Point(_SPARK_PAD + width * position / (len(healths) - 1), _SPARK.y - _SPARK_PAD - height * (health - low) / span)
        for position, health in known
    ]
    return Spark(line=_polyline(points), end=points[-1], band=band_of(values[-1]), first=values[0], before=values[-2], last=values[-1])


@dataclass(frozen=True)
class Zone:
    """A band of health behind a course."""

    band: Band
    top: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One score in a course.

    Parameters
    ----------
    said
        Whether it was said at the time, and not worked out later.
    """

    at: Point
    when: datetime
    health: int
    said: bool


@dataclass(frozen=True, kw_only=True)
class Course:
    """Health over time, in front of its bands, in a view box of 640 by 150; a line breaks where nothing was scored for long."""

    lines: tuple[str, ...]
    dots: tuple[Dot, ...]
    zones: tuple[Zone, ...]
    models: tuple[float, ...]
    left: float
    right: float


_LONGEST_GAP = timedelta(days=200)

_COURSE_WIDTH, _COURSE_HEIGHT = 640.0, 150.0
_COURSE_LEFT, _COURSE_RIGHT = 74.0, 592.0


def over_time(points: Sequence[tuple[datetime, int, bool]], *, models: Sequence[datetime] = ()) -> Course | None:
    """Lay out the course of an account's health; None with fewer than two points.

    Parameters
    ----------
    points
        When, how healthy, and whether it was said at the time; oldest first.
    models
        When a newer model began to score.
    """
    if len(points) < 2:
        return None
    start, end = points[0][0], points[-1][0]

    def across(when: datetime) -> float:
        share = (when - start) / (end - start) if end > start else 1.0
        return round(_COURSE_LEFT + share * (_COURSE_RIGHT - _COURSE_LEFT), 1)

    dots = tuple(Dot(at=Point(across(when), _course_y(health)), when=when, health=health, said=said) for when, health, said in points)
    edges: tuple[tuple[Band, int, int], ...] = (("green", AMBER_TO, 100), ("amber", AMBER_FROM, AMBER_TO), ("red", 0, AMBER_FROM))
    zones = tuple(Zone(band, _course_y(high), round(_course_y(low) - _course_y(high), 1)) for band, low, high in edges)
    return Course(
        lines=tuple(_polyline([dot.at for dot in run]) for run in _runs(dots) if len(run) > 1),
        dots=dots,
        zones=zones,
        models=tuple(across(when) for when in models),
        left=_COURSE_LEFT,
        right=_COURSE_RIGHT,
    )


def _runs(dots: Sequence[Dot]) -> list[list[Dot]]:
    """Part a course where nothing was scored for long: no line leads over years of which nothing is known."""
    runs: list[list[Dot]] = []
    for dot in dots:
        if runs and dot.when - runs[-1][-1].when <= _LONGEST_GAP:
            runs[-1].append(dot)
        else:
            runs.append([dot])
    return runs


def _course_y(health: float) -> float:
    return round(_COURSE_HEIGHT * (1 - health / 100), 1)


def hundred(probability: float) -> int:
    """Return how many of a hundred alike accounts it happens to.

    Examples
    --------
    >>> [hundred(p) for p in (0.001, 0.006, 0.125, 1.0)]
    [0, 1, 12, 100]
    """
    return round(100 * probability)


def _polyline(points: Sequence[Point]) -> str:
    return " ".join(f"{round(point.x, 1)},{round(point.y, 1)}" for point in points)
