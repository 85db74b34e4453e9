"""Sampled telemetry: rows of some accounts with numbers for texts, read once and held by the engine.

It is for features that are computed a second time, to be held against the first: of these rows nothing is counted but by the engine.
Accounts and users have other numbers than elsewhere, so that a feature which depends on numbers differs.

But: that numbered telemetry holds what the checked pieces hold is taken for granted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features import clock
from features.ahead import made_of
from features.forms import NOTHING, MonthRows, NumberedPiece
from features.numbered import NumberedTelemetry
from features.queries import QueryEngine

__all__ = ["SampledTelemetry", "sample_telemetry"]

Numbers = npt.NDArray[np.int32]

_NO_ROWS = MonthRows(np.empty(0, dtype=np.int64), {"time": np.empty(0, dtype=np.int64), "account": np.empty(0, dtype=np.int32)})


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledTelemetry:
    """Rows of numbered telemetry that the engine holds.

    Parameters
    ----------
    account_ids
        The accounts by the numbers that they have here: strings, shape `(n_accounts,)`.
    rows
        The number of rows.
    held
        The rows, with the columns of `telemetry`'s files.
    """

    telemetry: NumberedTelemetry
    account_ids: pa.Array
    rows: int
    held: ir.Table

    def table(self, engine: QueryEngine, levels: Mapping[str, Sequence[str]]) -> ir.Table:
        """Return the rows as `NumberedTelemetry.table` does."""
        return engine.layer(self.telemetry.looked_up(self.held, levels))


def sample_telemetry(
    engine: QueryEngine, telemetry: NumberedTelemetry, account_ids: pa.Array, *, until: int | None = None
) -> SampledTelemetry:
    """Read the rows of some accounts.

    Parameters
    ----------
    account_ids
        Strings, each once; there may be accounts without rows.
    until
        Take what was known by then, in microseconds since 1970-01-01 UTC, and leave files of what became known later closed; take
        everything if None.
    """
    numbers = pc.index_in(telemetry.account_ids, value_set=account_ids).fill_null(-1).to_numpy()
    past = [piece for piece in telemetry.pieces if until is None or clock.was_known(piece.first_known, until)]
    pieces = past or telemetry.pieces[:1]
    columns = {name for piece in pieces for name in piece.stored}
    last_user = len(telemetry.user_accounts) - 1

    def read(piece: NumberedPiece) -> list[pa.Table]:
        blocks = (_past(rows, piece, until) for rows in _blocks(telemetry, piece, numbers >= 0))
        return [_table(rows, columns, numbers, last_user=last_user) for rows in blocks]

    rows = pa.concat_tables(chain.from_iterable(made_of(pieces, read)))
    held = engine.table(engine.hold(rows, name="rows_of_sample"), name="sampled_telemetry")
    return SampledTelemetry(telemetry=telemetry, account_ids=account_ids, rows=len(rows), held=held)


def _blocks(telemetry: NumberedTelemetry, piece: NumberedPiece, of: npt.NDArray[np.bool_]) -> Iterable[MonthRows]:
    """Return the rows of some accounts, block by block; files of rows that were left out stay unwritten."""
    if piece.is_short:
        return telemetry.left_out.read(piece, of=of) or [_NO_ROWS]
    return (rows.take(np.flatnonzero(of.take(rows.columns["account"]))) for rows in telemetry.blocks(piece, "", piece.stored))


def _past(rows: MonthRows, piece: NumberedPiece, until: int | None) -> MonthRows:
    """Return what was known by an instant of the rows of a piece."""
    if until is None or clock.was_known(piece.last_known, until):
        return rows
    return rows.take(np.flatnonzero(~clock.came_after(rows.columns.get("known", rows.time), until)))


def _table(rows: MonthRows, columns: Collection[str], numbers: Numbers, *, last_user: int) -> pa.Table:
    """Return rows with other numbers for accounts, and for users, who are numbered from the last to the first."""
    user = rows.columns.get("user_id", NOTHING["user_id"])
    changed: dict[str, Any] = {
        "account": numbers.take(rows.columns["account"]),
        "user_id": np.where(user < 0, user, np.int32(last_user) - user),
    }
    found: dict[str, Any] = {"known": rows.time, **NOTHING, **rows.columns, **changed}
    return pa.table({name: pa.array(np.broadcast_to(found[name], len(rows.time)), from_pandas=True) for name in sorted(columns)})
