"""What moved each account's health most since the scores before, for the list of accounts.

At each scoring the values of the time before are explained by the present model of churn, and the differences of the exact parts are
summed by driver, as `serving.scores.changes` does for one account with all its sizes. What did most of the move that is shown, in its own
direction, is its first cause: a driver, or the newer model. The time before is that of the newest score set that is kept and has an earlier
cutoff; without one, it is the cutoff before in the snapshots, and the model is the same.

Each score set keeps its own in `causes.arrow`, one line an account in the order of the score set: one driver for the vendor, and a few
for partners, of which a partner is told the first that it may see. The file is made window by window and mapped where it is read, so that
neither holds a large book in memory.
"""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import clock
from features.snapshot_files import snapshot_files
from serving.permissions.policy import Policy
from serving.scores.changes import log_odds_of
from serving.scores.drivers import DriverGroups
from serving.scores.explained import json_value
from serving.scores.reasons import worded
from serving.scores.score_files import Columns, StoredColumns
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive
from serving.scores.windows import windows

__all__ = ["CAUSES", "Causes", "causes_of", "write_causes"]

CAUSES = "causes.arrow"

_KEY: Hashable = "causes"
_MODEL: Mapping[str, Any] = {"features": [], "sentence": "A newer model, on the same data"}
_FOR_PARTNERS = 3
_NEARLY_EQUAL = 1e-9
_META = b"renewcast"
_CAUSE = pa.struct([("features", pa.list_(pa.string())), ("sentence", pa.string())])
_SCHEMA = pa.schema([("vendors", _CAUSE), ("partners", pa.list_(_CAUSE))])
_NO_LINE: Mapping[str, Any] = {"vendors": None, "partners": None}

