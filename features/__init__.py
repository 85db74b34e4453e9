"""Feature pipelines: from a folder of tables to features that are correct at every point in time."""

import importlib as _importlib
import typing as _typing

from features.catalogue import Catalogue, read_catalogue
from features.contracts import CONTRACT
from features.errors import RenewcastError
from features.feature import Feature, Window
from features.workspace import Workspace, load_workspace

if _typing.TYPE_CHECKING:
    from features.retention import Retention, measure_monthly, measure_retention, read_movements, retention_frame
    from features.twin import check_feature

__all__ = [
    "CONTRACT",
    "Catalogue",
    "Feature",
    "RenewcastError",
    "Retention",
    "Window",
    "Workspace",
    "check_feature",
    "load_workspace",
    "measure_monthly",
    "measure_retention",
    "read_catalogue",
    "read_movements",
    "retention_frame",
]

_RETENTION = ("Retention", "measure_monthly", "measure_retention", "read_movements", "retention_frame")
_LOADED_WHEN_USED = {"check_feature": "features.twin"} | dict.fromkeys(_RETENTION, "features.retention")
"""What brings pandas or the query engine: the command and the service must start without it."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)


def __dir__() -> list[str]:
    return __all__
