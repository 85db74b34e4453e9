"""The visual language of all figures: one sheet, one set of colours, dots with whiskers, words where a reader looks for them.

Figures are objects of their own: nothing here touches pyplot or matplotlib's settings, so that several threads may draw at once. Colours
are told apart by people with any colour vision, and never carry a meaning alone.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MODEL",
    "MUTED",
    "OTHER",
    "SHADE",
    "Json",
    "Mark",
    "band",
    "bare_rows",
    "dots",
    "in_percent",
    "in_words",
    "name_axes",
    "number_of",
    "percent",
    "render",
    "say",
    "sheet",
    "shorten",
    "show_rows",
    "three_digits",
    "two_digits",
    "with_sign",
]

Json = Mapping[str, Any]

INK, MUTED, LINE = "#17212b", "#566371", "#dde2e8"
MODEL, OTHER, ACCENT = "#1d5a86", "#8a96a3", "#c4572b"
"""The model, what it is held against, and what is to be noticed."""

SHADE = "#cfe0ec"

_FONT = "DejaVu Sans"  # comes with matplotlib, so a figure is the same everywhere
_WIDTH = 7.2
_LINE = 116
"""Characters of a subtitle's line."""

_DOTS_PER_INCH = 144


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


def three_digits(value: float) -> str:
    """Show an AUC, say."""
    return f"{value:.3f}"


def two_digits(value: float) -> str:
    """Show a size in log-odds, say."""
    return f"{value:.2f}"


def with_sign(value: float) -> str:
    """Show a difference, with a minus sign as long as the plus sign.

    Examples
    --------
    >>> with_sign(0.02), with_sign(-0.02)
    ('+0.020', '−0.020')
    """
    return f"{value:+.3f}".replace("-", "−")


def percent(value: float) -> str:
    """Show a share; below one per cent with a decimal.

    Examples
    --------
    >>> percent(0.25), percent(0.005), percent(0.0)
    ('25 %', '0.5 %', '0 %')
    """
    return f"{100 * value:.1f} %" if 0 < abs(value) < 0.01 else f"{100 * value:.0f} %"


def number_of(number: int, noun: str) -> str:
    """Count things.

    Examples
    --------
    >>> number_of(1, "feature"), number_of(1200, "row")
    ('1 feature', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(text: str, letters: int) -> str:
    """Cut a label that is too long to stand beside an axis."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def in_words(mark: Mark, show: Callable[[float], str] = three_digits) -> str:
    """Return a value with its interval.

    Examples
    --------
    >>> in_words(Mark("AUC", 0.8, 0.75, 0.85))
    '0.800 (0.750 to 0.850)'
    """
    if mark.value is None:
        return ""
    interval = "" if mark.low is None or mark.high is None else f" ({show(mark.low)} to {show(mark.high)})"
    return f"{show(mark.value)}{interval}"


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
    for place, mark in known:
        if mark.low is not None and mark.high is not None:
            ends = ([place, place], [mark.low, mark.high])
            axes.plot(*(ends if vertical else ends[::-1]), color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
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
        words = "  ".join(filter(None, (in_words(mark, show), mark.note)))
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
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plain(axes: Axes) -> None:
    axes.set_facecolor("white")
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, pad=5, labelfontfamily=_FONT)
    axes.grid(visible=True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
