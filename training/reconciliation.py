"""Hold a forecast against what happened: how far off it was, whether its intervals held, and which accounts made the difference.

The error of the mean forecast splits exactly, for the book and each group::

    NDR - forecast = (expanded - its forecast - (contracted - its forecast) - (churned - its forecast)) / ARR at the cutoff

and each of these is a sum over accounts. ARR at the cutoff is what the forecast took it to be: a correction of it that was booked later
shows as contraction or expansion.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from features.clock import closed_by, label_window_end
from features.errors import NotEnoughDataError, explain
from features.retention import read_movements
from features.workspace import Workspace
from training.actuals import read_paid
from training.dataset import Array
from training.forecast import Outlook, retention
from training.forecasting import Forecast, list_forecasts, read_forecast, read_forecast_accounts
from training.simulation import BOOK

__all__ = ["Difference", "Reconciled", "Reconciliation", "reconcile_accounts", "reconcile_workspace"]

_TOP = 10
_PARTS = ("churned", "contracted", "expanded")


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """The book or a group of it: what was forecast, and what came.

    Parameters
    ----------
    ndr, grr
        What came, ratios.
    churned, contracted, expanded
        What came, in ARR.
    by_churn, by_contraction, by_expansion
        What each adds to NDR beyond its mean forecast; together they are `ndr - outlook.ndr.mean`.
    """

    outlook: Outlook
    ndr: float
    grr: float
    churned: float
    contracted: float
    expanded: float
    by_churn: float
    by_contraction: float
    by_expansion: float

    @property
    def within80(self) -> bool:
        """Whether NDR fell into its 80 % interval."""
        return self.outlook.ndr.covers80(self.ndr)

    @property
    def within95(self) -> bool:
        """Whether NDR fell into its 95 % interval."""
        return self.outlook.ndr.covers95(self.ndr)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An account that came out otherwise than expected.

    Parameters
    ----------
    arr, arr_end
        What it paid at the cutoff and at the end.
    expected_end
        What it was expected to pay at the end, on average over what might have happened.
    """

    account_id: str
    arr: float
    arr_end: float
    expected_end: float

    @property
    def difference(self) -> float:
        """What it pays more than expected, less if below zero."""
        return self.arr_end - self.expected_end


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """A forecast against what happened, so many days after its cutoff.

    Parameters
    ----------
    cutoff, until
        From when to when, UTC.
    groups
        The book first, then its groups by ARR.
    differences
        The accounts that differ most from what was expected, by ARR.
    """

    cutoff: datetime
    until: datetime
    days: int
    currency: str
    groups: tuple[Reconciled, ...]
    differences: tuple[Difference, ...]

    @property
    def book(self) -> Reconciled:
        """The whole book."""
        return self.groups[0]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        groups = [asdict(one) | {"within80": one.within80, "within95": one.within95} for one in self.groups]
        differences = [asdict(one) | {"difference": one.difference} for one in self.differences]
        times = {"cutoff": self.cutoff.isoformat(), "until": self.until.isoformat()}
        return asdict(self) | times | {"groups": groups, "differences": differences}


def reconcile_workspace(workspace: Workspace, *, cutoff: datetime | None = None) -> tuple[Reconciliation, ...]:
    """Hold a kept forecast against what happened, for each time ahead that has come.

    Parameters
    ----------
    cutoff
        Of the forecast; the last one of which any time ahead has come if None.

    Raises
    ------
    WorkspaceError
        If nothing was forecast yet, or the tables are not there.
    NotEnoughDataError
        If no time ahead of any forecast has come.
    """
    data_until = read_movements(workspace)["month"].max().to_pydatetime()
    forecasts = [read_forecast(workspace, known) for known in ([cutoff] if cutoff else list_forecasts(workspace)[::-1])] or [
        read_forecast(workspace)
    ]
    for forecast in forecasts:
        if closed := [days for days in forecast.days if _is_over(forecast, days, data_until)]:
            return tuple(_reconciled(workspace, forecast, days) for days in closed)
    raise _nothing_closed(forecasts[-1], data_until)


