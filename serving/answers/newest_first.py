"""Lists that grow at their beginning: the newest line first, a page at a time.

A page ends at a place, the time and the key of its last line, and the next page begins after it. What comes meanwhile stands before both,
so whoever follows the pages is told nothing twice and misses nothing that was there when it began.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

import sqlalchemy as sa

__all__ = ["Page", "Place", "newest_first"]

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a page ends: the time of its last line, naive in UTC, and that line's key, for many lines may have one time."""

    time: datetime
    key: str


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some lines of a list; `end` is None if nothing comes after them."""

    lines: Sequence[T]
    end: Place | None

    @classmethod
    def of(cls, found: Sequence[T], limit: int, place: Callable[[T], Place]) -> Self:
        """Return the page that begins a list of up to one line more than the limit, as `newest_first` finds it."""
        lines = found[:limit]
        return cls(lines, place(lines[-1]) if len(found) > limit else None)


def newest_first(query: sa.Select[Any], place: tuple[sa.Column[Any], sa.Column[Any]], *, after: Place | None, limit: int) -> sa.Select[Any]:
    """Return a query for a page, and for one line more if there is one.

    Parameters
    ----------
    place
        The columns of a line's time and of its key.
    after
        Where the page before ended; None for the first.
    """
    if after is not None:
        query = query.where(sa.tuple_(*place) < (after.time, after.key))
    return query.order_by(*(column.desc() for column in place)).limit(limit + 1)
