"""What a training found, as `renewcast report` prints it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from features.errors import WorkspaceError, explain
from features.feature import Target
from training.evaluation import Estimate
from training.judgement import Judgement
from training.promotion import Role
from training.versions import Links

__all__ = ["CURRENT", "REPORT", "RowCounts", "SkippedTarget", "TargetReport", "TrainedTarget", "TrainingSummary", "read_report"]

CURRENT = "CURRENT"
"""The file in the training folder that names the last run."""

REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Labelled rows of a target: all, those trained on to be judged, and those judged on, with the period of the latter."""

    rows: int
    positives: int
    base_rate: float
    train_rows: int
    train_positives: int
    test_rows: int
    test_positives: int
    test_from: str
    test_to: str


@dataclass(frozen=True)
class SkippedTarget:
    """A target that could not be trained, and why."""

    target: Target
    reason: str
    status: Literal["skipped"] = "skipped"

    @property
    def verdict(self) -> str:
        """The result in one line."""
        return f"{self.target}: not trained; {self.reason.splitlines()[0]}."

    def to_json(self) -> dict[str, Any]:
        """Return the target's part of the report."""
        return {"status": self.status, "verdict": self.verdict, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class TrainedTarget:
    """A target that was trained.

    Parameters
    ----------
    judgement
        Of the judged packages, each trained on the rows that were known at the first cutoff of its block of the test period.
    parameters
        What LightGBM was given, `rounds` included, for the shipped package, which was trained on all rows.
    package_hash
        Of the shipped package.
    links
        Where MLflow's own pages show it; None without a tracking server.
    search
        The recipes that were tried, which was taken, and by how much the best is better than the given one; None if none was tried.
    notes
        What a reader must know about how it was made.
    """

    target: Target
    counts: RowCounts
    judgement: Judgement
    parameters: Mapping[str, float | int | str]
    calibrator: str
    package_hash: str
    role: Role
    decision: str
    version: str
    search: Mapping[str, Any] | None
    notes: tuple[str, ...]
    links: Links | None = None
    status: Literal["trained"] = "trained"

    @property
    def verdict(self) -> str:
        """The result in one line."""
        found, best = self.judgement.metrics, self.judgement.best_baseline
        against = f"{self.judgement.baselines[best].auc.value:.3f} of {best}" if best else "0.500 of chance"
        lift = found["lift_top_10"].value
        return (
            f"{self.target}: AUC {_with_interval(found['auc'])} against {against}; "
            f"the tenth of the accounts with the highest scores holds {lift:.1f} times the average share; {self.role}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the target's part of the report."""
        return {
            "status": self.status,
            "verdict": self.verdict,
            **asdict(self.counts),
            **self.judgement.to_json(),
            "role": self.role,
            "decision": self.decision,
            "version": self.version,
            "links": self.links and asdict(self.links),
            "parameters": dict(self.parameters),
            "calibrator": self.calibrator,
            "package_hash": self.package_hash,
            "search": self.search,
            "notes": list(self.notes),
        }


TargetReport = SkippedTarget | TrainedTarget


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a training did, target by target.

    Parameters
    ----------
    run
        Name of the run, and of its folder below the workspace's training folder.
    folder
        That folder.
    made_at
        When it finished, ISO 8601, UTC.
    """

    run: str
    folder: Path
    made_at: str
    code_version: str
    data_fingerprint: str
    features: int
    horizon_days: int
    lead_days: int
    targets: tuple[TargetReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report."""
        return asdict(self) | {"folder": str(self.folder), "targets": {report.target: report.to_json() for report in self.targets}}


def read_report(training: Path) -> dict[str, Any]:
    """Read the report of the last training from a workspace's training folder.

    Raises
    ------
    WorkspaceError
        If there was none yet.
    """
    try:
        run = (training / CURRENT).read_text(encoding="utf-8").strip()
        report: dict[str, Any] = json.loads((training / run / REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WorkspaceError(explain("no model has been trained yet", given=training, todo="Run `renewcast train` first.")) from error
    return report


def _with_interval(measured: Estimate) -> str:
    interval = "" if measured.low is None or measured.high is None else f" ({measured.low:.3f} to {measured.high:.3f})"
    return f"{measured.value:.3f}{interval}"
