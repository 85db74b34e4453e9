"""A database that is there and says nothing counts as down, and nobody waits for it for long.

A server that was stopped in its tracks, or a network that swallows what is sent, refuses nothing: without a limit, whoever asks waits for
ever. So a connection that hears nothing for some seconds is given up; and once somebody has waited in vain, the others are told at once,
while one at a time asks again now and then.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from math import ceil
from threading import Lock
from typing import Any

import sqlalchemy as sa

from features.errors import StoreDownError

__all__ = ["Rest", "give_up_after"]

_LONG = 1.0
"""Seconds after which a failure was a wait, and not an answer."""

_NOTHING = 0
"""What psycopg tells its generators when nothing has come for a tenth of a second."""


def give_up_after(engine: sa.Engine, seconds: float) -> None:
    """Let the connections of a PostgreSQL engine fail, and close, when the database says nothing for so many seconds.

    What counts is silence: an answer that is long in coming over piece by piece is waited for.
    """
    import psycopg

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_bounded(gen, seconds), *arguments, **options)
            except TimeoutError as error:
                self.pgconn.finish()
                raise psycopg.OperationalError(str(error)) from error

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> psycopg.Connection[Any]:
        return Bounded.connect(*arguments, **options | {"connect_timeout": max(2, ceil(seconds))})

    sa.event.listen(engine, "do_connect", connect)


def _bounded(waiting: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Pass on what a generator of psycopg waits for and what it gets, until it got nothing for so many seconds.

    Raises
    ------
    TimeoutError
        Then.
    """
    heard = time.monotonic()
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if ready != _NOTHING:
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                raise TimeoutError(f"it has said nothing for {seconds:g} seconds")
            wanted = waiting.send(ready)
    except StopIteration as end:
        return end.value


class Rest:
    """Lets nobody wait for a database of which it is known that it hangs.

    Parameters
    ----------
    seconds
        How long nobody asks after one has waited in vain.
    clock
        Seconds that never jump, as `time.monotonic` gives them.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._fault: str | None = None
        self._until = 0.0
        self._trying = Lock()

    @contextmanager
    def asking(self) -> Iterator[Callable[[], None]]:
        """Ask the database in the block, which calls what it is given as soon as it was answered.

        Raises
        ------
        StoreDownError
            At once, if the database hangs and it is nobody's turn to see whether it still does.
        """
        if (fault := self._fault) is not None and (self._clock() < self._until or not self._trying.acquire(blocking=False)):
            raise StoreDownError(fault)
        began = self._clock()
        try:
            yield self._answered
        except StoreDownError as error:
            if self._clock() - began >= _LONG:
                self._fault, self._until = str(error), self._clock() + self._seconds
            raise
        finally:
            if fault is not None:
                self._trying.release()

    def _answered(self) -> None:
        self._fault = None
