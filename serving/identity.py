"""Who is calling: API keys for applications, sign-in links and sessions for people.

A key is `rk_<id>_<secret>`; the store holds a keyed hash of the secret, never the secret. A sign-in link is signed, expires, and opens
for the first browser that uses it and for no other. It is exchanged for a session cookie, signed and expiring as well. All signatures
hang on one secret in the workspace's state, which only its owner can read.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal, get_args

import sqlalchemy as sa
from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy.exc import IntegrityError

from serving.sharing import Caller
from serving.store import SERVICE, Store
from serving.tables import API_KEYS, SIGN_IN_LINKS, now

__all__ = [
    "LINK_SECONDS",
    "ROLES",
    "SCOPES",
    "SESSION_SECONDS",
    "Identity",
    "Principal",
    "RefusedError",
    "Role",
    "Scope",
    "default_scopes",
    "read_secret",
]

Scope = Literal["accounts:read", "predict", "export", "contribute", "feedback", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

Role = Literal["administrator", "analyst", "csm"]
ROLES: tuple[Role, ...] = get_args(Role)

_ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    "administrator": frozenset(SCOPES),
    "analyst": frozenset({"accounts:read", "predict", "export", "contribute", "feedback"}),
    "csm": frozenset({"accounts:read", "predict", "feedback"}),
}
_VENDOR_SCOPES: frozenset[Scope] = frozenset({"metrics", "admin"})

LINK_SECONDS = 24 * 3600
SESSION_SECONDS = 12 * 3600

_UNKNOWN_HASH = "0" * 64


class RefusedError(Exception):
    """A credential that is not good; its message is for the journal, not for the caller."""


@dataclass(frozen=True)
class Principal:
    """A caller who has shown who it is.

    Parameters
    ----------
    credential
        What it showed, as the journal calls it: `key:<id>` or `session`.
    scopes
        What the credential is good for.
    role
        What the person or the application does in its company.
    subject
        Who acts: the label of a key, the subject of a token, the person for whom a sign-in link was made.
    """

    caller: Caller
    credential: str
    scopes: frozenset[Scope]
    role: Role
    subject: str


def default_scopes(role: Role, caller: Caller) -> frozenset[Scope]:
    """Return what a role may do; the scopes of whoever runs the service are for the vendor alone.

    Examples
    --------
    >>> sorted(default_scopes("csm", Caller("p1")))
    ['accounts:read', 'feedback', 'predict']
    >>> default_scopes("administrator", Caller(None)) - default_scopes("administrator", Caller("p1")) == {"metrics", "admin"}
    True
    """
    return _ROLE_SCOPES[role] if caller.is_vendor else _ROLE_SCOPES[role] - _VENDOR_SCOPES


@dataclass(frozen=True)
class Identity:
    """Issues and checks credentials.

    Parameters
    ----------
    secret
        What signatures and hashes hang on, from `read_secret`.
    """

    store: Store
    secret: bytes

    def issue_key(self, caller: Caller, *, label: str, scopes: Collection[Scope] | None = None) -> str:
        """Make an API key and return it; it cannot be shown a second time."""
        scopes = default_scopes("analyst", caller) if scopes is None else scopes
        key_id, key_secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        row = {
            "key_id": key_id,
            "key_hash": self._hash(key_secret),
            "partner_id": caller.partner_id,
            "scopes": " ".join(sorted(scopes)),
            "label": label,
            "created_at": now(),
        }
        with self.store.tenant(SERVICE) as connection:
            connection.execute(sa.insert(API_KEYS).values(row))
        return f"rk_{key_id}_{key_secret}"

    def revoke_key(self, key_id: str) -> bool:
        """Make a key worthless from now on, and tell whether there was one to revoke."""
        live = (API_KEYS.c.key_id == key_id) & API_KEYS.c.revoked_at.is_(None)
        with self.store.tenant(SERVICE) as connection:
            return connection.execute(sa.update(API_KEYS).where(live).values(revoked_at=now())).rowcount == 1

    async def authenticate(self, bearer: str) -> Principal:
        """Return who owns the bearer token of a request.

        Raises
        ------
        RefusedError
            If it is no good.
        """
        return self.check_key(bearer)

    def check_key(self, key: str) -> Principal:
        """Return who owns the key.

        Raises
        ------
        RefusedError
            If the key is malformed, unknown, wrong or revoked.
        """
        prefix, _, rest = key.partition("_")
        key_id, _, key_secret = rest.partition("_")
        if prefix != "rk" or not key_secret:
            raise RefusedError("malformed key")
        with self.store.tenant(SERVICE) as connection:
            row = connection.execute(sa.select(API_KEYS).where(API_KEYS.c.key_id == key_id)).mappings().one_or_none()
        # an unknown id costs the same comparison as a wrong secret
        right = hmac.compare_digest(row["key_hash"] if row else _UNKNOWN_HASH, self._hash(key_secret))
        if row is None or not right:
            raise RefusedError("unknown key" if row is None else f"wrong secret for key:{key_id}")
        if row["revoked_at"] is not None:
            raise RefusedError(f"revoked key:{key_id}")
        granted = frozenset(scope for scope in SCOPES if scope in row["scopes"].split())
        return Principal(Caller(row["partner_id"]), f"key:{key_id}", granted, "analyst", row["label"])

    def sign_in_token(self, caller: Caller) -> str:
        """Return the token of a new sign-in link."""
        return self._serializer("sign-in").dumps({"partner_id": caller.partner_id, "link_id": secrets.token_hex(16)})

    def redeem_token(self, token: str, *, browser: str) -> Caller:
        """Return whom a sign-in link is for; its first use ties it to the browser.

        Raises
        ------
        RefusedError
            If the link was not signed here, has expired, or was used in another browser.
        """
        try:
            content = self._serializer("sign-in").loads(token, max_age=LINK_SECONDS)
        except BadData as error:
            raise RefusedError(f"sign-in link: {error}") from error
        first = {"link_id": content["link_id"], "browser_hash": self._hash(browser), "used_at": now()}
        try:
            with self.store.tenant(SERVICE) as connection:
                connection.execute(sa.insert(SIGN_IN_LINKS).values(first))
        except IntegrityError as error:
            if not self._used_by(content["link_id"], browser):
                raise RefusedError("sign-in link: it was used in another browser") from error
        return Caller(content["partner_id"])

    def session_cookie(self, caller: Caller) -> str:
        """Return the value of a session cookie."""
        return self._serializer("session").dumps({"partner_id": caller.partner_id})

    async def check_session(self, cookie: str) -> Principal:
        """Return whose session it is.

        Raises
        ------
        RefusedError
            If the cookie was not signed here or has expired.
        """
        try:
            content = self._serializer("session").loads(cookie, max_age=SESSION_SECONDS)
        except BadData as error:
            raise RefusedError(f"session: {error}") from error
        caller = Caller(content["partner_id"])
        return Principal(caller, "session", default_scopes("csm", caller), "csm", "")

    def _used_by(self, link_id: str, browser: str) -> bool:
        query = sa.select(SIGN_IN_LINKS.c.browser_hash).where(SIGN_IN_LINKS.c.link_id == link_id)
        with self.store.tenant(SERVICE) as connection:
            return hmac.compare_digest(str(connection.execute(query).scalar_one()), self._hash(browser))

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt=f"renewcast.{purpose}", signer_kwargs={"digest_method": hashlib.sha256})

    def _hash(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()


def read_secret(path: Path) -> bytes:
    """Return the secret in the file; if there is no file, make one that only its owner can read."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # linked into place when it is complete, so that of two workers that start at once both read the same secret
        with NamedTemporaryFile(dir=path.parent) as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            with suppress(FileExistsError):
                path.hardlink_to(file.name)
    return path.read_bytes()
