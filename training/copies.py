"""The copies of the champions in a workspace, from which its accounts are scored: whoever scores needs no registry."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from features.feature import Target
from features.ledger import replace_folder
from features.workspace import Workspace
from training.package import Package, load_package
from training.registry import Registry, workspace_registry

__all__ = ["TARGETS", "champion_folder", "copy_champions", "copy_provisional", "load_champion", "provisional_reason", "sync_champions"]

TARGETS: tuple[Target, ...] = get_args(Target)

_PROVISIONAL = "provisional.txt"
"""The file beside a package that is used although it is no champion; it says why."""


def champion_folder(workspace: Workspace, target: Target) -> Path:
    """Return the folder of the local copy of a target's champion."""
    return workspace.training / "champion" / target


def load_champion(workspace: Workspace, target: Target) -> Package:
    """Read the local copy of a target's champion.

    Raises
    ------
    PackageError
        If the target has none yet, or its files are damaged.
    """
    return load_package(champion_folder(workspace, target))


def provisional_reason(workspace: Workspace, target: Target) -> str:
    """Return why the copy is used although it is no champion; nothing if it is one."""
    note = champion_folder(workspace, target) / _PROVISIONAL
    return note.read_text(encoding="utf-8") if note.exists() else ""


def sync_champions(workspace: Workspace, *, tracking_uri: str | None = None) -> Mapping[Target, str]:
    """Copy the registry's champions into the workspace and return their versions, for example after one was promoted by hand.

    Raises
    ------
    RegistryError
        If MLflow does not answer; the copies stay as they were.
    """
    return copy_champions(workspace, workspace_registry(workspace, tracking_uri=tracking_uri))


def copy_champions(workspace: Workspace, registry: Registry) -> dict[Target, str]:
    """Copy the champions of a registry and return their versions; all are fetched before the first is copied."""
    champions = {target: champion for target in TARGETS if (champion := registry.champion(target))}
    for target, champion in champions.items():
        with replace_folder(champion_folder(workspace, target)) as folder:
            champion.shipped.save(folder)
    return {target: champion.version for target, champion in champions.items()}


def copy_provisional(workspace: Workspace, package: Package, *, reason: str) -> None:
    """Use a package of a target without a champion until there is one; without a reason, use none."""
    place = champion_folder(workspace, package.target)
    if reason:
        with replace_folder(place) as folder:
            package.save(folder)
            (folder / _PROVISIONAL).write_text(reason, encoding="utf-8")
    elif place.exists():
        shutil.rmtree(place)
