"""The credentials of a workspace: keys, sign-in links and sessions, and tokens of an identity provider, behind one door.

Whatever lets somebody in, or no longer lets them in, is a line of the journal: by whom, when, and which credential, by its id or the start
of it. A secret is in none.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from features.workspace import Workspace
from serving.callers.background import repeating
from serving.callers.code_flow import CodeFlow
from serving.callers.identity import Principal, RefusedError, Role, Scope, read_secret
from serving.callers.journal import Journal
from serving.callers.keys import REFRESH_SECONDS, ApiKeys, KeyRing
from serving.callers.sessions import Sessions
from serving.callers.tokens import Tokens
from serving.permissions.caller import VENDOR, Caller
from serving.records.store import Store, open_store
from serving.settings import client_secret, operator_name

__all__ = ["Identity", "identity_of", "opened_identity"]


@dataclass(frozen=True)
class Identity:
    """Issues and checks credentials.

    Parameters
    ----------
    keys, ring
        What issues API keys, and what checks them.
    tokens, code_flow
        What checks bearer tokens of the identity provider, and signs people in with it; None if the workspace has no such thing.
    journal
        What takes a line for each credential that is made, used to sign in, or taken back.
    operator
        Who issues and revokes: the person who runs this process.
    secret
        What the signatures of this workspace hang on.
    """

    keys: ApiKeys
    ring: KeyRing
    sessions: Sessions
    tokens: Tokens | None
    code_flow: CodeFlow | None
    journal: Journal
    operator: Principal
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

    def issue_key(
        self,
        caller: Caller,
        *,
        label: str,
        role: Role = "analyst",
        scopes: Collection[Scope] | None = None,
        lifetime: timedelta | None = None,
    ) -> str:
        """Make a key, as `ApiKeys.issue` does, that this process takes at once."""
        key = self.keys.issue(caller, label=label, role=role, scopes=scopes, lifetime=lifetime)
        self.ring.forget()
        self.journal.note(f"{_name(key)} of {caller.name}", principal=self.operator, action="issue key")
        return key

    def rotate_key(self, key_id: str, *, overlap: timedelta) -> str:
        """Make a key that takes over from another one, as `ApiKeys.rotate` does, and that this process takes at once."""
        key = self.keys.rotate(key_id, overlap=overlap)
        self.ring.forget()
        self.journal.note(f"{_name(key)} in place of key:{key_id}", principal=self.operator, action="rotate key")
        return key

    def revoke_key(self, key_id: str) -> bool:
        """Make a key worthless, in this process at once, and tell whether there was one to revoke."""
        revoked = self.keys.revoke(key_id)
        self.ring.forget()
        if revoked:
            self.journal.note(f"key:{key_id}", principal=self.operator, action="revoke key")
        return revoked

    def sign_in_token(self, caller: Caller, *, role: Role = "csm", subject: str = "") -> str:
        """Return the token of a new sign-in link for somebody of a caller."""
        token = self.sessions.link_token(caller, role=role, subject=subject)
        whose = f"{self.sessions.link_name(token)} of {caller.name} as {role}"
        self.journal.note(f"{whose} for {subject}" if subject else whose, principal=self.operator, action="make link")
        return token

    async def sign_in(self, token: str, *, browser: str) -> str:
        """Open a session with the token of a sign-in link, and return what the cookie is to hold.

        Raises
        ------
        RefusedError
            If the link opens nothing in this browser.
        StoreDownError
            If the store is down.
        """
        link = self.sessions.link_name(token)
        try:
            cookie = await self.sessions.sign_in(token, browser=browser)
        except RefusedError as error:
            await self.journal.refused(str(error), credential=link, action="sign in")
            raise
        await self.journal.wrote(f"by {link}", principal=await self.sessions.check(cookie), action="sign in")
        return cookie

    async def sign_in_at_provider(self, flow: CodeFlow, answer: Mapping[str, str], *, cookie: str, back: str) -> tuple[str, str]:
        """Open a session for whom the identity provider sent back, and return what the cookie is to hold, and the page that was wanted.

        Raises
        ------
        RefusedError
            If it is nobody who is known here; a `StaleSignInError` if beginning again may help.
        StoreDownError, IssuerDownError
            If the store or the provider is down.
        """
        try:
            principal, to = await flow.finish(answer, cookie=cookie, back=back)
        except RefusedError as error:
            await self.journal.refused(str(error), credential="token", action="sign in")
            raise
        session = await self.sessions.open(principal)
        await self.journal.wrote(f"by {principal.credential}", principal=await self.sessions.check(session), action="sign in")
        return session, to

    async def sign_out(self, cookie: str) -> None:
        """End a session, so that its cookie opens nothing any more; without a session that is good nothing happens.

        Raises
        ------
        StoreDownError
            If the store is down, and the session lives on.
        """
        try:
            principal = await self.sessions.check(cookie)
        except RefusedError:
            return
        await self.sessions.end(cookie)
        await self.journal.wrote("its session", principal=principal, action="sign out")

    def refreshing(self) -> AbstractContextManager[None]:
        """Keep the list of keys fresh, in a thread, while the block runs."""
        return repeating(self.ring.refresh, seconds=REFRESH_SECONDS / 2, name="keys", slowest=REFRESH_SECONDS)

    def fault(self) -> str | None:
        """Say for an operator what is wrong; None if nothing is."""
        return self.ring.fault()


def _name(key: str) -> str:
    """Return what the journal calls a key: what stands before its secret."""
    return f"key:{key.split('_', 2)[1]}"


def identity_of(workspace: Workspace, store: Store, journal: Journal) -> Identity:
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
    tokens = None if oidc is None else Tokens(oidc)
    return Identity(
        keys=keys,
        ring=KeyRing(keys.known, hashed, workspace.state / "keys.json"),
        sessions=Sessions(store, secret),
        tokens=tokens,
        code_flow=CodeFlow(oidc, tokens, secret, client_secret=client_secret()) if oidc and tokens and oidc.client_id else None,
        journal=journal,
        operator=Principal(VENDOR, "command", frozenset(), "administrator", operator_name()),
        secret=secret,
    )


@contextmanager
def opened_identity(workspace: Workspace) -> Iterator[Identity]:
    """Open a workspace's credentials while the block runs: to issue keys and links, and to check them."""
    store = open_store(workspace.database, seconds=workspace.config.serving.limits.database_seconds)
    journal = Journal(store, workspace.state / "journal")
    try:
        yield identity_of(workspace, store, journal)
        journal.close()
    finally:
        store.dispose()
