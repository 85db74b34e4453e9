"""Sessions of people: from a sign-in link, or another proof of who they are, to a cookie, until it ends.

A sign-in link is signed, expires, and opens for the first browser that uses it and for no other. It is exchanged for a session: a row in
the store, found by a keyed hash of what the browser's cookie holds. A session ends when it has not been used for `IDLE_SECONDS`, after
`SESSION_SECONDS` in any case, and when its owner signs out, in this process at once and in others within `CACHE_SECONDS`.

Against cross-site request forgery every form carries a token that is an HMAC of the session (the HMAC-based synchroniser token of the OWASP
cheat sheet): another site can make the browser send its cookie, and cannot read or compute the token. The cookie's `SameSite` is a second
fence. The token changes with each sign-in; a form that was loaded before must be loaded again.
"""

import hashlib
import hmac
import secrets
import time
from asyncio import to_thread
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer
from sqlalchemy.exc import IntegrityError

from features.errors import StoreDownError
from serving.callers.identity import Principal, RefusedError, Role, default_scopes
from serving.permissions.caller import Caller
from serving.records.store import SERVICE, Store
from serving.records.tables import SESSIONS, SIGN_IN_LINKS, now

__all__ = ["CACHE_SECONDS", "IDLE_SECONDS", "LINK_SECONDS", "SESSION_SECONDS", "Sessions"]

LINK_SECONDS = 24 * 3600
SESSION_SECONDS = 12 * 3600
IDLE_SECONDS = 4 * 3600

CACHE_SECONDS = 5.0
"""How long a session that was found is taken for good without asking the store; while the store is down, until the session's end."""

_SEEN_SECONDS = 60
_CACHED_AT_MOST = 10_000


@dataclass(frozen=True)
class _Known:
    """A session that was found in the store: when that was, and when it ends, in seconds of the clock."""

    principal: Principal
    checked: float
    ends: float


