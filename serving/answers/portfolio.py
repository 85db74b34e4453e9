"""The book: choosing, ordering and adding up the accounts that a caller may see.

What a caller may not read it may not filter or order by either: who is left, and in which order, would tell it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.clock import not_after
from serving.health import BANDS, Band
from serving.scores.scoring import Column, ScoreSet, total_of
from serving.scores.sharing import View

__all__ = [
    "DEFAULT_PAGE_SIZE",
    "EVERYTHING",
    "LARGEST_PAGE",
    "SORTS",
    "BookPage",
    "BookQuery",
    "BookTotals",
    "Order",
    "Rows",
    "Sort",
    "Span",
    "assigned_partners",
    "book_rows",
    "choices",
    "closed_fields",
    "rows_after",
    "select_accounts",
    "total_up",
    "visible_rows",
]

Sort = Literal["arr_at_risk", "churn_probability", "health", "arr", "renewal_at", "name", "expansion_probability"]
Order = Literal["ascending", "descending"]

SORTS: Mapping[Sort, Order] = {
    "arr_at_risk": "descending",
    "churn_probability": "descending",
    "health": "ascending",
    "arr": "descending",
    "renewal_at": "ascending",
    "name": "ascending",
    "expansion_probability": "descending",
}
"""What the book can be ordered by, and which end comes first if no order is asked for; accounts without a value come last in both."""

DEFAULT_PAGE_SIZE = 50
LARGEST_PAGE = 500

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_SUMMARY = "AccountSummary"


@dataclass(frozen=True)
class Span:
    """From a lowest to a highest value, both included; an end that is None is open."""

    low: float | None = None
    high: float | None = None


EVERYTHING = Span()


@dataclass(frozen=True, kw_only=True)
class BookQuery:
    """What of the book is asked for; an empty filter lets everything through.

    Parameters
    ----------
    search
        Part of a name or of an account id, in any case.
    arr, churn_probability
        An account without a value is outside of every span that has an end.
    renewal_from, renewal_until
        Instants, UTC without a zone: renewals after the first and not after the second.
    sort, order
        None is ARR at risk, or probability of churn where there is no ARR; and the end that usually comes first.
    page
        Counted from 1.
    """

    band: Band | None = None
    segment: str | None = None
    partner: str | None = None
    csm: str | None = None
    search: str = ""
    arr: Span = EVERYTHING
    churn_probability: Span = EVERYTHING
    renewal_from: datetime | None = None
    renewal_until: datetime | None = None
    sort: Sort | None = None
    order: Order | None = None
    page: int = 1
    page_size: int = DEFAULT_PAGE_SIZE

    @property
    def fields(self) -> frozenset[str]:
        """The fields of an account by which the book is filtered or ordered, as far as that is asked for."""
        asked = {
            "band": self.band is not None,
            "segment": self.segment is not None,
            "partner_id": self.partner is not None,
            "csm": self.csm is not None,
            "arr": self.arr != EVERYTHING,
            "churn_probability": self.churn_probability != EVERYTHING,
            "renewal_at": self.renewal_from is not None or self.renewal_until is not None,
        }
        return frozenset(name for name, wanted in asked.items() if wanted) | ({self.sort} if self.sort else frozenset())


@dataclass(frozen=True, kw_only=True)
class BookTotals:
    """Sums over all accounts that the filters leave; None where no account has an ARR."""

    accounts: int
    arr: float | None
    arr_at_risk: float | None
    bands: Mapping[Band, int]


@dataclass(frozen=True, kw_only=True)
class BookPage:
    """The rows of one page, in order."""

    rows: tuple[int, ...]
    totals: BookTotals
    sort: Sort
    page: int
    pages: int


def select_accounts(score_set: ScoreSet, query: BookQuery, view: View) -> BookPage:
    """Return one page of the accounts that the caller may see and the filters leave; a page past the end is empty."""
    sort, rows = book_rows(score_set, query, view)
    start = (query.page - 1) * query.page_size
    return BookPage(
        rows=tuple(int(row) for row in rows[start : start + query.page_size]),
        totals=total_up(score_set, rows),
        sort=sort,
        page=query.page,
        pages=max(1, math.ceil(len(rows) / query.page_size)),
    )


def book_rows(score_set: ScoreSet, query: BookQuery, view: View) -> tuple[Sort, Rows]:
    """Return what the book is ordered by, and in that order all rows that the caller may see and the filters leave."""
    sort = query.sort or _usual_sort(score_set, view)
    rows = np.flatnonzero(visible_rows(score_set, view) & _matching(score_set, query, view))
    return sort, rows[np.argsort(_ranks(score_set, sort, query.order or SORTS[sort])[rows], kind="stable")]


def rows_after(score_set: ScoreSet, query: BookQuery, view: View, *, last: int) -> Rows:
    """Return, in order, the rows that come after the row `last`, whether that one is among them or not."""
    sort, rows = book_rows(score_set, query, view)
    ranks = _ranks(score_set, sort, query.order or SORTS[sort])
    after: Rows = rows[ranks[rows] > ranks[last]]
    return after


def closed_fields(query: BookQuery, view: View) -> tuple[str, ...]:
    """Return the fields that the query asks about and the caller may not read, in alphabetical order."""
    return tuple(sorted(name for name in query.fields if not _may_read(view, name)))


def choices(score_set: ScoreSet, column: Literal["segment", "csm", "partner_id"], view: View) -> tuple[str, ...]:
    """Return the values that a filter can take among the accounts that the caller may see, in alphabetical order."""
    if not _may_read(view, column):
        return ()
    values = (assigned_partners(score_set, view) if column == "partner_id" else score_set.accounts[column])[visible_rows(score_set, view)]
    return tuple(sorted({value for value in values if value is not None}))


def assigned_partners(score_set: ScoreSet, view: View) -> npt.NDArray[np.object_]:
    """Return the partner that manages each account `(n,)` at the instant of the view; None for nobody."""
    return score_set.assignments.partners(view.at or score_set.manifest.scored_at)


def visible_rows(score_set: ScoreSet, view: View) -> Mask:
    """Tell which accounts `(n,)` the caller may see."""
    visible: Mask = np.zeros(len(score_set), dtype=bool)
    visible[view.managed_rows(score_set.assignments)] = True
    return visible


def total_up(score_set: ScoreSet, rows: Rows) -> BookTotals:
    """Add up accounts; the order of the rows does not matter, to the last digit."""
    rows = np.sort(rows)
    accounts = score_set.accounts
    return BookTotals(
        accounts=len(rows),
        arr=total_of(accounts["arr"][rows]),
        arr_at_risk=total_of(accounts["arr_at_risk"][rows]),
        bands={band: int((accounts["band"][rows] == band).sum()) for band in BANDS},
    )


def _may_read(view: View, name: str) -> bool:
    return view.share(_SUMMARY, {name: True})[name] is not None


def _usual_sort(score_set: ScoreSet, view: View) -> Sort:
    known = ("arr_at_risk",) if total_of(score_set.accounts["arr"]) is not None else ()
    usual: tuple[Sort, ...] = (*known, "churn_probability", "health")
    return next((sort for sort in usual if _may_read(view, sort)), "name")


def _matching(score_set: ScoreSet, query: BookQuery, view: View) -> Mask:
    accounts = score_set.accounts
    kept = np.ones(len(score_set), dtype=bool)
    wanted = {"band": query.band, "segment": query.segment, "csm": query.csm}
    for column, value in wanted.items():
        if value is not None:
            kept &= accounts[column] == value
    if query.partner is not None:
        kept &= assigned_partners(score_set, view) == query.partner
    for column, span in (("arr", query.arr), ("churn_probability", query.churn_probability)):
        kept &= _within(accounts[column], span)
    if query.renewal_from is not None:
        kept &= ~not_after(accounts["renewal_at"], query.renewal_from) & ~np.isnat(accounts["renewal_at"])
    if query.renewal_until is not None:
        kept &= not_after(accounts["renewal_at"], query.renewal_until)
    return kept & _found(score_set, query.search.strip().casefold(), view)


def _within(column: Column, span: Span) -> Mask:
    kept: Mask = np.ones(len(column), dtype=bool)
    if span.low is not None:
        kept &= column >= span.low
    if span.high is not None:
        kept &= column <= span.high
    return kept


def _found(score_set: ScoreSet, words: str, view: View) -> Mask:
    found: Mask = np.full(len(score_set), not words)
    for name in ("name", "account_id"):
        if words and _may_read(view, name):
            found |= np.array([words in text.casefold() for text in score_set.accounts[name]], dtype=bool)
    return found


def _ranks(score_set: ScoreSet, sort: Sort, order: Order) -> Rows:
    """Return the place of every row `(n,)` in the order, missing values last, equal ones by row; worked out once a score set."""
    known = score_set.orders
    if (sort, order) not in known:
        ranks = np.empty(len(score_set), dtype=np.intp)
        ranks[np.argsort(_keys(score_set, sort, order), kind="stable")] = np.arange(len(score_set))
        known[sort, order] = ranks
    return known[sort, order]


def _keys(score_set: ScoreSet, sort: Sort, order: Order) -> npt.NDArray[Any]:
    if sort == "name":
        keys: npt.NDArray[Any] = np.unique([name.casefold() for name in score_set.accounts["name"]], return_inverse=True)[1]
    else:
        keys = _as_numbers(score_set.accounts.get(sort, np.full(len(score_set), np.nan)))
    return keys if order == "ascending" else -keys


def _as_numbers(column: Column) -> npt.NDArray[np.float64]:
    if np.issubdtype(column.dtype, np.datetime64):
        numbers = column.astype("datetime64[us]").astype(np.float64)
        numbers[np.isnat(column)] = np.nan
        return numbers
    return column.astype(np.float64)
