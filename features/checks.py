"""What a check found: rows in and out, and every reason with its count."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["CheckSummary", "RowCounts", "TableCheck"]


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """What became of some rows of a table."""

    rows_in: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """What the check of one table found; `rows_in = rows_out + quarantined`.

    Parameters
    ----------
    left_out
        Rows that the workspace's own `where` left out; they are not among `rows_in`.
    reasons
        Quarantined rows by reason. A row with two reasons counts for both.
    blanked
        Values that were emptied, by reason; their rows stayed.
    noticed
        What was read all the same, such as numbers written as text, and rows kept although they are doubtful.
    empty
        How many rows leave a column of the source empty, used or not; a record that lacks it counts too.
    limit
        The share of rows that may be quarantined.
    columns
        Where each column comes from.
    unused
        Columns of the sources that nothing is taken from.
    missing
        Columns of the contract that the sources do not offer.
    quarantine_file
        The file that lists every row quarantined and every value blanked; None if there is none.
    contributed
        By contribution, the rows among these that partners contributed.
    read, unchanged
        How many files were read, and how many are as they were at the last check and were not read again.
    """

    table: str
    rows_in: int
    rows_out: int
    quarantined: int
    left_out: int
    reasons: Mapping[str, int]
    blanked: Mapping[str, int]
    noticed: Mapping[str, int]
    empty: Mapping[str, int]
    limit: float
    columns: Mapping[str, str]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    quarantine_file: str | None
    seconds: float
    contributed: Mapping[str, RowCounts] = field(default_factory=dict)
    read: int = 0
    unchanged: int = 0

    @property
    def own(self) -> RowCounts:
        """The workspace's own rows, those that no partner contributed."""
        contributed = self.contributed.values()
        return RowCounts(
            rows_in=self.rows_in - sum(rows.rows_in for rows in contributed),
            quarantined=self.quarantined - sum(rows.quarantined for rows in contributed),
        )

    @property
    def share_quarantined(self) -> float:
        """The share of the workspace's own rows that were quarantined: no partner's contribution can stop the vendor's run."""
        return self.own.quarantined / self.own.rows_in if self.own.rows_in else 0.0


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """What the check of a workspace found.

    Parameters
    ----------
    missing_tables
        Optional tables that the workspace does not have; their features are dropped.
    data_from, data_until
        The earliest and latest instant at which anything that happened became known, in UTC; the config's own `data_until` goes first.
    """

    tables: tuple[TableCheck, ...]
    missing_tables: tuple[str, ...]
    data_from: datetime | None
    data_until: datetime | None
    seconds: float

    def table(self, name: str) -> TableCheck:
        """Return one table's check."""
        return next(table for table in self.tables if table.table == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values that JSON can hold."""
        whole: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=_plain))
        return whole


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
