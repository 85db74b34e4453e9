"""What a proxy before the service says about who asks: believed if the proxy is trusted, and not read if it is not.

A proxy that ends TLS asks over plain HTTP from an address of its own. Its headers tell what the client did: `X-Forwarded-Proto` whether it
came over HTTPS, on which the names and flags of the cookies hang; `X-Forwarded-For` from which address, by which wrong credentials are
counted; `X-Forwarded-Host` for which host, if the proxy does not hand on `Host` itself. Anybody can send such headers. So they count only
on a connection from an address in `trusted_proxies`, and of a list only the part that trusted proxies have written.
"""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

__all__ = ["Forwarded"]

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")


class Forwarded:
    """Puts the client's scheme, address and host where those of a trusted proxy stood.

    Parameters
    ----------
    proxies
        Addresses and networks.
    """

    def __init__(self, app: ASGIApp, *, proxies: tuple[str, ...]) -> None:
        self._app = app
        self._believing = ProxyHeadersMiddleware(app, trusted_hosts=list(proxies))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = scope.get("client")
        if scope["type"] != "http" or client is None or client[0] not in self._believing.trusted_hosts:
            await self._app(scope, receive, send)
            return
        host = Headers(scope=scope).get("x-forwarded-host", "").rpartition(",")[2].strip()
        if _HOST.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {**scope, "headers": [(b"host", host.encode("ascii")), *others]}
        await self._believing(scope, receive, send)  # type: ignore[arg-type]