Array = npt.NDArray[np.float64]
Line = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Before:
    """The accounts of a window of the present score set as of the time before, `(m,)`.

    Parameters
    ----------
    rows
        Their rows in the window.
    values
        Their features, a column each.
    log_odds
        Of churn, as it was said; None where nothing was said, so that the present model's are taken.
    """

    rows: npt.NDArray[np.intp]
    values: pd.DataFrame
    log_odds: Array | None

    @cached_property
    def columns(self) -> Columns:
        """The features as plain arrays."""
        return {name: self.values[name].to_numpy() for name in self.values.columns}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """A score set that is kept.

    Parameters
    ----------
    ids, churn
        Its accounts, and what was said of them.
    """

    cutoff: datetime
    ids: pd.Index
    churn: Array
    values: StoredColumns

    def of(self, window: ScoreSet) -> _Before | None:
        """Return the accounts of a window; None if none of them was there."""
        places = self.ids.get_indexer(pd.Index(window.accounts["account_id"]))
        rows = np.flatnonzero(places >= 0)
        if not len(rows):
            return None
        chosen = places[rows]
        first = int(chosen.min())  # both are in the order of their ids, so that few others lie between
        values = pd.DataFrame(self.values.rows(first, int(chosen.max()) + 1)).take(chosen - first).reset_index(drop=True)
        return _Before(rows=rows, values=values, log_odds=_log_odds(self.churn[chosen]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Snapshot:
    """A cutoff of the snapshots, at which nothing was said; its rows are in the file."""

    cutoff: datetime
    file: Path
    names: Sequence[str]

    def of(self, window: ScoreSet) -> _Before | None:
        """Return the accounts of a window; None if none of them was there."""
        ids = window.accounts["account_id"]
        span = [("account_id", ">=", min(ids)), ("account_id", "<=", max(ids))]
        chosen = [("cutoff", "=", pa.scalar(self.cutoff, pa.timestamp("us"))), *span]
        frame = pq.read_table(self.file, columns=["account_id", *self.names], filters=chosen).to_pandas()
        rows = pd.Index(ids).get_indexer(frame.pop("account_id"))
        there = rows >= 0
        return _Before(rows=rows[there], values=frame[there].reset_index(drop=True), log_odds=None) if there.any() else None


@dataclass(frozen=True, eq=False)
class Causes:
    """What moved the accounts of a score set most.

    Parameters
    ----------
    since
        The cutoff that is compared with, UTC.
    lines
        One an account.
    """

    since: datetime
    lines: pa.Table

    def of(self, row: int, view: View, score_set: ScoreSet) -> str | None:
        """Return the sentence of the first cause that the caller may see; None if there is none, or health did not move."""
        line = self.lines.slice(row, 1).to_pylist()[0]
        told: Sequence[Line] = [line["vendors"]] if view.caller.is_vendor else line["partners"] or []
        for cause in told:
            if cause is not None and _sees_all(view, score_set, row, cause["features"]):
                sentence: str = cause["sentence"]
                return sentence
        return None


def causes_of(archive: Archive, score_set: ScoreSet) -> Causes | None:
    """Return what moved the accounts of a score set most, read once; None if nothing was before, or it was made before this was kept."""
    if _KEY not in score_set.memory:
        path = archive.folder(score_set.manifest.version) / CAUSES
        score_set.memory[_KEY] = _read(path) if path.exists() else None
    found: Causes | None = score_set.memory[_KEY]
    return found


def write_causes(score_set: ScoreSet, folder: Path, *, policy: Policy, archive: Archive, snapshots: Path) -> None:
    """Write into a new score set's folder what moved each account most; nothing if there is no time before.

    Parameters
    ----------
    archive
        The score sets that are kept.
    snapshots
        The folder with `features.parquet`.
    """
    past = _kept_before(score_set, archive) or _snapshot_before(score_set, snapshots / "features.parquet")
    if past is None:
        return
    schema = _SCHEMA.with_metadata({_META: json.dumps({"since": past.cutoff.isoformat()})})
    with pa.OSFile(str(folder / CAUSES), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for _, window in windows(score_set):
            lines: list[Line] = [_NO_LINE] * len(window)
            before = past.of(window)
            for row, line in _lines(window, before, policy) if before else ():
                lines[row] = line
            file.write_table(pa.Table.from_pylist(lines, schema))


def _read(path: Path) -> Causes:
    lines = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return Causes(datetime.fromisoformat(json.loads(lines.schema.metadata[_META])["since"]), lines)


def _sees_all(view: View, score_set: ScoreSet, row: int, names: Sequence[str]) -> bool:
    supplied = score_set.supplies.of(row)
    return all(view.sees(score_set.features[name], supplied_by=supplied.get(name, ())) for name in names)


def _kept_before(score_set: ScoreSet, archive: Archive) -> _Kept | None:
    """Return the newest score set that is kept and has an earlier cutoff."""
    own = score_set.manifest
    older = [archive.manifest(version) for version in archive.versions() if version != own.version]
    earlier = [manifest for manifest in older if not clock.has_come(own.cutoff, manifest.cutoff)]
    if not earlier:
        return None
    manifest = max(earlier, key=lambda one: (one.cutoff, one.version))
    folder = archive.folder(manifest.version)
    accounts = pq.read_table(folder / "accounts.parquet", columns=["account_id", "churn_probability"]).to_pandas()
    return _Kept(
        cutoff=manifest.cutoff,
        ids=pd.Index(accounts["account_id"]),
        churn=accounts["churn_probability"].to_numpy(),
        values=StoredColumns(folder / "values.parquet"),
    )


def _snapshot_before(score_set: ScoreSet, path: Path) -> _Snapshot | None:
    """Return the cutoff before in the snapshots."""
    for file in reversed(snapshot_files(path)):
        cutoffs = pc.unique(pq.read_table(file, columns=["cutoff"])["cutoff"]).to_numpy().astype("datetime64[us]")
        earlier = cutoffs[~clock.not_after(np.full(len(cutoffs), score_set.manifest.cutoff, dtype="datetime64[us]"), cutoffs)]
        if len(earlier):
            return _Snapshot(cutoff=earlier.max().item(), file=file, names=score_set.packages["churn"].features)
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pushes:
    """What did how much of each account's move, in calibrated log-odds in the direction of the move.

    Parameters
    ----------
    now
        The features as they are, `(m,)` by name.
    differences
        `(m, n_features)` raw log-odds.
    drivers, model
        `(m, n_drivers)` and `(m,)`: of each driver, and of the newer model by itself.
    """

    groups: DriverGroups
    now: Columns
    differences: Array
    drivers: Array
    model: Array


def _pushes(score_set: ScoreSet, before: _Before, policy: Policy) -> _Pushes:
    package, rows = score_set.packages["churn"], before.rows
    values = {name: score_set.values[name][rows] for name in package.features}
    new = {name: values[name] for name in package.features if name not in before.values.columns}
    scores, older = package.score_book(before.values.assign(**new))
    differences = score_set.parts["churn"][rows, :-1] - older[:, :-1]
    now, own = _log_odds(score_set.accounts["churn_probability"][rows]), _log_odds(scores.probability)
    said = own if before.log_odds is None else before.log_odds
    raw, way = differences.sum(axis=1), np.sign(now - said)
    slope = np.divide(now - own, raw, out=np.ones_like(raw), where=np.abs(raw) > _NEARLY_EQUAL)
    groups = DriverGroups.of(package.catalogue, audience_of=policy.audience_of)
    drivers = groups.sums(differences) * (slope * way)[:, None]
    return _Pushes(groups=groups, now=values, differences=differences, drivers=drivers, model=(own - said) * way)


def _lines(score_set: ScoreSet, before: _Before, policy: Policy) -> Iterator[tuple[int, Line]]:
    """Yield the causes of the accounts that were there before, each with its row."""
    pushes = _pushes(score_set, before, policy)
    groups = pushes.groups
    shared = [all(policy.audience_of(groups.features[member]) != "vendor" for member in members) for members in groups.members]
    order = np.argsort(-pushes.drivers, axis=1, kind="stable").tolist()
    for place, row in enumerate(before.rows.tolist()):
        ranked = [driver for driver in order[place] if pushes.drivers[place, driver] > 0]
        if pushes.model[place] > max((pushes.drivers[place, driver] for driver in ranked[:1]), default=0.0):
            yield row, {"vendors": _MODEL, "partners": [_MODEL]}
            continue
        chosen = [driver for driver in ranked if shared[driver]][:_FOR_PARTNERS]
        told = {driver: _cause(before, pushes, place, driver) for driver in {*ranked[:1], *chosen}}
        yield row, {"vendors": told[ranked[0]] if ranked else None, "partners": [told[driver] for driver in chosen]}


def _cause(before: _Before, pushes: _Pushes, place: int, driver: int) -> Line:
    """Return a driver with the feature first that moved most, in words."""
    groups = pushes.groups
    members = sorted(groups.members[driver], key=lambda member: -abs(pushes.differences[place, member]))
    main = groups.features[members[0]]
    earlier = json_value(before.columns[main.name][place]) if main.name in before.columns else None
    sentence = worded(main, json_value(pushes.now[main.name][place]), earlier)
    return {"features": [groups.names[member] for member in members], "sentence": sentence}


def _log_odds(probability: Array) -> Array:
    return np.array([log_odds_of(one) for one in probability.tolist()])
