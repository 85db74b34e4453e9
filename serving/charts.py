"""Geometry of the pages' charts, in the units of their SVG view boxes; the templates draw it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.health import BANDS, Band
from serving.schema import Score

__all__ = ["SCALE", "Bar", "Share", "Waterfall", "band_shares", "waterfall"]

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
