"""Leaving without being missed: a service that is told to stop says so first, goes on answering for a while, and only then ends.

On SIGTERM `/readyz` answers 503 at once and every answer closes its connection, so that whoever spreads the requests looks elsewhere; after
`drain_seconds` the server stops, and what is still being answered is brought to its end. SIGINT, a person's Ctrl+C, stops without the wait.
"""

import asyncio
import logging
import signal
from types import FrameType

__all__ = ["Drain"]

_LOG = logging.getLogger("renewcast.serving")


class Drain:
    """Whether the service is leaving.

    Parameters
    ----------
    seconds
        How long it goes on answering after it was told to stop.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun = False

    def take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the handler of SIGTERM that the server has installed; to be called in the main thread, while the loop runs."""
        stop = signal.getsignal(signal.SIGTERM)

        def on_term(number: int, frame: FrameType | None) -> None:
            if not self.begun:
                self.begun = True
                loop.call_soon_threadsafe(_begin)

        def _begin() -> None:
            _LOG.info("told to stop: no longer ready, still answering for %g seconds", self.seconds)
            loop.call_later(self.seconds, _end)

        def _end() -> None:
            if callable(stop):
                stop(signal.SIGTERM, None)

        signal.signal(signal.SIGTERM, on_term)
