"""One step ahead, and side by side: what is made in other threads meanwhile, where all leave each other room.

Queries, files and operations on large arrays do; what is written in Python does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
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


def side_by_side(lanes: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """Yield what several iterators yield, as it comes; each goes on in a thread beside those of the others.

    Examples
    --------
    >>> sorted(side_by_side([iter("ab"), iter("cd")]))
    ['a', 'b', 'c', 'd']
    """
    with ThreadPoolExecutor(max_workers=max(1, len(lanes))) as threads:
        coming = {threads.submit(next, lane, _END): lane for lane in lanes}
        while coming:
            for made in wait(coming, return_when=FIRST_COMPLETED).done:
                lane = coming.pop(made)
                if (found := made.result()) is not _END:
                    coming[threads.submit(next, lane, _END)] = lane
                    yield found


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
        yield
        doing.result()
