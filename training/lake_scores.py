"""Scores a whole book on Spark with the packages that score it on one machine: the same text, verified, the same numbers.

Each worker gets the champion's files, believes them as `training.package` does, and scores its share of the lake's features batch by
batch. Scores go back to the lake, partitioned by the day of their cutoff, with the parts that add up to them. What the service shows is
scored by `serving.scores.batch` from the features that came to this machine: the same numbers, with what pages tell beside them.

But: workers need Renewcast installed in the version of this process.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import NotEnoughDataError, WorkspaceError, explain
from features.feature import Target
from features.lake_snapshots import PARTITION, lake_folder
from features.ledger import replace_file
from features.progress import Progress, silent
from features.spark_engine import Batches, SparkEngine
from features.workspace import Workspace
from training.copies import champion_folder
from training.package import Package, load_package

__all__ = ["REPORT", "LakeScores", "score_batches", "score_lake"]

REPORT = "lake.json"
"""The file in the `scores` folder that says what was last scored on Spark."""

_SCORES = "account_id string, cutoff timestamp, raw double, probability double, base double, parts array<double>, package string"
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True)
class LakeScores:
    """What was scored.

    Parameters
    ----------
    cutoff
        The scoring cutoff, UTC.
    packages
        By target, the hash of the package.
    folder
        Path or address of the scores in the lake; below it is one folder a target.
    """

    cutoff: datetime
    accounts: int
    packages: Mapping[str, str]
    folder: str


def score_lake(workspace: Workspace, *, on_progress: Progress = silent) -> LakeScores:
    """Score and explain every account at the scoring cutoff with each target's champion, and write the scores to the lake.

    A target's folder has, for each account, account_id, cutoff, `raw` in log-odds, the calibrated `probability`, the `base` and the
    `parts` of the raw score (one for each feature, in the order of the champion's catalogue), and the hash of its package. Scores of
    other cutoffs stay.

    Raises
    ------
    WorkspaceError
        If there are no snapshots, or no champion.
    PackageError
        If a champion's package is damaged.
    NotEnoughDataError
        If no account is to be scored.
    """
    cutoff, accounts = _to_score(workspace)
    champions = _champions(workspace)
    packages: dict[str, str] = {}
    with SparkEngine(workspace.config.spark.settings) as engine:
        lake = engine.read_parquet(lake_folder(workspace, "features"))
        for number, (target, folder) in enumerate(champions.items()):
            on_progress(f"scoring {target}", number, len(champions))
            package = load_package(folder)
            packages[target] = package.hash
            rows = lake.filter(lake[PARTITION] == f"{cutoff:%Y-%m-%d}").select("account_id", "cutoff", *package.features)
            scores = engine.mapped(rows, score_batches(_files(folder)), schema=_SCORES)
            dated = scores.mutate(**{PARTITION: scores.cutoff.date().cast("string")})
            engine.replace_partitions(dated, lake_folder(workspace, f"scores/{target}"), by=PARTITION)
        on_progress("scored", len(champions), len(champions))
    scored = LakeScores(cutoff=cutoff, accounts=accounts, packages=packages, folder=lake_folder(workspace, "scores"))
    with replace_file(workspace.scores / REPORT) as report:
        report.write_text(json.dumps(vars(scored), indent=1, default=str), encoding="utf-8")
    return scored


def _champions(workspace: Workspace) -> dict[str, Path]:
    """Return where the champions' packages are."""
    found = {target: champion_folder(workspace, target) for target in get_args(Target)}
    there = {target: folder for target, folder in found.items() if folder.is_dir()}
    if not there:
        raise WorkspaceError(explain("there is no model to score with", given=workspace.training, todo="Run `renewcast train` first."))
    return there


def _to_score(workspace: Workspace) -> tuple[datetime, int]:
    """Return the latest cutoff and how many accounts it has."""
    path = workspace.snapshots / "labels.parquet"
    try:
        cutoffs = pq.read_table(path, columns=["cutoff"])["cutoff"]
    except FileNotFoundError as error:
        raise WorkspaceError(explain("the snapshots have not been made yet", given=path, todo="Run `renewcast features` first.")) from error
    last = pc.max(cutoffs)
    if not last.is_valid:
        raise NotEnoughDataError(explain("the snapshots hold no account to score", given=path, todo="See what `renewcast check` reports."))
    return last.as_py(), pc.sum(pc.equal(cutoffs, last)).as_py()


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def score_batches(files: Mapping[str, bytes]) -> Callable[[Batches], Batches]:
    """Return the function that scores batches of features with a package, wherever it is sent.

    Parameters
    ----------
    files
        The files of the package's folder, by name.
    """

    def scored(batches: Batches) -> Batches:
        package = _unpacked(files)
        for batch in batches:
            yield _scored(package, batch)

    return scored


def _unpacked(files: Mapping[str, bytes]) -> Package:
    with TemporaryDirectory(prefix="renewcast-package-") as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        return load_package(Path(scratch))


def _scored(package: Package, batch: pa.RecordBatch) -> pa.RecordBatch:
    frame = batch.to_pandas()
    matrix = package.encode(frame)
    levels = None if package.levels is None else frame[package.levels.feature].to_numpy(dtype=object)
    scores, explained = package.score_matrix(matrix, levels), package.explain_matrix(matrix)
    n_features = explained.shape[1] - 1
    ends = np.arange(len(matrix) + 1, dtype=np.int32) * n_features
    columns = {
        "account_id": batch.column("account_id"),
        "cutoff": batch.column("cutoff").cast(_TIME),
        "raw": pa.array(scores.raw),
        "probability": pa.array(scores.probability),
        "base": pa.array(explained[:, -1]),
        "parts": pa.ListArray.from_arrays(pa.array(ends), pa.array(explained[:, :-1].ravel())),
        "package": pa.array([package.hash] * len(matrix), pa.string()),
    }
    return pa.RecordBatch.from_pydict(columns)
