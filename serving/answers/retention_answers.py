"""Net and gross retention as a caller may read it: what was, by month, and what is forecast for today's customers.

A partner is told about its own book only, and only for windows with enough customers: fewer would tell what single ones pay. Of past
windows it is told about the customers that it managed throughout, as long as they paid: what an account paid after it changed hands is
not the former partner's to know.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypedDict

import pandas as pd

from features.clock import not_after
from features.errors import NotEnoughDataError, WorkspaceError
from features.retention import Grouping, is_settled, measure_monthly, measure_retention, read_movements
from features.retention import Retention as Measured
from features.workspace import Workspace
from serving.answers.schema_portfolio import (
    ForecastInterval,
    Retention,
    RetentionCoverage,
    RetentionForecast,
    RetentionOutlook,
    RetentionSeries,
    RetentionWindow,
)
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from training.forecast import Interval, Outlook
from training.forecasting import Forecast, list_forecasts, read_forecast

__all__ = ["ON_THE_PAGE", "ON_THE_PAGE_OF_PARTNERS", "By", "kept_retention", "prepare_retention", "retention_answer"]

By = Literal["partner", "segment"]


class _Asked(TypedDict):
    months: int
    by: By | None
    last: int


ON_THE_PAGE: _Asked = {"months": 12, "by": None, "last": 25}
ON_THE_PAGE_OF_PARTNERS: _Asked = {"months": 12, "by": "partner", "last": 1}
"""What the pages ask for."""

_KEY: Hashable = "retention"
_KEPT_AT_MOST = 100
_COLUMNS: dict[By, Grouping] = {"partner": "partner_id", "segment": "segment"}
_BOOK = "book"
_NONE_FOR_THE_VENDOR = "No forecast has been made yet. Whoever runs Renewcast makes one with “renewcast forecast”."
_NONE_FOR_A_PARTNER = "There is no forecast of your customers yet. Ask your vendor, who has it made."


@dataclass(frozen=True)
class _Seen:
    """A book's movements, and who asks about them."""

    workspace: Workspace
    movements: pd.DataFrame
    view: View


def kept_retention(workspace: Workspace, score_set: ScoreSet, view: View, *, months: int, by: By | None, last: int) -> Retention:
    """Return `retention_answer`, worked out once for a score set, a caller, a policy, a forecast and the movements.

    The newest of these answers are kept, but for the long ones, of many windows of many groups.
    """
    if by is not None and last > 1:
        return retention_answer(workspace, view, months=months, by=by, last=last)
    kept: dict[Hashable, Retention] = score_set.memory.setdefault(_KEY, {})
    of = (view.caller, view.policy.fingerprint, list_forecasts(workspace)[-1:], _time_of(workspace.snapshots / "movements.parquet"))
    key = (*of, months, by, last)
    if (found := kept.get(key)) is None:
        found = kept[key] = retention_answer(workspace, view, months=months, by=by, last=last)
        for oldest in list(kept)[:-_KEPT_AT_MOST]:
            kept.pop(oldest, None)
    return found


