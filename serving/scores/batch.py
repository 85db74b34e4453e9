"""Scoring a whole book: from the latest snapshot and the champion packages to a score set that is served."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.engine import Engine
from features.errors import NotEnoughDataError, WorkspaceError, explain
from features.feature import Feature, Target
from features.ledger import fingerprint
from features.progress import Progress, silent
from features.workspace import Workspace
from serving.health import BANDS, Band, HealthDefinition, band_of, health_of, published_definition
from serving.permissions.assignments import Assignments
from serving.permissions.partner_facts import read_partners, read_supplies, read_terms
from serving.permissions.policy import default_policy, load_policy
from serving.permissions.supplies import Supplies
from serving.scores.account_json import keep_pieces
from serving.scores.causes import write_causes
from serving.scores.drift import write_drift
from serving.scores.facts import earlier_rows, read_facts, read_sources
from serving.scores.feature_courses import write_feature_courses
from serving.scores.feed import write_changes
from serving.scores.scoring import (
    Column,
    Manifest,
    ScoreSet,
    Source,
    TargetModel,
    kept_score_set,
    publishing_score_set,
    total_of,
)
from serving.scores.standings import Archive
from serving.scores.timeline import write_history
from serving.scores.worth import write_worth
from training.copies import provisional_reason
from training.dataset import Array, require_columns
from training.package import Package, Scores, load_package

__all__ = ["ScoringSummary", "score_workspace"]

_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class ScoringSummary:
    """What one scoring did.

    Parameters
    ----------
    arr, arr_at_risk
        Sums over the book in the workspace's currency; None for a business without subscriptions.
    packages
        SHA-256 of the package behind each target.
    """

    version: str
    cutoff: datetime
    accounts: int
    bands: Mapping[Band, int]
    arr: float | None
    arr_at_risk: float | None
    packages: Mapping[Target, str]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class _Book:
    """The accounts of one cutoff, `(n,)` rows in all frames, indexed by account_id."""

    cutoff: datetime
    rows: pd.DataFrame
    earlier: pd.DataFrame
    facts: pd.DataFrame
    sources: tuple[Source, ...]


def score_workspace(workspace: Workspace, *, cutoff: datetime | None = None, on_progress: Progress = silent) -> ScoringSummary:
    """Score the accounts of the latest cutoff with the champion packages, and make the result the current score set.

    Parameters
    ----------
    cutoff
        An earlier cutoff of the snapshots: its scores are kept beside the current ones, to compare with.

    Raises
    ------
    NotEnoughDataError
        If there is no champion for churn.
    WorkspaceError
        If the snapshots have not been made, or the published definition of health is damaged.
    PackageError
        If a champion is damaged or does not fit the snapshots.
    """
    packages = _champions(workspace.training / "champion")
    features = {feature.name: feature for package in packages.values() for feature in package.catalogue}
    book = _read_book(workspace, tuple(features), cutoff)
    on_progress("scores", 1, _STEPS)
    explained = {target: package.score_book(book.rows, threads=os.cpu_count() or 1) for target, package in packages.items()}
    scores = {target: found for target, (found, _) in explained.items()}
    definition = published_definition(workspace.state / "health.json", scores["churn"].probability, book.cutoff)
    on_progress("scores", 2, _STEPS)
    score_set = _score_set(workspace, book, packages, explained, definition)
    on_progress("scores", 3, _STEPS)
    (_publish if cutoff is None else _keep)(workspace, score_set)
    on_progress("scores", _STEPS, _STEPS)
    return _summary(score_set, workspace.scores)


def _champions(folder: Path) -> dict[Target, Package]:
    packages: dict[Target, Package] = {target: load_package(folder / target) for target in get_args(Target) if (folder / target).is_dir()}
    if "churn" not in packages:
        raise NotEnoughDataError(
            explain(
                "there is no model of churn to score with",
                given=f"models in {folder}: {', '.join(packages) or 'none'}",
                todo="`renewcast report` says why there is none; after a change run `renewcast train` again.",
            )
        )
    return packages


def _score_set(
    workspace: Workspace,
    book: _Book,
    packages: Mapping[Target, Package],
    explained: Mapping[Target, tuple[Scores, Array]],
    definition: HealthDefinition,
) -> ScoreSet:
    scores = {target: found for target, (found, _) in explained.items()}
    features = {feature.name: feature for package in packages.values() for feature in package.catalogue}.values()
    peers, peer_counts = _peers(book, features, needed=default_policy().numbers.peers_needed)
    accounts = book.rows.index.tolist()
    assignments = Assignments.of(read_terms(workspace.tables), accounts)
    earlier_at = [None if pd.isna(at) else at.to_pydatetime() for at in book.earlier["earlier_at"]]
    supplies = read_supplies(workspace.tables, accounts, assignments, cutoff=book.cutoff, earlier_at=earlier_at)
    return ScoreSet(
        manifest=_manifest(workspace, book, packages, scores, definition),
        accounts=_account_columns(book, scores, definition),
        values=_feature_columns(book.rows, features),
        earlier=_feature_columns(book.earlier, features),
        peers=peers,
        peer_counts=peer_counts,
        parts={target: parts for target, (_, parts) in explained.items()},
        packages=packages,
        assignments=assignments,
        partners={partner.partner_id: partner for partner in read_partners(workspace.tables)},
        supplies=Supplies(supplies, features),
    )


def _publish(workspace: Workspace, score_set: ScoreSet) -> None:
    """Make a score set the current one, with all that belongs to it."""
    with publishing_score_set(score_set, workspace.scores, keep=workspace.config.serving.keep_score_sets) as folder:
        keep_pieces(score_set, load_policy(workspace), folder)
        write_drift(score_set, folder)
        write_worth(workspace, score_set, folder)
        archive = Archive(workspace.scores)
        write_history(score_set, folder, archive=archive, snapshots=workspace.snapshots)
        write_feature_courses(score_set, folder, policy=load_policy(workspace), snapshots=workspace.snapshots)
        write_causes(score_set, folder, policy=load_policy(workspace), archive=archive, snapshots=workspace.snapshots)
        write_changes(score_set, folder, policy=load_policy(workspace), before=archive.served())


def _keep(workspace: Workspace, score_set: ScoreSet) -> None:
    """Keep a score set beside the current one."""
    with kept_score_set(score_set, workspace.scores):
        pass


def _read_book(workspace: Workspace, names: Sequence[str], cutoff: datetime | None) -> _Book:
    path = workspace.snapshots / "features.parquet"
    rows, cutoff = _rows_at(path, names, cutoff)
    with Engine() as engine:
        facts = read_facts(engine, workspace.tables, cutoff).reindex(rows.index)
        sources = read_sources(engine, workspace.tables, cutoff)
        earlier = earlier_rows(engine, path, cutoff, names).reindex(rows.index)
    facts = facts.join(_contracts(workspace.snapshots / "labels.parquet", cutoff))
    return _Book(cutoff=cutoff, rows=rows, earlier=earlier, facts=facts, sources=sources)


def _rows_at(path: Path, names: Sequence[str], cutoff: datetime | None) -> tuple[pd.DataFrame, datetime]:
    """Return the rows of a cutoff, or of the latest one, and which it is."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise WorkspaceError(explain("the snapshots have not been made yet", given=path, todo="Run `renewcast features` first.")) from error
    require_columns(table.column_names, names)
    if len(table) == 0:
        raise NotEnoughDataError(explain("the snapshots hold no account to score", given=path, todo="See what `renewcast check` reports."))
    at = pc.max(table["cutoff"]) if cutoff is None else pa.scalar(cutoff, table["cutoff"].type)
    rows = table.filter(pc.equal(table["cutoff"], at)).select(["account_id", *names]).to_pandas()
    if len(rows) == 0:
        there = ", ".join(f"{each:%Y-%m-%d}" for each in sorted(pc.unique(table["cutoff"]).to_pylist())[-6:])
        raise NotEnoughDataError(explain("the snapshots have no such cutoff", given=cutoff, allowed=f"the latest ones are {there}"))
    return rows.set_index("account_id").sort_index(), at.as_py()


