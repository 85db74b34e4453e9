"""Runs and models in MLflow; the only module that imports it.

MLflow is imported when a registry is opened, never before: it costs seconds and 190 MB, and whoever scores does not need it. All calls
go through a client with its own address, so that MLflow's process-wide settings stay as they are. A model is logged as a folder of
text (see `training.versions`) with a signature and an example of its input; nothing is pickled.

There are no transactions across MLflow's calls. So a version is marked as unfinished until all of its training is logged, aliases move
last, and what was done is taken back if a later step fails. What a dead server keeps from being taken back, an unfinished version or a
run that seems to run for hours, is never used, and cleared away by the next training.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from features.errors import RegistryError, explain
from features.feature import Target
from features.workspace import Workspace
from training import scorer
from training.lifecycle import UNFINISHED, clear_interrupted, make_challenger, make_champion, read_aliases
from training.logbook import CARD, REPORT, Rows, Run, allowed_name, training_run, write_files
from training.outage import answering
from training.undo import Undo
from training.versions import (
    Champion,
    Links,
    LoggedModel,
    Promotion,
    Version,
    Way,
    links_to,
    load_files,
    model_name,
    read_version,
    save_files,
    version_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Registry", "open_registry", "workspace_registry"]

_DATA = "data/model"
"""Where a logged model keeps the files of `training.versions`; MLflow fixes the first part."""

_BATCH = 100
"""Values that MLflow takes in one call."""

_DIGEST = 36
"""Characters of a digest that it takes."""

_UNDO_WITHIN = 60.0
_KNOCK_SECONDS = 10

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
        _knock(tracking_uri)
        client = client_type(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        place = artifacts.as_uri() if artifacts else None
        identifier = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
    return Registry(client, tracking_uri, identifier)


def workspace_registry(workspace: Workspace, *, tracking_uri: str | None = None) -> "Registry":
    """Open the registry of a workspace: the server that is named here, the config's, or a store in the workspace.

    Raises
    ------
    RegistryError
        If MLflow does not answer.
    """
    experiment = f"renewcast {workspace.config.name}"
    address = tracking_uri or workspace.config.mlflow.tracking_uri
    if address:
        return open_registry(address, experiment=experiment, artifacts=None)
    workspace.state.mkdir(exist_ok=True)
    return open_registry(f"sqlite:///{workspace.mlflow_db.absolute()}", experiment=experiment, artifacts=workspace.artifacts.absolute())


class Registry:
    """One experiment of an MLflow server or store, and the models registered there; make it with `open_registry`."""

    def __init__(self, client: "MlflowClient", tracking_uri: str, experiment_id: str) -> None:
        self._client = client
        self._uri = tracking_uri
        self._experiment = experiment_id

    def champion(self, target: Target) -> Champion | None:
        """Fetch the target's champion, None if there is none.

        Raises
        ------
        RegistryError
            If MLflow does not answer, or has lost the model's files.
        PackageError
            If the files are damaged.
        """
        with _answering(self._uri):
            version = read_aliases(self._client, target).get("champion")
        return self.load(target, version) if version else None

    def load(self, target: Target, version: str) -> Champion:
        """Fetch a version with its packages.

        Raises
        ------
        RegistryError
            If there is no such version, MLflow does not answer, or has lost the version's files.
        PackageError
            If the files are damaged.
        """
        found = self._version(target, version)
        with tempfile.TemporaryDirectory() as temporary:
            place = self._fetch(f"{found.source}/{_DATA}", f"the files of {found.name} version {version}", temporary)
            return load_files(place, version=version, decision=found.tags.get("decision", ""))

    def card(self, target: Target, version: str) -> str:
        """Fetch the model card of a version, in Markdown.

        Raises
        ------
        RegistryError
            If there is no such version, it has no card, or MLflow does not answer.
        """
        return self._read(target, version, CARD, "model card")

    def report(self, target: Target, version: str) -> dict[str, Any]:
        """Fetch what was measured of a version: its target's part of the report of its training.

        Raises
        ------
        RegistryError
            If there is no such version, it has no report, or MLflow does not answer.
        """
        report: dict[str, Any] = json.loads(self._read(target, version, REPORT, "report"))
        return report

    def versions(self, target: Target) -> tuple[Version, ...]:
        """List the target's versions, the latest first.

        Raises
        ------
        RegistryError
            If MLflow does not answer.
        """
        with _answering(self._uri):
            aliases = read_aliases(self._client, target)
            found = self._search(target)
        return tuple(_described(version, aliases) for version in sorted(found, key=lambda version: -int(version.version)))

    def links(self, target: Target, version: str) -> Links | None:
        """Return where MLflow's own pages show a version and its run; None if the registry is no server that has any.

        Raises
        ------
        RegistryError
            If there is no such version or MLflow does not answer.
        """
        found = self._version(target, version)
        return links_to(self._uri, target=target, version=version, experiment=self._experiment, run=found.run_id or "")

    def move_champion(self, target: Target, version: str, *, way: Way, reason: str) -> Promotion:
        """Make a version the champion, record when and why, and keep the one before as `previous`.

        After a rollback `previous` is the version that the new champion had replaced in its time, so that one can go back further.

        Raises
        ------
        RegistryError
            If there is no such version or MLflow does not answer; the champion stays then.
        """
        self._version(target, version)
        with _answering(self._uri), Undo(within=_UNDO_WITHIN) as undo:
            return make_champion(self._client, target, version, versions=self.versions(target), way=way, reason=reason, undo=undo)

    def log_training(self, run: str, models: Sequence[LoggedModel], *, tags: Mapping[str, str], data_fingerprint: str) -> dict[Target, str]:
        """Log a training with a run for each target and fold, register the models, and return their versions.

        If anything fails, the runs are marked as failed, the new versions are taken back, and every alias is where it was.

        Raises
        ------
        RegistryError
            If MLflow does not answer, or the disk is full.
        """
        with _answering(self._uri), Undo(within=_UNDO_WITHIN) as undo:
            clear_interrupted(self._client, self._experiment)
            runs: list[str] = []
            versions: dict[Target, str] = {}
            self._log(training_run(run, models, tags=tags, data_fingerprint=data_fingerprint), None, runs, versions, undo)
            for identifier in reversed(runs):
                self._client.set_terminated(identifier)
            for model in models:
                self._take_up(model, versions[model.target], undo)
        return versions

    def _log(self, run: Run, parent: str | None, runs: list[str], versions: dict[Target, str], undo: Undo) -> None:
        """Log a run and those below it, and note their ids and the versions that they register."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        identifier: str = self._client.create_run(self._experiment, run_name=run.name, tags={**run.tags, **nested}).info.run_id
        undo.add(self._client.set_terminated, identifier, "FAILED")
        runs.append(identifier)
        self._log_rows(identifier, run.rows)
        self._log_files(identifier, run.files)
        model_id = None
        if run.model is not None:
            model_id, source = self._log_model(run.model, identifier, undo)
            versions[run.model.target] = self._register(run.model, identifier, model_id, source, undo)
        self._log_values(identifier, run.parameters, run.metrics, model_id)
        for child in run.children:
            self._log(child, identifier, runs, versions, undo)

    def _log_values(self, run_id: str, parameters: Mapping[str, object], metrics: Mapping[str, float], model_id: str | None) -> None:
        from mlflow.entities import Metric, Param

        now = int(time() * 1000)
        params = [Param(allowed_name(name), str(value)) for name, value in parameters.items()]
        measured = [Metric(allowed_name(name), float(value), now, 0, model_id=model_id) for name, value in metrics.items()]
        for start in range(0, max(len(params), len(measured)), _BATCH):
            self._client.log_batch(run_id, metrics=measured[start : start + _BATCH], params=params[start : start + _BATCH])

    def _log_rows(self, run_id: str, rows: Mapping[str, Rows]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for context, found in rows.items():
            source, profile = json.dumps({"snapshots": found.snapshots}), json.dumps(dict(found.facts))
            data = Dataset(name=found.name, digest=found.digest[:_DIGEST], source_type="local", source=source, profile=profile)
            inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", context)]))
        if inputs:
            self._client.log_inputs(run_id, inputs)

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            write_files(files, Path(temporary))
            if files:
                self._client.log_artifacts(run_id, temporary)

    def _log_model(self, model: LoggedModel, run_id: str, undo: Undo) -> tuple[str, str]:
        """Log a model's files and return its id and their place."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        logged = self._client.create_logged_model(self._experiment, name=model.target, source_run_id=run_id)
        undo.add(self._client.delete_logged_model, logged.model_id)
        undo.add(get_artifact_repository(logged.artifact_location, tracking_uri=self._uri).delete_artifacts)
        with tempfile.TemporaryDirectory() as temporary:
            _write_model(model, Path(temporary) / "logged")
            self._client.log_model_artifacts(logged.model_id, str(Path(temporary) / "logged"))
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged.model_id, logged.artifact_location

    def _register(self, model: LoggedModel, run_id: str, model_id: str, source: str, undo: Undo) -> str:
        name = model_name(model.target)
        if not self._client.search_registered_models(filter_string=f"name = '{name}'"):
            self._client.create_registered_model(name)
            undo.add(self._client.delete_registered_model, name)
        version = self._client.create_model_version(
            name, source, run_id=run_id, model_id=model_id, description=model.decision, tags=version_tags(model) | {UNFINISHED: "true"}
        )
        undo.add(self._client.delete_model_version, name, str(version.version))
        return str(version.version)

    def _take_up(self, model: LoggedModel, version: str, undo: Undo) -> None:
        """Finish a version and give it its alias."""
        target = model.target
        self._client.delete_model_version_tag(model_name(target), version, UNFINISHED)
        if model.role == "champion":
            make_champion(self._client, target, version, versions=self.versions(target), way="training", reason=model.decision, undo=undo)
        else:
            make_challenger(self._client, target, version, undo=undo)

    def _search(self, target: Target) -> "list[ModelVersion]":
        """Return the target's finished versions."""
        found = self._client.search_model_versions(f"name = '{model_name(target)}'")
        return [version for version in found if UNFINISHED not in version.tags]

    def _version(self, target: Target, version: str) -> "ModelVersion":
        with _answering(self._uri):
            found = {str(one.version): one for one in self._search(target)}
        if version not in found:
            known = ", ".join(sorted(found, key=int)) or "none yet"
            todo = "`renewcast models` lists them."
            raise RegistryError(explain(f"{model_name(target)} has no such version", given=version, allowed=known, todo=todo))
        return found[version]

    def _read(self, target: Target, version: str, file: str, what: str) -> str:
        found = self._version(target, version)
        with tempfile.TemporaryDirectory() as temporary:
            place = self._fetch(f"runs:/{found.run_id}/{file}", f"the {what} of {found.name} version {version}", temporary)
            return place.read_text(encoding="utf-8")

    def _fetch(self, uri: str, what: str, folder: str) -> Path:
        from mlflow.artifacts import download_artifacts

        with _answering(self._uri, f"{what} cannot be fetched from the registry"):
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._uri))


