"""The visual language of all figures: one sheet, one set of colours, dots with whiskers, words where a reader looks for them.

Figures are objects of their own: nothing here touches pyplot or matplotlib's settings, so that several threads may draw at once. Colours
are told apart by people with any colour vision, and never carry a meaning alone.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from training.phrases import Json, in_words, percent, three_digits

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MODEL",
    "MUTED",
    "OTHER",
    "SHADE",
    "Mark",
    "band",
    "bare_rows",
    "dots",
    "in_percent",
    "name_axes",
    "render",
    "say",
    "sheet",
    "show_rows",
]

INK, MUTED, LINE = "#17212b", "#566371", "#dde2e8"
MODEL, OTHER, ACCENT = "#1d5a86", "#8a96a3", "#c4572b"
"""The model, what it is held against, and what is to be noticed."""

SHADE = "#cfe0ec"

_FONT = "DejaVu Sans"  # comes with matplotlib, so a figure is the same everywhere
_WIDTH = 7.2
_LINE = 116
"""Characters of a subtitle's line."""

_DOTS_PER_INCH = 128


@dataclass(frozen=True)
class Mark:
    """A value and its interval, to be drawn as a dot with whiskers.

    Parameters
    ----------
    label
        What it is the value of.
    note
        A word beside the value, such as how many rows it is of.
    value
        None where there is none; the note says why.
    """

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @classmethod
    def of(cls, label: str, estimate: Json | None, note: str = "") -> "Mark":
        """Make a mark of an estimate as reports hold it: value, low and high."""
        return cls(label, None, note=note) if estimate is None else cls(label, estimate["value"], estimate["low"], estimate["high"], note)


def sheet(title: str, subtitle: str, *, height: float, left: float = 0.75, right: float = 0.3, bottom: float = 0.6) -> tuple[Figure, Axes]:
    """Open a figure with a title and a line or two on how to read it.

    Parameters
    ----------
    height
        Of the axes, in inches.
    left, right, bottom
        The margins beside and below them, in inches.
    """
    lines = textwrap.wrap(subtitle, _LINE)
    top = 0.62 + 0.16 * len(lines)
    whole = top + height + bottom
    figure = Figure(figsize=(_WIDTH, whole), dpi=_DOTS_PER_INCH, facecolor="white")
    figure.text(0.16 / _WIDTH, 1 - 0.26 / whole, title, fontsize=12, fontweight="bold", color=INK, fontfamily=_FONT, va="center")
    below = 1 - 0.44 / whole
    figure.text(0.16 / _WIDTH, below, "\n".join(lines), fontsize=8, color=MUTED, fontfamily=_FONT, va="top", linespacing=1.35)
    axes = figure.add_axes((left / _WIDTH, bottom / whole, (_WIDTH - left - right) / _WIDTH, height / whole))
    _plain(axes)
    return figure, axes


def say(axes: Axes, x: float, y: float, text: str, *, color: str = INK, size: float = 8, **options: Any) -> None:
    """Write a label into a figure, in the units of its data unless `transform` says otherwise."""
    axes.text(x, y, text, color=color, fontsize=size, fontfamily=_FONT, **options)


def dots(axes: Axes, positions: Sequence[float], marks: Sequence[Mark], *, color: str = MODEL, vertical: bool = False) -> None:
    """Draw values as dots with their intervals as whiskers, along rows, or along columns if vertical."""
    known = [(place, mark) for place, mark in zip(positions, marks, strict=True) if mark.value is not None]
    whiskers = [(place, mark.low, mark.high) for place, mark in known if mark.low is not None and mark.high is not None]
    if whiskers:
        draw = axes.vlines if vertical else axes.hlines
        draw(*zip(*whiskers, strict=True), color=color, linewidth=1.6, capstyle="butt", zorder=2)
    places, values = [place for place, _ in known], [mark.value for _, mark in known]
    axes.plot(*((places, values) if vertical else (values, places)), "o", color=color, markersize=5.5, markeredgecolor="white", zorder=3)


def show_rows(
    axes: Axes, marks: Sequence[Mark], *, color: str = MODEL, show: Callable[[float], str] = three_digits, start: float = 0.0
) -> None:
    """List marks from top to bottom, with their labels on the left and their values in words on the right."""
    places = [start + row for row in range(len(marks))]
    dots(axes, places, marks, color=color)
    beside = axes.get_yaxis_transform()
    for place, mark in zip(places, marks, strict=True):
        say(axes, -0.02, place, mark.label, ha="right", va="center", transform=beside)
        known = "" if mark.value is None else in_words(mark.value, mark.low, mark.high, show)
        words = "  ".join(filter(None, (known, mark.note)))
        say(axes, 1.02, place, words, color=MUTED, size=7.5, ha="left", va="center", transform=beside)
    bare_rows(axes, start + len(marks))


def bare_rows(axes: Axes, rows: float) -> None:
    """Make room for so many rows from top to bottom, without a scale beside them."""
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def name_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """Say what the axes are."""
    axes.set_xlabel(x, fontsize=8, color=MUTED, loc="left", fontfamily=_FONT)
    axes.set_ylabel(y, fontsize=8, color=MUTED, loc="top", fontfamily=_FONT)


def in_percent(*axes: Axis) -> None:
    """Let axes count in per cent."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))


def band(axes: Axes, at: Any, low: Any, high: Any, *, color: str = SHADE) -> None:
    """Shade the room between two curves."""
    axes.fill_between(np.asarray(at), np.asarray(low), np.asarray(high), color=color, linewidth=0, zorder=1)


def render(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def _plain(axes: Axes) -> None:
    axes.set_facecolor("white")
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, pad=5, labelfontfamily=_FONT)
    axes.grid(visible=True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