def _contracts(path: Path, cutoff: datetime) -> pd.DataFrame:
    labels = pq.read_table(path, columns=["account_id", "cutoff", "arr", "renewal_at"])
    chosen = labels.filter(pc.equal(labels["cutoff"], pa.scalar(cutoff, labels["cutoff"].type)))
    contracts: pd.DataFrame = chosen.to_pandas()
    return contracts.set_index("account_id")[["arr", "renewal_at"]]


def _manifest(
    workspace: Workspace, book: _Book, packages: Mapping[Target, Package], scores: Mapping[Target, Scores], health: HealthDefinition
) -> Manifest:
    scored_at = datetime.now(UTC).replace(tzinfo=None)
    models = {
        target: TargetModel(
            package_hash=package.hash,
            trained_until=package.cutoff,
            horizon_days=package.horizon_days,
            lead_days=package.lead_days,
            average_probability=float(scores[target].probability.mean()),
            provisional=bool(provisional_reason(workspace, target)),
        )
        for target, package in packages.items()
    }
    return Manifest(
        version=f"{scored_at:%Y%m%dT%H%M%S%f}-{fingerprint([package.hash for package in packages.values()])[:8]}",
        workspace=workspace.config.name,
        currency=workspace.config.currency,
        cutoff=book.cutoff,
        scored_at=scored_at,
        health=health,
        models=models,
        sources=book.sources,
    )