def reconcile_accounts(accounts: pd.DataFrame, outlooks: Sequence[Outlook], arr_end: Array) -> tuple[list[Reconciled], list[Difference]]:
    """Hold what was expected of accounts against what they paid.

    Parameters
    ----------
    accounts
        As of `training.forecasting.read_forecast_accounts`.
    outlooks
        Of one time ahead.
    arr_end
        `(n,)` what each account paid then.
    """
    arr = accounts["arr"].to_numpy(dtype=np.float64)
    came = np.column_stack(
        [np.where(arr_end > 0, 0, arr), np.where(arr_end > 0, np.maximum(arr - arr_end, 0), 0), np.maximum(arr_end - arr, 0)]
    )
    days = outlooks[0].days
    expected = accounts[[f"{part}_{days}" for part in _PARTS]].to_numpy(dtype=np.float64)
    groups = [_group(outlook, came[_members(accounts, outlook)]) for outlook in outlooks]
    expected_end = arr - expected[:, 0] - expected[:, 1] + expected[:, 2]
    largest = np.argsort(-np.abs(arr_end - expected_end), kind="stable")[:_TOP]
    names = accounts["account_id"].to_numpy(dtype=object)
    differences = [
        Difference(account_id=str(names[row]), arr=float(arr[row]), arr_end=float(arr_end[row]), expected_end=float(expected_end[row]))
        for row in largest
    ]
    return groups, differences


def _is_over(forecast: Forecast, days: int, data_until: datetime) -> bool:
    return closed_by(forecast.cutoff, data_until, horizon_days=days, lead_days=0, grace_days=forecast.grace_days)


def _reconciled(workspace: Workspace, forecast: Forecast, days: int) -> Reconciliation:
    until = label_window_end(forecast.cutoff, horizon_days=days, lead_days=0)
    accounts = read_forecast_accounts(workspace, forecast.cutoff)
    paid = read_paid(workspace, [until])[until].reindex(accounts["account_id"], fill_value=0.0).to_numpy(dtype=np.float64)
    groups, differences = reconcile_accounts(accounts, [outlook for outlook in forecast.outlooks if outlook.days == days], paid)
    return Reconciliation(
        cutoff=forecast.cutoff,
        until=until,
        days=days,
        currency=forecast.currency,
        groups=tuple(groups),
        differences=tuple(differences),
    )


def _members(accounts: pd.DataFrame, outlook: Outlook) -> Any:
    if outlook.kind == BOOK:
        return np.ones(len(accounts), dtype=bool)
    column = accounts[outlook.kind]
    return (column.isna() if outlook.group is None else column == outlook.group).to_numpy()


def _group(outlook: Outlook, came: Array) -> Reconciled:
    churned, contracted, expanded = (float(amount) for amount in came.sum(axis=0))
    ndr, grr = retention(came.sum(axis=0), np.array(outlook.arr))
    return Reconciled(
        outlook=outlook,
        ndr=float(ndr),
        grr=float(grr),
        churned=churned,
        contracted=contracted,
        expanded=expanded,
        by_churn=(outlook.churned.mean - churned) / outlook.arr,
        by_contraction=(outlook.contracted.mean - contracted) / outlook.arr,
        by_expansion=(expanded - outlook.expanded.mean) / outlook.arr,
    )


def _nothing_closed(forecast: Forecast, data_until: datetime) -> NotEnoughDataError:
    first = forecast.days[0]
    ends = label_window_end(forecast.cutoff, horizon_days=first, lead_days=0, grace_days=forecast.grace_days)
    given = f"forecast from {forecast.cutoff:%Y-%m-%d}, tables until {data_until:%Y-%m-%d}"
    todo = f"Come back with tables until {ends:%Y-%m-%d}: {first} days, and {forecast.grace_days} days of grace for renewals booked late."
    return NotEnoughDataError(explain("nothing that was forecast has come to its end yet", given=given, todo=todo))
