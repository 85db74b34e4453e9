"""Folding: shorter forms of the numbered rows of a piece, for those who count.

At cutoffs at midnight it does not matter when in a day a row happened, but for the newest and the oldest. So rows of single events that
agree in account, in account and kind of event, or in user, are folded to one for each day, or a few, which says how many they are; those
of a user, or of an account and kind, also to one for the whole piece, for whoever does not tell them apart; and the rows that carry an
amount are there once more by themselves. Each form is made only where it is much shorter than the rows.

A row that was recorded after its day had ended is not folded; it stays one of its own.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from features import clock
from features.forms import CARRYING, FOLDED, WHOLE, MonthRows, in_parts
from features.ordering import sorted_rows

__all__ = ["extracts"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

_FROM = {"days-of-accounts": "days-of-kinds"}
"""A form that is folded further, if it is there."""
_OF_FOLDED = {"rows", "oldest"}

_WORTH, _WORTH_WHOLE = 2, 3
"""How many times as long the rows must be; for a form of a whole piece, which has two more columns than they."""
_SAMPLE = 1 << 17
"""So many rows of the middle are folded first, to see whether it is worth it."""
_AT_ONCE = 1 << 20
"""So many rows are folded at a time; a day that reaches over two of such parts has two rows where it might have one."""
_PLACES_A_ROW = 4
"""Accounts and kinds, or users, that there may be for each row; with more, the arrays of all of them cost more than short forms save."""


def extracts(blocks: Sequence[MonthRows], amounts: Collection[str], *, are_single: bool) -> dict[str, list[MonthRows]]:
    """Return the shorter forms of a piece's rows by their names, each in the order of time, those of the whole piece in that of accounts.

    Parameters
    ----------
    blocks
        The rows, in the order of time.
    amounts
        The columns that may carry an amount.
    are_single
        Whether each row stands for one event.
    """
    some, sizes = _sample(blocks), _sizes(blocks)
    places = {by: math.prod(sizes[name] for name in by) for by in (*FOLDED.values(), *WHOLE.values())}
    few = {by for by, size in places.items() if are_single and size <= _PLACES_A_ROW * _n_rows(blocks)}
    wanted = {form: by for form, by in FOLDED.items() if by in few and _is_shorter(_folded(some, by, sizes), some)}
    found: dict[str, list[MonthRows]] = {}
    for form, by in reversed(wanted.items()):
        found[form] = _folded(found.get(_FROM.get(form, ""), blocks), by, sizes)
    found |= {form: [_carrying(rows, name) for rows in blocks] for name, form in CARRYING.items() if name in amounts}
    found = {form: short for form, short in found.items() if _is_shorter(short, blocks)}
    for form, by in WHOLE.items():
        rows = found.get(f"days-of-{form}", blocks)
        if by in few and _n_different(rows, by, sizes) * _WORTH_WHOLE <= _n_rows(rows):
            found[form] = [_by_account(_whole(rows, by, sizes), blocks, sizes["user_id"])]
    return found


def _by_account(folded: MonthRows, blocks: Sequence[MonthRows], n_users: int) -> MonthRows:
    """Return the rows of a whole piece with those of each account together: whoever counts them finds their places close to each other."""
    account = folded.columns.get("account")
    if account is None:
        account_of = np.zeros(n_users, dtype=np.int32)  # the last is of rows without a user
        for rows in blocks:
            account_of[rows.columns["user_id"]] = rows.columns["account"]
        account = account_of[folded.columns["user_id"]]
    return folded.take(sorted_rows(account.astype(np.int64))[0])


def _is_shorter(short: Sequence[MonthRows], rows: Sequence[MonthRows]) -> bool:
    return _n_rows(short) * _WORTH <= _n_rows(rows)


def _n_rows(blocks: Sequence[MonthRows]) -> int:
    return sum(len(rows.time) for rows in blocks)


def _sample(blocks: Sequence[MonthRows]) -> Sequence[MonthRows]:
    """Return some blocks of the middle, of which it can be told how short the others become."""
    parts = list(in_parts(blocks, _SAMPLE))
    return parts[len(parts) // 2]


def _n_different(blocks: Sequence[MonthRows], by: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Return how many different values some columns have."""
    is_there = np.zeros(math.prod(sizes[name] for name in by), dtype=bool)
    for rows in blocks:
        is_there[_places(rows, by, sizes)] = True
    return int(np.count_nonzero(is_there))


def _carrying(rows: MonthRows, name: str) -> MonthRows:
    """Return the rows that carry an amount."""
    return _only(rows, ["time", "known", "account", "event", name]).take(np.flatnonzero(~np.isnan(rows.columns[name])))


def _folded(blocks: Sequence[MonthRows], by: Sequence[str], sizes: Mapping[str, int]) -> list[MonthRows]:
    """Return rows folded by some columns to days."""
    places = _Places(by, sizes)
    parts = (MonthRows.joined([*map(places.placed, part)]) for part in in_parts(blocks, _AT_ONCE))
    return [places.named(_by_day(rows, places)) for rows in parts]


