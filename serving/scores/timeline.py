"""How each account's health went: what was said at the time, and, for the time before the first scoring, what a model says now.

Each score set carries the whole past along: `history.parquet`, ordered by account, and `recent.parquet`, the newest points of its own
accounts. It takes over what the score set before it has, and adds its own points. The first one looks back: it scores the account's values
at each earlier cutoff of the snapshots, which hold only what was known then. Such points are `replayed`, never `said`: the model may have
learnt from those very months, so they are no track record, and nothing that judges models reads them.

Accounts are written in blocks, one row group each, and merged block by block, so that the memory does not grow with the past.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature import Target
from serving.health import health_of
from serving.scores.replay import Replayed, replay_scores
from serving.scores.scoring import Manifest, ScoreSet
from serving.scores.standings import Archive

__all__ = ["HISTORY", "MOST_POINTS", "RECENT", "RECENT_POINTS", "Point", "read_points", "read_recent", "write_history"]

HISTORY, RECENT = "history.parquet", "recent.parquet"

RECENT_POINTS = 12
"""How many of an account's newest cutoffs `recent.parquet` holds."""

MOST_POINTS = 500
"""How many of an account's points are carried along, the newest: more than a year of nights."""

_ACCOUNTS_IN_BLOCK = 512
_TARGETS: tuple[Target, ...] = ("churn", "contraction", "expansion")
_ORDER = [("account_id", "ascending"), ("cutoff", "ascending"), ("scored_at", "ascending")]
_SCHEMA = pa.schema(
    [
        ("account_id", pa.string()),
        ("cutoff", pa.timestamp("us")),
        ("scored_at", pa.timestamp("us")),
        ("score_set", pa.string()),
        ("health", pa.uint8()),
        ("health_version", pa.int32()),
        *((target, pa.float64()) for target in _TARGETS),
        ("arr", pa.float64()),
        ("package", pa.string()),
    ]
)
"""`scored_at` and `score_set` are missing for replayed points."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An account as of one cutoff.

    Parameters
    ----------
    scored_at, score_set
        When and by which score set it was said; None for a replayed point.
    probability
        By target, as far as it was known.
    package
        Hash of the model of churn.
    """

    cutoff: datetime
    scored_at: datetime | None
    score_set: str | None
    health: int
    health_version: int
    probability: Mapping[Target, float | None]
    arr: float | None
    package: str

    @property
    def origin(self) -> Literal["said", "replayed"]:
        """Whether it was said at the time, or is what a later model says of that time."""
        return "replayed" if self.score_set is None else "said"


def write_history(score_set: ScoreSet, folder: Path, *, archive: Archive, snapshots: Path) -> None:
    """Write the past of all accounts into the folder of a new score set.

    Parameters
    ----------
    archive
        The score sets before it.
    snapshots
        The folder whose `features.parquet` and `labels.parquet` hold the cutoffs before the first scoring.
    """
    older = [version for version in archive.versions() if version != score_set.manifest.version]
    carried = next((path for version in reversed(older) if (path := archive.folder(version) / HISTORY).exists()), None)
    own = _said(score_set.manifest, score_set.accounts)
    if carried is not None:
        blocks = _merged(carried, own)
    else:
        replayed = replay_scores(score_set, snapshots, before=score_set.manifest.cutoff)
        blocks = _blocks(own, replayed, score_set)
    _write(blocks, score_set, folder)


def read_points(folder: Path, account_id: str) -> list[Point]:
    """Return an account's points from a score set's folder, oldest first; only its block is read."""
    path = folder / HISTORY
    if not path.exists():  # the score set was made before there were histories
        return []
    rows = pq.read_table(path, filters=[("account_id", "=", account_id)]).to_pylist()
    return [
        Point(
            **{name: row[name] for name in ("cutoff", "scored_at", "score_set", "health", "health_version", "arr", "package")},
            probability={target: row[target] for target in _TARGETS},
        )
        for row in rows
    ]


def read_recent(folder: Path) -> dict[str, list[tuple[datetime, int]]]:
    """Return the newest points of the score set's own accounts: by account, cutoffs and health, oldest first."""
    path = folder / RECENT
    if not path.exists():
        return {}
    rows = pq.read_table(path).to_pylist()
    return {row["account_id"]: list(zip(row["cutoffs"], row["health"], strict=True)) for row in rows}


def _said(manifest: Manifest, accounts: Mapping[str, npt.NDArray[Any]]) -> pa.Table:
    """Return the points that a score set says."""
    n = len(accounts["account_id"])
    columns = {
        "account_id": pa.array(accounts["account_id"], pa.string()),
        "cutoff": pa.repeat(pa.scalar(manifest.cutoff, pa.timestamp("us")), n),
        "scored_at": pa.repeat(pa.scalar(manifest.scored_at, pa.timestamp("us")), n),
        "score_set": pa.repeat(manifest.version, n),
        "health": pa.array(accounts["health"].astype(np.uint8)),
        "health_version": pa.repeat(pa.scalar(manifest.health.version, pa.int32()), n),
        "arr": _numbers(accounts["arr"], n),
        "package": pa.repeat(manifest.models["churn"].package_hash, n),
    }
    columns |= {str(target): _numbers(accounts.get(f"{target}_probability"), n) for target in _TARGETS}
    return pa.table(columns, schema=_SCHEMA)


def _numbers(values: npt.NDArray[Any] | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.float64()) if values is None else pa.array(values.astype(np.float64), from_pandas=True)


