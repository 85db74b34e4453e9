"""The life of a version in the model registry: unfinished, then challenger or champion, later perhaps previous.

A version is marked as unfinished until all of its training is logged. Which one is champion, challenger or previous is said by aliases; an
alias is moved in one call, and given back by an `Undo` if what follows fails. When and why a version became champion is a tag of it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import time
from typing import Any, Protocol

from features.feature import Target
from training.logbook import KIND
from training.undo import Undo
from training.versions import Alias, Promotion, Version, Way, history, model_name, predecessor, promotion_tag

__all__ = ["UNFINISHED", "VersionClient", "clear_interrupted", "make_challenger", "make_champion", "read_aliases"]

UNFINISHED = "unfinished"
"""Tag of a version, until the whole training is logged."""

_DEAD_AFTER = 3600.0
"""Seconds after which a run that is still being logged was interrupted: logging takes seconds."""


class VersionClient(Protocol):
    """What is needed of MLflow's client."""

    def search_registered_models(self, filter_string: str | None = None) -> Sequence[Any]:
        """Return the models that a filter lets through, each with its `aliases`."""

    def search_model_versions(self, filter_string: str | None = None) -> Sequence[Any]:
        """Return the versions that a filter lets through, each with `name`, `version` and `tags`."""

    def search_runs(self, experiment_ids: list[str], filter_string: str = "") -> Sequence[Any]:
        """Return the runs of experiments that a filter lets through."""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias of a model point to a version."""

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias of a model."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Tag a version of a model."""

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Remove a tag of a version."""

    def delete_model_version(self, name: str, version: str) -> None:
        """Remove a version of a model."""

    def set_terminated(self, run_id: str, status: str | None = None) -> None:
        """End a run."""


def read_aliases(client: VersionClient, target: Target) -> dict[str, str]:
    """Return the version that each alias of the target's model points to."""
    found = client.search_registered_models(filter_string=f"name = '{model_name(target)}'")
    return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}


def make_challenger(client: VersionClient, target: Target, version: str, *, undo: Undo) -> None:
    """Make a version the challenger."""
    _move(client, target, "challenger", version, before=read_aliases(client, target).get("challenger"), undo=undo)


def make_champion(
    client: VersionClient, target: Target, version: str, *, versions: Sequence[Version], way: Way, reason: str, undo: Undo
) -> Promotion:
    """Make one of the target's `versions` the champion, record when and why, and keep the one before as `previous`.

    After a rollback `previous` is the version that the new champion had replaced in its time.
    """
    name, aliases = model_name(target), {alias: found.version for found in versions for alias in found.aliases}
    replaced = aliases.get("champion")
    before = predecessor(version, history(versions)) if way == "rollback" else replaced
    promotion = Promotion(version=version, at=datetime.now(UTC).replace(tzinfo=None), way=way, reason=reason, replaced=replaced)
    key, record = promotion_tag(promotion)
    client.set_model_version_tag(name, version, key, record)
    undo.add(client.delete_model_version_tag, name, version, key)
    wanted: dict[Alias, str | None] = {"previous": before, "champion": version}
    if aliases.get("challenger") == version:
        wanted["challenger"] = None
    for alias, place in wanted.items():
        _move(client, target, alias, place, before=aliases.get(alias), undo=undo)
    return promotion


def clear_interrupted(client: VersionClient, experiment: str) -> None:
    """Mark runs as failed that a dead process or server left as running, and remove the versions that they had begun."""
    before = int((time() - _DEAD_AFTER) * 1000)
    for run in client.search_runs([experiment], f"status = 'RUNNING' and start_time < {before} and tags.{KIND} LIKE '%'"):
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            if UNFINISHED in version.tags:
                client.delete_model_version(version.name, version.version)
        client.set_terminated(run.info.run_id, "FAILED")


def _move(client: VersionClient, target: Target, alias: Alias, version: str | None, *, before: str | None, undo: Undo) -> None:
    if version != before:
        undo.add(_point, client, target, alias, before)
        _point(client, target, alias, version)


def _point(client: VersionClient, target: Target, alias: Alias, version: str | None) -> None:
    if version is None:
        client.delete_registered_model_alias(model_name(target), alias)
    else:
        client.set_registered_model_alias(model_name(target), alias, version)
