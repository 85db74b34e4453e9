"""Bearer tokens of an identity provider: OpenID Connect, as `[serving.oidc]` in the config describes it.

A token is good if the issuer signed it with a key that it publishes, for us, and it has not expired; and if its claims say both whether the
vendor or which partner calls, and in which role. A token that maps to nobody is refused: a person of whom nobody has said whom they work
for sees nothing. Only signatures with a public and a private key are taken, and of those only the kinds that the config names.

The issuer's keys are fetched when they are first needed and kept. They are fetched again every `KEYS_SECONDS`, and when a token names a key
that is not among them, which happens when the issuer has rotated its keys; but never more often than every `RETRY_SECONDS`, so that made-up
names of keys cannot be turned against the issuer. While the issuer is away, the keys that are known stay good.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from asyncio import to_thread
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any

import jwt

from features.config import Oidc
from features.errors import ConfigError, IssuerDownError, explain
from serving.callers.identity import ROLES, Principal, RefusedError, Role, default_scopes
from serving.permissions.caller import Caller, parse_caller

__all__ = ["FETCH_SECONDS", "KEYS_SECONDS", "RETRY_SECONDS", "IssuerKeys", "Tokens", "discover", "require_safe"]

KEYS_SECONDS = 300.0
RETRY_SECONDS = 30.0
FETCH_SECONDS = 5.0

_SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LONGEST_TOKEN = 16_384
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class IssuerKeys:
    """The public keys of an issuer.

    Parameters
    ----------
    address
        Where they are; found by OpenID Connect discovery if None.
    clock
        Seconds that never jump, as `time.monotonic` gives them.
    """

    def __init__(self, issuer: str, address: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._address, self._clock = issuer, address, clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched = self._tried = -float("inf")
        self._fetching = Lock()

    async def find(self, name: str | None) -> jwt.PyJWK:
        """Return the key of this name (`kid`); a token that names none needs an issuer with one key.

        Raises
        ------
        RefusedError
            If the issuer has no such key.
        IssuerDownError
            If its keys cannot be fetched, and never were.
        """
        at = self._clock()
        wanted = at - self._fetched > KEYS_SECONDS or self._named(name) is None
        if wanted and at - self._tried > RETRY_SECONDS and not (self._fetching.locked() and self._keys):
            await to_thread(self._fetch)
        if not self._keys:
            raise IssuerDownError(explain("the keys of the issuer of tokens cannot be fetched", given=self._issuer))
        if (key := self._named(name)) is None:
            raise RefusedError("a token signed with a key that its issuer does not publish")
        return key

    def _named(self, name: str | None) -> jwt.PyJWK | None:
        return next(iter(self._keys.values())) if name is None and len(self._keys) == 1 else self._keys.get(name)

    def _fetch(self) -> None:
        with self._fetching:
            if self._clock() - self._tried <= RETRY_SECONDS:
                return  # somebody else has just done it
            try:
                address = self._address or require_safe(discover(self._issuer)["jwks_uri"], "jwks_uri")
                keys = jwt.PyJWKClient(address, cache_jwk_set=False, timeout=FETCH_SECONDS).get_signing_keys()
            except (jwt.PyJWTError, OSError, ValueError, KeyError):
                keys = []  # those that are known stay good
            self._tried = self._clock()
            if keys:
                self._keys, self._fetched = {key.key_id: key for key in keys}, self._tried


class Tokens:
    """Checks bearer tokens.

    Raises
    ------
    ConfigError
        If the config asks for a signature that is not safe here, or maps to a caller or a role that there is not.
    """

    def __init__(self, config: Oidc, *, clock: Callable[[], float] = time.monotonic) -> None:
        for address in filter(None, (config.issuer, config.jwks)):
            require_safe(address, "issuer and jwks")
        unsafe = sorted(set(config.algorithms) - set(_SIGNATURES))
        if unsafe or not config.algorithms:
            todo = "Only signatures with a public and a private key can be checked against an issuer's published keys."
            raise ConfigError(
                explain("serving.oidc.algorithms names no signature to be taken", given=unsafe, allowed=", ".join(_SIGNATURES), todo=todo)
            )
        self._callers = {value: parse_caller(caller) for value, caller in config.callers.items()}
        self._roles = {value: _known_role(role) for value, role in config.roles.items()}
        self._config = config
        self._keys = IssuerKeys(config.issuer, config.jwks, clock=clock)

    async def check(self, token: str) -> Principal:
        """Return whom a bearer token stands for.

        Raises
        ------
        RefusedError
            If it is malformed, forged, expired, for somebody else, or maps to nobody.
        IssuerDownError
            If the issuer's keys cannot be fetched, and never were.
        """
        return self._principal(await self._claims(token, audience=self._config.audience))

    async def check_identity(self, token: str, *, client_id: str, nonce: str) -> Principal:
        """Return who signed in, by the token (OpenID Connect Core, 3.1.3.7) that came for it; raises as `check` does.

        Parameters
        ----------
        nonce
            What the sign-in was begun with; the token of another one is refused.
        """
        claims = await self._claims(token, audience=client_id)
        if claims.get("nonce") != nonce:
            raise RefusedError("a token of another sign-in")
        if claims.get("azp", client_id) != client_id:
            raise RefusedError("a token that was issued to another client")
        return self._principal(claims)

    async def _claims(self, token: str, *, audience: str) -> Mapping[str, Any]:
        if len(token) > _LONGEST_TOKEN:
            raise RefusedError("a token that is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._config.algorithms:
                raise RefusedError("a token with a kind of signature that is not taken")
            key = await self._keys.find(header.get("kid"))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self._config.algorithms),
                audience=audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise RefusedError(f"token: {error}") from error
        return claims

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject = next(_values(claims, self._config.subject_claim), "")
        if not subject:
            raise RefusedError("a token that names no subject")
        caller, role = self._caller(claims), self._role(claims)
        identifier = claims.get("jti")
        credential = f"token:{identifier[:64]}" if isinstance(identifier, str) else "token"
        return Principal(caller, credential, default_scopes(role, caller), role, subject)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        found = {caller for value in _values(claims, self._config.caller_claim) if (caller := self._caller_of(value)) is not None}
        if len(found) != 1:
            raise RefusedError("a token of nobody who is known here" if not found else "a token of several callers")
        return found.pop()

    def _caller_of(self, value: str) -> Caller | None:
        if self._callers:
            return self._callers.get(value)  # a group that happens to be called `vendor` says nothing
        try:
            return parse_caller(value)
        except ConfigError:
            return None  # one of the many other things that a claim such as `groups` says

    def _role(self, claims: Mapping[str, Any]) -> Role:
        values = _values(claims, self._config.role_claim)
        found = {self._roles.get(value) if self._roles else value for value in values}
        for role in ROLES:  # the one that may do most
            if role in found:
                return role
        raise RefusedError("a token without a role that is known here")


def _values(claims: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield what a claim says: one text or several; `a.b` is the claim of this name, or else `b` inside `a`."""
    found: Any = claims.get(name)
    if found is None and "." in name:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    yield from (value for value in (found if isinstance(found, list) else [found]) if isinstance(value, str))


def _known_role(role: str) -> Role:
    if role not in ROLES:
        raise ConfigError(explain("serving.oidc.roles maps to a role that there is not", given=role, allowed=", ".join(ROLES)))
    return role


def discover(issuer: str) -> Mapping[str, Any]:
    """Return what an issuer publishes about itself (OpenID Connect Discovery).

    Raises
    ------
    OSError, ValueError
        If it does not answer, or with something else.
    """
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    with urllib.request.urlopen(address, timeout=FETCH_SECONDS) as answer:
        document = json.load(answer)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise ValueError("the discovery document is another issuer's")
    return document


def require_safe(address: str, what: str) -> str:
    """Refuse an address where somebody on the way could put their own keys or tokens in the place of the issuer's.

    Raises
    ------
    ConfigError
        If it is one.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return address
    raise ConfigError(explain(f"serving.oidc: {what} must be addresses with https", given=address, allowed="https://..."))
