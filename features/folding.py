"""Folding: shorter forms of the numbered rows of a piece, for those who count.

At cutoffs at midnight it does not matter when in a day a row happened, but for the newest and the oldest. So rows of single events that
agree in account and kind of event, or in user, are folded to one for each day, or a few, which says how many they are; those of a user
also to one for the whole piece, for whoever does not tell them apart; and the rows that carry an amount are there once more by themselves.
Each form is made only where it is much shorter than the rows.

A row that was recorded after its day had ended is not folded; it stays one of its own.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from features import clock
from features.forms import CARRYING, FOLDED, WHOLE, MonthRows

__all__ = ["extracts"]

Ints = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

_OF_USERS = "days-of-users"

_WORTH = 3
"""How many times as long the rows must be."""
_SAMPLE = 1 << 17
"""So many rows of the middle are folded first, to see whether it is worth it."""
_AT_ONCE = 1 << 19
"""So many rows are folded at a time; a day that reaches over two of such parts has two rows where it might have one."""


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
    wanted = {form: by for form, by in FOLDED.items() if are_single and _is_shorter(_folded(some, by), some)}
    found = {form: _folded(blocks, by) for form, by in wanted.items()}
    if _OF_USERS in found:
        found[WHOLE] = [_whole(found[_OF_USERS])]
    found |= {form: [_carrying(rows, name) for rows in blocks] for name, form in CARRYING.items() if name in amounts}
    return {form: short for form, short in found.items() if _is_shorter(short, found[_OF_USERS] if form == WHOLE else blocks)}


def _is_shorter(short: Sequence[MonthRows], rows: Sequence[MonthRows]) -> bool:
    return _n_rows(short) * _WORTH <= _n_rows(rows)


def _n_rows(blocks: Sequence[MonthRows]) -> int:
    return sum(len(rows.time) for rows in blocks)


def _sample(blocks: Sequence[MonthRows]) -> list[MonthRows]:
    """Return some rows of the middle, of which it can be told how short the others become."""
    middle = blocks[len(blocks) // 2]
    start = max(0, (len(middle.time) - _SAMPLE) // 2)
    return [middle.take(slice(start, start + _SAMPLE))]


def _whole(days: Sequence[MonthRows]) -> MonthRows:
    """Return one row for each user, of rows that were folded to days."""
    size = max(int(rows.columns["user_id"].max()) for rows in days) + 2
    n_rows, newest = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    oldest = np.full(size, np.iinfo(np.int64).max)
    for rows in days:
        place = rows.columns["user_id"] + 1
        np.add.at(n_rows, place, rows.columns["rows"])
        newest[place] = rows.time
        np.minimum.at(oldest, place, rows.oldest)
    there = np.flatnonzero(n_rows)
    there = there[np.argsort(newest[there])]
    user = (there - 1).astype(np.int32)
    return MonthRows(
        newest[there], {"time": newest[there], "oldest": oldest[there], "rows": n_rows[there].astype(np.int32), "user_id": user}
    )


def _carrying(rows: MonthRows, name: str) -> MonthRows:
    """Return the rows that carry an amount."""
    wanted = {column: rows.columns[column] for column in ("time", "known", "account", "event", name)}
    return MonthRows(rows.time, wanted).take(np.flatnonzero(~np.isnan(rows.columns[name])))


def _folded(blocks: Sequence[MonthRows], by: Sequence[str]) -> list[MonthRows]:
    """Return rows folded by some columns to days."""
    sizes = [max(int(rows.columns[name].max()) for rows in blocks) + 2 for name in by]
    wanted = [MonthRows(rows.time, {name: rows.columns[name] for name in (*by, *_known(rows))}) for rows in blocks]
    found = []
    for first in range(0, len(blocks), n := max(1, _AT_ONCE // max(len(rows.time) for rows in blocks))):
        part = MonthRows.joined(wanted[first : first + n])
        known = part.columns.get("known", part.time)
        folded = _by_day(part.time, known, _places([part.columns[name] for name in by], sizes))
        numbers = np.unravel_index(folded.pop("place"), sizes)
        columns = {name: (number - 1).astype(np.int32) for name, number in zip(by, numbers, strict=True)}
        found.append(MonthRows(folded["time"], folded | columns))
    return found


def _known(rows: MonthRows) -> list[str]:
    """Return the column of when rows became known if it is another than that of when they happened."""
    return [] if rows.columns["known"] is rows.time else ["known"]


def _places(numbers: Sequence[npt.NDArray[np.integer]], sizes: Sequence[int]) -> Ints:
    """Return one number for the numbers of each row, which may be -1."""
    place = numbers[0].astype(np.int64)
    place += 1
    for more, size in zip(numbers[1:], sizes[1:], strict=True):
        place *= size
        place += more
        place += 1
    return place


def _by_day(time: Ints, known: Ints, place: Ints) -> Arrays:
    """Return the rows of each place and day as one, with its `place`, in the order of time."""
    is_late = np.zeros(len(time), dtype=bool)
    if known is not time:
        is_late = clock.came_after(clock.day_number_of(known), clock.day_number_of(time))
    late: Arrays = {"time": time, "oldest": time, "known": known, "place": place, "rows": np.ones(len(time), dtype=np.int32)}
    days: list[Arrays] = [{name: values[is_late] for name, values in late.items()}]
    if is_late.any():
        time, place = time[~is_late], place[~is_late]
    n_places = int(place.max(initial=0)) + 1
    newest, oldest = np.empty(n_places, dtype=np.int64), np.empty(n_places, dtype=np.int64)
    for start, stop in pairwise(clock.stretches_of_days(time).tolist()):
        of_day, times = place[start:stop], time[start:stop]
        newest[of_day], oldest[of_day[::-1]] = times, times[::-1]
        n_rows = np.bincount(of_day)
        there = np.flatnonzero(n_rows)
        last = newest[there]
        days.append({"time": last, "oldest": oldest[there], "known": last, "place": there, "rows": n_rows[there].astype(np.int32)})
    found = {name: np.concatenate([day[name] for day in days]) for name in late}
    order = np.argsort(found["time"])
    return {name: values[order] for name, values in found.items()}
