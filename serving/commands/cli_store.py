"""Commands about the operational store: its upgrade, and extracts of its journal."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.markup import escape

from features.clock import parse_instant
from features.errors import ConfigError, WorkspaceError, explain
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace
from serving.settings import process_environment

__all__ = ["app", "export_journal", "journal", "upgrade"]

app = typer.Typer(no_args_is_help=True, help="The database of keys, sessions, the journal and what people contribute.")
journal = typer.Typer(no_args_is_help=True, help="Who read which account, who was refused what, and who let whom in.")


@app.command("upgrade")
def upgrade(
    owner_env: Annotated[
        str | None, typer.Option(help="Environment variable with the address of the PostgreSQL user that owns, or is to own, the tables.")
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Bring the store to this version; a SQLite store is brought there whenever it is opened, a PostgreSQL database only by this."""
    from serving.records.store import role_of, upgrade_store
    from serving.records.tables import NEWEST

    with open_screen(json) as screen:
        address = open_workspace(workspace).database
        served = {} if isinstance(address, Path) else {"serving_role": role_of(address)}
        before = upgrade_store(_owner(owner_env) if served else address, **served)
        said = "made" if before == "" else "unchanged" if before == NEWEST else f"upgraded from {before}"
        screen.say(f"The store has version {NEWEST} ({said}).")
        screen.result({"version": NEWEST, "before": before or None})


def _owner(variable: str | None) -> str:
    address = process_environment.get(variable or "")
    if not address:
        wrong = "the address of the user that owns the tables is needed, who is not the user of the service"
        todo = "Put it into an environment variable and name that: renewcast store upgrade --owner-env NAME."
        raise ConfigError(explain(wrong, given=variable and f"{variable} is not set", todo=todo))
    return address


@journal.command("export")
def export_journal(
    since: Annotated[str | None, typer.Option(help="The first day or time, in UTC, such as 2026-01-31 or 2026-01-31T08:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="The day or time at which it ends; lines of that time are left out.")] = None,
    account: Annotated[str | None, typer.Option(help="Only the lines of this account.")] = None,
    form: Annotated[str, typer.Option("--as", help="jsonl or csv.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="The file to write; standard output if not given.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the lines of the journal, the oldest first."""
    from serving.callers.extracts import ExtractFormat, journal_lines, write_extract
    from serving.callers.shipping import ship
    from serving.callers.spool import Segments
    from serving.records.store import open_store

    with open_screen(json=False) as screen:
        opened = open_workspace(workspace)
        if form not in get_args(ExtractFormat):
            raise ConfigError(explain("the journal cannot be written in this form", given=form, allowed="jsonl, csv"))
        wanted = {"since": _time("--since", since), "until": _time("--until", until)}
        store = open_store(opened.database)
        try:
            ship(Segments(opened.state / "journal"), store)  # what a service that has ended left behind
            lines = journal_lines(store, **wanted, account_id=account)
            if output is None:
                written = write_extract(lines, sys.stdout, form=cast(ExtractFormat, form))
            else:
                with output.open("w", encoding="utf-8", newline="") as file:
                    written = write_extract(lines, file, form=cast(ExtractFormat, form))
        except OSError as error:
            raise WorkspaceError(explain(f"the extract cannot be written: {error.strerror}", given=output)) from error
        finally:
            store.dispose()
        screen.say(f"{written:,} lines{f' in {escape(str(output))}' if output else ''}")


def _time(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_instant(text)
    except ValueError as error:
        raise ConfigError(explain(f"{option} is no time", given=text, allowed="2026-01-31, or 2026-01-31T08:00:00Z")) from error
