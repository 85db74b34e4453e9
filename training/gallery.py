"""All figures for which a training has the numbers, as files."""

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from training.canvas import render
from training.figures import draw_baselines, draw_calibration, draw_capacity, draw_folds, draw_gain, draw_roc, draw_slices
from training.model_figures import draw_ablation, draw_importance, draw_search, draw_stability
from training.phrases import Json

__all__ = ["draw_report", "draw_scores"]

_DRAWINGS: Mapping[str, tuple[tuple[str, ...], Callable[[Json, str], Figure]]] = {
    "calibration.png": (
        ("calibration_curve", "metrics"),
        lambda part, target: draw_calibration(part["calibration_curve"], target=target, ece=part["metrics"]["ece"]["value"]),
    ),
    "capacity.png": (("metrics",), lambda part, target: draw_capacity(part["metrics"], target=target)),
    "baselines.png": (("baselines",), lambda part, target: draw_baselines(part["baselines"], part["metrics"]["auc"], target=target)),
    "slices.png": (("slices",), lambda part, target: draw_slices(part["slices"], part["metrics"]["auc"], target=target)),
    "backtest.png": (("folds",), lambda part, target: draw_folds(part["folds"], part["metrics"]["auc"], target=target)),
    "importance.png": (("importance",), lambda part, target: draw_importance(part["importance"], target=target)),
    "stability.png": (("stability",), lambda part, target: draw_stability(part["stability"], target=target)),
    "search.png": (("search",), lambda part, target: draw_search(part["search"], target=target)),
    "ablation.png": (("ablation",), lambda part, target: draw_ablation(part["ablation"], target=target)),
}
"""For each file: what it needs of the report, and how it is drawn."""


def draw_report(part: Json, *, target: str) -> dict[str, bytes]:
    """Draw all figures for which a target's part of a training's report has the numbers, as PNG files by name."""
    return {name: render(draw(part, target)) for name, (needs, draw) in _DRAWINGS.items() if all(part.get(need) for need in needs)}


def draw_scores(test: pd.DataFrame, auc: Json, *, target: str) -> dict[str, bytes]:
    """Draw the figures for which every score of the test period is needed, as PNG files by name.

    Parameters
    ----------
    test
        `(n, ...)` with `account_id`, `target` and `probability`, as in `training.backtest`.
    auc
        The estimate in the report.
    """
    happened, probability = test["target"].to_numpy(dtype=float), test["probability"].to_numpy(dtype=float)
    figures = {
        "roc.png": draw_roc(happened, probability, name=target, auc=auc),
        "gain.png": draw_gain(happened, probability, test["account_id"].to_numpy(dtype=object), name=target),
    }
    return {name: render(figure) for name, figure in figures.items()}
