"""Commands about Net Dollar Retention: what it was, what is to come, and how well that was foreseen."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from features.errors import NotEnoughDataError, explain
from features.ledger import remove_unfinished
from features.workspace import Workspace
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace

if TYPE_CHECKING:
    from features.retention import Grouping, Retention
    from training.forecast import Interval, Outlook
    from training.forecasting import Forecast
    from training.reconciliation import Reconciliation

__all__ = ["By", "app", "forecast", "ndr", "reconcile"]

app = typer.Typer()

_SHOWN_WINDOWS = 13


class By(StrEnum):
    """By what a book is broken down."""

    PARTNER = "partner"
    SEGMENT = "segment"

    @property
    def column(self) -> "Grouping":
        """The column of the movements that says it."""
        return "partner_id" if self is By.PARTNER else "segment"


@app.command()
def ndr(
    months: Annotated[int, typer.Option(help="Length of the window in months.", min=1)] = 12,
    by: Annotated[By | None, typer.Option(help="Show each partner, or each segment, too.")] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show the Net Dollar Retention that was, net and gross, for the window that ends with each month."""
    from features.retention import is_settled, measure_monthly, measure_retention, read_movements

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        movements = read_movements(opened)
        series = measure_monthly(movements, months=months)
        settled = [is_settled(one, movements, grace_days=opened.config.targets.grace_days) for one in series]
        last = next((one for one, done in zip(series[::-1], settled[::-1], strict=True) if done), series[-1])
        groups = measure_retention(movements, start=last.start, end=last.end, by=by.column) if by else ()
        tables = [_group_table(_largest_first(groups, by), by, _partner_names(opened))] if by else []
        screen.say(f"[bold]{escape(_headline(last, opened.config.currency))}[/bold]")
        screen.say(_series_table(series[-_SHOWN_WINDOWS:], settled[-_SHOWN_WINDOWS:]))
        found = {"months": months, "currency": opened.config.currency, "book": last.to_json()}
        found["series"] = [one.to_json() | {"provisional": not done} for one, done in zip(series, settled, strict=True)]
        for table in tables:
            screen.say(table)
        screen.result(found | {"groups": [one.to_json() for one in groups]})


