"""A training from a workspace's snapshots to registered models and the local copies of the champions."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import uuid4

from features.catalogue import Catalogue, read_catalogue
from features.errors import NotEnoughDataError, PackageError, WorkspaceError, explain
from features.feature import Target
from features.ledger import replace_file, replace_folder
from features.progress import Progress, silent
from features.workspace import Config, Workspace
from training.dataset import Dataset, load_dataset
from training.evaluation import auc, single
from training.model import make_recipe
from training.procedure import Assignment, Judgement, Trained, judge_package, split_rows, train_package
from training.promotion import Decision, Incumbent, decide
from training.registry import Champion, LoggedModel, Registry, open_registry
from training.report import CURRENT, REPORT, RowCounts, SkippedTarget, TrainedTarget, TrainingSummary
from training.splits import ForwardSplit, LabelWindow

__all__ = ["TARGETS", "champion_folder", "sync_champions", "train_workspace"]

TARGETS: tuple[Target, ...] = get_args(Target)

_EXAMPLE_ROWS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class _Result:
    """All that is known of a target once it is trained, before it is registered."""

    data: Dataset
    split: ForwardSplit
    assignment: Assignment
    judged: Trained
    shipped: Trained
    judgement: Judgement
    decision: Decision


def train_workspace(
    workspace: Workspace, *, code_version: str, tracking_uri: str | None = None, threads: int = 1, on_progress: Progress = silent
) -> TrainingSummary:
    """Train every target that has enough data, register the models, and copy the champions into the workspace.

    Parameters
    ----------
    code_version
        Noted in the packages.
    tracking_uri
        Address of an MLflow server, in place of the config's; without either, the workspace has a store of its own.
    threads
        Threads of LightGBM. Where another process needs a core too, two threads cost 25 times as much as one.

    Raises
    ------
    WorkspaceError
        If there are no snapshots.
    NotEnoughDataError
        If no target has enough data; the message says for each how much there is and how much is needed.
    RegistryError
        If MLflow does not answer; nothing is trained then, and no champion changes.
    """
    steps = 3 * len(TARGETS) + 2
    on_progress("opening the model registry", 0, steps)
    catalogue = _catalogue(workspace.snapshots)
    data_fingerprint = _fingerprint(workspace.snapshots)
    registry = _registry(workspace, tracking_uri)
    results: dict[Target, _Result | SkippedTarget] = {}
    for number, target in enumerate(TARGETS):
        assignment = _assignment(workspace.config, target, catalogue, data_fingerprint, code_version, threads)
        progress = _Offset(on_progress, 1 + 3 * number, steps)
        results[target] = _train_target(workspace, assignment, registry, progress)
    trained = {target: result for target, result in results.items() if isinstance(result, _Result)}
    if not trained:
        raise _nothing_trained([result for result in results.values() if isinstance(result, SkippedTarget)])
    on_progress("registering the models", steps - 1, steps)
    made_at = datetime.now(UTC)
    run = f"{made_at:%Y%m%dT%H%M%S}-{uuid4().hex[:4]}"
    versions = _register(registry, run, trained, data_fingerprint, code_version)
    summary = TrainingSummary(
        run=run,
        folder=workspace.training / run,
        made_at=made_at.isoformat(timespec="seconds"),
        code_version=code_version,
        data_fingerprint=data_fingerprint,
        features=len(catalogue),
        horizon_days=workspace.config.targets.horizon_days,
        lead_days=workspace.config.targets.lead_days,
        targets=tuple(
            result if isinstance(result, SkippedTarget) else _reported(result, versions[target]) for target, result in results.items()
        ),
    )
    _write(workspace, summary, trained)
    _copy_champions(workspace, registry)
    on_progress("registering the models", steps, steps)
    return summary


def sync_champions(workspace: Workspace, *, tracking_uri: str | None = None) -> Mapping[Target, str]:
    """Copy the registry's champions into the workspace and return their versions, for example after one was promoted by hand.

    Raises
    ------
    RegistryError
        If MLflow does not answer; the copies stay as they were.
    """
    return _copy_champions(workspace, _registry(workspace, tracking_uri))


def champion_folder(workspace: Workspace, target: Target) -> Path:
    """Return the folder of the local copy of a target's champion, from which accounts are scored."""
    return workspace.training / "champion" / target


