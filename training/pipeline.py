"""A training from a workspace's snapshots to registered models and the local copies of the champions."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from threadpoolctl import threadpool_limits

from features.catalogue import Catalogue, read_catalogue
from features.errors import NotEnoughDataError, PackageError, RegistryError, WorkspaceError, explain
from features.feature import Target
from features.findings import Audit
from features.ledger import replace_file, replace_folder
from features.probes import audit_tables
from features.progress import Progress, silent
from features.snapshot_files import snapshot_files
from features.workspace import Config, Workspace
from training.backtest import BACKTEST, held_out_frame
from training.card import render_card
from training.copies import TARGETS, copy_champions, copy_provisional
from training.dataset import Dataset, load_dataset, read_features
from training.evaluation import Estimate
from training.gallery import draw_report, draw_scores
from training.judgement import Judgement, judge_training
from training.model import make_recipe
from training.procedure import Assignment, Training, split_rows, train_target
from training.promotion import Decision, Incumbent, decide, face_champion
from training.registry import Registry, workspace_registry
from training.report import CURRENT, REPORT, RowCounts, SkippedTarget, TrainedTarget, TrainingSummary
from training.splits import LabelWindow
from training.versions import Champion, FoldModel, Links, LoggedModel

__all__ = ["label_window", "train_workspace"]

_EXAMPLE_ROWS = 3
_STAGES = 4
"""Steps of a target that progress is counted in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Result:
    """All that is known of a target once it is trained, before it is registered."""

    data: Dataset
    training: Training
    judgement: Judgement
    decision: Decision


def train_workspace(
    workspace: Workspace,
    *,
    code_version: str | None = None,
    tracking_uri: str | None = None,
    threads: int = 1,
    workers: int = 2,
    on_progress: Progress = silent,
) -> TrainingSummary:
    """Train every target that has enough data, register the models, and copy the champions into the workspace.

    Parameters
    ----------
    code_version
        Noted in the packages; the installed version of Renewcast if None.
    tracking_uri
        Address of an MLflow server, in place of the config's; without either, the workspace has a store of its own.
    threads
        Threads of LightGBM and, throughout the process for as long as the training lasts, of linear algebra. Where another process needs
        a core too, two threads of LightGBM cost 25 times as much as one, and two of linear algebra five times: they wait for each other.
    workers
        How many targets are trained side by side, which is how several cores are used.

    Raises
    ------
    WorkspaceError
        If there are no snapshots.
    NotEnoughDataError
        If no target has enough data; the message says for each how much there is and how much is needed.
    RegistryError
        If MLflow does not answer; nothing is trained then, and no champion changes.
    """
    steps = _Steps(on_progress, _STAGES * len(TARGETS) + 2)
    steps("opening the model registry")
    catalogue = _catalogue(workspace.snapshots)
    facts = _facts(workspace, catalogue, code_version)
    registry = workspace_registry(workspace, tracking_uri=tracking_uri)
    assignments = {target: _assignment(workspace.config, target, catalogue, facts, threads) for target in TARGETS}
    with threadpool_limits(threads, user_api="blas"):
        results = _train_targets(workspace, registry, catalogue, assignments, workers, steps)
    trained = {target: result for target, result in results.items() if isinstance(result, _Result)}
    if not trained:
        raise _nothing_trained([result for result in results.values() if isinstance(result, SkippedTarget)])
    steps("registering the models")
    versions = _register(registry, trained, facts | {"book": workspace.config.name})
    reports = [
        result if isinstance(result, SkippedTarget) else _reported(result, versions[target], _links(registry, target, versions[target]))
        for target, result in results.items()
    ]
    summary = TrainingSummary(folder=workspace.training / facts["run"], targets=tuple(reports), **facts)
    _write(workspace, summary, trained)
    crowned = copy_champions(workspace, registry)
    for target, result in trained.items():
        if target not in crowned:
            copy_provisional(workspace, result.training.shipped, reason=result.decision.reason if result.decision.provisional else "")
    steps("registering the models")
    return summary


def label_window(config: Config) -> LabelWindow:
    """Return when everything about a label of this workspace is known."""
    targets = config.targets
    grace_days = targets.grace_days if targets.kind == "subscription" else 0
    return LabelWindow(horizon_days=targets.horizon_days, lead_days=targets.lead_days, grace_days=grace_days)


