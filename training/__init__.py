"""Training: LightGBM models, their calibration and judgement, the package that is served, and what it all adds up to."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from training.backtest import read_backtest
    from training.card import render_card
    from training.champions import list_versions, promote, rollback
    from training.copies import load_champion, sync_champions
    from training.dataset import Dataset, encode_features, load_dataset
    from training.figures import draw_baselines, draw_calibration, draw_capacity, draw_folds, draw_retention, draw_slices
    from training.forecasting import Forecast, forecast_workspace, read_forecast
    from training.package import Package, load_package
    from training.pipeline import train_workspace
    from training.reconciliation import Reconciliation, reconcile_workspace
    from training.report import TrainingSummary, read_report

__all__ = [
    "Dataset",
    "Forecast",
    "Package",
    "Reconciliation",
    "TrainingSummary",
    "draw_baselines",
    "draw_calibration",
    "draw_capacity",
    "draw_folds",
    "draw_retention",
    "draw_slices",
    "encode_features",
    "forecast_workspace",
    "list_versions",
    "load_champion",
    "load_dataset",
    "load_package",
    "promote",
    "read_backtest",
    "read_forecast",
    "read_report",
    "reconcile_workspace",
    "render_card",
    "rollback",
    "sync_champions",
    "train_workspace",
]

_MODULES = {
    "backtest": ("read_backtest",),
    "card": ("render_card",),
    "champions": ("list_versions", "promote", "rollback"),
    "copies": ("load_champion", "sync_champions"),
    "dataset": ("Dataset", "encode_features", "load_dataset"),
    "figures": ("draw_baselines", "draw_calibration", "draw_capacity", "draw_folds", "draw_retention", "draw_slices"),
    "forecasting": ("Forecast", "forecast_workspace", "read_forecast"),
    "package": ("Package", "load_package"),
    "pipeline": ("train_workspace",),
    "reconciliation": ("Reconciliation", "reconcile_workspace"),
    "report": ("TrainingSummary", "read_report"),
}
_LOADED_WHEN_USED = {name: f"training.{module}" for module, names in _MODULES.items() for name in names}
"""What brings LightGBM or MLflow: the command must answer at once."""


def __getattr__(name: str) -> _typing.Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_LOADED_WHEN_USED[name]), name)


def __dir__() -> list[str]:
    return __all__
