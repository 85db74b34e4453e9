"""Runs, models and aliases in MLflow; the only module that imports it.

MLflow is imported when a registry is opened, never before: it costs seconds and 190 MB, and whoever scores does not need it. All calls
go through a client with its own address, so that MLflow's process-wide settings stay as they are. A model is logged as a folder of
text (a package, and its judged twin) with a signature and an example of its input; nothing is pickled.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from features.errors import RegistryError, explain
from features.feature import Target
from training.package import Package, load_package
from training.promotion import Role

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Champion", "LoggedModel", "Registry", "model_name", "open_registry"]

_DATA, _SHIPPED, _JUDGED = "data/model", "package", "judged"
"""Where a logged model keeps the package that scores, and the one that was measured."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow reads these from the environment alone. By default it asks a server that is down for four minutes, and adds the lock file of the
folder that it happens to run in to every model."""

_REQUIREMENTS = ["renewcast"]
"""Given, because MLflow otherwise spends 22 seconds on guessing them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedModel:
    """What is logged and registered for one target.

    Parameters
    ----------
    shipped, judged
        The package that scores, and the one that was measured.
    example
        A few rows of features.
    role
        The alias that the new version gets.
    """

    target: Target
    shipped: Package
    judged: Package
    example: pd.DataFrame
    parameters: Mapping[str, object]
    metrics: Mapping[str, float]
    role: Role
    decision: str


@dataclass(frozen=True, eq=False)
class Champion:
    """The model that has the alias `champion`: its version, the package that scores, and the one that was measured."""

    version: str
    shipped: Package
    judged: Package


def model_name(target: Target) -> str:
    """Return the name under which a target's models are registered."""
    return f"renewcast-{target}"


