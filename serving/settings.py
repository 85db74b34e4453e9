"""The environment of the serving processes, read and written here and nowhere else."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from os import environ as process_environment
from pathlib import Path

from features.errors import ServiceError, explain
from features.workspace import Workspace, load_workspace

__all__ = ["Settings", "process_environment", "read_settings", "tracking_uri"]

_WORKSPACE = "RENEWCAST_WORKSPACE"


@dataclass(frozen=True)
class Settings:
    """What a serving process is told by its environment.

    Parameters
    ----------
    workspace
        The folder of the workspace that is served.
    """

    workspace: Path

    def export(self, environ: MutableMapping[str, str] = process_environment) -> None:
        """Put the settings where the processes that this one starts will find them."""
        environ[_WORKSPACE] = str(self.workspace.absolute())
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
    return Settings(Path(environ[_WORKSPACE]))


def tracking_uri(environ: Mapping[str, str] = process_environment) -> str | None:
    """Return the address of the MLflow server that the environment names; it goes before the workspace's own.

    Examples
    --------
    >>> tracking_uri({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"})
    'http://127.0.0.1:5000'
    """
    return environ.get("MLFLOW_TRACKING_URI") or None
