"""The main job, step by step: check, features, train, score.

A step knows what it reads (its fingerprint), where it writes, and how to say in one line what it did. A step whose fingerprint is the
one it last finished with, and whose results are still there, is not done again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from features.errors import WorkspaceError, explain
from features.intake import check_workspace, intake_fingerprint
from features.ledger import Ledger, fingerprint
from features.preparation import prepare_workspace
from features.progress import Progress
from features.workspace import Workspace
from serving.batch import score_workspace

__all__ = ["STEPS", "Step", "StepResult", "code_version", "run_step"]

Summary = dict[str, Any]

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Step:
    """One step of the main job.

    Parameters
    ----------
    needs
        The step that comes before it.
    reads
        Everything but the step before and the code on which the result depends.
    result
        A path that is there once the step has finished.
    run
        Does it and returns a summary that JSON can hold.
    """

    name: str
    needs: str | None
    packages: tuple[str, ...]
    reads: Callable[[Workspace], object]
    result: Callable[[Workspace], Path]
    run: Callable[[Workspace, Progress], Summary]
    line: Callable[[Summary], str]


@dataclass(frozen=True)
class StepResult:
    """What a step did, or had done before (`unchanged`)."""

    step: str
    unchanged: bool
    seconds: float
    summary: Summary
    line: str

    def to_json(self) -> Summary:
        """Return the machine-readable summary."""
        status = "unchanged" if self.unchanged else "done"
        return {"step": self.step, "status": status, "seconds": round(self.seconds, 2), "line": self.line} | self.summary


def code_version() -> str:
    """Return the installed version of Renewcast."""
    return version("renewcast")


def run_step(step: Step, workspace: Workspace, *, on_progress: Progress, clock: Callable[[], float]) -> StepResult:
    """Do a step unless it is current, and note it in the workspace's ledger.

    Raises
    ------
    WorkspaceError
        If the step before it has not been done, or another process is writing.
    """
    ledger = Ledger(workspace.ledger)
    before = ledger.fingerprint_of(step.needs) if step.needs else ""
    if before is None:
        raise WorkspaceError(
            explain(
                f"`renewcast {step.name}` needs what `renewcast {step.needs}` makes",
                given=workspace.folder,
                todo=f"Run `renewcast {step.needs}` first.",
            )
        )
    started = clock()
    with workspace.lock(f"renewcast {step.name}"):
        mark = fingerprint(before, _code_fingerprint(step.packages), step.reads(workspace))
        known = ledger.recorded(step.name, mark) if step.result(workspace).exists() else None
        if known is not None:
            return StepResult(step.name, unchanged=True, seconds=clock() - started, summary=known, line=step.line(known))
        summary = step.run(workspace, on_progress)
        ledger.record(step.name, mark, summary)
    return StepResult(step.name, unchanged=False, seconds=clock() - started, summary=summary, line=step.line(summary))


def _code_fingerprint(packages: tuple[str, ...]) -> str:
    """Return a digest of the source code that the step runs, so that a feature of one's own is computed when it is added."""
    digest = hashlib.sha256(code_version().encode())
    for package in packages:
        for file in sorted((_ROOT / package).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _plain(summary: object) -> Summary:
    whole: Summary = json.loads(json.dumps(summary, default=str))
    return whole


def _check(workspace: Workspace, on_progress: Progress) -> Summary:
    now = datetime.now(UTC).replace(tzinfo=None)
    checked = check_workspace(workspace, now=now, on_progress=on_progress)
    tables = {
        table.table: {"rows_in": table.rows_in, "rows_out": table.rows_out, "quarantined": table.quarantined} for table in checked.tables
    }
    return _plain({"tables": tables, "missing_tables": checked.missing_tables, "report": workspace.check_report})


def _check_line(summary: Summary) -> str:
    tables = summary["tables"].values()
    rows, broken = (sum(table[count] for table in tables) for count in ("rows_in", "quarantined"))
    missing = f"; no {', '.join(summary['missing_tables'])}, so none of their features" if summary["missing_tables"] else ""
    return f"{len(tables)} tables, {rows:,} rows in, {broken:,} quarantined{missing}; {summary['report']}"


def _features(workspace: Workspace, on_progress: Progress) -> Summary:
    prepared = prepare_workspace(workspace, on_progress=on_progress)
    return _plain(asdict(prepared) | {"folder": workspace.snapshots})


def _features_line(summary: Summary) -> str:
    return (
        f"{summary['features']} features of {summary['accounts']:,} accounts at {summary['cutoffs']} cutoffs, "
        f"{summary['rows']:,} rows, {summary['labelled']:,} with a label; {summary['folder']}"
    )


def _train(workspace: Workspace, on_progress: Progress) -> Summary:
    from training.pipeline import train_workspace  # loads MLflow, which no other step needs

    trained = train_workspace(workspace, code_version=code_version(), on_progress=on_progress)
    targets = {target.target: {"status": target.status, "verdict": target.verdict} for target in trained.targets}
    return _plain({"run": trained.run, "targets": targets, "folder": trained.folder})


def _train_line(summary: Summary) -> str:
    verdicts = "\n".join(target["verdict"] for target in summary["targets"].values())
    return f"{verdicts}\n{summary['folder']}"


def _score(workspace: Workspace, on_progress: Progress) -> Summary:
    return _plain(asdict(score_workspace(workspace, on_progress=on_progress)))


def _score_line(summary: Summary) -> str:
    bands = ", ".join(f"{count:,} {band}" for band, count in summary["bands"].items())
    return f"{summary['accounts']:,} accounts scored as of {summary['cutoff'][:10]}: {bands}; {summary['folder']}"


def _feature_settings(workspace: Workspace) -> Mapping[str, object]:
    config = workspace.config
    return {"targets": asdict(config.targets), "cutoffs": asdict(config.cutoffs), "features": asdict(config.features)}


def _training_settings(workspace: Workspace) -> Mapping[str, object]:
    return {"training": asdict(workspace.config.training), "mlflow": asdict(workspace.config.mlflow)}


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("check", None, ("features",), intake_fingerprint, lambda workspace: workspace.tables, _check, _check_line),
        Step("features", "check", ("features",), _feature_settings, lambda workspace: workspace.snapshots, _features, _features_line),
        Step(
            "train",
            "features",
            ("features", "training"),
            _training_settings,
            lambda workspace: workspace.training / "CURRENT",
            _train,
            _train_line,
        ),
        Step(
            "score",
            "train",
            ("features", "training", "serving"),
            lambda workspace: None,
            lambda workspace: workspace.scores / "CURRENT",
            _score,
            _score_line,
        ),
    )
}
"""The steps in their order."""
