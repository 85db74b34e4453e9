"""How a long computation tells its caller how far it is."""

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many parts are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
