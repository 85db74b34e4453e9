"""What comes to this machine of a lake's tables, so that a book that is scored there is shown and judged here like any other.

Tables that describe something (accounts, subscriptions, partners, assignments) come whole. Of tables of events comes what scoring looks up
in them: of telemetry when each account was first seen, of engagement all rows about accounts of which a partner supplied some, and of
every table when it was last heard of.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from features import clock
from features.contributed import TABLE, VENDOR_SOURCE
from features.ledger import replace_folder
from features.queries import QueryEngine

__all__ = ["copy_book_tables"]

_WHOLE = ("accounts", "subscriptions", "partners", "assignments")


def copy_book_tables(engine: QueryEngine, tables: Mapping[str, ir.Table], folder: Path, *, end: datetime) -> None:
    """Write what is looked up in tables to a folder, in place of what was there.

    Parameters
    ----------
    end
        The scoring cutoff, UTC: of events only what was known then is looked up.
    """
    with replace_folder(folder) as new:
        for name, rows in tables.items():
            pq.write_table(engine.to_arrow(_needed(engine, rows, name, end)), new / f"{name}.parquet", compression="zstd")


def _needed(engine: QueryEngine, rows: ir.Table, name: str, end: datetime) -> ir.Table:
    if name in _WHOLE:
        return rows
    known = rows.filter(clock.known_by(engine.microseconds(rows.known_at), ibis.literal(clock.microseconds(end), "int64")))
    if name == "telemetry":
        return known.group_by("account_id").agg(occurred_at=known.occurred_at.min(), known_at=known.known_at.max())
    newest = known.aggregate(newest=known.known_at.max())
    newest_rows = known.semi_join(newest, known.known_at == newest.newest)
    if name != TABLE or "source" not in rows.columns:
        return newest_rows
    about = rows.filter(rows["source"].lower() != VENDOR_SOURCE).select("account_id").distinct()
    return rows.semi_join(about, "account_id").union(newest_rows.anti_join(about, "account_id"))
