"""How the features that lead each account's reasons went: their values at the newest cutoffs of the snapshots, for a small chart each.

Each score set keeps its own in `feature_courses.parquet`, one line for an account and a feature, ordered by account, so that one account is
read without the others. It is put together window by window from a file for each feature, so that the memory that it takes is that of one
feature and not of all. The snapshots hold for each cutoff only what was known then. Kept are the features of the drivers that the vendor
or a partner is told by name, at most `MOST_POINTS` values each of the last thirteen months, in single precision: enough to draw, and what
is written beside the chart comes from the score set itself.

But: who changes the policy afterwards, so that other drivers are named, sees their charts from the next scoring on.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import clock
from features.snapshot_files import snapshot_files
from serving.permissions.policy import Policy
from serving.permissions.supplies import ABOUT_PARTNERS, fed_by
from serving.scores.drivers import DriverGroups
from serving.scores.explained import closed_fields
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive
from serving.scores.windows import bounds, windows

__all__ = ["FEATURE_COURSES", "MOST_POINTS", "FeatureCourse", "read_feature_courses", "seen_feature_courses", "write_feature_courses"]

FEATURE_COURSES = "feature_courses.parquet"

MOST_POINTS = 13
"""Of how many of an account's newest cutoffs the values are kept: a year of months, with both ends."""

_LONGEST = timedelta(days=400)
"""Older values are not kept."""

