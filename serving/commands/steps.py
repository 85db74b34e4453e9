"""The main job, step by step: check, features, train, score.

A step knows what it reads (its fingerprint), where it writes, and how to say in one line what it did. A step whose fingerprint is the
one it last finished with, and whose results are still there, is not done again. What a step needs is imported when it runs, so that
the command answers at once.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from features.errors import WorkspaceError, explain, nearest
from features.ledger import Ledger, fingerprint, fingerprint_files, remove_unfinished
from features.progress import Progress, silent
from features.workspace import Workspace
from serving.settings import tracking_uri

__all__ = ["STEPS", "Step", "StepResult", "code_version", "run_step", "run_steps"]

Summary = dict[str, Any]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Step:
    """One step of the main job.

    Parameters
    ----------
    needs
        The step that comes before it.
    packages
        The packages whose code it runs.
    reads
        Everything but the step before and the code on which the result depends.
    run
        Does it and returns a summary that JSON can hold, without paths: a workspace may be moved.
    places
        The files and folders that are there once the step has finished; the first one is shown to the user.
    line
        What it did, in one line for each thing.
    """

    name: str
    needs: str | None
    packages: tuple[str, ...]
    reads: Callable[[Workspace], object]
    run: Callable[[Workspace, Progress], Summary]
    places: Callable[[Workspace, Summary], tuple[Path, ...]]
    line: Callable[[Summary], str]


@dataclass(frozen=True)
class StepResult:
    """What a step did, or had done before (`unchanged`), and where its result is."""

    step: str
    unchanged: bool
    seconds: float
    summary: Summary
    line: str
    place: Path

    def to_json(self) -> Summary:
        """Return the machine-readable summary."""
        status = "unchanged" if self.unchanged else "done"
        facts = {"step": self.step, "status": status, "seconds": round(self.seconds, 2), "line": self.line, "place": str(self.place)}
        return facts | self.summary


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
    started = clock()
    with workspace.lock(f"renewcast {step.name}"):
        remove_unfinished(workspace.state, workspace.training, workspace.training / "champion", workspace.scores)
        ledger = Ledger(workspace.ledger)
        mark = fingerprint(_before(step, workspace, ledger), _code_fingerprint(step.packages), step.reads(workspace))
        summary = ledger.recorded(step.name, mark)
        unchanged = summary is not None and all(place.exists() for place in step.places(workspace, summary))
        if summary is None or not unchanged:
            summary = _plain(step.run(workspace, on_progress))
            ledger.record(step.name, mark, summary)
    return StepResult(
        step=step.name,
        unchanged=unchanged,
        seconds=clock() - started,
        summary=summary,
        line=step.line(summary),
        place=step.places(workspace, summary)[0],
    )


def _before(step: Step, workspace: Workspace, ledger: Ledger) -> str:
    """Return the fingerprint of the step before; it must have been done."""
    if step.needs is None:
        return ""
    mark = ledger.fingerprint_of(step.needs)
    if mark is None:
        raise WorkspaceError(
            explain(
                f"`renewcast {step.name}` needs what `renewcast {step.needs}` makes",
                given=workspace.folder,
                todo=f"Run `renewcast {step.needs}` first, or `renewcast up` for all steps.",
            )
        )
    return mark


def _code_fingerprint(packages: tuple[str, ...]) -> str:
    """Return a digest of the source code that the step runs, so that a feature of one's own is computed when it is added."""
    digest = hashlib.sha256(code_version().encode())
    for file in [Path(__file__), *(file for package in packages for file in sorted((_ROOT / package).rglob("*.py")))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _plain(summary: Summary) -> Summary:
    whole: Summary = json.loads(json.dumps(summary, default=str))
    return whole


def _check_reads(workspace: Workspace) -> object:
    from features.intake import intake_fingerprint

    return intake_fingerprint(workspace)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _check(workspace: Workspace, on_progress: Progress) -> Summary:
    if workspace.config.engine == "spark":
        from features.lake import check_lake as check
    else:
        from features.intake import check_workspace as check
    checked = check(workspace, now=_now(), on_progress=on_progress)
    tables = {
        table.table: {"rows_in": table.rows_in, "rows_out": table.rows_out, "quarantined": table.quarantined} for table in checked.tables
    }
    return {"tables": tables, "missing_tables": checked.missing_tables}


def _check_places(workspace: Workspace, summary: Summary) -> tuple[Path, ...]:
    broken = any(table["quarantined"] for table in summary["tables"].values())
    if workspace.config.engine == "spark":
        return (workspace.check_report,)
    report = (workspace.quarantine, workspace.check_report) if broken else (workspace.check_report,)
    return *report, *(workspace.tables / f"{table}.parquet" for table in summary["tables"])


def _check_line(summary: Summary) -> str:
    tables = summary["tables"].values()
    rows, broken = (sum(table[count] for table in tables) for count in ("rows_in", "quarantined"))
    missing = f"; no {', '.join(summary['missing_tables'])}, so none of their features" if summary["missing_tables"] else ""
    return f"{len(tables)} tables, {rows:,} rows in, {broken:,} quarantined{missing}"


def _features_reads(workspace: Workspace) -> object:
    from features.own import own_fingerprint

    config = workspace.config
    sections = {"targets": asdict(config.targets), "cutoffs": asdict(config.cutoffs), "features": asdict(config.features)}
    if config.engine == "spark":
        sections |= {"spark": asdict(config.spark)}
    return sections | {"own": own_fingerprint(workspace)}


def _features(workspace: Workspace, on_progress: Progress) -> Summary:
    if workspace.config.engine == "spark":
        from features.lake_snapshots import prepare_lake

        return asdict(prepare_lake(workspace, now=_now(), on_progress=on_progress))
    from features.preparation import prepare_workspace

    return asdict(prepare_workspace(workspace, on_progress=on_progress))


def _features_places(workspace: Workspace, _summary: Summary) -> tuple[Path, ...]:
    from features.snapshot_files import snapshot_files

    folder = workspace.snapshots
    matrix = snapshot_files(folder / "features.parquet")
    return folder, *matrix, *(folder / name for name in ("labels.parquet", "groups.parquet", "catalogue.json"))


def _features_line(summary: Summary) -> str:
    return (
        f"{summary['features']} features of {summary['accounts']:,} accounts at {summary['cutoffs']} cutoffs, "
        f"{summary['rows']:,} rows, {summary['labelled']:,} with a label"
    )


def _train_reads(workspace: Workspace) -> object:
    mlflow = tracking_uri() or workspace.config.mlflow.tracking_uri
    return {"training": asdict(workspace.config.training), "mlflow": mlflow}


def _train(workspace: Workspace, on_progress: Progress) -> Summary:
    from training.pipeline import train_workspace

    trained = train_workspace(workspace, code_version=code_version(), tracking_uri=tracking_uri(), on_progress=on_progress)
    targets = {target.target: {"status": target.status, "verdict": target.verdict} for target in trained.targets}
    return {"run": trained.run, "targets": targets, "champions": [folder.name for folder in _champions(workspace)]}


def _train_places(workspace: Workspace, summary: Summary) -> tuple[Path, ...]:
    folder = workspace.training
    return (folder / summary["run"], folder / "CURRENT", *(folder / "champion" / target for target in summary["champions"]))


def _train_line(summary: Summary) -> str:
    return "\n".join(target["verdict"].removesuffix(".") for target in summary["targets"].values())


def _champions(workspace: Workspace) -> list[Path]:
    return sorted(path for path in (workspace.training / "champion").glob("[!.]*") if path.is_dir())


def _score_reads(workspace: Workspace) -> object:
    """Return what the champions are: one may have been promoted by hand since the last training."""
    champions = {f"{folder.name}/{file.name}": file for folder in _champions(workspace) for file in folder.iterdir()}
    return workspace.config.name, fingerprint_files(champions)


def _score(workspace: Workspace, on_progress: Progress) -> Summary:
    from serving.scores.batch import score_workspace

    lake: Summary = {}
    if workspace.config.engine == "spark":
        from training.lake_scores import score_lake

        lake = {"lake": score_lake(workspace, on_progress=on_progress).folder}
    scored = asdict(score_workspace(workspace, on_progress=on_progress))
    return {name: value for name, value in scored.items() if name != "folder"} | lake


def _score_places(workspace: Workspace, summary: Summary) -> tuple[Path, ...]:
    return workspace.scores / summary["version"], workspace.scores / "CURRENT"


def _score_line(summary: Summary) -> str:
    bands = ", ".join(f"{count:,} {band}" for band, count in summary["bands"].items())
    lake = f"; in the lake too: {summary['lake']}" if "lake" in summary else ""
    return f"{summary['accounts']:,} accounts scored as of {summary['cutoff'][:10]}: {bands}{lake}"


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("check", None, ("features",), _check_reads, _check, _check_places, _check_line),
        Step("features", "check", ("features",), _features_reads, _features, _features_places, _features_line),
        Step("train", "features", ("features", "training"), _train_reads, _train, _train_places, _train_line),
        Step("score", "train", ("features", "training", "serving"), _score_reads, _score, _score_places, _score_line),
    )
}
"""The steps in their order."""


def run_steps(workspace: Workspace, *, until: str = "score", on_progress: Progress = silent) -> tuple[StepResult, ...]:
    """Do the main job from Python, up to and including a step; a step that is current is not done again.

    Parameters
    ----------
    until
        `check`, `features`, `train` or `score`.

    Raises
    ------
    WorkspaceError
        If there is no such step, or another process is writing; and what the steps themselves raise.
    """
    names = list(STEPS)
    if until not in names:
        raise WorkspaceError(explain("there is no step of this name", given=until, allowed=", ".join(names), todo=nearest(until, names)))
    wanted = names[: names.index(until) + 1]
    return tuple(run_step(STEPS[name], workspace, on_progress=on_progress, clock=time.monotonic) for name in wanted)
