"""Writes that are done once however often they are sent: what was answered is kept for a day under the key that the caller chose.

A key belongs to its caller and to one request, known by a fingerprint. Only what was done is kept; a request that was refused or failed may
be sent again with its key. What was answered about an account is not repeated to a partner whose account it no longer is.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa
from fastapi import Request
from sqlalchemy.exc import IntegrityError
from starlette.responses import Response

from serving.answers.problems import ProblemError
from serving.permissions.caller import Caller
from serving.records.store import SERVICE, Store
from serving.records.tables import ANSWERS, now

__all__ = ["HEADER", "OnlyOnce", "fingerprint_of", "key_of"]

HEADER = "Idempotency-Key"

_KEPT = timedelta(days=1)
_IN_FLIGHT = timedelta(minutes=5)
"""A request that has not been answered by then died with its worker."""

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class OnlyOnce:
    """Keeps what was answered to a caller's writes."""

    store: Store
    caller: Caller

    async def answer(self, key: str, fingerprint: str, work: Callable[[], Awaitable[Response]]) -> Response:
        """Do the work, unless it was done under this key; then return what was answered.

        Raises
        ------
        ProblemError
            409 while it is being done; 422 if the key was used for another request.
        """
        known = await asyncio.to_thread(self._begin, key, fingerprint)
        if known is not None:
            return known
        try:
            response = await work()
        except BaseException:
            await asyncio.to_thread(self._forget, key)
            raise
        await asyncio.to_thread(self._keep, key, response)
        return response

    def _begin(self, key: str, fingerprint: str) -> Response | None:
        """Take the key; if it is taken, return what was answered."""
        row = {"caller": self.caller.name, "key": key, "fingerprint": fingerprint, "begun_at": now()}
        with self.store.tenant(SERVICE) as connection:
            connection.execute(sa.delete(ANSWERS).where(_of(self.caller), _begun_before(now() - _KEPT)))
            dead = (ANSWERS.c.key == key) & ANSWERS.c.status.is_(None) & _begun_before(now() - _IN_FLIGHT)
            connection.execute(sa.delete(ANSWERS).where(_of(self.caller), dead))
        try:
            with self.store.tenant(SERVICE) as connection:
                connection.execute(sa.insert(ANSWERS).values(row))
        except IntegrityError:
            return self._answered(key, fingerprint)
        return None

    def _answered(self, key: str, fingerprint: str) -> Response:
        with self.store.tenant(SERVICE) as connection:
            found = connection.execute(sa.select(ANSWERS).where(_of(self.caller), ANSWERS.c.key == key)).mappings().one_or_none()
        if found is not None and found["fingerprint"] != fingerprint:
            raise ProblemError(422, f"This {HEADER} was used for another request.", kind="key-reused")
        if found is None or found["status"] is None:
            raise ProblemError(409, f"A request with this {HEADER} is still being answered.", headers={"Retry-After": "1"})
        return Response(found["body"], status_code=found["status"], media_type=found["media_type"], headers={"idempotent-replayed": "true"})

    def _keep(self, key: str, response: Response) -> None:
        if not 200 <= response.status_code < 300:
            self._forget(key)
            return
        values = {"status": response.status_code, "media_type": response.media_type or "application/json", "body": bytes(response.body)}
        with self.store.tenant(SERVICE) as connection:
            connection.execute(sa.update(ANSWERS).where(_of(self.caller), ANSWERS.c.key == key).values(values))

    def _forget(self, key: str) -> None:
        with self.store.tenant(SERVICE) as connection:
            connection.execute(sa.delete(ANSWERS).where(_of(self.caller), ANSWERS.c.key == key))


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


def _of(caller: Caller) -> sa.ColumnElement[bool]:
    return ANSWERS.c.caller == caller.name


def _begun_before(end: datetime) -> sa.ColumnElement[bool]:
    return ANSWERS.c.begun_at.between(datetime.min, end)
