"""What a service does beside its requests, again and again, until it ends."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from features.errors import StoreDownError

__all__ = ["repeating"]

_LOG = logging.getLogger("renewcast.serving")


@contextmanager
def repeating(work: Callable[[], object], *, seconds: float, name: str, slowest: float = 30.0, patience: float = 5.0) -> Iterator[None]:
    """Do the work every so many seconds, in a thread of its own, while the block runs, and once more when it ends.

    A store that is down is asked less and less often, and as often as before once it answers again. Other errors are logged, and the work
    goes on.

    Parameters
    ----------
    slowest
        The longest pause, in seconds, while the store is down.
    patience
        How long the end of the block waits for the last time; a thread that hangs longer does not keep the process.
    """
    ending = Event()
    thread = Thread(target=_repeat, args=(work, ending, seconds, slowest, name), name=f"renewcast {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(patience)


def _repeat(work: Callable[[], object], ending: Event, seconds: float, slowest: float, name: str) -> None:
    pause, down = seconds, False
    while True:
        last = ending.wait(pause)
        try:
            work()
        except StoreDownError as error:
            pause = min(2 * pause, slowest)
            if not down:
                _LOG.warning("%s waits for the store: %s", name, str(error).splitlines()[0])
            down = True
        except Exception:
            _LOG.exception("%s failed, and will be tried again", name)
        else:
            pause, down = seconds, False
        if last:
            return
