"""What the command shows: progress bars, one line for each step, errors that say what to do. All of it goes to standard error.

Only what was made to be handed on, such as a key, goes to standard output, alone on its line, so that it can be piped or stored.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from features.errors import RenewcastError
from features.progress import Progress as OnProgress
from serving.commands.steps import StepResult

__all__ = ["Screen"]


class Screen:
    """Where the command writes.

    Parameters
    ----------
    json
        Whether a machine reads standard output: it then gets one JSON object, and people still read standard error.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self, name: str) -> Iterator[OnProgress]:
        """Show a bar while the block runs; it disappears when the block ends."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._errors, transient=True, disable=not self._errors.is_terminal) as bars:
            task = bars.add_task(name, total=None)

            def show(what: str, done: int, total: int) -> None:
                bars.update(task, description=f"{name}: {what}", completed=done, total=total)

            yield show

    def done(self, result: StepResult) -> None:
        """Say what a step did, and where its result is."""
        *more, last = [escape(line) for line in result.line.splitlines()]
        how = "unchanged, not done again" if result.unchanged else f"{result.seconds:.0f} s"
        name = f"[bold]{result.step:<10}[/bold]"
        for line in [*more, f"{last}; {escape(str(result.place))} [dim]({how})[/dim]"]:
            self.say(f"{name}{line}")
            name = " " * 10

    def say(self, text: RenderableType) -> None:
        """Write a line for people, with Rich's markup, or a table."""
        self._errors.print(text)

    def result(self, summary: object) -> None:
        """Write the machine-readable summary, if one was asked for."""
        if self._json:
            print(json.dumps(summary, default=str))  # noqa: T201

    def hand_over(self, made: str) -> None:
        """Write what somebody will need elsewhere, such as a key; where a machine reads the summary, it stands in that and nowhere else."""
        if not self._json:
            print(made, flush=True)  # noqa: T201

    def failed(self, error: RenewcastError) -> None:
        """Say what went wrong."""
        self.say(f"[bold red]Error[/bold red] {escape(str(error))}")
        self.result({"status": "failed", "error": type(error).__name__, "message": str(error)})
