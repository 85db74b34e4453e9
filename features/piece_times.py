"""Times by piece: what is counted of the times of telemetry, piece by piece, so that a run reads only the pieces that are new.

Of each piece there is a small file with a row for each account: how many rows there are, when the first and the last happened, how many
happened before the account was there, and how many were recorded oddly. When an account began may be known better later; its rows of a
piece are counted again only where the new time lies between the first and the last of them.

A row that stands for several of one day is counted as so many, if all of them happened on the same side of the beginning.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
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
from features.running import Extremes

__all__ = ["LATE_DAYS", "PieceTimes", "count_times"]

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LATE_DAYS = 30
"""A row that is recorded so many days after it happened is late."""

_FORMAT = 1
"""Changes with what is counted here, so that files of another version are written anew."""
_DAYS = "days-of-kinds"
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
    n_accounts, ends = len(began), Extremes(len(began), with_oldest=True)
    counts = {name: np.zeros(n_accounts, dtype=np.int64) for name in ("rows", "recorded", "too_early", "too_late")}
    read = _reader(telemetry, piece, began)
    for rows in read():
        there = _count(rows, slice(None), n_accounts)
        counts["rows"] += there
        ends.add(rows.time, rows.columns["account"], None if rows.weights is None else rows.oldest)
        if "recorded_at" in piece.columns:
            known = rows.columns["known"]  # when the row happened, where nobody recorded it
            counts["recorded"] += there - _count(rows, rows.columns["unrecorded"], n_accounts)
            counts["too_early"] += _count(rows, clock.came_after(rows.time, known), n_accounts)
            counts["too_late"] += _count(rows, clock.came_after(known, clock.shifted(rows.time, LATE_DAYS)), n_accounts)
    assert ends.oldest is not None
    counts |= {"first": ends.oldest, "last": ends.newest}
    is_later = clock.came_after(began, ends.newest)
    counts["early"] = np.where(is_later, counts["rows"], 0)
    between = clock.came_after(began, ends.oldest) & ~is_later & (counts["rows"] > 0)
    for rows in read() if between.any() else ():
        some = rows.take(np.flatnonzero(between.take(rows.columns["account"])))
        counts["early"] += _count(some, clock.came_after(began[some.columns["account"]], some.time), n_accounts)
    accounts = np.flatnonzero(counts["rows"])
    born = pa.array(began[accounts], mask=began[accounts] == _ALWAYS)
    of_accounts = {name: values[accounts] for name, values in counts.items()}
    return pa.table({"account_id": telemetry.account_ids.take(pa.array(accounts)), "born": born} | of_accounts)


def _reader(telemetry: NumberedTelemetry, piece: NumberedPiece, began: Ints) -> Callable[[], Iterable[MonthRows]]:
    """Return what reads a piece, some rows at a time in the order of time.

    Rows are folded to days, unless they tell when they were recorded or an account began within a folded row.
    """
    is_recorded = "recorded_at" in piece.columns
    if _DAYS in piece.extracts and not is_recorded:
        folded = partial(telemetry.blocks, piece, _DAYS, ["time", "account", "rows", "oldest"])
        if not any(_began_within(rows, began) for rows in folded()):
            return folded
    if piece.is_short:
        left_out = telemetry.left_out.read(piece)
        return lambda: left_out
    return partial(telemetry.blocks, piece, "", ["time", "account", *(("known", "unrecorded") if is_recorded else ())])


def _began_within(rows: MonthRows, began: Ints) -> bool:
    """Tell whether an account began after the first and not after the last of the rows for which one stands."""
    born = began[rows.columns["account"]]
    return bool(np.any(clock.came_after(born, rows.oldest) & ~clock.came_after(born, rows.time)))


def _count(rows: MonthRows, of: Flags | slice, n_accounts: int) -> Ints:
    """Count some of the rows of each account; to find few of many costs less than to look at the accounts of all."""
    at = of if isinstance(of, slice) else np.flatnonzero(of)
    weights = None if rows.weights is None else rows.weights[at]
    return np.bincount(rows.columns["account"][at], weights=weights, minlength=n_accounts).astype(np.int64)


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
