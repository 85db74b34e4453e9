"""A registered model as a function from features to scores, for who loads it through MLflow.

MLflow finds `_load_pyfunc` by its name; Renewcast itself reads packages without it.
"""

from pathlib import Path

import pandas as pd

from training.package import Package
from training.versions import load_shipped

__all__ = ["Scorer"]


class Scorer:
    """What `mlflow.pyfunc.load_model` returns, inside."""

    def __init__(self, package: Package) -> None:
        self._package = package

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the raw score in log-odds and the calibrated probability of each row."""
        scores = self._package.score_rows(frame)
        return pd.DataFrame({"raw": scores.raw, "probability": scores.probability}, index=frame.index)


def _load_pyfunc(path: str) -> Scorer:
    return Scorer(load_shipped(Path(path)))
