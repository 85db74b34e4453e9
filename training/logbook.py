"""What is written down of a training: a run, below it one for each target, below that one for each fold."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.feature import Target
from features.ledger import fingerprint
from training.versions import FoldModel, LoggedModel

__all__ = ["CARD", "KIND", "REPORT", "Rows", "Run", "allowed_name", "training_run", "write_files"]

KIND = "kind"
"""The tag that says whether a run is a training's, a target's or a fold's."""

CARD, REPORT = "model_card.md", "report.json"
"""The files of a target's run that hold its model card and its part of the report."""


@dataclass(frozen=True)
class Rows:
    """Rows of the snapshots that were learnt from or judged on.

    Parameters
    ----------
    snapshots
        SHA-256 of the snapshots.
    facts
        Which of their rows: period, number, positives.
    """

    name: str
    snapshots: str
    facts: Mapping[str, object]

    @property
    def digest(self) -> str:
        """Stands for the snapshots and for which of their rows these are."""
        return fingerprint(self.snapshots, dict(self.facts))


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run with all that is logged in it.

    Parameters
    ----------
    rows
        By context, `training` or `test`.
    files
        By path within the run's artifacts.
    model
        What is registered, in a target's run.
    children
        The runs below it.
    """

    name: str
    tags: Mapping[str, str]
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    model: LoggedModel | None = None
    children: tuple["Run", ...] = ()


def training_run(name: str, models: Sequence[LoggedModel], *, tags: Mapping[str, str], data_fingerprint: str) -> Run:
    """Compose the runs of a training.

    Parameters
    ----------
    data_fingerprint
        SHA-256 of the snapshots.
    """
    return Run(
        name=name,
        tags={KIND: "training", "data_fingerprint": data_fingerprint, **tags},
        metrics={f"{model.target}/{measure}": value for model in models for measure, value in model.metrics.items()},
        children=tuple(_target_run(name, model, data_fingerprint) for model in models),
    )


def allowed_name(name: str) -> str:
    """Return a name of a parameter or measure with the characters that MLflow allows.

    Examples
    --------
    >>> allowed_name("gain: vendor's health score")
    'gain: vendor_s health score'
    """
    return re.sub(r"[^\w\-./: ]", "_", name)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a run's files, given by path, into a folder that is there."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)


def _target_run(name: str, model: LoggedModel, data_fingerprint: str) -> Run:
    all_rows, test = ("rows", "positives"), ("test_from", "test_to", "test_rows", "test_positives")
    texts = {"features.json": model.shipped.catalogue.to_json(), CARD: model.card, REPORT: json.dumps(model.report, indent=1)}
    return Run(
        name=f"{name} {model.target}",
        tags={KIND: "target", "target": model.target, "catalogue_hash": model.shipped.catalogue.hash},
        parameters=model.parameters,
        metrics=model.metrics,
        rows={
            "training": Rows(f"{model.target} rows", data_fingerprint, _picked(model, all_rows)),
            "test": Rows(f"{model.target} test period", data_fingerprint, _picked(model, test)),
        },
        files={path: text.encode() for path, text in texts.items()} | {f"figures/{path}": image for path, image in model.figures.items()},
        model=model,
        children=tuple(_fold_run(name, model.target, number, fold) for number, fold in enumerate(model.folds, start=1)),
    )


def _fold_run(name: str, target: Target, number: int, fold: FoldModel) -> Run:
    period: dict[str, object] = {"test_from": fold.test_from.isoformat(), "test_to": fold.test_to.isoformat()}
    counts: dict[str, float] = {"rows": fold.rows, "positives": fold.positives}
    return Run(
        name=f"{name} {target} fold {number}",
        tags={KIND: "fold", "target": target, "fold": str(number)},
        parameters=period | {"trained_until": fold.package.cutoff.isoformat()},
        metrics=counts | dict(fold.metrics),
        rows={"test": Rows(f"{target} fold {number}", fold.package.data_fingerprint, period | counts)},
    )


def _picked(model: LoggedModel, names: Sequence[str]) -> dict[str, object]:
    return {name: model.report[name] for name in names if name in model.report}
