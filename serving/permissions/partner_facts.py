"""What the tables say about partners when a book is scored: who they are, which accounts they manage and when, what they supplied."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.contributed import VENDOR_SOURCE
from serving.permissions.assignments import Assignments, Term
from serving.permissions.supplies import ABOUT_PARTNERS, SUPPLIED, Supply

__all__ = ["PartnerRow", "read_partners", "read_supplies", "read_terms"]


@dataclass(frozen=True, kw_only=True)
class PartnerRow:
    """One partner; what is not known is None."""

    partner_id: str
    name: str
    type: str | None = None
    tier: str | None = None
    region: str | None = None


def read_partners(tables: Path) -> list[PartnerRow]:
    """Return the partners; none without a table of them."""
    return [PartnerRow(**row) for row in _rows(tables / "partners.parquet", ("partner_id", "name", "type", "tier", "region"))]


def read_terms(tables: Path) -> list[Term]:
    """Return all rows of the table of assignments, the coming ones included; none without such a table."""
    return [Term(**row) for row in _rows(tables / "assignments.parquet", ("account_id", "partner_id", "valid_from", "valid_to"))]


def read_supplies(
    tables: Path, account_ids: Sequence[str], assignments: Assignments, *, cutoff: datetime, earlier_at: Sequence[datetime | None]
) -> list[Supply]:
    """Return which partners' data each account's values were made from.

    Every row of engagement that names a source other than the vendor counts, whenever it became known: it is better to keep a driver
    from a later partner that holds nothing of the former one's than to show one that does.

    Parameters
    ----------
    account_ids
        In the score set's order.
    earlier_at
        When the earlier values of each account are from; None if it has none.
    """
    rows = {account_id: row for row, account_id in enumerate(account_ids)}
    given = [Supply(rows[account_id], SUPPLIED, source) for account_id, source in _sources(tables) if account_id in rows]
    about = [
        Supply(row, ABOUT_PARTNERS, partner)
        for row, earlier in enumerate(earlier_at)
        for partner in {assignments.partner_of(row, instant) for instant in (cutoff, earlier) if instant is not None}
        if partner is not None
    ]
    return given + about


def _sources(tables: Path) -> list[tuple[str, str]]:
    """Return the pairs of account and source, other than the vendor, in the table of engagement."""
    path = tables / f"{SUPPLIED}.parquet"
    if not path.exists() or "source" not in pq.read_schema(path).names:
        return []
    table = pq.read_table(path, columns=["account_id", "source"])
    foreign = table.filter(pc.fill_null(pc.not_equal(pc.utf8_lower(table["source"]), VENDOR_SOURCE), False))
    pairs = foreign.group_by(["account_id", "source"]).aggregate([])
    return list(zip(pairs["account_id"].to_pylist(), pairs["source"].to_pylist(), strict=True))


def _rows(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    known = [name for name in names if name in pq.read_schema(path).names]
    table: pa.Table = pq.read_table(path, columns=known)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
