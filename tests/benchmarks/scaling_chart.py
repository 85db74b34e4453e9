"""The chart of how costs grow with the book: CPU an event and memory against the number of events, as SVG.

Each line is named at its end. Colours and greys are of middling brightness, so that they can be read on a light and on a dark page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from comparison import Point

__all__ = ["draw_growth"]

WIDTH, HEIGHT, LEFT, TOP, PLOT, DEEP = 980, 300, 52, 46, 270, 200
"""Of the picture: its size, where a panel begins within its half, and how wide and high its plot is, in pixels."""

SERIES = {
    "check": ("check", "#3f83c9"),
    "features": ("features", "#c2700f"),
    "next check": ("check, a day later", "#8a73c9"),
    "next features": ("features, a later cutoff", "#2f9461"),
    "scan": ("DuckDB scan", "#7d7d7d"),
}
GREY = "#7d7d7d"


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: which values lie at which pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        span = math.log(self.high / self.low) or 1.0
        return self.start + (self.end - self.start) * math.log(value / self.low) / span


def draw_growth(points: Sequence[Point]) -> str:
    """Draw the points of simulated books; without any the picture says so.

    Returns
    -------
    An SVG document.
    """
    shown = sorted((point for point in points if point.book == "simulated"), key=lambda point: point.events)
    if not shown:
        return _document(_text(LEFT, TOP, "no simulated book was measured"))
    times = _panel(shown, 0, "CPU an event, microseconds", lambda point: point.cpu / point.events * 1e6)
    memory = _panel(shown, WIDTH // 2, "most memory held, GiB", lambda point: point.peak_gib)
    return _document(times + memory)


def _panel(points: Sequence[Point], left: int, title: str, measure: Callable[[Point], float]) -> str:
    values = [measure(point) for point in points]
    across = Scale(points[0].events, points[-1].events, left + LEFT, left + LEFT + PLOT)
    up = Scale(_decade(min(values), math.floor), _decade(max(values), math.ceil), TOP + DEEP, TOP)
    lines = {step: [point for point in points if point.step == step] for step in SERIES}
    ends = _apart({step: up(measure(line[-1])) for step, line in lines.items() if line})
    drawn = [_text(left + 8, 20, title, weight="600")]
    drawn += [_tick(left, up, value) for value in _decades(up)]
    drawn += [_text(across(events), TOP + DEEP + 18, _short(events), anchor="middle") for events in sorted({p.events for p in points})]
    for step, place in ends.items():
        name, colour = SERIES[step]
        drawn.append(_line([(across(point.events), up(measure(point))) for point in lines[step]], colour))
        drawn.append(_text(left + LEFT + PLOT + 9, place + 4, name, colour=colour))
    return "".join([*drawn, _text(left + LEFT, TOP + DEEP + 38, "events in the book")])


def _decade(value: float, towards: Callable[[float], int]) -> float:
    return float(10.0 ** towards(math.log10(value)))


def _decades(up: Scale) -> list[float]:
    first, last = (round(math.log10(value)) for value in (up.low, up.high))
    return [10.0**power for power in range(first, last + 1)]


def _apart(ends: dict[str, float], room: float = 15) -> dict[str, float]:
    """Move names that would lie on each other apart, downwards from the highest."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for step, place in sorted(ends.items(), key=lambda item: item[1]):
        lowest = max(place, lowest + room)
        placed[step] = lowest
    return placed


def _short(events: int) -> str:
    """Write a number of events as a chart does.

    Examples
    --------
    >>> _short(1_997_277), _short(40_000)
    ('2 M', '40 k')
    """
    return f"{events / 1e6:.0f} M" if events >= 1e6 else f"{events / 1e3:.0f} k"


def _tick(left: int, up: Scale, value: float) -> str:
    y = up(value)
    line = f'<path d="M{left + LEFT} {y:.1f}h{PLOT}" stroke="{GREY}" stroke-opacity=".3"/>'
    return line + _text(left + LEFT - 8, y + 4, f"{value:g}", anchor="end")


def _line(places: Sequence[tuple[float, float]], colour: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = GREY, weight: str = "400") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{escape(words)}</text>'


def _document(content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13"><title>How costs grow with the number of events</title>'
        f"{content}</svg>\n"
    )
