"""Times by piece: what is counted of the times of telemetry, piece by piece, so that a run reads only the pieces that are new.

Of each piece there is a small file with a row for each account: how many rows there are, when the first and the last happened, how many
happened before the account was there, and how many were recorded oddly. When an account began may be known better later; its rows of a
piece are counted again only where the new time lies between the first and the last of them.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features import clock
from features.engine import Engine
from features.ledger import fingerprint, link_file
from features.pieces import Piece, read_manifest

__all__ = ["LATE_DAYS", "PieceTimes", "count_times"]

LATE_DAYS = 30
"""A row that is recorded so many days after it happened is late."""

_FORMAT = 1
"""Changes with what is counted here, so that files of another version are written anew."""


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


def count_times(engine: Engine, pieces: Path, born: ir.Table, *, earlier: Path, folder: Path) -> PieceTimes | None:
    """Count the times of the pieces that were not counted before, and take the other counts over.

    Parameters
    ----------
    pieces
        The folder of the checked pieces.
    born
        account_id and born, when it began, a timestamp in UTC or missing.
    earlier
        The folder of the counts of the run before; it may not be there.
    folder
        A folder to fill.

    Returns
    -------
    PieceTimes or None
        None where there are no pieces or no rows.
    """
    manifest = read_manifest(pieces)
    if manifest is None or not manifest.rows:
        return None
    folder.mkdir()
    wanted = {_name(piece): pieces / piece.name for piece in manifest.pieces if piece.rows}
    times = _in_microseconds(engine, born)
    for name in wanted:
        if (earlier / name).exists():
            link_file(earlier / name, folder / name)
        else:
            engine.write_parquet(_counted(engine, wanted[name], times), folder / name)
    for name in _outdated(engine, folder, times):
        (folder / name).unlink()  # it may be shared with the earlier folder
        engine.write_parquet(_counted(engine, wanted[name], times), folder / name)
    return PieceTimes(engine=engine, counts=engine.read_parquet([folder / name for name in wanted]))


def _name(piece: Piece) -> str:
    return f"{piece.month}-{fingerprint(_FORMAT, asdict(piece))[:16]}.parquet"


def _in_microseconds(engine: Engine, born: ir.Table) -> ir.Table:
    return born.mutate(born=engine.microseconds(born.born)).rename(born_now="born")


def _counted(engine: Engine, piece: Path, born: ir.Table) -> ir.Table:
    """Count the times of one piece."""
    rows = engine.read_parquet(piece)
    happened = engine.microseconds(rows.occurred_at)
    recorded = engine.microseconds(rows.recorded_at) if "recorded_at" in rows.columns else ibis.null("int64")
    joined = rows.select("account_id", happened=happened, recorded=recorded).left_join(born, "account_id").drop("account_id_right")
    return (
        joined.group_by("account_id")
        .agg(
            rows=joined.count(),
            first=joined.happened.min(),
            last=joined.happened.max(),
            born=joined.born_now.max(),
            early=_sum(~clock.known_by(joined.born_now, joined.happened)),
            recorded=joined.recorded.count(),
            too_early=_sum(~clock.known_by(joined.happened, joined.recorded)),
            too_late=_sum(~clock.known_by(joined.recorded, clock.shifted(joined.happened, LATE_DAYS))),
        )
        .order_by("account_id")
    )


def _sum(is_so: ir.BooleanValue) -> ir.IntegerValue:
    return is_so.cast("int64").sum().fill_null(0).cast("int64")


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