@app.command()
def forecast(
    by: Annotated[By | None, typer.Option(help="Show each partner, or each segment, too.")] = None,
    draws: Annotated[int, typer.Option(help="How many futures are drawn.", min=200, max=20_000)] = 2000,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Forecast net and gross retention of today's customers for the coming horizon and year, with intervals, and keep the forecast."""
    from training.forecasting import forecast_workspace

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        with opened.lock("renewcast forecast"), screen.progress("forecast") as on_progress:
            remove_unfinished(opened.state / "forecasts")
            made = forecast_workspace(opened, draws=draws, on_progress=on_progress)
        tables = [_forecast_table(made, days, by, _partner_names(opened)) for days in made.days]
        for days, table in zip(made.days, tables, strict=True):
            screen.say(f"[bold]{escape(_foretold(made, days))}[/bold]")
            screen.say(table)
        for line in (*_held(made), *made.notes):
            screen.say(escape(line))
        screen.result(made.to_json())


@app.command()
def reconcile(
    cutoff: Annotated[datetime | None, typer.Option(help="Day of the forecast; the last that has come due if not given.")] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Hold the last forecast that has come due against what happened: what made the difference, and which accounts."""
    from training.reconciliation import reconcile_workspace

    with open_screen(json) as screen:
        opened = open_workspace(workspace)
        found = reconcile_workspace(opened, cutoff=cutoff)
        names = _partner_names(opened)
        for one in found:
            screen.say(f"[bold]{escape(_came(one))}[/bold]")
            screen.say(_reconciled_table(one, names))
            screen.say(_difference_table(one))
        screen.result([one.to_json() for one in found])


def _headline(book: "Retention", currency: str) -> str:
    """Say the book's retention in a sentence."""
    rates = f"Net Dollar Retention {_share(book.ndr)} %, gross {_share(book.grr)} %"
    before = f"{book.accounts:,} accounts paid {book.arr_start:,.0f} {currency} a year on {book.start:%Y-%m-%d}"
    return f"{rates}: {before}; the same accounts paid {book.arr_end:,.0f} on {book.end:%Y-%m-%d}"


def _series_table(series: Sequence["Retention"], settled: Sequence[bool]) -> Table:
    table = _table("until")
    for one, done in zip(series, settled, strict=True):
        table.add_row(f"{one.end:%Y-%m-%d}{'' if done else ' *'}", *_cells(one))
    meaning = "In %: lost of the accounts, the rest of the ARR at the start. Accounts that joined since are left out."
    late = "\n* Provisional: renewals that are booked late may still come in." if not all(settled) else ""
    table.caption = f"{meaning}{late}\n"
    return table


def _group_table(groups: Sequence["Retention"], by: By, names: Mapping[str, str]) -> Table:
    table = _table(by.value)
    for one in groups:
        name = "none" if one.group is None else f"{one.group} {names.get(one.group, '') if by is By.PARTNER else ''}".rstrip()
        table.add_row(escape(name), *_cells(one))
    alike = "Accounts differ between partners, so this is no ranking of them. " if by is By.PARTNER else ""
    table.caption = f"{alike}From {groups[0].start:%Y-%m-%d} to {groups[0].end:%Y-%m-%d}; the {by.value} is that of the first day.\n"
    return table


_MEASURED = ("accounts", "lost", "ARR at\nstart", "churned", "contracted", "expanded", "NDR", "GRR")


def _table(first: str, names: Sequence[str] = _MEASURED) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, caption_justify="left")
    table.add_column(first, min_width=len("2026-01-01 *"), overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(one: "Retention") -> list[str]:
    if not one.accounts:
        return ["0", *["-"] * 7]
    moved = [amount / one.arr_start for amount in (one.churned, one.contracted, one.expanded)]
    return [f"{one.accounts:,}", _share(one.logo_churn), f"{one.arr_start:,.0f}", *(_share(share) for share in (*moved, one.ndr, one.grr))]


def _foretold(made: "Forecast", days: int) -> str:
    """Say what is expected of the book in a sentence."""
    book = made.book(days)
    until = made.cutoff + timedelta(days=days)
    rates = f"Net Dollar Retention {_share(book.ndr.mean)} % ({_range80(book.ndr)}), gross {_share(book.grr.mean)} % ({_range80(book.grr)})"
    return f"{rates} until {until:%Y-%m-%d}: {book.accounts:,} accounts that pay {book.arr:,.0f} {made.currency} on {made.cutoff:%Y-%m-%d}"


def _forecast_table(made: "Forecast", days: int, by: By | None, names: Mapping[str, str]) -> Table:
    """Return the book, and its groups.

    Raises
    ------
    NotEnoughDataError
        If no account has a group.
    """
    groups = made.by(by.value, days) if by else ()
    if by and not groups:
        raise _no_group(by)
    columns = ("accounts", "ARR", "churned", "contracted", "expanded", "NDR", "80 %", "95 %", "GRR", "80 %", "95 %")
    table = _table(by.value if by else "", columns)
    for one in (made.book(days), *sorted(groups, key=lambda one: one.group is None)):
        moved = [_share(part.mean / one.arr) for part in (one.churned, one.contracted, one.expanded)]
        rates = [text for rate in (one.ndr, one.grr) for text in (_share(rate.mean), _range80(rate), _range95(rate))]
        table.add_row(_group_name(one, names), f"{one.accounts:,}", f"{one.arr:,.0f}", *moved, *rates)
    few = "\n* Fewer than ten accounts: single customers decide." if any(one.few for one in groups) else ""
    table.caption = f"In %, of the ARR on {made.cutoff:%Y-%m-%d}; accounts that join later are left out.{few}\n"
    return table


def _held(made: "Forecast") -> list[str]:
    """Say how often the intervals of past forecasts held what came."""
    return [
        f"{one.forecasts:,} forecasts of the past, {one.days} days ahead, of {'the book' if one.kind == 'book' else f'{one.kind}s'}: "
        f"NDR came within the 80 % interval in {one.ndr80:.0%}, within that of 95 % in {one.ndr95:.0%}."
        for one in made.coverage
    ] or ["No forecast of the past has come due within the test period, so how often the intervals hold is not known."]


def _came(one: "Reconciliation") -> str:
    """Say how a forecast came out, in a sentence."""
    book = one.book
    where = "within 80 %" if book.within80 else "within 95 %, not 80 %" if book.within95 else "outside 95 %"
    foretold = f"{_share(book.outlook.ndr.mean)} % foretold ({_range80(book.outlook.ndr)}; it is {where})"
    return f"Net Dollar Retention from {one.cutoff:%Y-%m-%d} to {one.until:%Y-%m-%d}: {_share(book.ndr)} %, {foretold}"


def _reconciled_table(one: "Reconciliation", names: Mapping[str, str]) -> Table:
    table = _table("", ("accounts", "foretold", "80 %", "95 %", "came", "off by", "churn", "contraction", "expansion", ""))
    for group in one.groups:
        off = (group.ndr - group.outlook.ndr.mean, group.by_churn, group.by_contraction, group.by_expansion)
        rates = (_share(group.outlook.ndr.mean), _range80(group.outlook.ndr), _range95(group.outlook.ndr), _share(group.ndr))
        mark = "" if group.within80 else "outside 80 %" if group.within95 else "outside 95 %"
        name = _group_name(group.outlook, names)
        table.add_row(name, f"{group.outlook.accounts:,}", *rates, *(f"{100 * points:+.1f}" for points in off), mark)
    table.caption = "NDR in %; what it is off by, in points, is the sum of what churn, contraction and expansion made.\n"
    return table


def _difference_table(one: "Reconciliation") -> Table:
    table = _table("accounts that made the difference", ("ARR before", "expected", "came", "difference"))
    for account in one.differences:
        amounts = (account.arr, account.expected_end, account.arr_end)
        table.add_row(escape(account.account_id), *(f"{amount:,.0f}" for amount in amounts), f"{account.difference:+,.0f}")
    table.caption = f"ARR in {one.currency}.\n"
    return table


def _group_name(one: "Outlook", names: Mapping[str, str]) -> str:
    if one.kind == "book":
        return "book"
    name = f"no {one.kind}" if one.group is None else f"{one.group} {names.get(one.group, '') if one.kind == 'partner' else ''}".rstrip()
    return escape(name) + (" *" if one.few else "")


def _range80(interval: "Interval") -> str:
    return f"{_share(interval.low80)} to {_share(interval.high80)}"


def _range95(interval: "Interval") -> str:
    return f"{_share(interval.low95)} to {_share(interval.high95)}"


def _share(share: float) -> str:
    """Write a share in percent, the unit left to the caption."""
    return f"{100 * share:.1f}"


def _largest_first(groups: Sequence["Retention"], by: By) -> list["Retention"]:
    """Return the groups by ARR at the start, those without one last.

    Raises
    ------
    NotEnoughDataError
        If no account has a group.
    """
    if all(one.group is None for one in groups):
        raise _no_group(by)
    return sorted(groups, key=lambda one: (one.group is None, -one.arr_start))


def _no_group(by: By) -> NotEnoughDataError:
    table, column = ("assignments", "partner_id") if by is By.PARTNER else ("accounts", "segment")
    todo = f"Map {column} of [tables.{table}], or leave --by out."
    return NotEnoughDataError(explain(f"no account of this book has a {by.value}", given=f"--by {by.value}", todo=todo))


def _partner_names(workspace: Workspace) -> dict[str, str]:
    """Read what people call the partners; nothing where there is no table of them."""
    import pyarrow.parquet as pq

    path = workspace.book_tables / "partners.parquet"
    if not path.exists():
        return {}
    partners = pq.read_table(path, columns=["partner_id", "name"])
    return dict(zip(partners["partner_id"].to_pylist(), partners["name"].to_pylist(), strict=True))
