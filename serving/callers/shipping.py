"""Takes lines of the journal from local segments to the store, each exactly once.

A segment is removed only after the transaction that holds its last line; whoever ships a line again, because a process ended in between,
finds that its id is there already. The database itself takes the lines apart: hundreds at a time cost this process next to nothing.
"""

import json
import logging
from itertools import islice

import sqlalchemy as sa

from serving.callers.spool import Segment, Segments
from serving.records.store import SERVICE, Store

__all__ = ["ship"]

_LOG = logging.getLogger("renewcast.serving")

_LINES_AT_A_TIME = 1000

_COLUMNS = (
    *("line_id", "at", "caller", "credential", "role", "subject", "action", "outcome"),
    *("account_id", "reason", "score_set", "request_id"),
)
_INTO = f"INSERT INTO journal ({', '.join(_COLUMNS)})"
_ONCE = "ON CONFLICT (line_id) DO NOTHING"
_PARTS = ", ".join(f"json_extract(value, '$.{column}')" for column in _COLUMNS)
_TYPES = ", ".join(f"{column} {'timestamp' if column == 'at' else 'text'}" for column in _COLUMNS)

_INSERT = {
    "sqlite": sa.text(f"{_INTO} SELECT {_PARTS} FROM json_each(:lines) WHERE true {_ONCE}"),
    "postgresql": sa.text(f"{_INTO} SELECT {', '.join(_COLUMNS)} FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS line({_TYPES}) {_ONCE}"),
}


def ship(segments: Segments, store: Store) -> int:
    """Move the finished segments to the store, and return how many lines were new there.

    Raises
    ------
    StoreDownError
        If the store is down; what was not moved stays where it is.
    """
    if not segments.held and not any(segments.backlog()):
        return 0
    with store.tenant(SERVICE):
        pass  # a store that is down is found out before a segment is ended for it
    shipped = sum(_ship_segment(segment, store) for segment in segments.finished())
    if held := segments.held:
        shipped += _insert([line for part in held for line in part.splitlines()], store)
        segments.release(held)
    return shipped


def _ship_segment(segment: Segment, store: Store) -> int:
    shipped = spoilt = 0
    try:
        lines = segment.lines()
        while batch := list(islice(lines, _LINES_AT_A_TIME)):
            whole = [line for line in batch if _is_whole(line)]
            spoilt += len(batch) - len(whole)
            shipped += _insert(whole, store)
    except BaseException:
        segment.close()
        raise
    if spoilt:
        _LOG.error("%d lines of %s cannot be read; the file is kept as .damaged", spoilt, segment.path.name)
        segment.set_aside()
    else:
        segment.remove()
    return shipped


def _insert(lines: list[bytes], store: Store) -> int:
    with store.tenant(SERVICE) as connection:
        return connection.execute(_INSERT[connection.dialect.name], {"lines": f"[{b','.join(lines).decode('ascii')}]"}).rowcount


def _is_whole(line: bytes) -> bool:
    """Tell whether a failing disk has spoilt the line; the others must not wait for it."""
    if line.startswith(b'{"line_id": "') and line.endswith(b"}") and line.isascii():
        return True
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
