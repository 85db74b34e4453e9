"""Net and gross dollar retention: what became of the ARR of a closed cohort of customers.

The cohort C are the customers with ARR > 0 at the start; new ones are left out, and each keeps the partner and the segment that it had
then. With ARR0 and ARR1 for a customer's ARR at the start and at the end of the window,

    churned    = sum of ARR0 where ARR1 = 0
    contracted = sum of max(0, ARR0 - ARR1) where ARR1 > 0
    expanded   = sum of max(0, ARR1 - ARR0)

    NDR = sum ARR1 / sum ARR0            = 1 + (expanded - contracted - churned) / sum ARR0
    GRR = sum min(ARR1, ARR0) / sum ARR0 = 1 - (contracted + churned) / sum ARR0, never above 1
    logo churn = customers with ARR1 = 0 / customers of C

A customer who left and is back within the window counts with its ARR at the end. Who paid nothing at the start and pays at the end is
outside the cohort and reported apart, by the groups of the end: *reactivated* if it paid at the start of any earlier month, else *new*.
These are the customary definitions of recurring-revenue reporting (a point-to-point cohort); others exist, such as the product of
monthly rates, and give other numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from math import isnan
from typing import Any, Literal

import numpy as np
import pandas as pd

from features.clock import closed_by, month_starts, not_after
from features.errors import NotEnoughDataError, WorkspaceError, explain
from features.workspace import Workspace

__all__ = ["Grouping", "Retention", "is_settled", "measure_monthly", "measure_retention", "read_movements", "retention_frame"]

Grouping = Literal["segment", "partner_id", "partner_type"]
"""By what a book may be broken down: a column of its movements."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What became of one cohort.

    Parameters
    ----------
    start, end
        The window, UTC: the cohort paid at `start` and is looked at again at `end`.
    group
        The partner or segment at the start; None for the whole book, and for those without one.
    accounts, lost_accounts
        Customers (logos) of the cohort, and those of them without ARR at the end.
    arr_start, arr_end
        ARR of the cohort at the start and at the end, in the workspace's currency.
    churned, contracted, expanded
        What moved in between, in ARR, each at least 0.
    reactivated, new
        ARR at the end of those who paid nothing at the start: outside NDR.
    """

    start: datetime
    end: datetime
    group: str | None = None
    accounts: int
    lost_accounts: int
    arr_start: float
    arr_end: float
    churned: float
    contracted: float
    expanded: float
    reactivated: float = 0.0
    new: float = 0.0

    @property
    def ndr(self) -> float:
        """Net dollar retention, a ratio; missing (NaN) where nobody paid at the start."""
        return self.arr_end / self.arr_start if self.arr_start else float("nan")

    @property
    def grr(self) -> float:
        """Gross dollar retention, a ratio of at most 1; missing (NaN) where nobody paid at the start."""
        return 1 - (self.contracted + self.churned) / self.arr_start if self.arr_start else float("nan")

    @property
    def logo_churn(self) -> float:
        """The share of the cohort's customers that were lost; missing (NaN) where there were none."""
        return self.lost_accounts / self.accounts if self.accounts else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the rates as plain values, what is missing as None."""
        rates = {"ndr": self.ndr, "grr": self.grr, "logo_churn": self.logo_churn}
        times = {"start": self.start.isoformat(), "end": self.end.isoformat()}
        return asdict(self) | times | {name: None if isnan(rate) else rate for name, rate in rates.items()}


def read_movements(workspace: Workspace) -> pd.DataFrame:
    """Read the movements of a workspace; columns as of `features.movements`.

    Raises
    ------
    NotEnoughDataError
        If the book has no subscriptions.
    WorkspaceError
        If the movements have not been computed yet.
    """
    if "subscriptions" not in workspace.config.tables:
        raise NotEnoughDataError(
            explain(
                "this book has no subscriptions, so it has no ARR and no Net Dollar Retention",
                given=", ".join(workspace.config.tables),
                todo="If you know what the customers pay, map it: [tables.subscriptions] with start_date, end_date and arr.",
            )
        )
    path = workspace.snapshots / "movements.parquet"
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise WorkspaceError(explain("the movements have not been computed yet", given=path, todo="Run `renewcast features`.")) from error


def measure_retention(movements: pd.DataFrame, *, start: datetime, end: datetime, by: Grouping | None = None) -> tuple[Retention, ...]:
    """Measure what became of the customers of one instant by another.

    Parameters
    ----------
    movements
        As of `features.movements`: account_id, month, arr and the groups, one row for each account and instant at which it paid.
    start, end
        Naive UTC; the first midnight of a month each, or the end of the data.
    by
        The grouping; the whole book if None.

    Returns
    -------
    tuple of Retention
        One for the book, or one for each group by name, those without a group last.

    Raises
    ------
    NotEnoughDataError
        If the movements do not say what was paid at the start or the end.

    Examples
    --------
    >>> months = [datetime(2024, 1, 1)] * 3 + [datetime(2025, 1, 1)] * 3
    >>> paid = pd.DataFrame({"account_id": list("abcabd"), "month": months, "arr": [50.0, 30.0, 20.0, 65.0, 25.0, 9.0]})
    >>> (book,) = measure_retention(paid, start=months[0], end=months[-1])
    >>> print(f"NDR {book.ndr:.0%}, GRR {book.grr:.0%}, logo churn {book.logo_churn:.0%}, new {book.new:.0f}")
    NDR 90%, GRR 75%, logo churn 33%, new 9
    """
    instants = _instants(movements)
    if start not in instants or end not in instants[instants.index(start) + 1 :]:
        raise NotEnoughDataError(
            explain(
                "the movements do not say what became of the customers of that day by the other",
                given=f"from {start:%Y-%m-%d} to {end:%Y-%m-%d}",
                allowed=f"two first days of months, the later one last, from {instants[0]:%Y-%m-%d} to {instants[-1]:%Y-%m-%d}"
                if instants
                else "nothing: nobody ever paid",
            )
        )
    pairs = _pairs(movements, start, end, by)
    groups = pairs.groupby("group", dropna=False) if by else [(None, pairs)]
    return tuple(_summed(rows, start, end, None if pd.isna(group) else str(group)) for group, rows in groups)


def measure_monthly(movements: pd.DataFrame, *, months: int, by: Grouping | None = None, last: int = 0) -> tuple[Retention, ...]:
    """Measure the retention of every window of so many months that begins and ends with a month; parameters as of `measure_retention`.

    Parameters
    ----------
    last
        How many windows, the last ones; all if 0.

    Returns
    -------
    tuple of Retention
        By end, then by group.

    Raises
    ------
    NotEnoughDataError
        If the history is shorter than the window.
    """
    firsts = [instant for instant in _instants(movements) if instant.day == 1]
    if len(firsts) <= months:
        history = f"{len(firsts)} starts of months" + (f", {firsts[0]:%Y-%m-%d} to {firsts[-1]:%Y-%m-%d}" if firsts else "")
        raise NotEnoughDataError(
            explain(
                f"the history is too short for a window of {months} months",
                given=history,
                allowed=f"1 to {len(firsts) - 1} months" if len(firsts) > 1 else "",
                todo="Ask for a shorter window, or give more history.",
            )
        )
    windows = list(zip(firsts[:-months], firsts[months:], strict=True))[-last:]
    return tuple(found for start, end in windows for found in measure_retention(movements, start=start, end=end, by=by))


def is_settled(measured: Retention, movements: pd.DataFrame, *, grace_days: int) -> bool:
    """Tell whether a window ended at least a grace period before the data do; until then renewals booked late may still raise it."""
    data_until = movements["month"].max().to_pydatetime()
    return closed_by(measured.end, data_until, horizon_days=0, lead_days=0, grace_days=grace_days)


def retention_frame(measured: Sequence[Retention]) -> pd.DataFrame:
    """Return one row for each cohort: the fields of `Retention`, and ndr, grr and logo_churn."""
    rates = {"ndr": [one.ndr for one in measured], "grr": [one.grr for one in measured]}
    return pd.DataFrame([asdict(one) for one in measured]).assign(**rates, logo_churn=[one.logo_churn for one in measured])


def _instants(movements: pd.DataFrame) -> list[datetime]:
    """Return the instants that the movements speak of: the starts of months from the first payment on, and the end of the data."""
    if movements.empty:
        return []
    first, last = (instant.to_pydatetime() for instant in (movements["month"].min(), movements["month"].max()))
    months = list(month_starts(first, last))
    return months if last in months else [*months, last]


def _pairs(movements: pd.DataFrame, start: datetime, end: datetime, by: Grouping | None) -> pd.DataFrame:
    """Return, for each account that paid at the start or the end, both ARRs (0 for none), its group and whether it had paid before."""
    columns = ["account_id", "arr", *([by] if by else [])]
    paid = movements[columns].set_index("account_id")
    before, after = (paid[(movements["month"] == instant).to_numpy()] for instant in (start, end))
    both = before.add_suffix("_start").join(after.add_suffix("_end"), how="outer")
    paid_before = movements.loc[not_after(movements["month"].to_numpy(), start), "account_id"].unique()
    found = both[["arr_start", "arr_end"]].fillna(0.0).assign(known=both.index.isin(paid_before))
    return found.assign(group=both[f"{by}_start"].where(both["arr_start"].notna(), both[f"{by}_end"])) if by else found


def _summed(rows: pd.DataFrame, start: datetime, end: datetime, group: str | None) -> Retention:
    arr_start, arr_end = rows["arr_start"].to_numpy(), rows["arr_end"].to_numpy()
    cohort, stayed, returned = arr_start > 0, arr_end > 0, rows["known"].to_numpy()
    kept = cohort & stayed
    return Retention(
        start=start,
        end=end,
        group=group,
        accounts=int(cohort.sum()),
        lost_accounts=int((cohort & ~stayed).sum()),
        arr_start=float(arr_start.sum()),
        arr_end=float(arr_end[cohort].sum()),
        churned=float(arr_start[~stayed].sum()),
        contracted=float(np.maximum(0.0, arr_start - arr_end)[kept].sum()),
        expanded=float(np.maximum(0.0, arr_end - arr_start)[kept].sum()),
        reactivated=float(arr_end[~cohort & returned].sum()),
        new=float(arr_end[~cohort & ~returned].sum()),
    )
