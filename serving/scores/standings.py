"""How an account stood at other times: in the score sets that are kept, and a quarter before the present one.

Only one account's row is read of an older score set, so that looking back costs no memory.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.errors import ServiceError, explain
from features.feature import Feature, Target
from serving.health import HealthDefinition, health_of
from serving.permissions.supplies import Supplies, Supply
from serving.scores.changes import Standing, Value, Values, log_odds_of
from serving.scores.scoring import Manifest, ScoreSet, current_version, read_manifest
from training.package import Package, load_package

__all__ = ["VERSION", "Archive", "Moment", "earlier_standing", "present_standing", "select_moment", "standing_of"]

VERSION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")
"""What the version of a score set looks like; versions in alphabetical order are in the order in which they were made."""


_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A time for which an account's standing can be looked up.

    Parameters
    ----------
    score_set
        The version; None for the values of about a quarter before the present score set.
    """

    score_set: str | None
    cutoff: datetime


class Archive:
    """The score sets below a folder, the present one among them.

    Parameters
    ----------
    scores
        The folder `scores/` of a workspace.
    """

    def __init__(self, scores: Path) -> None:
        self._scores = scores
        self._manifests: dict[str, Manifest] = {}

    def versions(self) -> tuple[str, ...]:
        """Return the versions that are there, in the order in which they were made."""
        try:
            names = sorted(path.name for path in self._scores.iterdir() if VERSION.fullmatch(path.name))
        except FileNotFoundError:
            return ()
        there = tuple(name for name in names if (self._scores / name / "manifest.json").exists())
        self._manifests = {name: manifest for name, manifest in self._manifests.items() if name in there}
        return there

    def served(self) -> Path | None:
        """Return the folder of the version that is served; None before the first."""
        return self.folder(current_version(self._scores)) if (self._scores / "CURRENT").exists() else None

    def folder(self, version: str) -> Path:
        """Return the folder of a version."""
        return self._scores / version

    def manifest(self, version: str) -> Manifest:
        """Return what a version is about.

        Raises
        ------
        ServiceError
            If it is gone or damaged.
        """
        if version not in self._manifests:
            self._manifests[version] = self.read(version, read_manifest)
        return self._manifests[version]

    def read(self, version: str, read: Callable[[Path], _T]) -> _T:
        """Return what a function reads from a version's folder.

        Raises
        ------
        ServiceError
            If it is gone or damaged.
        """
        folder = self.folder(version)
        try:
            return read(folder)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            what = f"older scores cannot be read: {type(error).__name__}: {error}"
            raise ServiceError(explain(what, given=folder.name, todo="It is still possible to compare with other times.")) from error

    def packages(self, version: str) -> dict[Target, Package]:
        """Read the models behind a version; they are verified.

        Raises
        ------
        ServiceError, PackageError
            If the version is gone or damaged.
        """
        return {target: load_package(self.folder(version) / "packages" / target) for target in self.manifest(version).models}

    def standing(self, version: str, account_id: str, features: Iterable[Feature] = ()) -> Standing | None:
        """Return how an account stood in a version, or None if it was not in it.

        Parameters
        ----------
        features
            Those of which it is to be known whose data their values were made from.

        Raises
        ------
        ServiceError
            If the version is gone or damaged.
        """
        manifest = self.manifest(version)
        stored = self.read(version, lambda folder: _stored_rows(folder, account_id, features))
        return _stored_standing(manifest, stored) if stored else None


def present_standing(score_set: ScoreSet, row: int) -> Standing:
    """Return how an account stands in a score set in memory."""
    account, manifest = score_set.account(row), score_set.manifest
    values = {name: _plain(column[row]) for name, column in score_set.values.items()}
    return Standing(
        account_id=account.account_id,
        score_set=manifest.version,
        cutoff=manifest.cutoff,
        scored_at=manifest.scored_at,
        health=account.health,
        definition=manifest.health,
        values=values,
        log_odds={target: log_odds_of(probability) for target, probability in account.probability.items()},
        probability=account.probability,
        models={target: model.package_hash for target, model in manifest.models.items()},
        supplied=score_set.supplies.of(row),
    )


def earlier_standing(score_set: ScoreSet, row: int) -> Standing | None:
    """Return what the present models say of an account's values about a quarter before, or None if it was not there then."""
    account = score_set.account(row)
    if account.earlier_at is None:
        return None
    values = {name: _plain(column[row]) for name, column in score_set.earlier.items()}
    return standing_of(
        account.account_id,
        values,
        packages=score_set.packages,
        definition=score_set.manifest.health,
        cutoff=account.earlier_at,
        supplied=score_set.supplies.of(row),
    )


