"""The same three models behind `mlflow models serve`: a row of features in, chances and the five largest SHAP parts of each model out."""

import sys
from pathlib import Path
from typing import Any

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd


class Explained(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Scores and explains rows with SHAP's exact explainer of trees."""

    def load_context(self, context: Any) -> None:
        """Read the models once."""
        import shap

        self.boosters = {name: lgb.Booster(model_file=path) for name, path in context.artifacts.items()}
        self.explainers = {name: shap.TreeExplainer(booster) for name, booster in self.boosters.items()}

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return for each row and model the chance, and the five features with the largest parts."""
        del context, params
        matrix = model_input.to_numpy(dtype=np.float64)
        answers: list[dict[str, Any]] = [{} for _ in range(len(matrix))]
        for name, booster in self.boosters.items():
            chances = booster.predict(matrix, num_threads=1)
            parts = np.asarray(self.explainers[name].shap_values(matrix))
            for row, answer in enumerate(answers):
                largest = np.argsort(-np.abs(parts[row]))[:5]
                reasons = {str(model_input.columns[each]): float(parts[row, each]) for each in largest}
                answer[name] = {"probability": float(chances[row]), "reasons": reasons}
        return answers


def save(models: Path, folder: Path) -> None:
    """Write the pyfunc model, given a folder `<target>/model.txt` for each model."""
    artifacts = {path.parent.name: str(path) for path in sorted(models.glob("*/model.txt"))}
    mlflow.pyfunc.save_model(folder, python_model=Explained(), artifacts=artifacts, pip_requirements=["mlflow"])


if __name__ == "__main__":
    import speed_mlflow

    speed_mlflow.Explained.__module__ = "speed_mlflow"
    speed_mlflow.save(Path(sys.argv[1]), Path(sys.argv[2]))
