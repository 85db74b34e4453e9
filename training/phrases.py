"""How numbers are said, in figures and on model cards."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "Json",
    "Show",
    "estimate",
    "four_digits",
    "in_words",
    "number_of",
    "percent",
    "shorten",
    "tenths",
    "three_digits",
    "two_digits",
    "with_sign",
]

Json = Mapping[str, Any]
Show = Callable[[float], str]


def three_digits(value: float) -> str:
    """Show an AUC, say."""
    return f"{value:.3f}"


def two_digits(value: float) -> str:
    """Show a size in log-odds, say."""
    return f"{value:.2f}"


def four_digits(value: float) -> str:
    """Show an error that is small, say."""
    return f"{value:.4f}"


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


def tenths(value: float) -> str:
    """Show a share with a decimal.

    Examples
    --------
    >>> tenths(0.0153)
    '1.5 %'
    """
    return f"{100 * value:.1f} %"


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


def in_words(value: float, low: float | None, high: float | None, show: Show = three_digits) -> str:
    """Say a value with its interval.

    Examples
    --------
    >>> in_words(0.8, 0.75, 0.85), in_words(0.25, None, None, percent)
    ('0.800 (0.750 to 0.850)', '25 %')
    """
    return show(value) if low is None or high is None else f"{show(value)} ({show(low)} to {show(high)})"


def estimate(found: Json, show: Show = three_digits) -> str:
    """Say an estimate as reports hold it: value, low and high."""
    return in_words(found["value"], found["low"], found["high"], show)
