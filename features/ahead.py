"""One step ahead: what comes next is made in another thread meanwhile, where both leave each other room, as queries and files do."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["in_advance"]

Item = TypeVar("Item")

_END: Any = object()


def in_advance(items: Iterator[Item]) -> Iterator[Item]:
    """Yield what an iterator yields, and have the next made in another thread meanwhile.

    Examples
    --------
    >>> list(in_advance(iter("abc")))
    ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, _END)
        while (found := coming.result()) is not _END:
            coming = thread.submit(next, items, _END)
            yield found
