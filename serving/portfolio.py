"""The book: choosing, ordering and adding up the accounts that a caller may see."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from serving.health import BANDS, Band
from serving.scoring import Column, ScoreSet, total_of
from serving.sharing import Caller, visible_accounts

__all__ = ["DEFAULT_PAGE_SIZE", "LARGEST_PAGE", "SORTS", "BookPage", "BookQuery", "BookTotals", "Sort", "choices", "select_accounts"]

Sort = Literal["arr_at_risk", "churn_probability", "health", "arr", "renewal_at", "name", "expansion_probability"]

SORTS: Mapping[Sort, Literal["up", "down"]] = {
    "arr_at_risk": "down",
    "churn_probability": "down",
    "health": "up",
    "arr": "down",
    "renewal_at": "up",
    "name": "up",
    "expansion_probability": "down",
}
"""What the book can be ordered by, and which end comes first; accounts without a value come last."""

DEFAULT_PAGE_SIZE = 50
LARGEST_PAGE = 500

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class BookQuery:
    """What of the book is asked for; an empty filter lets everything through.

    Parameters
    ----------
    search
        Part of a name or of an account id, in any case.
    page
        Counted from 1.
    """

    band: Band | None = None
    segment: str | None = None
    partner: str | None = None
    csm: str | None = None
    search: str = ""
    sort: Sort | None = None
    page: int = 1
    page_size: int = DEFAULT_PAGE_SIZE


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


def select_accounts(score_set: ScoreSet, query: BookQuery, caller: Caller) -> BookPage:
    """Return one page of the accounts that the caller may see and the filters leave.

    Without a wish the book is ordered by ARR at risk, or by probability of churn where there is no ARR. A page past the end is empty.
    """
    rows = np.flatnonzero(_visible(score_set, caller) & _matching(score_set, query))
    sort: Sort = query.sort or ("churn_probability" if total_of(score_set.accounts["arr"]) is None else "arr_at_risk")
    ordered = _ordered(score_set, rows, sort)
    start = (query.page - 1) * query.page_size
    return BookPage(
        rows=tuple(int(row) for row in ordered[start : start + query.page_size]),
        totals=_totals(score_set, rows),
        sort=sort,
        page=query.page,
        pages=max(1, math.ceil(len(rows) / query.page_size)),
    )


def choices(score_set: ScoreSet, column: Literal["segment", "csm", "partner_id"], caller: Caller) -> tuple[str, ...]:
    """Return the values that a filter can take among the accounts that the caller may see, in alphabetical order."""
    values = score_set.accounts[column][_visible(score_set, caller)]
    return tuple(sorted({value for value in values if value is not None}))


def _visible(score_set: ScoreSet, caller: Caller) -> npt.NDArray[np.bool_]:
    return visible_accounts(score_set.accounts["partner_id"], caller)


def _matching(score_set: ScoreSet, query: BookQuery) -> npt.NDArray[np.bool_]:
    kept = np.ones(len(score_set), dtype=bool)
    wanted = {"band": query.band, "segment": query.segment, "partner_id": query.partner, "csm": query.csm}
    for column, value in wanted.items():
        if value is not None:
            kept &= score_set.accounts[column] == value
    if words := query.search.strip().casefold():
        names, ids = score_set.accounts["name"], score_set.accounts["account_id"]
        kept &= np.array([words in name.casefold() or words in key.casefold() for name, key in zip(names, ids, strict=True)], dtype=bool)
    return kept


def _ordered(score_set: ScoreSet, rows: Rows, sort: Sort) -> Rows:
    """Order rows by the column, missing values last, equal ones by account id."""
    if sort == "name":
        keys = np.array([name.casefold() for name in score_set.accounts["name"]], dtype=object)
        return np.array(sorted(rows, key=lambda row: (keys[row], row)), dtype=np.intp)
    column = score_set.accounts.get(sort)
    if column is None:
        return rows
    values = _as_numbers(column[rows])
    return rows[np.argsort(values if SORTS[sort] == "up" else -values, kind="stable")]


def _as_numbers(column: Column) -> npt.NDArray[np.float64]:
    if np.issubdtype(column.dtype, np.datetime64):
        numbers = column.astype("datetime64[us]").astype(np.float64)
        numbers[np.isnat(column)] = np.nan
        return numbers
    return column.astype(np.float64)


def _totals(score_set: ScoreSet, rows: Rows) -> BookTotals:
    accounts = score_set.accounts
    return BookTotals(
        accounts=len(rows),
        arr=total_of(accounts["arr"][rows]),
        arr_at_risk=total_of(accounts["arr_at_risk"][rows]),
        bands={band: int((accounts["band"][rows] == band).sum()) for band in BANDS},
    )
