"""Scoring a whole book: from the latest snapshot and the champion packages to a score set that is served."""

import os
from collections.abc import Iterable, Mapping
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
from features.errors import ConfigError, NotEnoughDataError, explain
from features.feature import Feature, Target
from features.progress import Progress, silent
from features.workspace import Workspace
from serving.health import BANDS, Band, HealthDefinition, band_of, health_of, published_definition
from serving.permissions.assignments import Assignments
from serving.permissions.partner_facts import read_partners, read_supplies, read_terms
from serving.permissions.policy import default_policy, load_policy
from serving.permissions.supplies import Supplies
from serving.scores.account_json import keep_pieces
from serving.scores.book_files import write_book
from serving.scores.causes import write_causes
from serving.scores.drift import write_drift
from serving.scores.facts import read_facts, read_sources
from serving.scores.feature_courses import write_feature_courses
from serving.scores.feed import write_changes
from serving.scores.score_files import Column, Columns
from serving.scores.score_writer import Draft, drafted, explain_book, publish, write_score_set
from serving.scores.scoring import Manifest, ScoreSet, TargetModel, total_of
from serving.scores.standings import Archive
from serving.scores.timeline import write_history
from serving.scores.windows import StoredParts
from serving.scores.worth import write_worth
from training.copies import provisional_reason
from training.package import Package, Scores, load_package

__all__ = ["ScoringSummary", "score_workspace"]

_STEPS = 4
_MEMORY = "1GB"
"""What a query may hold in memory while the book is read."""

_LARGE = 100_000
"""Accounts of a book beyond which no answers are put together in advance."""


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
    ConfigError
        If an earlier cutoff is wanted on Spark.
    """
    _refuse_past_of_a_lake(workspace, cutoff)
    packages = _champions(workspace.training / "champion")
    with drafted(workspace.scores, packages, at=datetime.now(UTC).replace(tzinfo=None)) as draft:
        score_set = _score_set(workspace, packages, draft, cutoff, on_progress)
        draft.say(score_set.manifest)
        write_score_set(score_set, draft.folder)
        on_progress("scores", 3, _STEPS)
        if cutoff is None:
            _write_more(workspace, score_set, draft.folder)
    if cutoff is None:
        publish(workspace.scores, draft.version, keep=workspace.config.serving.keep_score_sets)
    on_progress("scores", _STEPS, _STEPS)
    return _summary(score_set, workspace.scores)


def _refuse_past_of_a_lake(workspace: Workspace, cutoff: datetime | None) -> None:
    if cutoff is not None and workspace.config.engine == "spark":
        raise ConfigError(
            explain(
                "an earlier cutoff cannot be scored on Spark",
                given=f"the cutoff {cutoff:%Y-%m-%d}",
                todo="Read its features in the lake: on this machine are those of the present and of a quarter before.",
            )
        )


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
    workspace: Workspace, packages: Mapping[Target, Package], draft: Draft, cutoff: datetime | None, on_progress: Progress
) -> ScoreSet:
    """Read the book, explain it and put together what is known of it; values and parts are in the draft's folder then."""
    features = tuple({feature.name: feature for package in packages.values() for feature in package.catalogue}.values())
    with Engine(memory_limit=_MEMORY) as engine:
        book = write_book(engine, workspace.snapshots / "features.parquet", features, cutoff=cutoff, folder=draft.folder)
        facts = read_facts(engine, workspace.book_tables, book.cutoff).reindex(book.account_ids)
        sources = read_sources(engine, workspace.book_tables, book.cutoff)
    on_progress("scores", 1, _STEPS)
    scores = explain_book(packages, book, draft.folder, threads=os.cpu_count() or 1, on_progress=on_progress)
    on_progress("scores", 2, _STEPS)
    health = published_definition(workspace.state / "health.json", scores["churn"].probability, book.cutoff)
    facts = facts.join(_contracts(workspace.snapshots / "labels.parquet", book.cutoff))
    peers, peer_counts = _peers(book.values, facts["segment"], features, needed=default_policy().numbers.peers_needed)
    accounts = book.account_ids.tolist()
    assignments = Assignments.of(read_terms(workspace.book_tables), accounts)
    supplies = read_supplies(workspace.book_tables, accounts, assignments, cutoff=book.cutoff, earlier_at=book.earlier_at.tolist())
    return ScoreSet(
        manifest=Manifest(
            version=draft.version,
            workspace=workspace.config.name,
            currency=workspace.config.currency,
            cutoff=book.cutoff,
            scored_at=draft.scored_at,
            health=health,
            models={target: _model(workspace, package, scores[target]) for target, package in packages.items()},
            sources=sources,
        ),
        accounts=_account_columns(facts, book.earlier_at, scores, health),
        values=book.values,
        earlier=book.earlier,
        peers=peers,
        peer_counts=peer_counts,
        parts=StoredParts(draft.folder, packages),
        packages=packages,
        assignments=assignments,
        partners={partner.partner_id: partner for partner in read_partners(workspace.book_tables)},
        supplies=Supplies(supplies, features),
    )