@dataclass(frozen=True)
class _Offset:
    """Progress of one target, as part of the whole."""

    on_progress: Progress
    start: int
    total: int

    def __call__(self, what: str, done: int) -> None:
        self.on_progress(what, self.start + done, self.total)


def _train_target(workspace: Workspace, assignment: Assignment, registry: Registry, progress: _Offset) -> _Result | SkippedTarget:
    target, recipe, settings = assignment.target, assignment.recipe, workspace.config.training
    data = load_dataset(workspace.snapshots, target, assignment.catalogue)
    period = {"test_from": settings.test_from, "test_to": settings.test_to}
    try:
        split = split_rows(data, assignment.window, minimum=settings.minimum_positives, **period)
        train, test = data.at(split.train), data.at(split.test)
        progress(f"{target}: fitting on rows before the test period", 0)
        judged = train_package(train, assignment)
        progress(f"{target}: judging on the test period", 1)
        judgement = judge_package(judged.package, train, test, seed=recipe.seed, threads=recipe.threads)
        progress(f"{target}: fitting on all rows", 2)
        shipped = train_package(data, assignment)
    except NotEnoughDataError as error:
        return SkippedTarget(target, str(error))
    incumbent = _incumbent(registry.champion(target), assignment, split, test)
    best = judgement.best_baseline
    rule_auc = judgement.baselines[best].auc.value if best else 0.5
    decision = decide(judgement.metrics["auc"].value, rule=best or "chance", rule_auc=rule_auc, incumbent=incumbent)
    return _Result(data=data, split=split, assignment=assignment, judged=judged, shipped=shipped, judgement=judgement, decision=decision)


def _incumbent(champion: Champion | None, assignment: Assignment, split: ForwardSplit, test: Dataset) -> Incumbent | None:
    if champion is None:
        return None
    judged, window = champion.judged, assignment.window
    if (judged.horizon_days, judged.lead_days) != (window.horizon_days, window.lead_days):
        return Incumbent(unfit=f"it predicts {judged.horizon_days} days ahead with a lead of {judged.lead_days}")
    try:
        raw = judged.score_rows(test.features, threads=assignment.recipe.threads).raw
    except PackageError as error:
        return Incumbent(unfit=str(error).splitlines()[0])
    if not window.closed_at(judged.cutoff, split.first_test):
        return Incumbent(incomparable="the champion has already seen labels of the test period")
    return Incumbent(auc=single(lambda weights: auc(test.target, raw, weights), len(test)))


def _assignment(config: Config, target: Target, catalogue: Catalogue, data_fingerprint: str, code_version: str, threads: int) -> Assignment:
    targets, training = config.targets, config.training
    return Assignment(
        target=target,
        catalogue=catalogue,
        window=LabelWindow(
            horizon_days=targets.horizon_days,
            lead_days=targets.lead_days,
            grace_days=targets.grace_days if targets.kind == "subscription" else 0,
        ),
        recipe=make_recipe(training.parameters.get(target, {}), seed=training.seed, threads=threads),
        data_fingerprint=data_fingerprint,
        code_version=code_version,
    )


def _registry(workspace: Workspace, tracking_uri: str | None) -> Registry:
    address = tracking_uri or workspace.config.mlflow.tracking_uri
    if address:
        return open_registry(address, experiment=f"renewcast {workspace.config.name}", artifacts=None)
    workspace.state.mkdir(exist_ok=True)
    local = f"sqlite:///{workspace.mlflow_db.absolute()}"
    return open_registry(local, experiment=f"renewcast {workspace.config.name}", artifacts=workspace.artifacts.absolute())


