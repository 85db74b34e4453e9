"""What every command has in common: which workspace, for whom the output is, and how an error ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from features.errors import RenewcastError
from features.workspace import CONFIG_NAME, Workspace, load_workspace
from serving.commands.console import Screen
from serving.settings import process_environment

__all__ = ["DEMO", "JsonOption", "WorkspaceOption", "open_screen", "open_workspace", "workspace_folder"]

DEMO = Path(".demo")
"""Where `renewcast up` makes its simulated book."""

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", help=f"Folder with {CONFIG_NAME}. Without it: this folder if it is one, else the simulated book in {DEMO}."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write a machine-readable summary to standard output.")]


@contextmanager
def open_screen(json: bool) -> Iterator[Screen]:
    """Show errors that were foreseen as text, and end with status 1."""
    screen = Screen(json=json)
    try:
        yield screen
    except RenewcastError as error:
        screen.failed(error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        screen.say("Interrupted. Finished steps are kept; the next run goes on from there.")
        screen.result({"status": "interrupted"})
        raise typer.Exit(130) from None


def workspace_folder(workspace: Path | None) -> Path:
    """Return the folder that was named, else this folder if it is a workspace, else the simulated book's."""
    if workspace is not None:
        return workspace
    return Path() if Path(CONFIG_NAME).exists() else DEMO


def open_workspace(workspace: Path | None) -> Workspace:
    """Load the workspace that was named, or the default one.

    Raises
    ------
    WorkspaceError
        If there is none there.
    ConfigError
        If its config cannot be understood.
    """
    return load_workspace(workspace_folder(workspace), process_environment)