def _write_more(workspace: Workspace, score_set: ScoreSet, folder: Path) -> None:
    """Write what goes with a score set that is served; answers of a large book are put together when they are asked for."""
    policy, archive = load_policy(workspace), Archive(workspace.scores)
    write_drift(score_set, folder)
    write_worth(workspace, score_set, folder)
    write_history(score_set, folder, archive=archive, snapshots=workspace.snapshots)
    write_changes(score_set, folder, policy=policy, before=archive.served())
    write_feature_courses(score_set, folder, policy=policy, snapshots=workspace.snapshots)
    write_causes(score_set, folder, policy=policy, archive=archive, snapshots=workspace.snapshots)
    if len(score_set) <= _LARGE:
        keep_pieces(score_set, policy, folder)


def _model(workspace: Workspace, package: Package, scores: Scores) -> TargetModel:
    return TargetModel(
        package_hash=package.hash,
        trained_until=package.cutoff,
        horizon_days=package.horizon_days,
        lead_days=package.lead_days,
        average_probability=float(scores.probability.mean()),
        provisional=bool(provisional_reason(workspace, package.target)),
    )


def _contracts(path: Path, cutoff: datetime) -> pd.DataFrame:
    labels = pq.read_table(path, columns=["account_id", "cutoff", "arr", "renewal_at"])
    chosen = labels.filter(pc.equal(labels["cutoff"], pa.scalar(cutoff, labels["cutoff"].type)))
    contracts: pd.DataFrame = chosen.to_pandas()
    return contracts.set_index("account_id")[["arr", "renewal_at"]]


def _account_columns(
    facts: pd.DataFrame, earlier_at: Column, scores: Mapping[Target, Scores], definition: HealthDefinition
) -> dict[str, Column]:
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
        "earlier_at": earlier_at,
        "health": health,
        "band": np.array([band_of(int(points)) for points in health], dtype=object),
        "new_account": facts["new_account"].to_numpy(dtype=bool),
        "no_telemetry": facts["no_telemetry"].to_numpy(dtype=bool),
    }
    for target, scored in scores.items():
        columns |= {f"{target}_raw": scored.raw, f"{target}_probability": scored.probability}
    return columns


def _peers(
    values: Columns, segments: pd.Series, features: Iterable[Feature], *, needed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Return by segment the medians of the number features, and of how many accounts each is: those of enough accounts for any policy."""
    segment = segments.astype("category").reset_index(drop=True)
    peers: dict[str, dict[str, float]] = {str(name): {} for name in segment.cat.categories}
    counts: dict[str, dict[str, int]] = {name: {} for name in peers}
    for name in sorted({feature.name for feature in features if feature.kind == "number"}):
        grouped = pd.Series(values[name]).groupby(segment, observed=True)
        for own, count, median in zip(grouped.groups, grouped.count(), grouped.median(), strict=True):
            if count >= needed:
                peers[str(own)][name], counts[str(own)][name] = float(median), int(count)
    known = [own for own, medians in peers.items() if medians]
    return {own: peers[own] for own in known}, {own: counts[own] for own in known}


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