def _register(
    registry: Registry, run: str, trained: Mapping[Target, _Result], data_fingerprint: str, code_version: str
) -> dict[Target, str]:
    models = [
        LoggedModel(
            target=target,
            shipped=result.shipped.package,
            judged=result.judged.package,
            example=result.data.features.tail(_EXAMPLE_ROWS),
            parameters=_parameters(result),
            metrics=_metrics(result.judgement),
            role=result.decision.role,
            decision=result.decision.reason,
        )
        for target, result in trained.items()
    ]
    tags = {"data_fingerprint": data_fingerprint, "code_version": code_version}
    return registry.log_training(run, models, tags=tags, data_fingerprint=data_fingerprint)


def _metrics(judgement: Judgement) -> dict[str, float]:
    measured = dict(judgement.metrics) | {"gain_over_best_rule": judgement.gain, "auc_logistic_regression": judgement.logistic_regression}
    values = {name: found.value for name, found in measured.items()}
    bounds = {
        f"{name}_{end}": bound for name, found in measured.items() for end in ("low", "high") if (bound := getattr(found, end)) is not None
    }
    rules = {f"auc_rule_{name.replace(' ', '_').lower()}": rule.auc.value for name, rule in judgement.baselines.items()}
    return values | bounds | rules


def _parameters(result: _Result) -> dict[str, float | int | str]:
    recipe = result.assignment.recipe
    return {**recipe.parameters, "rounds": result.shipped.rounds, "seed": recipe.seed}


def _reported(result: _Result, version: str) -> TrainedTarget:
    package = result.shipped.package
    return TrainedTarget(
        target=package.target,
        counts=_counts(result.data, result.split),
        judgement=result.judgement,
        parameters=_parameters(result),
        calibrator=str(package.calibrator.to_json()["kind"]),
        package_hash=package.hash,
        role=result.decision.role,
        decision=result.decision.reason,
        version=version,
        notes=tuple(dict.fromkeys(note for note in (result.judged.note, result.shipped.note) if note)),
    )


def _counts(data: Dataset, split: ForwardSplit) -> RowCounts:
    train, test = data.at(split.train), data.at(split.test)
    return RowCounts(
        rows=len(data),
        positives=data.positives,
        base_rate=data.positives / len(data),
        train_rows=len(train),
        train_positives=train.positives,
        test_rows=len(test),
        test_positives=test.positives,
        test_from=test.cutoffs[0].item().isoformat(),
        test_to=test.cutoffs[-1].item().isoformat(),
    )


def _write(workspace: Workspace, summary: TrainingSummary, trained: Mapping[Target, _Result]) -> None:
    with replace_folder(summary.folder) as folder:
        for target, result in trained.items():
            result.shipped.package.save(folder / target)
        (folder / REPORT).write_text(json.dumps(summary.to_json(), indent=1), encoding="utf-8")
    with replace_file(workspace.training / CURRENT) as file:
        file.write_text(summary.run, encoding="utf-8")


def _copy_champions(workspace: Workspace, registry: Registry) -> dict[Target, str]:
    champions = {target: champion for target in TARGETS if (champion := registry.champion(target))}
    for target, champion in champions.items():
        with replace_folder(champion_folder(workspace, target)) as folder:
            champion.shipped.save(folder)
    return {target: champion.version for target, champion in champions.items()}


def _catalogue(snapshots: Path) -> Catalogue:
    try:
        return read_catalogue(snapshots / "catalogue.json")
    except FileNotFoundError as error:
        raise WorkspaceError(
            explain("the snapshots have not been made yet", given=snapshots, todo="Run `renewcast features` first.")
        ) from error


def _fingerprint(snapshots: Path) -> str:
    digest = hashlib.sha256()
    for name in ("features.parquet", "labels.parquet", "catalogue.json"):
        try:
            with (snapshots / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError as error:
            raise WorkspaceError(
                explain("the snapshots are not complete", given=snapshots / name, todo="Run `renewcast features` first.")
            ) from error
    return digest.hexdigest()


def _nothing_trained(skipped: list[SkippedTarget]) -> NotEnoughDataError:
    reasons = "\n".join(f"{report.target}: {report.reason}" for report in skipped)
    return NotEnoughDataError(explain("no target has enough data to train a model", given=reasons))