def _whole(blocks: Sequence[MonthRows], by: Sequence[str], sizes: Mapping[str, int]) -> MonthRows:
    """Return rows folded by some columns to the whole piece."""
    places = _Places(by, sizes)
    return places.named(places.folded([*map(places.placed, blocks)]))


def _only(rows: MonthRows, columns: Iterable[str]) -> MonthRows:
    return MonthRows(rows.time, {name: rows.columns[name] for name in columns})


def _sizes(blocks: Sequence[MonthRows]) -> dict[str, int]:
    """Return how many different values each column by which rows are folded may have, -1 with them."""
    names = {name for by in (*FOLDED.values(), *WHOLE.values()) for name in by}
    return {name: max(int(rows.columns[name].max()) for rows in blocks) + 2 for name in names}


def _by_day(rows: MonthRows, places: "_Places") -> MonthRows:
    """Return the rows of each place and day as one."""
    known = rows.columns["known"]
    found = []
    if known is not rows.time:
        is_late = clock.came_after(clock.day_number_of(known), clock.day_number_of(rows.time))
        late, rows = rows.take(is_late), rows.take(~is_late)
        found.append(MonthRows(late.time, {"rows": np.ones(len(late.time), dtype=np.int32), "oldest": late.time, **late.columns}))
    for start, stop in pairwise(clock.stretches_of_days(rows.time).tolist()):
        folded = places.folded([rows.take(slice(start, stop))])
        found.append(MonthRows(folded.time, {**folded.columns, "known": folded.time}))
    days = MonthRows.joined(found)
    return days.take(np.argsort(days.time, kind="stable"))  # of what is nearly sorted it is the quickest


def _places(rows: MonthRows, by: Sequence[str], sizes: Mapping[str, int]) -> Ints:
    """Return one number for the numbers of each row, which may be -1."""
    place = rows.columns[by[0]].astype(np.int64)
    place += 1
    for name in by[1:]:
        place *= sizes[name]
        place += rows.columns[name]
        place += 1
    return place


class _Places:
    """Arrays with a place for each value that rows may have, which are used again for every stretch of rows.

    Parameters
    ----------
    by
        The columns of the values.
    sizes
        How many different values each may have, -1 with them.
    """

    def __init__(self, by: Sequence[str], sizes: Mapping[str, int]) -> None:
        self._by, self._sizes, size = by, sizes, math.prod(sizes[name] for name in by)
        self._last = np.empty(size, dtype=np.int32)
        self._oldest = np.empty(size, dtype=np.int64)
        self._rows = np.zeros(size, dtype=np.int32)

    def placed(self, rows: MonthRows) -> MonthRows:
        """Return rows with their `place` instead of the values."""
        kept = _only(rows, ["time", *{"known", *_OF_FOLDED} & rows.columns.keys()])
        return MonthRows(rows.time, {**kept.columns, "place": _places(rows, self._by, self._sizes)})

    def named(self, rows: MonthRows) -> MonthRows:
        """Return rows with the values instead of their `place`."""
        place, values = rows.columns["place"], dict[str, Numbers]()
        for name in self._by[:0:-1]:
            place, value = np.divmod(place, self._sizes[name])
            values[name] = (value - 1).astype(np.int32)
        values[self._by[0]] = (place - 1).astype(np.int32)
        return MonthRows(rows.time, {name: column for name, column in rows.columns.items() if name != "place"} | values)

    def folded(self, blocks: Sequence[MonthRows]) -> MonthRows:
        """Return the rows of each place as one, in the order of time."""
        firsts = np.cumsum([0, *(len(rows.time) for rows in blocks)])
        for first, rows in zip(firsts.tolist(), blocks, strict=False):
            self._count(rows, first)
        newest = [self._newest(rows, first) for first, rows in zip(firsts[-2::-1].tolist(), blocks[::-1], strict=True)]
        found = MonthRows.joined(newest[::-1])
        place = found.columns["place"]
        n_rows, oldest = self._rows[place], self._oldest[place]
        self._rows[place] = 0
        return MonthRows(found.time, {**found.columns, "rows": n_rows, "oldest": oldest})

    def _count(self, rows: MonthRows, first: int) -> None:
        """Count rows and note which is the last of its place, of which the first has a number."""
        place = rows.columns["place"]
        self._last[place] = _numbers(first, rows)  # of one place, the last in time is written last
        np.add.at(self._rows, place, np.int32(1) if rows.weights is None else rows.weights)  # of another type it takes 40 times as long
        if rows.weights is not None:
            self._oldest[place] = np.iinfo(np.int64).max

    def _newest(self, rows: MonthRows, first: int) -> MonthRows:
        """Note the oldest time of each place, and return the rows that are the last of theirs; from the last block to the first."""
        place = rows.columns["place"]
        if rows.weights is None:
            self._oldest[place[::-1]] = rows.time[::-1]
        else:  # one that came late may lie between the newest and the oldest of its day
            np.minimum.at(self._oldest, place, rows.oldest)
        return _only(rows, ["time", "place"]).take(np.flatnonzero(self._last[place] == _numbers(first, rows)))


def _numbers(first: int, rows: MonthRows) -> Numbers:
    return np.arange(first, first + len(rows.time), dtype=np.int32)
