"""API keys: how they are issued, rotated and revoked, and how a request's key is checked.

A key is `rk_<id>_<secret>`; the store holds a keyed hash of the secret, never the secret.

Checking a key asks no database: each process keeps all keys' hashes in memory and reads them again every few seconds. So a key that is
revoked elsewhere is good for at most `REFRESH_SECONDS` longer, beside the time that the reading takes. The last good list is mirrored in a
file, so that a service can start, and goes on answering, while the database is down; the list is then as old as the outage, and after
`OFFLINE_SECONDS` it is taken no more.
"""

import hmac
import json
import os
import secrets
import time
from asyncio import to_thread
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa

from features.errors import ConfigError, StoreDownError, explain
from serving.callers.identity import SCOPES, Principal, RefusedError, Role, Scope, default_scopes
from serving.permissions.caller import Caller
from serving.records.store import SERVICE, Store
from serving.records.tables import API_KEYS, now

__all__ = ["OFFLINE_SECONDS", "REFRESH_SECONDS", "ApiKey", "ApiKeys", "KeyRing"]

REFRESH_SECONDS = 5.0
"""How old the list of keys may be while the store answers."""

OFFLINE_SECONDS = 24 * 3600.0
"""How old it may be while the store is down."""

_ASKED_AT_MOST, _ASKED_SECONDS = 3, 3.0
"""So often in so many seconds an unknown key has the list read again: it may have been issued a moment ago, or made up."""

_UNKNOWN_HASH = "0" * 64

