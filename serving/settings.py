"""The environment of the serving processes, read and written here and nowhere else."""

import os
import pwd
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from os import environ as process_environment
from pathlib import Path

from features.errors import ServiceError, explain
from features.workspace import Workspace, load_workspace

__all__ = [
    "Settings",
    "believe_no_proxy",
    "client_secret",
    "metrics_folder",
    "operator_name",
    "process_environment",
    "read_settings",
    "traces_to",
    "tracking_uri",
]

_WORKSPACE = "RENEWCAST_WORKSPACE"
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one service share what they count; prometheus_client reads it by itself, so the name is not ours to choose."""

_BELIEVED_PROXIES = "FORWARDED_ALLOW_IPS"
"""Whose headers uvicorn believes, which BentoML starts without saying so; also a name that is not ours to choose."""


@dataclass(frozen=True)
class Settings:
    """What a serving process is told by its environment.

    Parameters
    ----------
    workspace
        The folder of the workspace that is served.
    metrics
        Where the workers share what they count.
    """

    workspace: Path
    metrics: Path | None = None

    def export(self, environ: MutableMapping[str, str] = process_environment) -> None:
        """Put the settings where the processes that this one starts will find them."""
        environ[_WORKSPACE] = str(self.workspace.absolute())
        if self.metrics is not None:
            environ[_METRICS] = str(self.metrics)
        environ["BENTOML_DO_NOT_TRACK"] = "True"
        environ["BENTOML_QUIET"] = "True"  # its workers would report to standard output

    def load_workspace(self, environ: MutableMapping[str, str] = process_environment) -> Workspace:
        """Read the workspace's config."""
        return load_workspace(self.workspace, environ)


def read_settings(environ: MutableMapping[str, str] = process_environment) -> Settings:
    """Return the settings of this process.

    Raises
    ------
    ServiceError
        If the environment does not name a workspace.
    """
    if not environ.get(_WORKSPACE):
        todo = f"Start the service with `renewcast serve --workspace DIR`, or set {_WORKSPACE}."
        raise ServiceError(explain("the service was not told which workspace to serve", given=f"{_WORKSPACE} is not set", todo=todo))
    return Settings(Path(environ[_WORKSPACE]), metrics_folder(environ))


def believe_no_proxy(environ: MutableMapping[str, str] = process_environment) -> None:
    """Keep the server below from believing proxies by rules of its own, before it starts: `[serving]` says whom to believe."""
    environ[_BELIEVED_PROXIES] = ""


def operator_name() -> str:
    """Return the name of the user who runs this process, as the operating system knows it; the number where it knows no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def tracking_uri(environ: Mapping[str, str] = process_environment) -> str | None:
    """Return the address of the MLflow server that the environment names; it goes before the workspace's own.

    Examples
    --------
    >>> tracking_uri({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
    'http://127.0.0.1:5000'
    """
    return environ.get("MLFLOW_TRACKING_URI") or None


def client_secret(environ: Mapping[str, str] = process_environment) -> str | None:
    """Return what the identity provider gave the service to show that it is the client that it says; None for a public client.

    Examples
    --------
    >>> client_secret({"RENEWCAST_OIDC_CLIENT_SECRET": "s3cret"})
    's3cret'
    """
    return environ.get("RENEWCAST_OIDC_CLIENT_SECRET") or None


def metrics_folder(environ: Mapping[str, str] = process_environment) -> Path | None:
    """Return where the workers of the process tree share what they count; None for a process on its own."""
    return Path(environ[_METRICS]) if environ.get(_METRICS) else None


def traces_to(environ: Mapping[str, str] = process_environment) -> str | None:
    """Return where traces are sent, by OpenTelemetry's own variables; None if they are not wanted.

    Examples
    --------
    >>> traces_to({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    'http://127.0.0.1:4318/v1/traces'
    >>> traces_to({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}) is None
    True
    """
    if environ.get("OTEL_SDK_DISABLED", "").casefold() == "true":
        return None
    if exact := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return exact
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None