_CHUNK = 1024
_LINES_TOGETHER = 4096
_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("feature", pa.string()),
        ("cutoffs", pa.list_(pa.timestamp("us"))),
        ("values", pa.list_(pa.float32())),
    ]
)

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureCourse:
    """How a feature of one account went, oldest first: cutoffs in UTC, and values in the feature's unit; None where it is not known."""

    points: tuple[tuple[datetime, float | None], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """The rows of the snapshots that are kept, ordered by account and cutoff.

    Parameters
    ----------
    place
        Where each stands in the files.
    row
        The account's row in the score set.
    cutoff
        datetime64[us], UTC.
    """

    place: Places
    row: npt.NDArray[np.int32]
    cutoff: npt.NDArray[np.datetime64]


def write_feature_courses(score_set: ScoreSet, folder: Path, *, policy: Policy, snapshots: Path) -> None:
    """Write the courses of the features that lead reasons into a new score set's folder.

    Parameters
    ----------
    policy
        Says how many drivers are named, and which of them partners may be told.
    snapshots
        The folder with `features.parquet`.
    """
    with TemporaryDirectory(prefix=".courses-", dir=folder) as place, _opened(score_set, snapshots) as files:
        cells = _cells(score_set, files)
        parts = [
            _kept(_lines(name, wanted, cells, files), Path(place) / f"{number}.arrow")
            for number, (name, wanted) in enumerate(sorted(_wanted(score_set, policy).items()))
        ]
        _write(folder / FEATURE_COURSES, parts, accounts=len(score_set))


@contextmanager
def _opened(score_set: ScoreSet, snapshots: Path) -> Iterator[list[pq.ParquetFile]]:
    """Open the files of features with cutoffs that may be kept, the last if there are none: each is read a column at a time."""
    with ExitStack() as stack:
        files = [stack.enter_context(pq.ParquetFile(file)) for file in snapshot_files(snapshots / "features.parquet")]
        yield [file for file in files if _recent(score_set, _column([file], "cutoff")).any()] or files[-1:]


def _column(files: Sequence[pq.ParquetFile], name: str) -> npt.NDArray[Any]:
    return np.concatenate([file.read(columns=[name])[name].to_numpy() for file in files])


def _recent(score_set: ScoreSet, cutoff: npt.NDArray[np.datetime64]) -> Flags:
    until = score_set.manifest.cutoff
    return clock.not_after(cutoff, until) & ~clock.not_after(cutoff, until - _LONGEST)


def _kept(lines: pa.Table, path: Path) -> pa.Table:
    """Return lines that lie in a file, which is mapped, and not in memory."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as file:
        file.write_table(lines)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _write(path: Path, parts: Sequence[pa.Table], *, accounts: int) -> None:
    """Write the courses of all features, each given in the order of its rows, in the order of rows and features."""
    rows = [part["row"].to_numpy() for part in parts]
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as file:
        for start, stop in bounds(accounts):
            spans = [np.searchsorted(own, [start, stop]).tolist() for own in rows]
            pieces = [part.slice(first, last - first) for part, (first, last) in zip(parts, spans, strict=True)]
            table = pa.concat_tables([_SCHEMA.empty_table(), *pieces]).sort_by([("row", "ascending"), ("feature", "ascending")])
            file.write_table(table, row_group_size=_LINES_TOGETHER)


def read_feature_courses(folder: Path, row: int) -> dict[str, FeatureCourse]:
    """Return the courses of one account from a score set's folder, by feature; none if the set was made before they were kept."""
    path = folder / FEATURE_COURSES
    if not path.exists():
        return {}
    lines = pq.read_table(path, filters=[("row", "=", row)]).to_pylist()
    return {line["feature"]: FeatureCourse(tuple(zip(line["cutoffs"], line["values"], strict=True))) for line in lines}


def seen_feature_courses(archive: Archive, score_set: ScoreSet, row: int, view: View) -> dict[str, FeatureCourse]:
    """Return the courses of an account that the caller may see: those of features whose values it may, now and before.

    What a feature says about the account's partner itself is about whoever that was at the time, and no partner is told the past of it.

    Raises
    ------
    ServiceError
        If the file is damaged.
    """
    if closed_fields(view, "Driver", ("value", "earlier")):
        return {}
    courses = archive.read(score_set.manifest.version, lambda folder: read_feature_courses(folder, row))
    supplied = score_set.supplies.of(row)
    about = () if view.caller.is_vendor else fed_by(score_set.features.values())[ABOUT_PARTNERS]
    return {
        name: course
        for name, course in courses.items()
        if name not in about and view.sees(score_set.features[name], supplied_by=supplied.get(name, ()))
    }


def _wanted(score_set: ScoreSet, policy: Policy) -> Mapping[str, Flags]:
    """Return by number feature `(n,)` whether it leads a driver that the vendor is told by name, or that partners may be."""
    found: dict[str, Flags] = defaultdict(lambda: np.zeros(len(score_set), dtype=np.bool_))
    for start, window in windows(score_set):
        for target, package in score_set.packages.items():
            groups = DriverGroups.of(package.catalogue, audience_of=policy.audience_of)
            numbers = [feature.kind == "number" for feature in groups.features]
            for row, feature in _leading(groups, window.parts[target][:, :-1], policy):
                if numbers[feature]:
                    found[groups.names[feature]][start + row] = True
    return found


def _leading(groups: DriverGroups, parts: npt.NDArray[np.float64], policy: Policy) -> Iterator[tuple[int, int]]:
    """Yield the rows and the positions of the features that give named drivers their words."""
    everybody = [True] * len(groups)
    partners = [all(policy.audience_of(groups.features[member]) != "vendor" for member in members) for members in groups.members]
    for start in range(0, len(parts), _CHUNK):
        for row, ranked in enumerate(groups.rank(parts[start : start + _CHUNK]), start):
            for visible in (everybody, partners):
                for driver in ranked.named(visible, most=policy.numbers.named_drivers):
                    yield row, ranked.members(driver)[0]


def _cells(score_set: ScoreSet, files: Sequence[pq.ParquetFile]) -> _Cells:
    """Find the newest cutoffs of each account of the score set, up to its own."""
    ids = pd.Index(score_set.accounts["account_id"])
    cutoff = _column(files, "cutoff").astype("datetime64[us]")
    recent = _recent(score_set, cutoff)
    row = np.full(len(cutoff), -1, dtype=np.int32)
    start = 0
    for batch in (batch for file in files for batch in file.iter_batches(columns=["account_id"])):
        here = slice(start, start := start + len(batch))
        row[here][recent[here]] = ids.get_indexer(batch["account_id"].to_numpy(zero_copy_only=False)[recent[here]])
    place = np.flatnonzero(row >= 0)
    place = place[np.lexsort((cutoff[place], row[place]))]
    ends = np.searchsorted(row[place], row[place], side="right")
    place = place[ends - np.arange(len(place)) <= MOST_POINTS]
    return _Cells(place=place, row=row[place], cutoff=cutoff[place])


def _lines(name: str, wanted: Flags, cells: _Cells, files: Sequence[pq.ParquetFile]) -> pa.Table:
    """Return the courses of one feature, a line an account."""
    chosen = np.flatnonzero(wanted[cells.row])
    values = _column(files, name).astype(np.float32)[cells.place[chosen]]
    rows, lengths = np.unique(cells.row[chosen], return_counts=True)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    columns = {
        "row": pa.array(rows.astype(np.int32)),
        "feature": pa.repeat(name, len(rows)),
        "cutoffs": pa.ListArray.from_arrays(offsets, pa.array(cells.cutoff[chosen])),
        "values": pa.ListArray.from_arrays(offsets, pa.array(values, from_pandas=True)),
    }
    return pa.table(columns, schema=_SCHEMA)