class _Steps:
    """Counts what is done, for several threads."""

    def __init__(self, on_progress: Progress, total: int) -> None:
        self._on_progress, self._total, self._done, self._lock = on_progress, total, 0, Lock()

    def __call__(self, what: str) -> None:
        """Say what comes next; what came before is done then."""
        with self._lock:
            self._on_progress(what, self._done, self._total)
            self._done += 1

    def within(self, what: str, done: int, total: int) -> None:
        """Say how far a step is that takes long."""
        with self._lock:
            self._on_progress(f"{what} ({done} of {total})", self._done, self._total)

    @contextmanager
    def part(self, target: Target) -> Iterator[Callable[[str], None]]:
        """Count the steps of a target, and those that are left out at its end."""
        left = iter(range(_STAGES))

        def advance(what: str) -> None:
            next(left)
            self(f"{target}: {what}")

        yield advance
        with self._lock:
            self._done += len(list(left))


def _facts(workspace: Workspace, catalogue: Catalogue, code_version: str | None) -> dict[str, Any]:
    """Return what the summary says of the whole training."""
    made_at = datetime.now(UTC)
    return {
        "run": f"{made_at:%Y%m%dT%H%M%S}-{uuid4().hex[:4]}",
        "made_at": made_at.isoformat(timespec="seconds"),
        "code_version": metadata.version("renewcast") if code_version is None else code_version,
        "data_fingerprint": _fingerprint(workspace.snapshots),
        "features": len(catalogue),
        "horizon_days": workspace.config.targets.horizon_days,
        "lead_days": workspace.config.targets.lead_days,
    }


def _train_targets(
    workspace: Workspace, registry: Registry, catalogue: Catalogue, assignments: Mapping[Target, Assignment], workers: int, steps: _Steps
) -> dict[Target, _Result | SkippedTarget]:
    """Train all targets, some side by side; the registry is asked before, as its client is made for one thread."""
    tables = audit_tables(workspace)
    features = read_features(workspace.snapshots, catalogue)
    champions = {target: _champion(registry, target) for target in assignments}

    def train(target: Target) -> _Result | SkippedTarget:
        with steps.part(target) as advance:
            data = load_dataset(workspace.snapshots, target, catalogue, features=features)
            return _train_target(workspace.config, data, assignments[target], champions[target], tables, advance, steps.within)

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(assignments, pool.map(train, assignments), strict=True))


def _champion(registry: Registry, target: Target) -> Champion | Incumbent | None:
    try:
        return registry.champion(target)
    except PackageError as error:
        return Incumbent(unfit=str(error).splitlines()[0])


def _train_target(
    config: Config,
    data: Dataset,
    assignment: Assignment,
    champion: Champion | Incumbent | None,
    tables: Audit,
    advance: Callable[[str], None],
    on_search: Progress,
) -> _Result | SkippedTarget:
    target, settings = assignment.target, config.training
    try:
        splits = split_rows(
            data,
            assignment.window,
            test_from=settings.test_from,
            test_to=settings.test_to,
            minimum=settings.minimum_positives,
            folds=settings.folds,
        )
        training = train_target(data, assignment, splits, advance=advance, on_search=on_search)
    except NotEnoughDataError as error:
        return SkippedTarget(target, str(error))
    advance("judging")
    judgement = judge_training(
        data,
        training,
        tables=tables,
        plausible_auc=settings.plausible_auc[target],
        health_score=settings.health_score,
        seed=settings.seed,
    )
    leaks = [f"{finding.subject}: {finding.message}" for finding in judgement.audit.leaks]
    incumbent = champion if not isinstance(champion, Champion) else _face(champion, data, training, assignment.window, seed=settings.seed)
    return _Result(data=data, training=training, judgement=judgement, decision=decide(judgement.gains, leaks=leaks, incumbent=incumbent))


def _face(champion: Champion, data: Dataset, training: Training, window: LabelWindow, *, seed: int) -> Incumbent:
    newcomer = (*training.folds, training.shipped)
    return face_champion((*champion.folds, champion.shipped), newcomer, data, training.splits, window, seed=seed)


def _assignment(config: Config, target: Target, catalogue: Catalogue, facts: Mapping[str, Any], threads: int) -> Assignment:
    training = config.training
    overrides = training.parameters.get(target, {})
    return Assignment(
        target=target,
        catalogue=catalogue,
        window=label_window(config),
        recipe=make_recipe(overrides, seed=training.seed, threads=threads),
        trials=training.trials,
        fixed=tuple(overrides),
        data_fingerprint=facts["data_fingerprint"],
        code_version=facts["code_version"],
    )


def _register(registry: Registry, trained: Mapping[Target, _Result], facts: Mapping[str, Any]) -> dict[Target, str]:
    models = [_logged(result, facts) for result in trained.values()]
    tags = {"code_version": facts["code_version"]}
    return registry.log_training(facts["run"], models, tags=tags, data_fingerprint=facts["data_fingerprint"])


