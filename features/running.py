"""Running counts: what had been counted of each place by a few instants, while rows are taken once, in the order in which they are seen.

A *place* is what is counted by: a user, or a kind of event of an account. What a place has in a window is the difference of what it had
by the window's two ends, so it does not matter how many windows of how many cutoffs a row lies in: it is added once, to the running total,
and the total is noted where an end of a window is passed. A row that comes late, for a time that was passed before, is added to what was
noted from that time on as well.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from features import clock

__all__ = ["Ages", "Extremes", "Running", "Weights", "clipped", "held_at_once", "needed_until"]

Ints = npt.NDArray[np.int64]

Weights = npt.NDArray[np.float64] | npt.NDArray[np.int32]

Ages = tuple[int, int | None]
"""From which age in days to which, the latter excluded; None for no end."""

_NEVER, _ALWAYS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def clipped(span: Ages, window: Ages) -> Ages | None:
    """Return the part of a span of ages that lies in a window of ages; None if there is none.

    Examples
    --------
    >>> clipped((0, 91), (0, 364)), clipped((182, 364), (0, None)), clipped((0, 28), (28, 56))
    ((0, 91), (182, 364), None)
    """
    youngest = max(span[0], window[0])
    ends = [end for end in (span[1], window[1]) if end is not None]
    oldest = min(ends, default=None)
    return None if oldest is not None and oldest <= youngest else (youngest, oldest)


def held_at_once(cutoffs: Iterable[int], spans: Iterable[Ages]) -> int:
    """Return how many notes of the total are held at most at one time."""
    needed = needed_until(cutoffs, spans)
    begun = np.sort(np.array(list(needed), dtype=np.int64))
    ended = np.sort(np.array(list(needed.values()), dtype=np.int64))
    held = [_come_by(begun, instant) - _come_by(ended, instant) for instant in begun.tolist()]
    return max(held, default=0) + 1


class Running:
    """What is counted of each place.

    Parameters
    ----------
    size
        The number of places.
    cutoffs
        Microseconds since 1970-01-01 UTC, ascending.
    spans
        The spans of ages that are asked for at every cutoff.
    kind
        The type of a count.
    """

    def __init__(self, size: int, cutoffs: Iterable[int], spans: Iterable[Ages], kind: type[np.number]) -> None:
        spans = set(spans)
        self._total: npt.NDArray[np.number] = np.zeros(size, dtype=kind)
        self._needed_until = needed_until(cutoffs, spans)
        self._ends = np.sort(np.array(list(self._needed_until), dtype=np.int64))
        self._passed = 0
        self._left = int(_NEVER)
        self._noted: dict[int, npt.NDArray[np.number]] = {}
        self._counts_all = any(oldest is None for _, oldest in spans)

    def add(self, times: Ints, places: npt.NDArray[np.integer], weights: Weights | None = None) -> None:
        """Count rows.

        Parameters
        ----------
        times
            Microseconds since 1970-01-01 UTC, ascending, shape `(n,)`.
        places, weights
            The place of each row, and what it counts for, in the type of a count; 1 if there are no weights.
        """
        stops = [0, *np.searchsorted(times, self._ends, side="right").tolist(), len(times)]
        for end, (start, stop) in enumerate(pairwise(stops)):
            if stop > start and (end or self._counts_all):  # what came before the first end of all is in no difference
                self._pass(end)
                self._count(end, places[start:stop], None if weights is None else weights[start:stop])

    @property
    def ends(self) -> Ints:
        """The instants by which is counted, ascending."""
        return self._ends

    def between(self, cutoff: int, span: Ages, places: Ints | slice) -> npt.NDArray[np.number]:
        """Return what places have in a span of ages at a cutoff, once all rows that are seen there were added."""
        youngest, oldest = span
        found = self._by(clock.shifted(cutoff, -youngest))[places]
        return found if oldest is None else found - self._by(clock.shifted(cutoff, -oldest))[places]

    def leave(self, cutoff: int) -> None:
        """Forget what no later cutoff needs."""
        self._left = cutoff
        for end in [end for end in self._noted if clock.was_known(self._needed_until[end], cutoff)]:
            del self._noted[end]

    def _by(self, instant: int) -> npt.NDArray[np.number]:
        return self._noted.get(instant, self._total)

    def _pass(self, end: int) -> None:
        """Note the total for all ends before this one that were not passed yet."""
        for passed in self._ends[self._passed : end].tolist():
            if not clock.was_known(self._needed_until[passed], self._left):
                self._noted[passed] = self._total.copy()
        self._passed = max(self._passed, end)

    def _count(self, end: int, places: npt.NDArray[np.integer], weights: Weights | None) -> None:
        late_for = [self._noted[passed] for passed in self._ends[end : self._passed].tolist() if passed in self._noted]
        if late_for and len(places) * 8 > len(self._total):
            counted = np.zeros_like(self._total)
            _add_at(counted, places, weights)
            for noted in (self._total, *late_for):
                noted += counted
        else:
            for noted in (self._total, *late_for):
                _add_at(noted, places, weights)


def _add_at(counts: npt.NDArray[np.number], places: npt.NDArray[np.integer], weights: Weights | None) -> None:
    np.add.at(counts, places, counts.dtype.type(1) if weights is None else weights)  # of another type it takes 40 times as long


def needed_until(cutoffs: Iterable[int], spans: Iterable[Ages]) -> dict[int, int]:
    """Return by which instants is counted, and the last cutoff that needs each."""
    ages = {age for span in spans for age in span if age is not None}
    return {clock.shifted(cutoff, -age): cutoff for cutoff in cutoffs for age in ages}


def _come_by(times: Ints, instant: int) -> int:
    return int(np.searchsorted(times, instant, side="right"))


class Extremes:
    """The newest and the oldest time of each place, in microseconds since 1970-01-01 UTC.

    Parameters
    ----------
    size
        The number of places.
    with_oldest
        Whether the oldest is asked for.

    Attributes
    ----------
    newest, oldest
        Shape `(size,)`; far away where there is no row.
    """

    def __init__(self, size: int, *, with_oldest: bool) -> None:
        self.newest: Ints = np.full(size, _NEVER)
        self.oldest: Ints | None = np.full(size, _ALWAYS) if with_oldest else None
        self._last = int(_NEVER)

    def add(self, times: Ints, places: npt.NDArray[np.integer], oldest: Ints | None = None) -> None:
        """Note rows.

        Parameters
        ----------
        times
            Ascending, or in any order if each place is there once, shape `(n,)`.
        oldest
            Where a row stands for several, of which the time is the newest: the oldest of them, in any order.
        """
        if not len(times):
            return
        if clock.was_known(self._last, int(times.min())):  # the last that is written is the newest
            self.newest[places] = times
        else:
            np.maximum.at(self.newest, places, times)
        self._last = max(self._last, int(times.max()))
        if self.oldest is not None and oldest is not None:
            np.minimum.at(self.oldest, places, oldest)
        elif self.oldest is not None:
            self._add_oldest(self.oldest, times, places)

    def are_within(self, cutoff: int, ages: Ages, places: slice = slice(None)) -> npt.NDArray[np.bool_]:
        """Tell which of these places have a row of at most this age, of those that were added."""
        return clock.came_after(self.newest[places], int(_NEVER) if ages[1] is None else clock.shifted(cutoff, -ages[1]))

    def _add_oldest(self, oldest: Ints, times: Ints, places: npt.NDArray[np.integer]) -> None:
        if len(places) > len(oldest):
            first = np.full(len(oldest), _ALWAYS)
            first[places[::-1]] = times[::-1]  # of one place, the first in time is written last
            np.minimum(oldest, first, out=oldest)
            return
        older = np.flatnonzero(clock.came_after(oldest[places], times))[::-1]
        oldest[places[older]] = times[older]  # of one place, the first in time is written last