def _replayed(replayed: Replayed, score_set: ScoreSet) -> pa.Table:
    """Return the points of the time before the first scoring."""
    n, manifest = len(replayed.row), score_set.manifest
    columns = {
        "account_id": pa.array(score_set.accounts["account_id"][replayed.row], pa.string()),
        "cutoff": pa.array(replayed.cutoff, pa.timestamp("us")),
        "scored_at": pa.nulls(n, pa.timestamp("us")),
        "score_set": pa.nulls(n, pa.string()),
        "health": pa.array(health_of(replayed.probability["churn"], manifest.health).astype(np.uint8)),
        "health_version": pa.repeat(pa.scalar(manifest.health.version, pa.int32()), n),
        "arr": _numbers(replayed.arr, n),
        "package": pa.repeat(manifest.models["churn"].package_hash, n),
    }
    columns |= {str(target): _numbers(replayed.probability.get(target), n) for target in _TARGETS}
    return pa.table(columns, schema=_SCHEMA)


def _blocks(own: pa.Table, replayed: Replayed, score_set: ScoreSet) -> Iterator[pa.Table]:
    """Yield the first history, some accounts at a time."""
    by_id = np.argsort(score_set.accounts["account_id"].astype(str))
    place = np.argsort(by_id)[replayed.row]
    order = np.argsort(place, kind="stable")
    starts = np.arange(0, len(by_id), _ACCOUNTS_IN_BLOCK)
    bounds = np.append(np.searchsorted(place[order], starts), len(order))
    for start, (first, end) in zip(starts.tolist(), pairwise(bounds.tolist()), strict=True):
        said = own.take(pa.array(by_id[start : start + _ACCOUNTS_IN_BLOCK]))
        yield _compact(pa.concat_tables([said, _replayed(replayed.at(order[first:end]), score_set)]))


def _merged(carried: Path, own: pa.Table) -> Iterator[pa.Table]:
    """Yield the carried blocks with the new points among them; what comes after the last account is a block of its own."""
    own, taken = own.sort_by(_ORDER), 0
    ids = own["account_id"].to_numpy()
    with pq.ParquetFile(carried) as file:
        for group in range(file.num_row_groups):
            block = file.read_row_group(group).select(_SCHEMA.names).cast(_SCHEMA)
            until = int(np.searchsorted(ids, block["account_id"][-1].as_py(), side="right"))
            yield from _split(_compact(pa.concat_tables([block, own.slice(taken, until - taken)])))
            taken = until
    if taken < len(ids):
        yield from _split(own.slice(taken))


def _compact(block: pa.Table) -> pa.Table:
    """Order a block, leave out points that say again what the one before said of the same cutoff, and keep the newest of each account."""
    block = block.sort_by(_ORDER)
    same = np.ones(max(len(block) - 1, 0), dtype=bool)
    for name in ("account_id", "cutoff", "health_version", "churn", "package"):
        column = block[name].to_numpy()
        same &= column[1:] == column[:-1]
    block = block.filter(pa.array(np.concatenate([[True] * min(len(block), 1), ~same]).astype(bool)))
    _, first, counts = np.unique(block["account_id"].to_numpy().astype(str), return_index=True, return_counts=True)
    from_end = np.repeat(first + counts, counts) - np.arange(len(block))
    return block.filter(pa.array(from_end <= MOST_POINTS))


def _split(block: pa.Table) -> Iterator[pa.Table]:
    """Yield a block in halves where it has grown to twice the accounts that one is to have."""
    ids = block["account_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else np.empty(0, np.intp)
    if len(starts) < 2 * _ACCOUNTS_IN_BLOCK:
        yield block
        return
    for start, end in pairwise([*starts[::_ACCOUNTS_IN_BLOCK].tolist(), len(ids)]):
        yield block.slice(start, end - start)


def _write(blocks: Iterator[pa.Table], score_set: ScoreSet, folder: Path) -> None:
    recent = []
    with pq.ParquetWriter(
        folder / HISTORY,
        _SCHEMA,
        compression="zstd",
        use_dictionary=["account_id", "score_set", "package", "arr"],
        use_byte_stream_split=list(_TARGETS),
    ) as writer:
        for block in blocks:
            writer.write_table(block, row_group_size=max(len(block), 1))
            recent.append(_newest(block))
    newest = pa.concat_tables(recent)
    present = np.array([account_id in score_set.index for account_id in newest["account_id"].to_pylist()], dtype=bool)
    pq.write_table(newest.filter(pa.array(present)), folder / RECENT, compression="zstd")


def _newest(block: pa.Table) -> pa.Table:
    """Return each account's newest points, the last of each cutoff."""
    by_account: dict[str, dict[datetime, int]] = {}
    for account_id, cutoff, health in zip(*(block[name].to_pylist() for name in ("account_id", "cutoff", "health")), strict=True):
        by_account.setdefault(account_id, {})[cutoff] = health
    kept = {account_id: list(points.items())[-RECENT_POINTS:] for account_id, points in by_account.items()}
    return pa.table(
        {
            "account_id": pa.array(list(kept), pa.string()),
            "cutoffs": pa.array([[cutoff for cutoff, _ in points] for points in kept.values()], pa.list_(pa.timestamp("us"))),
            "health": pa.array([[health for _, health in points] for points in kept.values()], pa.list_(pa.uint8())),
        }
    )
