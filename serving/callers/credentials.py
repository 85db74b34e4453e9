"""The credentials of a workspace: keys, sign-in links and sessions, and tokens of an identity provider, behind one door."""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from features.workspace import Workspace
from serving.callers.background import repeating
from serving.callers.identity import Principal, Role, read_secret
from serving.callers.keys import REFRESH_SECONDS, ApiKeys, KeyRing
from serving.callers.sessions import Sessions
from serving.callers.tokens import Tokens
from serving.permissions.caller import Caller
from serving.records.store import Store, open_store

__all__ = ["Identity", "identity_of", "opened_identity"]


@dataclass(frozen=True)
class Identity:
    """Issues and checks credentials.

    Parameters
    ----------
    keys, ring
        What issues API keys, and what checks them.
    tokens
        What checks bearer tokens of the identity provider; None if the workspace has none.
    secret
        What the signatures of this workspace hang on.
    """

    keys: ApiKeys
    ring: KeyRing
    sessions: Sessions
    tokens: Tokens | None
    secret: bytes = field(repr=False)

    async def authenticate(self, bearer: str) -> Principal:
        """Return who owns the bearer token of a request: an API key, or a token of the identity provider.

        Raises
        ------
        RefusedError
            If it is no good.
        StoreDownError, IssuerDownError
            If it cannot be checked.
        """
        if self.tokens is None or bearer.startswith("rk_"):
            return await self.ring.check(bearer)
        return await self.tokens.check(bearer)

    def issue_key(self, caller: Caller, **options: Any) -> str:
        """Make a key, with the options of `ApiKeys.issue`, that this process takes at once."""
        key = self.keys.issue(caller, **options)
        self.ring.forget()
        return key

    def revoke_key(self, key_id: str) -> bool:
        """Make a key worthless, in this process at once, and tell whether there was one to revoke."""
        revoked = self.keys.revoke(key_id)
        self.ring.forget()
        return revoked

    def sign_in_token(self, caller: Caller, *, role: Role = "csm", subject: str = "") -> str:
        """Return the token of a new sign-in link for somebody of a caller."""
        return self.sessions.link_token(caller, role=role, subject=subject)

    def refreshing(self) -> AbstractContextManager[None]:
        """Keep the list of keys fresh, in a thread, while the block runs."""
        return repeating(self.ring.refresh, seconds=REFRESH_SECONDS / 2, name="keys", slowest=REFRESH_SECONDS)

    def fault(self) -> str | None:
        """Say for an operator what is wrong; None if nothing is."""
        return self.ring.fault()


def identity_of(workspace: Workspace, store: Store) -> Identity:
    """Return the credentials of a workspace that are kept in its store.

    Raises
    ------
    ConfigError
        If the identity provider is not set up in a way that can be used.
    """
    secret = read_secret(workspace.state / "secret.key")

    def hashed(text: str) -> str:
        return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()

    keys = ApiKeys(store, hashed)
    oidc = workspace.config.serving.oidc
    return Identity(
        keys=keys,
        ring=KeyRing(keys.known, hashed, workspace.state / "keys.json"),
        sessions=Sessions(store, secret),
        tokens=None if oidc is None else Tokens(oidc),
        secret=secret,
    )


@contextmanager
def opened_identity(workspace: Workspace) -> Iterator[Identity]:
    """Open a workspace's credentials while the block runs: to issue keys and links, and to check them."""
    store = open_store(workspace.database)
    try:
        yield identity_of(workspace, store)
    finally:
        store.dispose()
