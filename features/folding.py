"""Folding: shorter forms of the numbered rows of a piece, for those who count.

At cutoffs at midnight it does not matter when in a day a row happened, but for the newest and the oldest. So rows of single events that
agree in account, in account and kind of event, or in user, are folded to one for each day, or a few, which says how many they are; those
of a user, or of an account and kind, also to one for the whole piece, for whoever does not tell them apart; and the rows that carry an
amount are there once more by themselves. Each form is made only where it is much shorter than the rows.

A row that was recorded after its day had ended is not folded; it stays one of its own.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from features import clock
from features.forms import CARRYING, FOLDED, WHOLE, MonthRows

__all__ = ["extracts"]

Ints = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

_OF_FOLDED = {"rows", "oldest"}

_WORTH = 2
"""How many times as long the rows must be."""
_SAMPLE = 1 << 18
"""So many rows of the middle are folded first, to see whether it is worth it."""
_AT_ONCE = 1 << 19
"""So many rows are folded at a time; a day that reaches over two of such parts has two rows where it might have one."""
_PLACES_A_ROW = 4
"""Accounts and kinds, or users, that there may be for each row; with more, the arrays of all of them cost more than short forms save."""


def extracts(blocks: Sequence[MonthRows], amounts: Collection[str], *, are_single: bool) -> dict[str, list[MonthRows]]:
    """Return the shorter forms of a piece's rows by their names, each in the order of time.

    Parameters
    ----------
    blocks
        The rows, in the order of time.
    amounts
        The columns that may carry an amount.
    are_single
        Whether each row stands for one event.
    """
    some = _sample(blocks)
    places = {by: math.prod(_sizes(blocks, by)) for by in (*FOLDED.values(), *WHOLE.values())}
    few = {by for by, size in places.items() if are_single and size <= _PLACES_A_ROW * _n_rows(blocks)}
    wanted = {form: by for form, by in FOLDED.items() if by in few and _is_shorter(_folded(some, by), some)}
    found = {form: _folded(blocks, by) for form, by in wanted.items()}
    found |= {form: _whole(found.get(f"days-of-{form}", blocks), by) for form, by in WHOLE.items() if by in few}
    found |= {form: [_carrying(rows, name) for rows in blocks] for name, form in CARRYING.items() if name in amounts}
    return {form: short for form, short in found.items() if _is_shorter(short, found.get(f"days-of-{form}", blocks))}


def _is_shorter(short: Sequence[MonthRows], rows: Sequence[MonthRows]) -> bool:
    return _n_rows(short) * _WORTH <= _n_rows(rows)


def _n_rows(blocks: Sequence[MonthRows]) -> int:
    return sum(len(rows.time) for rows in blocks)


def _sample(blocks: Sequence[MonthRows]) -> list[MonthRows]:
    """Return some rows of the middle, of which it can be told how short the others become."""
    middle = blocks[len(blocks) // 2]
    start = max(0, (len(middle.time) - _SAMPLE) // 2)
    return [middle.take(slice(start, start + _SAMPLE))]


def _whole(blocks: Sequence[MonthRows], by: Sequence[str]) -> list[MonthRows]:
    """Return one row for each different value of some columns, of rows as they are or folded to days."""
    sizes = _sizes(blocks, by)
    rows = MonthRows.joined([_only(rows, [*by, *_OF_FOLDED & rows.columns.keys()]) for rows in blocks])
    found = _Places(math.prod(sizes)).folded(rows, _places([rows.columns[name] for name in by], sizes))
    return [MonthRows(found["time"], found | _numbers_of(found.pop("place"), by, sizes))]


def _carrying(rows: MonthRows, name: str) -> MonthRows:
    """Return the rows that carry an amount."""
    return _only(rows, ["time", "known", "account", "event", name]).take(np.flatnonzero(~np.isnan(rows.columns[name])))


def _folded(blocks: Sequence[MonthRows], by: Sequence[str]) -> list[MonthRows]:
    """Return rows folded by some columns to days."""
    sizes = _sizes(blocks, by)
    places = _Places(math.prod(sizes))
    wanted = [_only(rows, [*by, *_known(rows)]) for rows in blocks]
    found = []
    for first in range(0, len(blocks), n := max(1, _AT_ONCE // max(len(rows.time) for rows in blocks))):
        part = MonthRows.joined(wanted[first : first + n])
        known = part.columns.get("known", part.time)
        folded = _by_day(part.time, known, _places([part.columns[name] for name in by], sizes), places)
        found.append(MonthRows(folded["time"], folded | _numbers_of(folded.pop("place"), by, sizes)))
    return found


def _only(rows: MonthRows, columns: Iterable[str]) -> MonthRows:
    return MonthRows(rows.time, {name: rows.columns[name] for name in columns})


def _known(rows: MonthRows) -> list[str]:
    """Return the column of when rows became known if it is another than that of when they happened."""
    return [] if rows.columns["known"] is rows.time else ["known"]


def _sizes(blocks: Sequence[MonthRows], by: Sequence[str]) -> list[int]:
    """Return how many different values each column may have, -1 with them."""
    return [max(int(rows.columns[name].max()) for rows in blocks) + 2 for name in by]


def _places(numbers: Sequence[npt.NDArray[np.integer]], sizes: Sequence[int]) -> Ints:
    """Return one number for the numbers of each row, which may be -1."""
    place = numbers[0].astype(np.int64)
    place += 1
    for more, size in zip(numbers[1:], sizes[1:], strict=True):
        place *= size
        place += more
        place += 1
    return place


def _numbers_of(place: Ints, by: Sequence[str], sizes: Sequence[int]) -> Arrays:
    """Return the numbers in each column of what `_places` made of them."""
    return {name: (number - 1).astype(np.int32) for name, number in zip(by, np.unravel_index(place, sizes), strict=True)}


def _by_day(time: Ints, known: Ints, place: Ints, places: "_Places") -> Arrays:
    """Return the rows of each place and day as one, with its `place`, in the order of time."""
    is_late = np.zeros(len(time), dtype=bool)
    if known is not time:
        is_late = clock.came_after(clock.day_number_of(known), clock.day_number_of(time))
    late: Arrays = {"time": time, "oldest": time, "known": known, "place": place, "rows": np.ones(len(time), dtype=np.int32)}
    late = {name: values[is_late] for name, values in late.items()}
    if is_late.any():
        time, place = time[~is_late], place[~is_late]
    days = []
    for start, stop in pairwise(clock.stretches_of_days(time).tolist()):
        folded = places.folded(MonthRows(time[start:stop], {}), place[start:stop])
        days.append(folded | {"known": folded["time"]})
    found = {name: np.concatenate([*(day[name] for day in days), late[name]]) for name in late}
    order = np.argsort(found["time"], kind="stable")  # of what is nearly sorted it is the quickest
    return {name: values[order] for name, values in found.items()}


class _Places:
    """Arrays with a place for each value that rows may have, which are used again for every stretch of rows.

    Parameters
    ----------
    size
        The number of places.
    """

    def __init__(self, size: int) -> None:
        self._last = np.empty(size, dtype=np.int32)
        self._oldest = np.empty(size, dtype=np.int64)
        self._rows = np.zeros(size, dtype=np.int32)

    def folded(self, rows: MonthRows, place: Ints) -> Arrays:
        """Return the rows of each place as one, with its `place`, in the order of time."""
        number = np.arange(len(place), dtype=np.int32)
        self._last[place] = number  # of one place, the last in time is written last
        newest = np.flatnonzero(self._last[place] == number)
        there = place[newest]
        self._oldest[place[::-1]] = rows.oldest[::-1]
        if rows.weights is not None:  # a row that came late lies between the newest and the oldest of its day
            np.minimum.at(self._oldest, place, rows.oldest)
        np.add.at(self._rows, place, np.int32(1) if rows.weights is None else rows.weights)  # of another type it takes 40 times as long
        n_rows = self._rows[there]
        self._rows[there] = 0
        return {"time": rows.time[newest], "oldest": self._oldest[there], "place": there, "rows": n_rows}
