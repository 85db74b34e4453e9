"""Taking back what was done, where nothing does it for us."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from types import TracebackType

__all__ = ["Undo"]


class Undo:
    """Steps that take back what a block has done, run backwards if the block fails.

    A step that fails is tried once more after all the others, which may have freed the space that it needs; what fails then is left,
    because the error that ended the block is the one to report.

    Parameters
    ----------
    within
        Seconds after which no further step is begun: each may wait for a server that hangs.

    Examples
    --------
    >>> done = []
    >>> try:
    ...     with Undo(within=1.0) as undo:
    ...         undo.add(done.append, "first back")
    ...         undo.add(done.append, "second back")
    ...         raise ValueError
    ... except ValueError:
    ...     done
    ['second back', 'first back']
    """

    def __init__(self, *, within: float) -> None:
        self._within = within
        self._steps: list[Callable[[], object]] = []

    def add(self, action: Callable[..., object], *arguments: object) -> None:
        """Note how to take back what is about to be done, or has just been done."""
        self._steps.append(lambda: action(*arguments))

    def __enter__(self) -> "Undo":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            return
        started = monotonic()
        left = self._steps[::-1]
        for _ in range(2):
            left = [step for step in left if monotonic() - started > self._within or not _succeeds(step)]


def _succeeds(step: Callable[[], object]) -> bool:
    with suppress(Exception):
        step()
        return True
    return False
