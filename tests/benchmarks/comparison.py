"""What the benchmarks hand over: work of ours beside the same work, or a part of it, by a peer, taken in turn in one run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Comparison", "Found", "Point", "absent", "compared", "duration", "table"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the table.

    Parameters
    ----------
    what
        The work and its size.
    peer
        Who else does it, or does the part of it that cannot be left out.
    clock
        What is compared: `time`, or `CPU` of all threads and processes.
    ours, theirs
        Seconds for the work, or for one piece of it; None where a side could not be measured.
    ratio
        Ours divided by theirs: below 1, we need less.
    at_most
        What the ratio is meant not to exceed; None where no goal was set.
    note
        What a reader must know to take the numbers for what they are.
    """

    what: str
    peer: str
    clock: str
    ours: float | None
    theirs: float | None
    ratio: float | None
    at_most: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a step took on a book of one size, for the chart of how costs grow.

    Parameters
    ----------
    cpu
        Seconds of CPU.
    peak_gib
        The most memory that its process held.
    """

    book: str
    step: str
    events: int
    cpu: float
    peak_gib: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one benchmark found."""

    comparisons: tuple[Comparison, ...]
    points: tuple[Point, ...] = ()


def compared(
    what: str, peer: str, clock: str, pairs: Iterable[tuple[float, float]], *, at_most: float | None = None, note: str = ""
) -> Comparison:
    """Return a comparison of rounds, in each of which we and the peer took turns: the median of each side, and of the rounds' ratios.

    Parameters
    ----------
    pairs
        Our seconds and the peer's in each round.

    Examples
    --------
    >>> compared("sums", "abacus", "time", [(1.0, 2.0), (3.0, 4.0), (1.0, 1.0)]).ratio
    0.75
    """
    rounds = list(pairs)
    ours, theirs = (median(side) for side in zip(*rounds, strict=True))
    ratio = median(own / other for own, other in rounds)
    return Comparison(what=what, peer=peer, clock=clock, ours=ours, theirs=theirs, ratio=ratio, at_most=at_most, note=note)


def absent(what: str, peer: str, clock: str, *, why: str, ours: float | None = None) -> Comparison:
    """Return the line of a peer that could not be measured, which says why."""
    return Comparison(what=what, peer=peer, clock=clock, ours=ours, theirs=None, ratio=None, note=f"not measured: {why}")


def duration(seconds: float | None) -> str:
    """Write seconds with two or three digits and a unit.

    Examples
    --------
    >>> duration(93.4), duration(1.234), duration(0.0456), duration(3.2e-6), duration(None)
    ('93 s', '1.2 s', '46 ms', '3.2 us', '')
    """
    if seconds is None:
        return ""
    scale, unit = next(((scale, unit) for scale, unit in ((1, "s"), (1e-3, "ms")) if seconds >= scale), (1e-6, "us"))
    value = seconds / scale
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def table(comparisons: Sequence[Comparison]) -> str:
    """Write comparisons as a Markdown table."""
    lines = ["| what | ours | peer | theirs | ours / theirs | goal | |", "|---|---|---|---|---|---|---|"]
    for each in comparisons:
        ratio = "" if each.ratio is None else _number(each.ratio)
        goal = "" if each.at_most is None else f"at most {_number(each.at_most)}"
        said = "; ".join(part for part in ("CPU" if each.clock == "CPU" else "", each.note) if part)
        lines.append(f"| {each.what} | {duration(each.ours)} | {each.peer} | {duration(each.theirs)} | {ratio} | {goal} | {said} |")
    return "\n".join(lines)


def _number(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2g}" if ratio < 0.1 or ratio >= 10 else f"{ratio:.2f}"