def _links(registry: Registry, target: Target, version: str) -> Links | None:
    """Return where a version is to be seen; None if MLflow, which has just registered it, does not say."""
    try:
        return registry.links(target, version)
    except RegistryError:
        return None


def _logged(result: _Result, facts: Mapping[str, Any]) -> LoggedModel:
    training, judgement, target = result.training, result.judgement, result.training.shipped.target
    report = _reported(result, "").to_json()
    test = held_out_frame(result.data, (training.test,))
    return LoggedModel(
        target=target,
        shipped=training.shipped,
        folds=[
            FoldModel(
                package=package,
                test_from=datetime.fromisoformat(block.test_from),
                test_to=datetime.fromisoformat(block.test_to),
                rows=block.rows,
                positives=block.positives,
                metrics=_flat(block.metrics or {}),
            )
            for package, block in zip(training.folds, judgement.blocks, strict=True)
        ],
        example=result.data.features.tail(_EXAMPLE_ROWS),
        parameters=_parameters(training),
        metrics=_metrics(judgement),
        role=result.decision.role,
        decision=result.decision.reason,
        figures=draw_report(report, target=target) | draw_scores(test, report["metrics"]["auc"], target=target),
        card=render_card(report, target=target, training=facts),
        report=report,
    )


def _metrics(judgement: Judgement) -> dict[str, float]:
    baselines: dict[str, Estimate] = {}
    for name, baseline in judgement.baselines.items():
        key = name.replace(" ", "_").replace("'", "").lower()
        baselines |= {f"auc_{key}": baseline.auc, f"gain_{key}": baseline.gain}
    return _flat({**judgement.metrics, **baselines})


def _flat(measured: Mapping[str, Estimate]) -> dict[str, float]:
    """Return values, and the bounds of intervals under names of their own; what is not a number is left out."""
    numbers = {name: found.value for name, found in measured.items()}
    bounds = {f"{name}_{end}": getattr(found, end) for name, found in measured.items() for end in ("low", "high")}
    return {name: number for name, number in (numbers | bounds).items() if number is not None and isfinite(number)}


def _parameters(training: Training) -> dict[str, float | int | str]:
    return {**training.recipe.parameters, "rounds": training.rounds, "seed": training.recipe.seed}


def _reported(result: _Result, version: str, links: Links | None = None) -> TrainedTarget:
    training, package = result.training, result.training.shipped
    return TrainedTarget(
        target=package.target,
        counts=_counts(result.data, training),
        judgement=result.judgement,
        parameters=_parameters(training),
        calibrator=str(package.calibrator.to_json()["kind"]),
        package_hash=package.hash,
        role=result.decision.role,
        decision=result.decision.reason,
        version=version,
        links=links,
        search=_searched(training),
        notes=(training.note,) if training.note else (),
    )


def _searched(training: Training) -> Mapping[str, Any] | None:
    found = training.search
    if found is None:
        return None
    return {"trials": [asdict(trial) for trial in found.trials], "best": found.best, "gain": found.gain, "error": found.error}


def _counts(data: Dataset, training: Training) -> RowCounts:
    train, test = data.at(training.splits[0].train), data.at(training.test.rows)
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
        (folder / BACKTEST).mkdir()
        for target, result in trained.items():
            result.training.shipped.save(folder / target)
            held_out = held_out_frame(result.data, (result.training.inner, result.training.test))
            held_out.to_parquet(folder / BACKTEST / f"{target}.parquet", index=False)
        (folder / REPORT).write_text(json.dumps(summary.to_json(), indent=1), encoding="utf-8")
    with replace_file(workspace.training / CURRENT) as file:
        file.write_text(summary.run, encoding="utf-8")


def _catalogue(snapshots: Path) -> Catalogue:
    try:
        return read_catalogue(snapshots / "catalogue.json")
    except FileNotFoundError as error:
        raise WorkspaceError(
            explain("the snapshots have not been made yet", given=snapshots, todo="Run `renewcast features` first.")
        ) from error


def _fingerprint(snapshots: Path) -> str:
    digest = hashlib.sha256()
    for path in (*snapshot_files(snapshots / "features.parquet"), snapshots / "labels.parquet", snapshots / "catalogue.json"):
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError as error:
            raise WorkspaceError(explain("the snapshots are not complete", given=path, todo="Run `renewcast features` first.")) from error
    return digest.hexdigest()


def _nothing_trained(skipped: list[SkippedTarget]) -> NotEnoughDataError:
    reasons = "\n".join(f"{report.target}: {report.reason}" for report in skipped)
    return NotEnoughDataError(explain("no target has enough data to train a model", given=reasons))