def open_registry(tracking_uri: str, *, experiment: str, artifacts: Path | None) -> "Registry":
    """Connect to MLflow, and make the experiment if it is not there.

    Parameters
    ----------
    tracking_uri
        A server's address, or `sqlite:///` and a path for a store of one's own, which is made if it is not there.
    artifacts
        Where a new experiment keeps its files; None to leave that to the server.

    Raises
    ------
    RegistryError
        If MLflow does not answer.
    """
    with _answering(tracking_uri):
        client_type = _import_client()
        client = client_type(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        place = artifacts.as_uri() if artifacts else None
        identifier = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
    return Registry(client, tracking_uri, identifier)


class Registry:
    """One experiment of an MLflow server or store, and the models registered there; make it with `open_registry`."""

    def __init__(self, client: "MlflowClient", tracking_uri: str, experiment_id: str) -> None:
        self._client = client
        self._uri = tracking_uri
        self._experiment = experiment_id

    def champion(self, target: Target) -> "Champion | None":
        """Fetch the target's champion, None if there is none.

        Raises
        ------
        RegistryError
            If MLflow does not answer, or has lost the model's files.
        PackageError
            If the files are damaged.
        """
        version = self._champion_version(target)
        if version is None:
            return None
        with tempfile.TemporaryDirectory() as temporary, _answering(self._uri):
            from mlflow.artifacts import download_artifacts

            place = download_artifacts(artifact_uri=f"{version.source}/{_DATA}", dst_path=temporary, tracking_uri=self._uri)
            return Champion(str(version.version), load_package(Path(place) / _SHIPPED), load_package(Path(place) / _JUDGED))

    def log_training(self, run: str, models: Sequence[LoggedModel], *, tags: Mapping[str, str], data_fingerprint: str) -> dict[Target, str]:
        """Log a training as a run with one child run a target, register the models, and return their versions.

        Models are registered after all of them are logged, and aliases are set last: if anything fails, the runs are marked as failed,
        the new versions are taken back, and every alias is where it was.

        Raises
        ------
        RegistryError
            If MLflow does not answer.
        """
        versions: dict[Target, ModelVersion] = {}
        with _answering(self._uri), ExitStack() as undo:
            parent = self._start(run, dict(tags), undo)
            children = {model.target: self._start(f"{run} {model.target}", _child(parent, model), undo) for model in models}
            logged = [self._log(model, children[model.target], data_fingerprint) for model in models]
            for model, (model_id, source) in zip(models, logged, strict=True):
                versions[model.target] = self._register(model, children[model.target], model_id, source, undo)
            for model in models:
                self._point_alias(model.role, versions[model.target], undo)
            undo.pop_all()
            for identifier in (*children.values(), parent):
                self._client.set_terminated(identifier)
        return {target: str(version.version) for target, version in versions.items()}

    def _champion_version(self, target: Target) -> "ModelVersion | None":
        with _answering(self._uri):
            version = self._aliases(model_name(target)).get("champion")
            return self._client.get_model_version(model_name(target), version) if version else None

    def _aliases(self, name: str) -> dict[str, str]:
        found = self._client.search_registered_models(filter_string=f"name = '{name}'")
        return dict(found[0].aliases) if found else {}

    def _start(self, name: str, tags: dict[str, str], undo: ExitStack) -> str:
        identifier: str = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        undo.callback(_attempt, self._client.set_terminated, identifier, "FAILED")
        return identifier

    def _log(self, model: LoggedModel, run_id: str, data_fingerprint: str) -> tuple[str, str]:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        now = int(time() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in model.metrics.items()],
            params=[Param(name, str(value)) for name, value in model.parameters.items()],
        )
        data = Dataset(name="snapshots", digest=data_fingerprint[:36], source_type="local", source="{}")
        self._client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        logged = self._client.create_logged_model(self._experiment, name=model.target, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as temporary:
            _write_model(model, Path(temporary) / "logged")
            self._client.log_model_artifacts(logged.model_id, str(Path(temporary) / "logged"))
        self._client.finalize_logged_model(logged.model_id, "READY")
        return logged.model_id, logged.artifact_location

    def _register(self, model: LoggedModel, run_id: str, model_id: str, source: str, undo: ExitStack) -> "ModelVersion":
        name = model_name(model.target)
        if not self._client.search_registered_models(filter_string=f"name = '{name}'"):
            self._client.create_registered_model(name)
            undo.callback(_attempt, self._client.delete_registered_model, name)
        version = self._client.create_model_version(name, source, run_id=run_id, model_id=model_id, tags={"decision": model.decision})
        undo.callback(_attempt, self._client.delete_model_version, name, version.version)
        return version

    def _point_alias(self, role: Role, version: "ModelVersion", undo: ExitStack) -> None:
        before = self._aliases(version.name).get(role)
        if before:
            undo.callback(_attempt, self._client.set_registered_model_alias, version.name, role, before)
        self._client.set_registered_model_alias(version.name, role, version.version)


def _child(parent: str, model: LoggedModel) -> dict[str, str]:
    return {"mlflow.parentRunId": parent, "target": model.target}


def _attempt(action: Callable[..., object], *arguments: str) -> None:
    """Undo a step as far as MLflow still answers; the error that led here is the one to report."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        action(*arguments)


def _import_client() -> "type[MlflowClient]":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient


def _load_pyfunc(path: str) -> "_Scorer":
    """Let `mlflow.pyfunc.load_model` read a package; MLflow calls it by this name."""
    return _Scorer(Path(path))


class _Scorer:
    def __init__(self, folder: Path) -> None:
        self._package = load_package(folder / _SHIPPED)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the raw score in log-odds and the calibrated probability of each row."""
        scores = self._package.score_rows(frame)
        return pd.DataFrame({"raw": scores.raw, "probability": scores.probability}, index=frame.index)


def _write_model(model: LoggedModel, folder: Path) -> None:
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [
        ColSpec("double", feature.name) if feature.kind == "number" else ColSpec("string", feature.name, required=False)
        for feature in model.shipped.catalogue
    ]
    data = folder.parent / Path(_DATA).name
    model.shipped.save(data / _SHIPPED)
    model.judged.save(data / _JUDGED)
    pyfunc.save_model(
        folder,
        loader_module=__name__,
        data_path=str(data),
        signature=ModelSignature(Schema([*inputs]), Schema([ColSpec("double", "raw"), ColSpec("double", "probability")])),
        input_example=model.example,
        pip_requirements=_REQUIREMENTS,
    )


@contextmanager
def _answering(tracking_uri: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow and its dependencies warn each other; nobody here can act on it
            yield
    except RegistryError:
        raise
    except Exception as error:
        if not _is_from_mlflow(error):
            raise
        raise RegistryError(
            explain(
                f"the model registry does not answer as it should: {str(error).splitlines()[0][:300]}",
                given=tracking_uri,
                todo="See that the MLflow server runs and that its address is right, or remove [mlflow] from the config to use a store "
                "in the workspace.",
            )
        ) from error


def _is_from_mlflow(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    kinds: tuple[type[Any], ...] = (MlflowException, RequestException, SQLAlchemyError, OSError)
    return isinstance(error, kinds)
