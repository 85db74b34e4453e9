"""Extracts of the journal, for an auditor: its lines between two times, as JSON Lines or CSV."""

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Literal

import sqlalchemy as sa

from serving.records.store import SERVICE, Store
from serving.records.tables import JOURNAL

__all__ = ["ExtractFormat", "journal_lines", "write_extract"]

ExtractFormat = Literal["jsonl", "csv"]

_COLUMNS = (
    *("line", "at", "caller", "credential", "subject", "role", "action", "outcome"),
    *("account_id", "reason", "score_set", "request_id"),
)
_AT_A_TIME = 1000
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def journal_lines(
    store: Store, *, since: datetime | None = None, until: datetime | None = None, account_id: str | None = None
) -> Iterator[dict[str, object]]:
    """Yield lines of the journal in the order in which they arrived, without ever holding all of them.

    Parameters
    ----------
    since, until
        The first time that is in it, and the first that no longer is; naive, in UTC.
    account_id
        The only account whose lines are wanted.

    Raises
    ------
    StoreDownError
        If the store does not answer.
    """
    query = sa.select(*(JOURNAL.c[name] for name in _COLUMNS)).order_by(JOURNAL.c.line)
    if since is not None:
        query = query.where(JOURNAL.c.at >= since)
    if until is not None:
        query = query.where(JOURNAL.c.at < until)
    if account_id is not None:
        query = query.where(JOURNAL.c.account_id == account_id)
    with store.tenant(SERVICE) as connection:
        for row in connection.execution_options(yield_per=_AT_A_TIME).execute(query).mappings():
            yield dict(row) | {"at": f"{row['at'].isoformat(timespec='microseconds')}Z"}


def write_extract(lines: Iterator[dict[str, object]], file: IO[str], *, form: ExtractFormat) -> int:
    """Write lines to a file and return how many.

    In CSV a text that a spreadsheet would run as a formula gets an apostrophe before it: some of the texts are what strangers asked for.
    """
    written = 0
    table = csv.writer(file, lineterminator="\n")
    if form == "csv":
        table.writerow(_COLUMNS)
    for line in lines:
        written += 1
        if form == "csv":
            table.writerow([_cell(line[name]) for name in _COLUMNS])
        else:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return written


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS_A_FORMULA) else value