def _account_columns(book: _Book, scores: Mapping[Target, Scores], definition: HealthDefinition) -> dict[str, Column]:
    facts = book.facts
    arr = facts["arr"].to_numpy(dtype=np.float64, na_value=np.nan)
    churn = scores["churn"].probability
    health = health_of(churn, definition)
    columns: dict[str, Column] = {
        "account_id": _texts(facts.index.to_series()),
        "name": _texts(facts["name"].fillna(facts.index.to_series())),
        **{name: _texts(facts[name]) for name in ("segment", "csm", "partner_id", "partner_name")},
        "arr": arr,
        "arr_at_risk": churn * arr,
        "renewal_at": facts["renewal_at"].to_numpy(dtype="datetime64[us]"),
        "age_days": facts["age_days"].to_numpy(dtype=np.float64),
        "earlier_at": book.earlier["earlier_at"].to_numpy(dtype="datetime64[us]"),
        "health": health,
        "band": np.array([band_of(int(points)) for points in health], dtype=object),
        "new_account": facts["new_account"].to_numpy(dtype=bool),
        "no_telemetry": facts["no_telemetry"].to_numpy(dtype=bool),
    }
    for target, scored in scores.items():
        columns |= {f"{target}_raw": scored.raw, f"{target}_probability": scored.probability}
    return columns


def _feature_columns(frame: pd.DataFrame, features: Iterable[Feature]) -> dict[str, Column]:
    return {
        feature.name: frame[feature.name].to_numpy(dtype=np.float64, na_value=np.nan)
        if feature.kind == "number"
        else _texts(frame[feature.name])
        for feature in features
    }


def _peers(book: _Book, features: Iterable[Feature], *, needed: int) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Return by segment the medians of the number features, and of how many accounts each is: those of enough accounts for any policy."""
    numbers = sorted({feature.name for feature in features if feature.kind == "number"})
    grouped = book.rows[numbers].groupby(book.facts["segment"])
    counts = grouped.count()
    medians = grouped.median().where(counts >= needed).dropna(how="all")
    peers = {str(segment): {str(name): float(value) for name, value in row.dropna().items()} for segment, row in medians.iterrows()}
    return peers, {segment: {name: int(counts[name][segment]) for name in own} for segment, own in peers.items()}


def _texts(column: pd.Series) -> Column:
    return column.astype(object).where(column.notna(), None).to_numpy(dtype=object)


def _summary(score_set: ScoreSet, scores: Path) -> ScoringSummary:
    accounts = score_set.accounts
    counts = {band: int((accounts["band"] == band).sum()) for band in BANDS}
    return ScoringSummary(
        version=score_set.manifest.version,
        cutoff=score_set.manifest.cutoff,
        accounts=len(score_set),
        bands=counts,
        arr=total_of(accounts["arr"]),
        arr_at_risk=total_of(accounts["arr_at_risk"]),
        packages={target: model.package_hash for target, model in score_set.manifest.models.items()},
        folder=scores / score_set.manifest.version,
    )