def standing_of(
    account_id: str,
    values: Values,
    *,
    packages: Mapping[Target, Package],
    definition: HealthDefinition,
    cutoff: datetime,
    supplied: Mapping[str, Collection[str]],
) -> Standing:
    """Score values that no score set holds."""
    probability = {target: _probability(package, values) for target, package in packages.items()}
    return Standing(
        account_id=account_id,
        score_set=None,
        cutoff=cutoff,
        scored_at=None,
        health=int(health_of(np.array([probability["churn"]]), definition)[0]),
        definition=definition,
        values=values,
        log_odds={target: log_odds_of(known) for target, known in probability.items()},
        probability=probability,
        models={target: package.hash for target, package in packages.items()},
        supplied=supplied,
    )


def _probability(package: Package, values: Values) -> float:
    levels = None if package.levels is None else np.array([values[package.levels.feature]], dtype=object)
    return float(package.score_matrix(package.encode_rows([values]), levels).probability[0])


def select_moment(moments: Sequence[Moment], instant: datetime) -> Moment | None:
    """Return the moment with the newest cutoff not after the instant, of equal ones the last; None if there is none."""
    cutoffs = np.array([moment.cutoff for moment in moments], dtype="datetime64[us]")
    reached = np.flatnonzero(clock.not_after(cutoffs, instant))
    if len(reached) == 0:
        return None
    newest = cutoffs[reached].max()
    return moments[int(reached[cutoffs[reached] == newest][-1])]


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """One account's rows in the files of a score set, and whose data its values were made from."""

    account: Mapping[str, Any]
    values: Values
    supplied: Mapping[str, Collection[str]]


def _stored_standing(manifest: Manifest, stored: _Stored) -> Standing:
    account = stored.account
    probability = {target: float(account[f"{target}_probability"]) for target in manifest.models}
    return Standing(
        account_id=account["account_id"],
        score_set=manifest.version,
        cutoff=manifest.cutoff,
        scored_at=manifest.scored_at,
        health=int(account["health"]),
        definition=manifest.health,
        values=stored.values,
        log_odds={target: log_odds_of(known) for target, known in probability.items()},
        probability=probability,
        models={target: model.package_hash for target, model in manifest.models.items()},
        supplied=stored.supplied,
    )


def _stored_rows(folder: Path, account_id: str, features: Iterable[Feature]) -> _Stored | None:
    with pq.ParquetFile(folder / "accounts.parquet") as accounts, pq.ParquetFile(folder / "values.parquet") as values:
        row = _row_of(accounts, account_id)
        if row is None:
            return None
        known = {name: _plain(value) for name, value in _read_row(values, row).items()}
        supplied = Supplies(_supplies(folder / "supplied_by.parquet", row), features).of(row)
        return _Stored(account=_read_row(accounts, row), values=known, supplied=supplied)


def _supplies(path: Path, row: int) -> Iterator[Supply]:
    if path.exists():  # not in score sets from before partners supplied anything
        yield from (Supply(**supply) for supply in pq.read_table(path, filters=[("row", "=", row)]).to_pylist())


def _row_of(accounts: pq.ParquetFile, account_id: str) -> int | None:
    """Return the row of an account, reading only the ids of the row groups that may hold it."""
    first = 0
    column = accounts.schema_arrow.get_field_index("account_id")
    for position in range(accounts.num_row_groups):
        group = accounts.metadata.row_group(position)
        statistics = group.column(column).statistics
        if statistics is None or not statistics.has_min_max or statistics.min <= account_id <= statistics.max:
            ids = accounts.read_row_group(position, columns=["account_id"])["account_id"]
            found = ids.to_numpy(zero_copy_only=False) == account_id
            if found.any():
                return first + int(found.argmax())
        first += group.num_rows
    return None


def _read_row(file: pq.ParquetFile, row: int) -> dict[str, Any]:
    """Return one row by its number, reading only its row group."""
    for position in range(file.num_row_groups):
        size = file.metadata.row_group(position).num_rows
        if row < size:
            columns: dict[str, Any] = file.read_row_group(position, use_threads=False).slice(row, 1).to_pylist()[0]
            return columns
        row -= size
    raise ValueError("there are fewer rows of values than accounts")


def _plain(value: Any) -> Value:
    """Return a feature's value with None for a missing one."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else float(value)