class Sessions:
    """Makes sign-in links, and opens, checks and ends sessions.

    Parameters
    ----------
    secret
        What signatures and hashes hang on.
    clock
        Seconds that never jump, as `time.monotonic` gives them.
    """

    def __init__(self, store: Store, secret: bytes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._secret, self._clock = store, secret, clock
        self._links = URLSafeTimedSerializer(secret, salt="renewcast.sign-in", signer_kwargs={"digest_method": hashlib.sha256})
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def link_token(self, caller: Caller, *, role: Role, subject: str) -> str:
        """Return the token of a new sign-in link."""
        content = {"partner_id": caller.partner_id, "link_id": secrets.token_hex(16), "role": role, "subject": subject}
        return self._links.dumps(content)

    def link_name(self, token: str) -> str:
        """Return what the journal calls a link: `link:` and the start of its id; `link` alone if it was not signed here."""
        try:
            return f"link:{self._links.loads(token)['link_id'][:12]}"
        except BadData:
            return "link"

    async def open(self, principal: Principal) -> str:
        """Open a session for somebody who has shown otherwise who it is, and return what the cookie is to hold.

        Raises
        ------
        StoreDownError
            If the store is down.
        """
        cookie = secrets.token_urlsafe(32)
        await to_thread(self._keep, cookie, principal.caller, principal.role, principal.subject)
        return cookie

    async def sign_in(self, token: str, *, browser: str) -> str:
        """Open a session for whom a sign-in link is for, and return what the cookie is to hold.

        Raises
        ------
        RefusedError
            If the link was not signed here, has expired, or was used in another browser.
        StoreDownError
            If the store is down.
        """
        try:
            content = self._links.loads(token, max_age=LINK_SECONDS)
        except SignatureExpired as error:
            raise RefusedError(f"sign-in link: it is older than {LINK_SECONDS // 3600} hours") from error
        except BadData as error:
            raise RefusedError("sign-in link: it was not signed here") from error
        cookie = secrets.token_urlsafe(32)
        await to_thread(self._open, content, browser, cookie)
        return cookie

    async def check(self, cookie: str) -> Principal:
        """Return whose session it is.

        Raises
        ------
        RefusedError
            If there is none, or it has ended.
        StoreDownError
            If the store is down and this process has not seen the session before.
        """
        if not cookie:
            raise RefusedError("no session")
        session, at = self._hash(cookie), self._clock()
        known = self._known.get(session)
        if known is not None and at - known.checked < CACHE_SECONDS and at < known.ends:
            return known.principal
        try:
            found = await to_thread(self._find, session)
        except StoreDownError:
            if known is None or at >= known.ends:
                raise
            return known.principal
        except RefusedError:
            self._known.pop(session, None)
            raise
        self._remember(session, found)
        return found.principal

    async def end(self, cookie: str) -> None:
        """End the session, so that its cookie opens nothing any more, wherever a copy of it is.

        Raises
        ------
        StoreDownError
            If the store is down, and the session lives on.
        """
        session = self._hash(cookie)
        await to_thread(self._end, session)
        self._known.pop(session, None)

    def form_token(self, cookie: str) -> str:
        """Return what every form of the session's pages has to send along."""
        return self._hash(f"form of {cookie}")

    def check_form(self, cookie: str, token: str) -> None:
        """Make sure that a form comes from a page of the session.

        Raises
        ------
        RefusedError
            If it does not.
        """
        if not cookie or not hmac.compare_digest(self.form_token(cookie).encode(), token.encode()):
            raise RefusedError("a form without the token of its session")

    def _open(self, content: dict[str, Any], browser: str, cookie: str) -> None:
        link_id = str(content["link_id"])
        try:
            with self._store.tenant(SERVICE) as connection:
                connection.execute(sa.insert(SIGN_IN_LINKS).values(link_id=link_id, browser_hash=self._hash(browser), used_at=now()))
        except IntegrityError as error:
            if not self._used_by(link_id, browser):
                raise RefusedError("sign-in link: it was used in another browser") from error
        self._keep(cookie, Caller(content["partner_id"]), content.get("role", "csm"), content.get("subject", ""))

    def _keep(self, cookie: str, caller: Caller, role: Role, subject: str) -> None:
        at = now()
        row = {"session_hash": self._hash(cookie), "partner_id": caller.partner_id, "role": role, "subject": subject}
        with self._store.tenant(SERVICE) as connection:
            connection.execute(sa.insert(SESSIONS).values(row | {"created_at": at, "seen_at": at}))
            _remove_old(connection, at)

    def _used_by(self, link_id: str, browser: str) -> bool:
        query = sa.select(SIGN_IN_LINKS.c.browser_hash).where(SIGN_IN_LINKS.c.link_id == link_id)
        with self._store.tenant(SERVICE) as connection:
            return hmac.compare_digest(str(connection.execute(query).scalar_one()), self._hash(browser))

    def _find(self, session: str) -> _Known:
        at = now()
        this = SESSIONS.c.session_hash == session
        with self._store.tenant(SERVICE) as connection:
            row = connection.execute(sa.select(SESSIONS).where(this)).mappings().one_or_none()
            if row is None or row["ended_at"] is not None:
                raise RefusedError("unknown session" if row is None else "a session that was ended")
            age, idle = ((at - row[name]).total_seconds() for name in ("created_at", "seen_at"))
            if age > SESSION_SECONDS or idle > IDLE_SECONDS:
                raise RefusedError("a session that has expired")
            if idle > _SEEN_SECONDS:
                connection.execute(sa.update(SESSIONS).where(this).values(seen_at=at))
        caller, role = Caller(row["partner_id"]), row["role"]
        principal = Principal(caller, f"session:{session[:12]}", default_scopes(role, caller), role, row["subject"])
        return _Known(principal, self._clock(), self._clock() + min(SESSION_SECONDS - age, IDLE_SECONDS))

    def _end(self, session: str) -> None:
        with self._store.tenant(SERVICE) as connection:
            connection.execute(sa.update(SESSIONS).where(SESSIONS.c.session_hash == session).values(ended_at=now()))

    def _remember(self, session: str, found: _Known) -> None:
        self._known[session] = found
        self._known.move_to_end(session)
        while len(self._known) > _CACHED_AT_MOST:
            self._known.popitem(last=False)

    def _hash(self, text: str) -> str:
        return hmac.new(self._secret, f"session {text}".encode(), hashlib.sha256).hexdigest()


def _remove_old(connection: sa.Connection, at: datetime) -> None:
    """Remove sessions and used links that could open nothing any more."""
    for column, seconds in ((SESSIONS.c.created_at, SESSION_SECONDS), (SIGN_IN_LINKS.c.used_at, LINK_SECONDS)):
        connection.execute(sa.delete(column.table).where(column.between(datetime.min, at - timedelta(seconds=seconds))))
