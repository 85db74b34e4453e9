"""Times by piece: what is counted of the times of telemetry, piece by piece, so that a run reads only the pieces that are new.

Of each piece there is a small file with a row for each account: how many rows there are, when the first and the last happened, how many
happened before the account was there, and how many were recorded oddly. When an account began may be known better later; its rows of a
piece are counted again only where the new time lies between the first and the last of them.

A row that stands for several of one day is counted as so many, if all of them happened on the same side of the beginning.
"""

from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import clock
from features.ahead import made_of
from features.engine import Engine
from features.forms import MonthRows, NumberedPiece
from features.ledger import fingerprint, link_file
from features.numbered import NumberedTelemetry

__all__ = ["LATE_DAYS", "PieceTimes", "count_times"]

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LATE_DAYS = 30
"""A row that is recorded so many days after it happened is late."""

_FORMAT = 1
"""Changes with what is counted here, so that files of another version are written anew."""
_DAYS = "days-of-kinds"
_SOON = 16
"""Most accounts come among the first and among the last rows, so many times as many as there are accounts."""
_ALWAYS = np.iinfo(np.int64).min + 1  # the least number stands for no time


@dataclass(frozen=True, kw_only=True, eq=False)
class PieceTimes:
    """The counts of all pieces.

    Parameters
    ----------
    counts
        For each piece and account: `rows`; `first` and `last`, when they happened, and `born`, when the account began, all in microseconds
        since 1970-01-01 UTC, and how many of them are `early`; and of those that were `recorded`, how many before they happened
        (`too_early`) and more than `LATE_DAYS` after (`too_late`).
    """

    engine: Engine
    counts: ir.Table

    def early(self, born: ir.Table) -> ir.Table:
        """Return how many rows there are, `n`, and how many are `early`, by whether the beginning of their account was `created`."""
        counts = _with_early(self.counts, _in_microseconds(self.engine, born))
        return counts.group_by("created").agg(n=counts.rows.sum(), early=counts.now_early.sum())

    def recorded(self) -> ir.Table:
        """Return how many rows have a time of recording, `n`, and how many of them were recorded too `early` and too `late`."""
        return self.counts.aggregate(n=self.counts.recorded.sum(), early=self.counts.too_early.sum(), late=self.counts.too_late.sum())


def count_times(engine: Engine, telemetry: NumberedTelemetry, born: ir.Table, *, earlier: Path, folder: Path) -> PieceTimes:
    """Count the times of the pieces that were not counted before, and take the other counts over.

    Parameters
    ----------
    born
        account_id and born, when it began, a timestamp in UTC or missing.
    earlier
        The folder of the counts of the run before; it may not be there.
    folder
        A folder to fill.
    """
    folder.mkdir()
    pieces = {_name(piece): piece for piece in telemetry.pieces}
    times = _in_microseconds(engine, born)
    began = _by_number(engine, telemetry, times)

    def count(name: str) -> None:
        pq.write_table(_counted(telemetry, pieces[name], began), folder / name, compression="zstd")

    kept = [name for name in pieces if (earlier / name).exists()]
    for name in kept:
        link_file(earlier / name, folder / name)
    made_of([name for name in pieces if name not in kept], count)
    outdated = _outdated(engine, folder, times)
    for name in outdated:
        (folder / name).unlink()  # it may be shared with the earlier folder
    made_of(outdated, count)
    return PieceTimes(engine=engine, counts=engine.read_parquet([folder / name for name in pieces]))


def _name(piece: NumberedPiece) -> str:
    return f"{piece.month}-{fingerprint(_FORMAT, piece.key)[:16]}.parquet"


def _in_microseconds(engine: Engine, born: ir.Table) -> ir.Table:
    return born.mutate(born=engine.microseconds(born.born)).rename(born_now="born")


def _by_number(engine: Engine, telemetry: NumberedTelemetry, born: ir.Table) -> Ints:
    """Return when each numbered account began, `_ALWAYS` where nobody knows."""
    found = engine.to_arrow(born.select("account_id", "born_now"))
    began = found["born_now"].take(pc.index_in(telemetry.account_ids, value_set=found["account_id"]))
    return np.asarray(began.fill_null(_ALWAYS).to_numpy(), dtype=np.int64)


