"""A client's connection: given up when nothing moves on it, before a request has come and after an answer has begun.

The server below (uvicorn) waits for ever for the head of a request, and for a client that does not read its answer. Both are cut off here:
two timers at most for each connection, and no more connections at a time than a worker has files for.
"""

import asyncio

import uvicorn.config
from uvicorn.protocols.http.h11_impl import H11Protocol

from features.config import ServingLimits

__all__ = ["MOST_CONNECTIONS", "Connection", "limit_connections"]

MOST_CONNECTIONS = 512
"""Open at a time in one worker; a further one is closed at once."""


class Connection(H11Protocol):
    """A connection over HTTP/1.1 with time limits.

    The server makes one for each client that connects, with arguments of its own; so the limits stand at the class.
    """

    header_seconds = ServingLimits().header_seconds
    unread_seconds = 30.0
    most = MOST_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request, and not for ever."""
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Stop waiting when the head of a request is complete; begin to wait when only a part of one came."""
        super().data_received(data)
        if self._in_request():
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give a client that does not read its answer some time, and no more."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._stop_unread()
        super().resume_writing()

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if not self._in_request():
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def limit_connections(limits: ServingLimits) -> None:
    """Use `Connection` for every server of this process that does not choose its protocol; BentoML's workers do not and cannot."""
    Connection.header_seconds = limits.header_seconds
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