def _knock(address: str) -> None:
    """See that a server answers at all: one that hangs keeps MLflow's client waiting for a minute."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    if address.startswith("http"):
        credentials = get_default_host_creds(address)  # type: ignore[no-untyped-call]
        http_request(credentials, "/health", "GET", timeout=_KNOCK_SECONDS, max_retries=0, raise_on_status=False)  # type: ignore[no-untyped-call]


def _described(version: "ModelVersion", aliases: Mapping[str, str]) -> Version:
    made_at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).replace(tzinfo=None)
    return read_version(str(version.version), version.tags, made_at=made_at, run_id=str(version.run_id), aliases=aliases)


def _import_client() -> "type[MlflowClient]":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return MlflowClient


def _write_model(model: LoggedModel, folder: Path) -> None:
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [
        ColSpec("double", feature.name) if feature.kind == "number" else ColSpec("string", feature.name, required=False)
        for feature in model.shipped.catalogue
    ]
    data = folder.parent / Path(_DATA).name
    save_files(model, data)
    pyfunc.save_model(
        folder,
        loader_module=scorer.__name__,
        data_path=str(data),
        signature=ModelSignature(Schema([*inputs]), Schema([ColSpec("double", "raw"), ColSpec("double", "probability")])),
        input_example=model.example,
        pip_requirements=_REQUIREMENTS,
        metadata={"catalogue_hash": model.shipped.catalogue.hash, "package_hash": model.shipped.hash},
    )


def _answering(tracking_uri: str, what: str = "the model registry does not answer as it should") -> AbstractContextManager[None]:
    return answering(tracking_uri, what, knows_revision=_knows_revision)


def _knows_revision(revision: str) -> bool:
    """Tell whether the installed MLflow has a migration to this revision of a store's tables."""
    from mlflow.store.db_migrations import versions

    return any(file.name.startswith(revision) for place in versions.__path__ for file in Path(place).glob("*.py"))
