"""Writes that are done once however often they are sent: what was answered is kept for a day under the key that the caller chose.

A key belongs to its caller and to one request, known by a fingerprint. Only what was done is kept; a request that was refused or failed may
be sent again with its key. What was answered about an account is not repeated to a partner whose account it no longer is.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa
from fastapi import Request
from sqlalchemy.exc import IntegrityError
from starlette.responses import Response

from features.errors import StoreDownError
from serving.answers.problems import ProblemError
from serving.callers.background import repeating
from serving.permissions.caller import Caller
from serving.records.store import SERVICE, Store
from serving.records.tables import ANSWERS, now

__all__ = ["HEADER", "OnlyOnce", "fingerprint_of", "key_of"]

HEADER = "Idempotency-Key"

_KEPT = timedelta(days=1)
_IN_FLIGHT = timedelta(minutes=5)
"""A request that has not been answered by then died with its worker."""

_SETTLED_EVERY = 0.5

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class _Place:
    """The key of one caller's request, taken at a time of which no other request of it is."""

    caller: str
    key: str
    begun_at: datetime

    @property
    def row(self) -> sa.ColumnElement[bool]:
        return (ANSWERS.c.caller == self.caller) & (ANSWERS.c.key == self.key) & (ANSWERS.c.begun_at == self.begun_at)


class OnlyOnce:
    """Keeps what was answered to writes.

    When the database fails in the middle, what became of a request is settled as soon as the database is back: its key is given free, or,
    if it was done, its answer is kept. Until then, and no longer, the same request is told to wait.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unsettled: dict[_Place, Response | None] = {}

    async def answer(self, caller: Caller, key: str, fingerprint: str, work: Callable[[], Awaitable[Response]]) -> Response:
        """Do the work, unless it was done under this key of the caller's; then return what was answered.

        Raises
        ------
        ProblemError
            409 while it is being done; 422 if the key was used for another request.
        StoreDownError
            If the database does not answer; the work was not begun.
        """
        place = _Place(caller.name, key, now())
        known = await asyncio.to_thread(self._begin, place, fingerprint)
        if known is not None:
            return known
        try:
            response = await work()
        except BaseException:
            await asyncio.to_thread(self._end, place, None)
            raise
        await asyncio.to_thread(self._end, place, response if 200 <= response.status_code < 300 else None)
        return response

    def settling(self) -> AbstractContextManager[None]:
        """Settle in a thread, while the block runs, what the database could not take."""
        return repeating(self.settle, seconds=_SETTLED_EVERY, name="keys of writes", slowest=_SETTLED_EVERY)

    def settle(self) -> None:
        """Keep the answers that the database could not take, and give the other keys free.

        Raises
        ------
        StoreDownError
            If it takes them no more than before.
        """
        for place, response in list(self._unsettled.items()):
            self._write(place, response)
            self._unsettled.pop(place, None)

    def _begin(self, place: _Place, fingerprint: str) -> Response | None:
        """Take the key; if it is taken, return what was answered."""
        self.settle()
        own = ANSWERS.c.caller == place.caller
        row = {"caller": place.caller, "key": place.key, "fingerprint": fingerprint, "begun_at": place.begun_at}
        with self._store.tenant(SERVICE) as connection:
            connection.execute(sa.delete(ANSWERS).where(own, _begun_before(now() - _KEPT)))
            dead = (ANSWERS.c.key == place.key) & ANSWERS.c.status.is_(None) & _begun_before(now() - _IN_FLIGHT)
            connection.execute(sa.delete(ANSWERS).where(own, dead))
        try:
            with self._store.tenant(SERVICE) as connection:
                connection.execute(sa.insert(ANSWERS).values(row))
        except IntegrityError:
            return self._answered(place, fingerprint)
        except StoreDownError:
            self._unsettled[place] = None  # nobody knows whether it was taken
            raise
        return None

    def _answered(self, place: _Place, fingerprint: str) -> Response:
        this = (ANSWERS.c.caller == place.caller) & (ANSWERS.c.key == place.key)
        with self._store.tenant(SERVICE) as connection:
            found = connection.execute(sa.select(ANSWERS).where(this)).mappings().one_or_none()
        if found is not None and found["fingerprint"] != fingerprint:
            raise ProblemError(422, f"This {HEADER} was used for another request.", kind="key-reused")
        if found is None or found["status"] is None:
            raise ProblemError(409, f"A request with this {HEADER} is still being answered.", headers={"Retry-After": "1"})
        return Response(found["body"], status_code=found["status"], media_type=found["media_type"], headers={"idempotent-replayed": "true"})

    def _end(self, place: _Place, response: Response | None) -> None:
        try:
            self._write(place, response)
        except StoreDownError:
            self._unsettled[place] = response

    def _write(self, place: _Place, response: Response | None) -> None:
        """Keep what was answered, or give the key free if nothing was done."""
        with self._store.tenant(SERVICE) as connection:
            if response is None:
                connection.execute(sa.delete(ANSWERS).where(place.row))
            else:
                kind = response.media_type or "application/json"
                values = {"status": response.status_code, "media_type": kind, "body": bytes(response.body)}
                connection.execute(sa.update(ANSWERS).where(place.row).values(values))


def key_of(request: Request) -> str | None:
    """Return the key that a request brings; None if it brings none.

    Raises
    ------
    ProblemError
        422 for a key that cannot be one.
    """
    key = request.headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise ProblemError(422, f"The {HEADER} has 1 to 200 visible characters of ASCII.")
    return key


def fingerprint_of(request: Request, body: bytes) -> str:
    """Return what tells one request from another: the address and the body; a boundary between parts of a form does not count."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    boundary = re.search(r'boundary="?([^";]+)', parameters)
    content = body.replace(boundary[1].encode(), b"") if boundary else body
    parts = (request.method, request.url.path, request.url.query, kind.strip().casefold())
    return sha256("\n".join(parts).encode() + b"\n" + content).hexdigest()


def _begun_before(end: datetime) -> sa.ColumnElement[bool]:
    return ANSWERS.c.begun_at.between(datetime.min, end)
