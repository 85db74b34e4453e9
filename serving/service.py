"""The service: BentoML's process tree around the web application.

BentoML starts, watches and stops the workers. All requests go to the application: the routes that BentoML brings along (`/metrics`,
`/docs.json`, `/schema.json`, its index page) are open to anybody and know nothing of callers, so they cannot be reached.
"""

import socket
from typing import Any

import bentoml
from _bentoml_impl.server import serve_http  # type: ignore[import-untyped]
from starlette.types import ASGIApp, Receive, Scope, Send

from features.errors import ServiceError, explain
from features.workspace import Workspace
from serving.app import create_app
from serving.scoring import current_version
from serving.settings import Settings, read_settings

__all__ = ["Front", "Renewcast", "require_port", "serve"]

_GRACE_SECONDS = 10
_TIMEOUT_SECONDS = 60


class Front:
    """Stands before BentoML's own application and answers every request in its place."""

    def __init__(self, app: ASGIApp) -> None:
        self._bentoml = app
        self._application = create_app(read_settings().load_workspace())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave starting and stopping to BentoML and everything else to the application."""
        await (self._bentoml if scope["type"] == "lifespan" else self._application)(scope, receive, send)


@bentoml.service(
    name="renewcast",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": _TIMEOUT_SECONDS},
)
class Renewcast:
    """Scores, their reasons and the pages of one workspace."""


_SERVICE: Any = Renewcast
_SERVICE.add_asgi_middleware(Front)


def serve(workspace: Workspace, *, host: str, port: int) -> None:
    """Serve a workspace until the process is told to stop.

    Raises
    ------
    ServiceError
        If nothing has been scored yet, or the port is in use or may not be used.
    """
    current_version(workspace.scores)
    address = "127.0.0.1" if host == "localhost" else host
    require_port(address, port)
    Settings(workspace.folder).export()
    _SERVICE.inject_config()
    serve_http(_SERVICE, host=address, port=port, timeout_graceful_shutdown=_GRACE_SECONDS)


def require_port(host: str, port: int) -> None:
    """Raise ServiceError, with what to do, if nothing can listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    todo = f"End what is listening there, or choose another port: `renewcast serve --port {port + 1}`, or port = ... in [serving]."
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ServiceError(explain(f"the service cannot listen on {host}, port {port}: {reason}", todo=todo)) from error