def _time_of(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def prepare_retention(workspace: Workspace, score_set: ScoreSet, view: View) -> None:
    """Work out what the pages show of the vendor's book, unless it is kept, so that nobody waits for it."""
    for asked in (ON_THE_PAGE, ON_THE_PAGE_OF_PARTNERS):
        kept_retention(workspace, score_set, view, **asked)


def retention_answer(workspace: Workspace, view: View, *, months: int, by: By | None, last: int) -> Retention:
    """Return the retention of the caller's book; reads files, so call it in a thread.

    Parameters
    ----------
    months
        Length of the past windows.
    by
        Shows each group beside the book, for the vendor.
    last
        How many windows, the last ones.
    """
    notes: list[str] = []
    values = {
        "currency": workspace.config.currency,
        "months": months,
        "by": by,
        "actual": _actual(workspace, view, months, by, last, notes),
        "forecast": _forecast(workspace, view, by, notes),
        "notes": notes,
    }
    return Retention(**view.share("Retention", values))


def _actual(workspace: Workspace, view: View, months: int, by: By | None, last: int, notes: list[str]) -> list[RetentionSeries]:
    """Return the series; a note says why there is none."""
    try:
        seen = _Seen(workspace, _movements(workspace, view), view)
        book = measure_monthly(seen.movements, months=months, last=last)
    except NotEnoughDataError as error:
        notes.append(_first_line(error))
        return []
    except WorkspaceError:
        notes.append("What customers paid by month has not been computed yet.")
        return []
    if view.caller.partner_id is not None:
        own = [_of_partner(seen, view.caller.partner_id, one) for one in book]
        return _told(seen, [one for one in own if one is not None], view.caller.partner_id, notes)
    series = [_series(seen, None, book)]
    if by is not None:
        groups = measure_monthly(seen.movements, months=months, by=_COLUMNS[by], last=last)
        names = sorted({one.group for one in groups}, key=lambda group: (group is None, group or ""))
        series += [_series(seen, name, [one for one in groups if one.group == name]) for name in names]
    return series


def _movements(workspace: Workspace, view: View) -> pd.DataFrame:
    """Return the movements of the book; for a partner those of customers that it ever managed, and a first and a last row of the book."""
    rows = read_movements(workspace)
    if view.caller.partner_id is None or rows.empty:
        return rows
    own = rows["account_id"].isin(rows.loc[rows["partner_id"] == view.caller.partner_id, "account_id"].unique())
    own.iloc[[int(rows["month"].argmin()), int(rows["month"].argmax())]] = True
    return rows[own]


def _of_partner(seen: _Seen, partner_id: str, window: Measured) -> Measured | None:
    """Measure a window over the customers that the partner managed whenever they paid in it; None if it had none at the start."""
    rows = seen.movements
    months = rows["month"].to_numpy()
    inside = not_after(months, window.end) & ~not_after(months, window.start - timedelta(microseconds=1))
    foreign = rows.loc[inside & (rows["partner_id"] != partner_id).to_numpy(), "account_id"].unique()
    kept = rows.assign(partner_id=rows["partner_id"].where(~rows["account_id"].isin(foreign)))
    measured = measure_retention(kept, start=window.start, end=window.end, by="partner_id")
    return next((one for one in measured if one.group == partner_id), None)


def _told(seen: _Seen, windows: Sequence[Measured], partner_id: str, notes: list[str]) -> list[RetentionSeries]:
    """Return the windows of a partner that have enough customers."""
    needed = seen.view.policy.numbers.peers_needed
    large = [one for one in windows if one.accounts >= needed]
    if len(large) < len(windows) or not windows:
        notes.append(f"Windows with fewer than {needed} customers at the start are left out.")
    return [_series(seen, partner_id, large)] if large else []


def _series(seen: _Seen, group: str | None, windows: Iterable[Measured]) -> RetentionSeries:
    values = {"group": group, "windows": [_window(seen, one) for one in windows]}
    return RetentionSeries(**seen.view.share("RetentionSeries", values))


def _window(seen: _Seen, one: Measured) -> RetentionWindow:
    measured = one.to_json()
    settled = is_settled(one, seen.movements, grace_days=seen.workspace.config.targets.grace_days)
    values = {name: measured[name] for name in RetentionWindow.model_fields if name in measured}
    return RetentionWindow(**seen.view.share("RetentionWindow", values | {"start": one.start, "end": one.end, "provisional": not settled}))


def _forecast(workspace: Workspace, view: View, by: By | None, notes: list[str]) -> RetentionForecast | None:
    """Return the last forecast that was kept; a note says why there is none."""
    if not list_forecasts(workspace):
        notes.append(_NONE_FOR_THE_VENDOR if view.caller.is_vendor else _NONE_FOR_A_PARTNER)
        return None
    try:
        made = read_forecast(workspace)
    except WorkspaceError:
        notes.append("The last forecast cannot be read; it has to be made again.")
        return None
    outlooks = _outlooks(made, view, by)
    if not outlooks:
        notes.append(f"The forecast has nothing on a book with fewer than {view.policy.numbers.peers_needed} customers.")
        return None
    values = {
        "cutoff": made.cutoff,
        "made_at": datetime.fromisoformat(made.made_at).astimezone(UTC),
        "outlooks": [_outlook(one, view) for one in outlooks],
        "coverage": [RetentionCoverage(**view.share("RetentionCoverage", asdict(one))) for one in made.coverage],
        "notes": list(made.notes),
    }
    return RetentionForecast(**view.share("RetentionForecast", values))


def _outlooks(made: Forecast, view: View, by: By | None) -> list[Outlook]:
    partner_id = view.caller.partner_id
    if partner_id is not None:
        own = [one for one in made.outlooks if (one.kind, one.group) == ("partner", partner_id)]
        return [one for one in own if one.accounts >= view.policy.numbers.peers_needed]
    return [one for one in made.outlooks if one.kind in (_BOOK, by)]


def _outlook(one: Outlook, view: View) -> RetentionOutlook:
    values: dict[str, object] = {name: getattr(one, name) for name in ("group", "days", "accounts", "arr")}
    for name in ("ndr", "grr", "churned", "contracted", "expanded"):
        interval: Interval = getattr(one, name)
        values[name] = ForecastInterval(**view.share("ForecastInterval", asdict(interval)))
    return RetentionOutlook(**view.share("RetentionOutlook", values))


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()[0]
    return text[:1].upper() + text[1:] + "."
