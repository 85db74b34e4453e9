"""The score set: the scores of a whole book at one cutoff, with all that is needed to explain them.

A score set is a folder `scores/<version>/` that never changes once it is there; `scores/CURRENT` names the one that is served and is
switched last, by an atomic rename. What is in its files is what the endpoint answers and what the pages show, to the last bit:

    manifest.json             cutoff, workspace, health definition, models with their package hashes, freshness of the sources; and the
                              sums of the other files
    accounts.parquet          one row an account: who it is, scores, health, ARR, renewal
    values.parquet            the features' values at the cutoff
    earlier.parquet           the same accounts' values about a quarter before
    peers.parquet             medians by segment, and of how many accounts
    parts-<target>.parquet    exact parts of the raw score, the base last
    assignments.parquet       when each account changes hands between partners
    partners.parquet          who the partners are
    supplied_by.parquet       which partners' data the values of each account were made from
    feature_courses.parquet   how the features that lead each account's reasons went, to draw
    causes.parquet            what moved each account's health most since the scores before
    packages/<target>/        the models that made the scores
    fragments*                the accounts as JSON, ready to be sent; only the newest sets have them
"""

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ServiceError, explain
from features.feature import Feature, Target
from serving.health import Band, HealthDefinition
from serving.permissions.assignments import Assignments
from serving.permissions.partner_facts import PartnerRow
from serving.permissions.supplies import Supplies
from serving.scores.fragments import Fragments, read_fragments
from serving.scores.score_files import (
    MANIFEST,
    Column,
    Columns,
    current_version,
    read_columns,
    read_peers,
    verified_manifest,
)
from training.package import Package, load_package

__all__ = [
    "NEW_ACCOUNT_DAYS",
    "AccountScore",
    "Column",
    "Manifest",
    "ScoreSet",
    "Source",
    "TargetModel",
    "current_version",
    "load_score_set",
    "manifest_json",
    "read_manifest",
    "total_of",
]

NEW_ACCOUNT_DAYS = 28
"""An account younger than this has too little history for a score to lean on."""

LIMITS = ("new_account", "no_telemetry")
"""Columns of `accounts.parquet` that say what makes a score less sure."""

BASE = "base"
"""The column of `parts-<target>.parquet` that holds the model's average."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How fresh one table is.

    Parameters
    ----------
    latest
        When its last row became known, UTC; None for a table without rows.
    silent
        Whether nothing became known for so long before the cutoff that scores lean on old data.
    """

    table: str
    latest: datetime | None
    silent: bool


@dataclass(frozen=True, kw_only=True)
class TargetModel:
    """The model behind one target's scores.

    Parameters
    ----------
    package_hash
        SHA-256 of the package's contents.
    trained_until
        The last cutoff that it was trained on, UTC.
    provisional
        Whether the model has not yet been shown to beat a simpler one by more than chance.
    average_probability
        Mean calibrated probability of the book that was scored.
    """

    package_hash: str
    trained_until: datetime
    horizon_days: int
    lead_days: int
    average_probability: float
    provisional: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a score set is about; times are UTC."""

    version: str
    workspace: str
    currency: str
    cutoff: datetime
    scored_at: datetime
    health: HealthDefinition
    models: Mapping[Target, TargetModel]
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class AccountScore:
    """One account's row; what is not known is None.

    Parameters
    ----------
    raw, probability
        By target: log-odds, and calibrated probability.
    arr_at_risk
        Probability of churn times ARR, in the workspace's currency.
    earlier_at
        The cutoff of the earlier values, UTC.
    limits
        Codes of what makes the score less sure: `new_account`, `no_telemetry`.
    """

    row: int
    account_id: str
    name: str
    segment: str | None
    csm: str | None
    partner_id: str | None
    partner_name: str | None
    arr: float | None
    arr_at_risk: float | None
    renewal_at: datetime | None
    age_days: float | None
    earlier_at: datetime | None
    health: int
    band: Band
    raw: Mapping[Target, float]
    probability: Mapping[Target, float]
    limits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSet:
    """A score set in memory.

    Parameters
    ----------
    accounts, values, earlier
        Columns `(n,)` by name; the accounts' order is the same in all. While a book is scored, values and parts lie in files, and each
        column is read when it is asked for.
    peers, peer_counts
        By segment, the medians of the number features, and of how many accounts each is.
    parts
        By target, `(n, n_features + 1)` log-odds in the order of the package's features, the base last.
    assignments
        Who manages each account, at any instant.
    partners
        By partner id; those that the tables know.
    supplies
        Whose data the values of each account were made from.
    fragments
        The accounts as JSON; None if they have to be written when they are asked for.
    memory
        What answers from this score set have worked out once, by what it depends on; it goes when the score set goes.
    """

    manifest: Manifest
    accounts: Columns
    values: Columns
    earlier: Columns
    peers: Mapping[str, Mapping[str, float]]
    peer_counts: Mapping[str, Mapping[str, int]]
    parts: Mapping[Target, npt.NDArray[np.float64]]
    packages: Mapping[Target, Package]
    assignments: Assignments
    partners: Mapping[str, PartnerRow]
    supplies: Supplies
    fragments: Fragments | None = None
    memory: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.accounts["account_id"])

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The row of each account id."""
        return {account_id: row for row, account_id in enumerate(self.accounts["account_id"])}

    @cached_property
    def orders(self) -> dict[tuple[str, str], npt.NDArray[np.intp]]:
        """The place of each row by what the book is ordered by and from which end; filled by those who order it."""
        return {}

    @cached_property
    def features(self) -> Mapping[str, Feature]:
        """The features of all models by name."""
        return {feature.name: feature for package in self.packages.values() for feature in package.catalogue}

    @cached_property
    def levels(self) -> Mapping[str, frozenset[str]]:
        """The levels of the category features that the models have seen."""
        return {name: frozenset(known) for package in self.packages.values() for name, known in package.categories.items()}

    def account(self, row: int) -> AccountScore:
        """Return one account's scores."""
        plain = {name: _plain(self.accounts[name][row]) for name in _PLAIN_COLUMNS}
        return AccountScore(
            row=row,
            raw={target: float(self.accounts[f"{target}_raw"][row]) for target in self.packages},
            probability={target: float(self.accounts[f"{target}_probability"][row]) for target in self.packages},
            limits=tuple(code for code in LIMITS if self.accounts[code][row]),
            **plain,
        )


