"""The service: BentoML's process tree around the web application.

BentoML starts, watches and stops the workers. All requests go to the application: the routes that BentoML brings along (`/metrics`,
`/docs.json`, `/schema.json`, its index page) are open to anybody and know nothing of callers, so they cannot be reached.

Its layers around a mounted application are left out as well, for one of them is what made workers stand still: `TimeoutMiddleware` sets a
timer for each request (`loop.call_later`) and never takes it back when the answer is there. So the event loop keeps each request's timer,
future and context variables, some 20 objects and more, until its 60 seconds are over: at 500 requests a second more than half a million,
which live just long enough to reach the oldest generation of the garbage collector. The collector looks through the whole heap each time
that this generation has grown by a quarter: about every 1,200 requests, for 150 to 260 ms. Without that layer the objects of a request are
gone with its answer; and what a worker holds when it begins to answer, its libraries and the scores, is set aside by `gc.freeze`, so that
the full collections that remain have little to look through. `tests/benchmarks/serving_load.py` measures a service with that layer and
this one.
"""

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]
from bentoml._internal.utils.circus import create_circus_socket_from_uri, create_standalone_arbiter
from bentoml.serving import create_watcher
from starlette.types import ASGIApp, Receive, Scope, Send

from features.errors import ServiceError, explain
from features.workspace import Workspace
from serving.app import create_app
from serving.operations.connections import limit_connections
from serving.operations.logs import configure_logs
from serving.operations.metrics import Metrics
from serving.operations.tracing import open_traces
from serving.settings import Settings, believe_no_proxy, read_settings, traces_to

__all__ = ["Front", "Mounted", "Renewcast", "require_port", "serve"]

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_LOOK_SECONDS = 1.0
_SOCKET = "renewcast"
_MEMORY = Path("/dev/shm")


class Front:
    """Stands before BentoML's own application and answers every request in its place."""

    def __init__(self, app: ASGIApp) -> None:
        configure_logs()
        believe_no_proxy()
        settings = read_settings()
        workspace = settings.load_workspace()
        limit_connections(workspace.config.serving.limits)
        self._bentoml = app
        traces = traces_to()
        self._application = create_app(workspace, metrics=Metrics(settings.metrics), traces=open_traces(traces) if traces else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop both, and leave everything else to the application."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = self._application
        async with application.router.lifespan_context(application):
            application.state.upkeep.drain.take_over(asyncio.get_running_loop())
            gc.collect()
            gc.freeze()
            await self._bentoml(scope, receive, send)


class Mounted(Service):  # type: ignore[misc]
    """A BentoML service whose requests go straight to the application."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that a worker serves."""
        return Front(super().to_asgi(is_main))


@bentoml.service(
    name="renewcast",
    service_class=Mounted,
    workers=2,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Renewcast:
    """Scores, their reasons and the pages of one workspace."""


def serve(workspace: Workspace, *, host: str, port: int) -> None:
    """Serve a workspace until the process is told to stop.

    Without scores it starts all the same, says that it is not ready, and answers as soon as there are some.

    Raises
    ------
    ServiceError
        If the port is in use or may not be used.
    """
    address = "127.0.0.1" if host == "localhost" else host
    require_port(address, port)
    with TemporaryDirectory(prefix="renewcast-metrics-", dir=_in_memory()) as metrics:
        Settings(workspace.folder, Path(metrics)).export()
        _run_workers(workspace, address, port)


def _in_memory() -> Path | None:
    """Return a folder that no full disk reaches, if there is one: writing to a mapped file without room behind it ends the process."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


def _run_workers(workspace: Workspace, host: str, port: int) -> None:
    """Run BentoML's workers on one socket, with the times to stop and to look after them that BentoML does not let one choose."""
    serving = workspace.config.serving
    service: Any = Renewcast
    answering_seconds = int(serving.limits.body_seconds + serving.limits.request_seconds)
    arguments = {
        "--fd": f"$(circus.sockets.{_SOCKET})",
        "--service-name": service.name,
        "--backlog": str(_BACKLOG),
        "--worker-id": "$(CIRCUS.WID)",
        "--timeout-keep-alive": str(_KEEP_ALIVE_SECONDS),
        "--timeout-graceful-shutdown": str(answering_seconds),
        "--args": json.dumps({}),
    }
    watcher = create_watcher(
        name="service",
        args=["-m", "_bentoml_impl.worker.service", service.import_string, *(word for pair in arguments.items() for word in pair)],
        working_dir=service.working_dir,
        numprocesses=serving.workers,
        close_child_stdin=True,
    )
    watcher.graceful_timeout = serving.drain_seconds + answering_seconds + 5  # a day, if BentoML has its way
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = f"[{host}]" if ":" in host else host
    listening = create_circus_socket_from_uri(f"tcp://{place}:{port}", name=_SOCKET, family=family, backlog=_BACKLOG)
    arbiter = create_standalone_arbiter([watcher], sockets=[listening], check_delay=_LOOK_SECONDS)
    arbiter.start(cb=lambda _started: _stop_at_once_on_interrupt(watcher))


def _stop_at_once_on_interrupt(watcher: Any) -> None:
    """Have the workers end without draining when a person presses Ctrl+C."""
    quit_: Callable[[int, FrameType | None], object] | int | None = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        watcher.stop_signal = signal.SIGINT
        if callable(quit_):
            quit_(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)


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
