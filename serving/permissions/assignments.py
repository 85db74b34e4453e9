"""Who manages which account at the instant of a request.

An assignment runs over `[valid_from, valid_to)`, and of several that run at once the one that began last counts. Scores are made as of a
cutoff, but who may see them is a question of today: an account that changes hands at midnight is there for its new partner, and gone for
the old one, with the first request after it, whatever the score set. So the score set holds each account's *changes of hands*, the past
and the coming ones, and is asked with an instant.

All rows of the table count that are there when the book is scored; one that is entered later counts from the next scoring on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from features import clock

__all__ = ["Assignments", "Term"]

_NOBODY = -1
_BEFORE_ALL = -1

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One row of the table of assignments; times are UTC, a missing end is an open one."""

    account_id: str
    partner_id: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True)
class _Epoch:
    """A time in which no account changes hands."""

    number: int
    partner: npt.NDArray[np.object_]
    rows: Mapping[str, Rows]


class Assignments:
    """Who manages each of a score set's accounts, at any instant.

    Parameters
    ----------
    accounts
        How many accounts there are.
    row
        `(n_changes,)` ascending: whose hands change.
    at
        `(n_changes,)` when, microseconds since 1970-01-01 UTC, ascending within an account.
    partner_id
        `(n_changes,)` who manages the account from then on; None for nobody.
    """

    def __init__(
        self, accounts: int, *, row: npt.NDArray[np.integer[Any]], at: npt.NDArray[np.int64], partner_id: Sequence[str | None]
    ) -> None:
        self._row, self._at, self._partner_id = np.asarray(row, dtype=np.int64), np.asarray(at, dtype=np.int64), [*partner_id]
        self._names = sorted({name for name in partner_id if name is not None})
        codes = {name: code for code, name in enumerate(self._names)}
        self._code = np.array([_NOBODY if name is None else codes[name] for name in partner_id] + [_NOBODY], dtype=np.int64)
        self._first = np.searchsorted(self._row, np.arange(accounts + 1))
        self._times, self._offsets = self._at.tolist(), self._first.tolist()
        instants, self._order = np.unique(self._at, return_inverse=True)
        self._instants = instants.tolist()
        self._epoch = self._open(_BEFORE_ALL)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @classmethod
    def of(cls, terms: Iterable[Term], account_ids: Sequence[str]) -> "Assignments":
        """Work out the changes of hands of the accounts, in this order; terms of others are left out."""
        rows = {account_id: row for row, account_id in enumerate(account_ids)}
        by_row: dict[int, list[Term]] = {}
        for term in terms:
            if term.account_id in rows:
                by_row.setdefault(rows[term.account_id], []).append(term)
        changes = [(row, at, partner) for row in sorted(by_row) for at, partner in _changes(by_row[row])]
        row, at, partner_id = zip(*changes, strict=True) if changes else ((), (), ())
        return cls(len(account_ids), row=np.array(row, np.int64), at=np.array(at, np.int64), partner_id=partner_id)

    @classmethod
    def from_columns(cls, columns: Mapping[str, npt.NDArray[Any]], accounts: int) -> "Assignments":
        """Return what `columns` gave, as it comes from a file."""
        at = columns["changed_at"].astype("datetime64[us]").astype(np.int64)
        return cls(accounts, row=columns["row"], at=at, partner_id=columns["partner_id"].tolist())

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the changes of hands as columns: row, changed_at, partner_id (None for nobody)."""
        return {"row": self._row, "changed_at": self._at.astype("datetime64[us]"), "partner_id": np.array(self._partner_id, dtype=object)}

    def slice(self, start: int, stop: int) -> "Assignments":
        """Return those of the accounts in some rows, which count from the first of these."""
        first, last = self._offsets[start], self._offsets[stop]
        return Assignments(
            stop - start, row=self._row[first:last] - start, at=self._at[first:last], partner_id=self._partner_id[first:last]
        )

    def partner_of(self, row: int, instant: datetime) -> str | None:
        """Return the partner that manages the account at the instant (UTC, without a zone); None for nobody."""
        start, end = self._offsets[row], self._offsets[row + 1]
        last = clock.last_by(self._times, clock.microseconds(instant), start, end)
        return self._partner_id[last] if last >= start else None

    def period(self, instant: datetime) -> int:
        """Return the number of the time between two changes of hands, anywhere in the book, that holds the instant.

        Answers made in one period are about the same partners.
        """
        return self._at_instant(instant).number

    def rows_of(self, partner_id: str, instant: datetime) -> Rows:
        """Return the rows of the accounts that the partner manages at the instant, ascending."""
        return self._at_instant(instant).rows.get(partner_id, _NO_ROWS)

    def partners(self, instant: datetime) -> npt.NDArray[np.object_]:
        """Return the partner of each account `(n_accounts,)` at the instant; None for nobody. Not to be written to."""
        return self._at_instant(instant).partner

    def _at_instant(self, instant: datetime) -> _Epoch:
        """Return the epoch of the instant; the one that was asked for last is kept, and is nearly always the one."""
        number = clock.last_by(self._instants, clock.microseconds(instant), 0, len(self._instants))
        epoch = self._epoch
        if epoch.number != number:
            epoch = self._epoch = self._open(number)
        return epoch

    def _open(self, number: int) -> _Epoch:
        done = np.concatenate([[0], np.cumsum(self._order <= number)])
        start, end = self._first[:-1], self._first[1:]
        changed = done[end] - done[start]
        code = self._code[np.where(changed > 0, start + changed - 1, len(self._at))]
        by_partner = np.argsort(code, kind="stable")
        bounds = np.searchsorted(code[by_partner], np.arange(len(self._names) + 1))
        rows = {name: by_partner[bounds[position] : bounds[position + 1]] for position, name in enumerate(self._names)}
        partner = np.array([*self._names, None], dtype=object)[code]
        return _Epoch(number, partner, rows)


_NO_ROWS: Rows = np.array([], dtype=np.intp)


def _changes(terms: list[Term]) -> list[tuple[int, str | None]]:
    """Return when the account changed hands, and whose it was from then on: one sweep over the starts and ends of its terms."""
    by_start: dict[int, list[Term]] = {}
    for term in sorted(terms, key=lambda one: (one.valid_from, one.partner_id)):
        by_start.setdefault(clock.microseconds(term.valid_from), []).append(term)
    ends = {clock.microseconds(term.valid_to) for term in terms if term.valid_to is not None}
    begun: list[Term] = []  # the last one on top
    changes: list[tuple[int, str | None]] = []
    for at in sorted(ends.union(by_start)):
        begun += by_start.get(at, ())
        while begun and clock.ended(begun[-1].valid_to, at):
            begun.pop()
        partner = begun[-1].partner_id if begun else None
        if partner != (changes[-1][1] if changes else None):
            changes.append((at, partner))
    return changes