Hash = Callable[[str], str]
"""A keyed hash of a text."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key; its secret is not.

    Parameters
    ----------
    replaced_by
        The key that took over when this one was rotated.
    """

    key_id: str
    key_hash: str
    partner_id: str | None
    role: Role
    scopes: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None

    @property
    def caller(self) -> Caller:
        """Whose key it is."""
        return Caller(self.partner_id)

    @property
    def principal(self) -> Principal:
        """Who calls with it; scopes that it must not have, because it is a partner's, it has not."""
        allowed = default_scopes("administrator", self.caller)
        granted = frozenset(scope for scope in SCOPES if scope in self.scopes.split() and scope in allowed)
        return Principal(self.caller, f"key:{self.key_id}", granted, self.role, self.label)

    def state(self, at: datetime) -> str:
        """Say whether it is `live`, `expired` or `revoked` at a time."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and (self.expires_at - at).total_seconds() <= 0 else "live"


class ApiKeys:
    """Issues, lists, rotates and revokes keys."""

    def __init__(self, store: Store, hashed: Hash) -> None:
        self._store = store
        self._hashed = hashed

    def issue(
        self,
        caller: Caller,
        *,
        label: str,
        role: Role = "analyst",
        scopes: Collection[Scope] | None = None,
        lifetime: timedelta | None = None,
    ) -> str:
        """Make a key and return it; it cannot be shown a second time.

        Parameters
        ----------
        scopes
            What the key is good for; what its role may do if None.
        lifetime
            How long it is good; until it is revoked if None.

        Raises
        ------
        ConfigError
            If a partner's key would get a scope that is the vendor's alone.
        """
        granted = default_scopes(role, caller) if scopes is None else frozenset(scopes)
        allowed = default_scopes("administrator", caller)
        if not granted <= allowed:
            given, possible = (", ".join(sorted(some)) for some in (granted - allowed, allowed))
            raise ConfigError(explain("these scopes are the vendor's alone", given=given, allowed=possible))
        made = now()
        values = {
            "partner_id": caller.partner_id,
            "role": role,
            "scopes": " ".join(sorted(granted)),
            "label": label,
            "created_at": made,
            "expires_at": None if lifetime is None else made + lifetime,
        }
        with self._store.tenant(SERVICE) as connection:
            return self._insert(connection, values)

    def known(self) -> list[ApiKey]:
        """Return all keys that were ever issued, the oldest first."""
        query = sa.select(API_KEYS).order_by(API_KEYS.c.created_at, API_KEYS.c.key_id)
        with self._store.tenant(SERVICE) as connection:
            return [ApiKey(**row) for row in connection.execute(query).mappings()]

    def rotate(self, key_id: str, *, overlap: timedelta) -> str:
        """Make a key that takes over from another one, and return it; the old one is good for the overlap and no longer.

        The new key gets the same caller, role, scopes, label and lifetime.

        Raises
        ------
        ConfigError
            If there is no such key, or it is good no more.
        """
        at = now()
        with self._store.tenant(SERVICE) as connection:
            row = connection.execute(sa.select(API_KEYS).where(API_KEYS.c.key_id == key_id)).mappings().one_or_none()
            old = None if row is None else ApiKey(**row)
            if old is None or old.state(at) != "live" or old.replaced_by is not None:
                raise _not_rotatable(key_id, old, at)
            lifetime = None if old.expires_at is None else old.expires_at - old.created_at
            same = {"partner_id": old.partner_id, "role": old.role, "scopes": old.scopes, "label": old.label}
            key = self._insert(connection, same | {"created_at": at, "expires_at": None if lifetime is None else at + lifetime})
            ends = at + overlap if old.expires_at is None else min(at + overlap, old.expires_at)
            changed = {"expires_at": ends, "replaced_by": key.split("_", 2)[1]}
            unchanged = (API_KEYS.c.key_id == key_id) & API_KEYS.c.replaced_by.is_(None) & API_KEYS.c.revoked_at.is_(None)
            if connection.execute(sa.update(API_KEYS).where(unchanged).values(changed)).rowcount != 1:
                raise _not_rotatable(key_id, old, at)  # somebody else was faster, and the new key is taken back
        return key

    def revoke(self, key_id: str) -> bool:
        """Make a key worthless from now on, and tell whether there was one to revoke."""
        live = (API_KEYS.c.key_id == key_id) & API_KEYS.c.revoked_at.is_(None)
        with self._store.tenant(SERVICE) as connection:
            return connection.execute(sa.update(API_KEYS).where(live).values(revoked_at=now())).rowcount == 1

    def _insert(self, connection: sa.Connection, values: Mapping[str, object]) -> str:
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        connection.execute(sa.insert(API_KEYS).values({**values, "key_id": key_id, "key_hash": self._hashed(secret)}))
        return f"rk_{key_id}_{secret}"


def _not_rotatable(key_id: str, key: ApiKey | None, at: datetime) -> ConfigError:
    state = "there is none" if key is None else key.state(at)
    why = f"replaced by {key.replaced_by or 'somebody else, just now'}" if key is not None and state == "live" else state
    todo = "Look at `renewcast keys list`; issue a new key."
    return ConfigError(explain("there is no key with this id that could be rotated", given=f"{key_id}: {why}", todo=todo))


class KeyRing:
    """Checks keys against a list in memory.

    Parameters
    ----------
    load
        Reads the list from the store.
    mirror
        The file that holds the last good list; only its owner can read it.
    clock
        Seconds that never jump, as `time.monotonic` gives them.
    """

    def __init__(
        self, load: Callable[[], list[ApiKey]], hashed: Hash, mirror: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load, self._hashed, self._mirror, self._clock = load, hashed, mirror, clock
        self._keys: Mapping[str, ApiKey] = {}
        self._good: float | None = None
        self._tried = -float("inf")
        self._asked: deque[float] = deque(maxlen=_ASKED_AT_MOST)
        self._mirrored: list[ApiKey] | None = None
        self._fault: str | None = None
        self._refreshing = Lock()

    async def check(self, key: str) -> Principal:
        """Return who owns the key.

        Raises
        ------
        RefusedError
            If the key is malformed, unknown, wrong, expired or revoked.
        StoreDownError
            If the store is down and no list of keys is young enough.
        """
        prefix, _, rest = key.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != "rk" or not secret:
            raise RefusedError("malformed key")
        await self._refreshed(REFRESH_SECONDS)
        if key_id not in self._keys:
            await self._asked_again()
        if self._good is None or self._clock() - self._good > OFFLINE_SECONDS:
            raise StoreDownError(explain("no key can be checked: the store is down", todo="See that the database runs."))
        return self._checked(key_id, secret)

    def refresh(self) -> None:
        """Read the list again; while the store is down the last good one stays, from the mirror if need be.

        Raises
        ------
        StoreDownError
            If the store is down.
        """
        with self._refreshing:
            self._tried = self._clock()
            try:
                keys = self._load()
            except StoreDownError as error:
                self._fault = str(error).splitlines()[0]
                if self._good is None:
                    self._read_mirror()
                raise
            self._keys = {key.key_id: key for key in keys}
            self._good, self._fault = self._clock(), None
            self._write_mirror(keys)

    def forget(self) -> None:
        """Have the list read again before the next key is checked, because this process has changed it."""
        self._tried = -float("inf")

    def fault(self) -> str | None:
        """Say for an operator what is wrong; None if nothing is."""
        if self._fault is None:
            return None
        if self._good is None:
            return f"no key can be checked: {self._fault}"
        hours = (self._clock() - self._good) / 3600
        return f"keys are checked against a list that is {hours:.1f} hours old: {self._fault}"

    async def _refreshed(self, seconds: float) -> None:
        """Read the list again if nobody has tried for so long; whoever comes while it is read takes the one that is there, if any is."""
        if self._refreshing.locked():
            if self._good is None:
                await to_thread(self._awaited)
        elif self._clock() - self._tried > seconds:
            with suppress(StoreDownError):
                await to_thread(self.refresh)

    async def _asked_again(self) -> None:
        """Read the list again for a key that is not on it, unless the store is down, or that was done often enough of late."""
        at = self._clock()
        if self._fault is None and (len(self._asked) < _ASKED_AT_MOST or at - self._asked[0] > _ASKED_SECONDS):
            self._asked.append(at)
            with suppress(StoreDownError):
                await to_thread(self.refresh)

    def _awaited(self) -> None:
        """Wait until the list has been read that is being read."""
        with self._refreshing:
            pass

    def _checked(self, key_id: str, secret: str) -> Principal:
        key = self._keys.get(key_id)
        # an unknown id costs the same comparison as a wrong secret
        right = hmac.compare_digest(key.key_hash if key else _UNKNOWN_HASH, self._hashed(secret))
        if key is None or not right:
            raise RefusedError("unknown key" if key is None else f"wrong secret for key:{key_id}")
        if (state := key.state(now())) != "live":
            raise RefusedError(f"{state} key:{key_id}")
        return key.principal

    def _write_mirror(self, keys: list[ApiKey]) -> None:
        try:
            if keys == self._mirrored and self._mirror.exists():
                os.utime(self._mirror)  # its time says how old the list is
                return
            temporary = self._mirror.with_suffix(f".{secrets.token_hex(4)}")
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
                json.dump([asdict(key) for key in keys], file, default=str)
            temporary.replace(self._mirror)
            self._mirrored = keys
        except OSError as error:
            self._fault = f"the list of keys cannot be mirrored: {error.strerror}"

    def _read_mirror(self) -> None:
        try:
            age = max(0.0, time.time() - self._mirror.stat().st_mtime)
            keys = [_key(values) for values in json.loads(self._mirror.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError):
            return  # there is none, and no key is good
        self._keys = {key.key_id: key for key in keys}
        self._good = self._clock() - age


def _key(values: dict[str, Any]) -> ApiKey:
    times = {name: values[name] and datetime.fromisoformat(values[name]) for name in ("created_at", "expires_at", "revoked_at")}
    return ApiKey(**values | times)