_PLAIN_COLUMNS = (
    *("account_id", "name", "segment", "csm", "partner_id", "partner_name", "arr", "arr_at_risk"),
    *("renewal_at", "age_days", "earlier_at", "health", "band"),
)


def total_of(column: Column) -> float | None:
    """Return the sum of the known values, or None if none is known."""
    return None if np.isnan(column).all() else float(np.nansum(column))


def load_score_set(scores: Path) -> ScoreSet:
    """Read the current score set into memory; its packages are verified.

    Raises
    ------
    ServiceError
        If nothing has been scored yet, or the score set was damaged.
    PackageError
        If one of its packages was damaged.
    """
    folder = scores / current_version(scores)
    try:
        manifest = _manifest(verified_manifest(folder))
        packages = {target: load_package(folder / "packages" / target) for target in manifest.models}
        return _read_files(folder, manifest, packages)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise ServiceError(
            explain(f"the score set is damaged: {_reason(error)}", given=folder, todo="Run `renewcast score` again.")
        ) from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _read_files(folder: Path, manifest: Manifest, packages: Mapping[Target, Package]) -> ScoreSet:
    accounts = read_columns(folder / "accounts.parquet")
    peers, counts = read_peers(folder / "peers.parquet")
    partners = [PartnerRow(**row) for row in pq.read_table(folder / "partners.parquet").to_pylist()]
    features = {feature.name: feature for package in packages.values() for feature in package.catalogue}
    return ScoreSet(
        manifest=manifest,
        accounts=accounts,
        values=read_columns(folder / "values.parquet"),
        earlier=read_columns(folder / "earlier.parquet"),
        peers=peers,
        peer_counts=counts,
        parts={target: _read_parts(folder / f"parts-{target}.parquet", package) for target, package in packages.items()},
        packages=packages,
        assignments=Assignments.from_columns(read_columns(folder / "assignments.parquet"), len(accounts["account_id"])),
        partners={partner.partner_id: partner for partner in partners},
        supplies=Supplies.from_columns(read_columns(folder / "supplied_by.parquet"), features.values()),
        fragments=read_fragments(folder),
    )


def read_manifest(folder: Path) -> Manifest:
    """Read what the score set in a folder `scores/<version>` is about.

    Raises
    ------
    OSError
        If there is none.
    KeyError, TypeError, ValueError
        If it was damaged.
    """
    return _manifest(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


def _read_parts(path: Path, package: Package) -> npt.NDArray[np.float64]:
    columns = read_columns(path)
    return np.column_stack([columns[name] for name in (*package.features, BASE)])


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """Return what `manifest.json` says beside the sums."""
    data: dict[str, Any] = json.loads(json.dumps(asdict(manifest), default=_isoformat))
    return data


def _manifest(data: dict[str, Any]) -> Manifest:
    models = {
        target: TargetModel(**(model | {"trained_until": _instant(model["trained_until"])})) for target, model in data["models"].items()
    }
    sources = tuple(Source(**(source | {"latest": source["latest"] and _instant(source["latest"])})) for source in data["sources"])
    times = {"cutoff": _instant(data["cutoff"]), "scored_at": _instant(data["scored_at"])}
    said = {name: value for name, value in data.items() if name != "files"}
    return Manifest(**(said | times | {"health": HealthDefinition(**data["health"]), "models": models, "sources": sources}))


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _isoformat(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"not JSON: {value!r}")


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python one, and a missing one as None."""
    plain = (
        value.astype("datetime64[us]").item()
        if isinstance(value, np.datetime64)
        else value.item()
        if isinstance(value, np.generic)
        else value
    )
    return None if plain is None or plain != plain else plain
