"""Feature pipelines: from a folder of tables to features that are correct at every point in time."""

import importlib as _importlib
import typing as _typing

from features.catalogue import Catalogue, read_catalogue
from features.contracts import CONTRACT
from features.errors import RenewcastError
from features.feature import Feature, Window
from features.workspace import Workspace, load_workspace

if _typing.TYPE_CHECKING:
    from features.frames import read_snapshot, read_table
    from features.reference import render_reference
    from features.retention import Retention, measure_monthly, measure_retention, read_movements, retention_frame
    from features.simulate import WorldSettings, simulate_workspace
    from features.twin import check_feature

__all__ = [
    "CONTRACT",
    "Catalogue",
    "Feature",
    "RenewcastError",
    "Retention",
    "Window",
    "Workspace",
    "WorldSettings",
    "check_feature",
    "load_workspace",
    "measure_monthly",
    "measure_retention",
    "read_catalogue",
    "read_movements",
    "read_snapshot",
    "read_table",
    "render_reference",
    "retention_frame",
    "simulate_workspace",
]

_MODULES = {
    "frames": ("read_snapshot", "read_table"),
    "reference": ("render_reference",),
    "retention": ("Retention", "measure_monthly", "measure_retention", "read_movements", "retention_frame"),
    "simulate": ("WorldSettings", "simulate_workspace"),
    "twin": ("check_feature",),
}
_LOADED_WHEN_USED = {name: f"features.{module}" for module, names in _MODULES.items() for name in names}
"""What brings pandas or the query engine: the command and the service must start without it."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)


def __dir__() -> list[str]:
    return __all__
