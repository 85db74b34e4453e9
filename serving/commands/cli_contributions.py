"""Commands about what both sides add: a partner's file of rows, and what people said about scores, for whoever works on the models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from features.errors import ConfigError, WorkspaceError, explain, nearest
from serving.commands.console import Screen
from serving.commands.options import JsonOption, WorkspaceOption, open_screen, open_workspace

__all__ = ["app", "contribute", "export_feedback", "feedback"]

app = typer.Typer()
feedback = typer.Typer(no_args_is_help=True, help="What people said about accounts and their scores.")
app.add_typer(feedback, name="feedback")

_SHOWN = 10


@app.command()
def contribute(
    file: Annotated[Path, typer.Argument(help="CSV with a header, JSON Lines or Parquet: account_id, occurred_at, channel, ...")],
    who: Annotated[str, typer.Option("--as", help="partner:<partner_id>.")],
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Add a partner's own rows to the data about its accounts; the next `renewcast up` uses them."""
    from features.sources import file_format
    from serving.answers.contributions import Contributions, given_file
    from serving.callers.identity import Principal
    from serving.permissions.caller import parse_caller
    from serving.records.store import open_store
    from serving.records.tables import now

    with open_screen(json) as screen:
        caller = parse_caller(who)
        if caller.is_vendor:
            todo = "Put the vendor's own rows into the engagement table of the workspace."
            raise ConfigError(explain("only partners contribute", given=who, allowed="partner:<partner_id>", todo=todo))
        opened, kind = open_workspace(workspace), file_format(file)
        store = open_store(opened.database)
        try:
            principal = Principal(caller, "command", frozenset({"contribute"}), "administrator", "command line")
            found = Contributions(opened, store).receive(given_file(file, kind, name=file.name), principal, at=now())
        finally:
            store.dispose()
        screen.say(
            f"{found.accepted:,} of {found.given:,} rows kept as contribution {found.contribution_id}, "
            f"{found.duplicates:,} had been given before, {found.quarantined:,} are broken"
        )
        _show_broken(screen, found.reasons, [(one.row, one.reasons) for one in found.broken])
        counts = {name: getattr(found, name) for name in ("given", "accepted", "duplicates", "quarantined")}
        screen.result({"contribution_id": found.contribution_id, **counts, "reasons": dict(found.reasons)})


def _show_broken(screen: Screen, reasons: Mapping[str, int], broken: Sequence[tuple[int, Sequence[str]]]) -> None:
    for why, count in reasons.items():
        screen.say(f"  {count:,} {escape(why)}")
    for row, whys in broken[:_SHOWN]:
        screen.say(f"  row {row:,}: {escape('; '.join(whys))}")


@feedback.command("export")
def export_feedback(
    file: Annotated[Path, typer.Argument(help="The file to write: .csv, .jsonl or .parquet.")],
    kind: Annotated[str, typer.Option(help="feedback, plays or notes.")] = "feedback",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write what people of both sides said to a file, for the vendor's data scientists: one row each, with who said it and when."""
    from serving.answers.feedback import KINDS, Remarks
    from serving.records.store import open_store

    with open_screen(json) as screen:
        if kind not in KINDS:
            raise ConfigError(explain("nothing of this kind is kept", given=kind, allowed=", ".join(KINDS), todo=nearest(kind, KINDS)))
        if file.suffix.lower() not in _SUFFIXES:
            raise ConfigError(explain("the name of the file does not tell its format", given=file, allowed=", ".join(_SUFFIXES)))
        store = open_store(open_workspace(workspace).database)
        try:
            rows = Remarks(store).everything(KINDS[kind])
        finally:
            store.dispose()
        _write([one.columns() for one in rows], file)
        screen.say(f"{len(rows):,} rows in {escape(str(file))}")
        screen.result({"file": str(file), "kind": kind, "rows": len(rows)})


_SUFFIXES = (".csv", ".jsonl", ".parquet")
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _write(rows: Sequence[Mapping[str, object]], file: Path) -> None:
    """Write rows; in CSV a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    try:
        match file.suffix.lower():
            case ".csv":
                frame.map(_cell).to_csv(file, index=False)
            case ".jsonl":
                frame.to_json(file, orient="records", lines=True, date_format="iso", date_unit="us")
            case _:
                frame.to_parquet(file, index=False)
    except OSError as error:
        raise WorkspaceError(explain(f"the file cannot be written: {error.strerror}", given=file)) from error


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS_A_FORMULA) else value
