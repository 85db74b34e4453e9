"""One step ahead, and side by side: what is made in other threads meanwhile, where all leave each other room.

Queries, files and operations on large arrays do; what is written in Python does not.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

__all__ = ["in_advance", "made_of", "meanwhile", "side_by_side"]

Item = TypeVar("Item")
Made = TypeVar("Made")

_AT_ONCE = 2
"""So many items are made of others at once: each takes memory, and reading files leaves little for more."""

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


def side_by_side(here: Iterator[Item], there: Iterator[Item]) -> Iterator[Item]:
    """Yield what two iterators yield, as it comes; the second goes on in another thread while the first does in this one.

    Examples
    --------
    >>> sorted(side_by_side(iter("ab"), iter("cd")))
    ['a', 'b', 'c', 'd']
    """
    came, is_left = SimpleQueue[Item](), Event()

    def go_on() -> None:
        try:
            for item in there:
                came.put(item)
                if is_left.is_set():
                    return
        finally:
            came.put(_END)

    with ThreadPoolExecutor(max_workers=1) as thread:
        going_on, coming = thread.submit(go_on), iter(came.get, _END)
        try:
            for item in here:
                yield item
                yield from islice(coming, came.qsize())
                if going_on.done():
                    going_on.result()
            yield from coming
        finally:
            is_left.set()
        going_on.result()


def made_of(items: Iterable[Item], make: Callable[[Item], Made]) -> list[Made]:
    """Return what is made of each item, some at once in threads of their own.

    Examples
    --------
    >>> made_of("abc", str.upper)
    ['A', 'B', 'C']
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        return list(threads.map(make, items))


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[None]:
    """Have something done in another thread while the block runs, and wait for its end there.

    Examples
    --------
    >>> done = []
    >>> with meanwhile(lambda: done.append("this")):
    ...     that = "that"
    >>> done
    ['this']
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        doing = thread.submit(do)
        try:
            yield
        except BaseException as error:
            if failed := doing.exception():
                error.add_note(f"Meanwhile this failed too: {failed!r}")
            raise
        doing.result()
