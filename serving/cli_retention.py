"""Commands about Net Dollar Retention: what it was."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from features.errors import NotEnoughDataError, explain
from features.workspace import Workspace
from serving.options import JsonOption, WorkspaceOption, open_screen, open_workspace

if TYPE_CHECKING:
    from features.retention import Grouping, Retention

__all__ = ["By", "app", "ndr"]

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


def _table(first: str) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, caption_justify="left")
    table.add_column(first, min_width=len("2026-01-01 *"), overflow="fold")
    for name in ("accounts", "lost", "ARR at\nstart", "churned", "contracted", "expanded", "NDR", "GRR"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(one: "Retention") -> list[str]:
    if not one.accounts:
        return ["0", *["-"] * 7]
    moved = [amount / one.arr_start for amount in (one.churned, one.contracted, one.expanded)]
    return [f"{one.accounts:,}", _share(one.logo_churn), f"{one.arr_start:,.0f}", *(_share(share) for share in (*moved, one.ndr, one.grr))]


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
        table, column = ("assignments", "partner_id") if by is By.PARTNER else ("accounts", "segment")
        todo = f"Map {column} of [tables.{table}], or leave --by out."
        raise NotEnoughDataError(explain(f"no account of this book has a {by.value}", given=f"--by {by.value}", todo=todo))
    return sorted(groups, key=lambda one: (one.group is None, -one.arr_start))


def _partner_names(workspace: Workspace) -> dict[str, str]:
    """Read what people call the partners; nothing where there is no table of them."""
    import pyarrow.parquet as pq

    path = workspace.tables / "partners.parquet"
    if not path.exists():
        return {}
    partners = pq.read_table(path, columns=["partner_id", "name"])
    return dict(zip(partners["partner_id"].to_pylist(), partners["name"].to_pylist(), strict=True))