def _counted(telemetry: NumberedTelemetry, piece: NumberedPiece, began: Ints) -> pa.Table:
    """Count the times of one piece."""
    rows, n_accounts = _rows(telemetry, piece, began), len(began)
    there = _count(rows, slice(None), n_accounts)
    first, last = _ends(rows, there)
    found = {"rows": there, "first": first, "last": last, "early": _early(rows, began, there, first=first, last=last)}
    found |= dict.fromkeys(("recorded", "too_early", "too_late"), np.zeros_like(there))
    if "recorded_at" in piece.columns:
        known = rows.columns["known"]  # when the row happened, where nobody recorded it
        found["recorded"] = there - _count(rows, rows.columns["unrecorded"], n_accounts)
        found["too_early"] = _count(rows, clock.came_after(rows.time, known), n_accounts)
        found["too_late"] = _count(rows, clock.came_after(known, clock.shifted(rows.time, LATE_DAYS)), n_accounts)
    accounts = np.flatnonzero(there)
    born = pa.array(began[accounts], mask=began[accounts] == _ALWAYS)
    counts = {name: values[accounts] for name, values in found.items()}
    return pa.table({"account_id": telemetry.account_ids.take(pa.array(accounts)), "born": born} | counts)


def _rows(telemetry: NumberedTelemetry, piece: NumberedPiece, began: Ints) -> MonthRows:
    """Return the rows of a piece, folded to days unless they tell when they were recorded or an account began within a folded row."""
    if _DAYS in piece.extracts and "recorded_at" not in piece.columns:
        folded = _read(telemetry.file(piece, _DAYS), ["account", "time", "oldest", "rows"])
        born = began[folded.columns["account"]]
        if not np.any(clock.came_after(born, folded.oldest) & ~clock.came_after(born, folded.time)):
            return folded
    if piece.is_short:
        return MonthRows.joined(telemetry.left_out.read(piece))
    return _read(telemetry.file(piece), ["account", "time", *(("known", "unrecorded") if "recorded_at" in piece.columns else ())])


def _read(path: Path, columns: list[str]) -> MonthRows:
    with pq.ParquetFile(path) as file:
        read = file.read(columns=columns, use_threads=False)
    arrays = {name: read[name].to_numpy() for name in columns}
    return MonthRows(arrays["time"], arrays)


def _count(rows: MonthRows, of: Flags | slice, n_accounts: int) -> Ints:
    """Count some of the rows of each account; to find few of many costs less than to look at the accounts of all."""
    at = of if isinstance(of, slice) else np.flatnonzero(of)
    weights = None if rows.weights is None else rows.weights[at]
    return np.bincount(rows.columns["account"][at], weights=weights, minlength=n_accounts).astype(np.int64)


def _ends(rows: MonthRows, there: Ints) -> tuple[Ints, Ints]:
    """Return when the first and the last row of each account happened; all rows are looked at only for accounts that come seldom."""
    account, time = rows.columns["account"], rows.time
    first, last = np.zeros_like(there), np.zeros_like(there)
    n_soon = _SOON * np.count_nonzero(there)
    first[account[:n_soon][::-1]] = time[:n_soon][::-1]  # of several times for an account the one written last stays
    last[account[-n_soon:]] = time[-n_soon:]
    came = np.zeros((2, len(there)), dtype=bool)
    came[0, account[:n_soon]] = came[1, account[-n_soon:]] = True
    at = np.flatnonzero(((there > 0) & ~came.all(axis=0)).take(account))
    first[account[at][::-1]] = time[at][::-1]
    last[account[at]] = time[at]
    if rows.oldest is not time:
        np.minimum.at(first, account, rows.oldest)
    return first, last


def _early(rows: MonthRows, began: Ints, there: Ints, *, first: Ints, last: Ints) -> Ints:
    """Count the rows before the beginning of each account; they are looked at only where it lies between the first and the last."""
    is_later = clock.came_after(began, last)
    between = clock.came_after(began, first) & ~is_later & (there > 0)
    early = np.where(is_later, there, 0)
    if between.any():
        some = rows.take(np.flatnonzero(between.take(rows.columns["account"])))
        early += _count(some, clock.came_after(began[some.columns["account"]], some.time), len(began))
    return early


def _with_early(counts: ir.Table, born: ir.Table) -> ir.Table:
    """Add `now_early`, how many rows are early by what is known now of when their accounts began, to rows of accounts where it is known."""
    joined = counts.join(born.filter(born.born_now.notnull()), "account_id")
    inside = ibis.ifelse(clock.known_by(joined.born_now, joined.last), joined.early, joined.rows)
    return joined.mutate(now_early=ibis.ifelse(clock.known_by(joined.born_now, joined.first), 0, inside))


def _outdated(engine: Engine, folder: Path, born: ir.Table) -> list[str]:
    """Return the files in which an account has rows on both sides of a beginning that is another than the one they were held against."""
    counts = engine.read_parquet(folder / "*.parquet", filename=True)
    joined = counts.join(born, "account_id")
    between = clock.known_by(joined.born_now, joined.last) & ~clock.known_by(joined.born_now, joined.first)
    changed = joined.filter(between & ~joined.born.identical_to(joined.born_now)).select("filename").distinct()
    return sorted(Path(name).name for name in engine.to_arrow(changed)["filename"].to_pylist())
