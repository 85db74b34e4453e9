"""Signing in with a company's account: the authorization code flow of OpenID Connect, with PKCE (RFC 7636), state and nonce.

The browser is sent to the identity provider and comes back with a code. The code is exchanged for a token that says who the person is. It
is checked as bearer tokens are (`serving.callers.tokens`), but for its audience: it is for this client, and for this sign-in.

One random value in a signed cookie holds the way out and the way back together. State (against an answer that another site begins), nonce
(against a token of another sign-in) and the PKCE verifier (against a code that leaked) are HMACs of it. So nothing is kept here, the
browser never learns the verifier, and any worker finishes what another began, within `FLOW_SECONDS`.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from asyncio import Lock, to_thread
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

from features.config import Oidc
from features.errors import IssuerDownError, explain
from serving.callers.identity import Principal, RefusedError
from serving.callers.tokens import FETCH_SECONDS, KEYS_SECONDS, RETRY_SECONDS, Tokens, discover, require_safe

__all__ = ["FLOW_SECONDS", "CodeFlow", "Departure", "StaleSignInError"]

FLOW_SECONDS = 600

_LARGEST_ANSWER = 1 << 20


class StaleSignInError(RefusedError):
    """A way back that does not belong to a way out of this browser's: whoever stands there can begin again."""


@dataclass(frozen=True)
class Departure:
    """Where the browser goes at the identity provider, and what its cookie is to bring back."""

    address: str
    cookie: str


class CodeFlow:
    """Sends people to the identity provider, and finds out who came back.

    Parameters
    ----------
    secret
        What signatures hang on.
    client_secret
        What the provider gave this client; None for a public client, which PKCE alone protects.
    clock
        Seconds that never jump, as `time.monotonic` gives them.
    """

    def __init__(
        self, config: Oidc, tokens: Tokens, secret: bytes, *, client_secret: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        assert config.client_id is not None
        self._config, self._tokens, self._secret, self._clock = config, tokens, secret, clock
        self._client_id, self._client_secret = config.client_id, client_secret
        self._sealed = URLSafeTimedSerializer(secret, salt="renewcast.code-flow", signer_kwargs={"digest_method": hashlib.sha256})
        self._provider: Mapping[str, Any] = {}
        self._fetched = self._tried = -float("inf")
        self._fetching = Lock()

    async def begin(self, *, back: str, to: str) -> Departure:
        """Return the way to the identity provider.

        Parameters
        ----------
        back
            The address here to which it sends the browser back.
        to
            The page here that the person wants.

        Raises
        ------
        IssuerDownError
            If the provider does not say where its pages are.
        """
        endpoint = (await self._metadata())["authorization_endpoint"]
        flow = secrets.token_urlsafe(32)
        challenge = hashlib.sha256(self._derived("verifier", flow).encode()).digest()
        question = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": back,
            "scope": " ".join(self._config.scopes),
            "state": self._derived("state", flow),
            "nonce": self._derived("nonce", flow),
            "code_challenge": _base64(challenge),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in endpoint else "?"
        return Departure(f"{endpoint}{joint}{urllib.parse.urlencode(question)}", str(self._sealed.dumps([flow, to])))

    async def finish(self, answer: Mapping[str, str], *, cookie: str, back: str) -> tuple[Principal, str]:
        """Return who came back, and the page that was wanted.

        Parameters
        ----------
        answer
            What the provider put into the address: `code` and `state`, or `error`.

        Raises
        ------
        StaleSignInError
            If the cookie or the answer is not that of a sign-in that was begun here, lately.
        RefusedError
            If the provider did not sign the person in, or the account maps to nobody.
        IssuerDownError
            If the provider does not answer.
        """
        try:
            flow, to = self._sealed.loads(cookie, max_age=FLOW_SECONDS)
        except BadData as error:
            raise StaleSignInError("sign-in: it was not begun in this browser, or too long ago") from error
        if not hmac.compare_digest(answer.get("state", "").encode(), self._derived("state", flow).encode()):
            raise StaleSignInError("sign-in: the answer belongs to another one")
        if answer.get("iss", self._config.issuer) != self._config.issuer:  # RFC 9207
            raise StaleSignInError("sign-in: the answer is another issuer's")
        if not (code := answer.get("code", "")):
            raise RefusedError(f"sign-in: the identity provider says {answer.get('error', 'nothing')[:100]!r}")
        endpoint = (await self._metadata())["token_endpoint"]
        token = await to_thread(self._exchange, endpoint, code, self._derived("verifier", flow), back)
        return await self._tokens.check_identity(token, client_id=self._client_id, nonce=self._derived("nonce", flow)), str(to)

    async def _metadata(self) -> Mapping[str, Any]:
        async with self._fetching:
            at = self._clock()
            if at - self._fetched > KEYS_SECONDS and at - self._tried > RETRY_SECONDS:
                self._tried = at
                await to_thread(self._fetch)
        if not self._provider:
            raise IssuerDownError(explain("the identity provider does not say where its pages are", given=self._config.issuer))
        return self._provider

    def _fetch(self) -> None:
        try:
            found = discover(self._config.issuer)
            for name in ("authorization_endpoint", "token_endpoint"):
                require_safe(found[name], name)
        except (OSError, ValueError, KeyError):
            return  # what is known stays good
        self._provider, self._fetched = found, self._tried

    def _exchange(self, endpoint: str, code: str, verifier: str, back: str) -> str:
        """Return the token that says who the person is."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        headers = {"Accept": "application/json"}
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in self._provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
            pair = ":".join(urllib.parse.quote_plus(part) for part in (self._client_id, self._client_secret))
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        request = urllib.request.Request(endpoint, urllib.parse.urlencode(form).encode(), headers)
        try:
            with _OPENER.open(request, timeout=FETCH_SECONDS) as answer:
                token = json.loads(answer.read(_LARGEST_ANSWER))["id_token"]
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise RefusedError(f"sign-in: the identity provider takes no such code ({error.code})") from error
            raise IssuerDownError(explain("the identity provider gives no tokens", given=endpoint)) from error
        except OSError as error:
            raise IssuerDownError(explain("the identity provider does not answer", given=endpoint)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError("sign-in: the identity provider sent no token about the person") from error
        if not isinstance(token, str):
            raise RefusedError("sign-in: the identity provider sent no token about the person")
        return token

    def _derived(self, what: str, flow: str) -> str:
        return _base64(hmac.new(self._secret, f"sign-in {what} {flow}".encode(), hashlib.sha256).digest())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Sends no secret anywhere but to the address that the provider published."""

    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
