"""The operational store: API keys, sign-in links and the journal, in SQLite beside the workspace's other state.

The journal is append only: the database itself refuses to change or delete a line of it.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__ = ["API_KEYS", "CONTRIBUTIONS", "FEEDBACK", "JOURNAL", "NOTES", "PLAYS", "SIGN_IN_LINKS", "now", "open_store"]

_METADATA = sa.MetaData()

API_KEYS = sa.Table(
    "api_keys",
    _METADATA,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("key_hash", sa.String(64), nullable=False),  # HMAC-SHA256 of the secret part, never the key itself
    sa.Column("partner_id", sa.String, nullable=True),  # null for the vendor
    sa.Column("scopes", sa.String, nullable=False),  # names, parted by blanks
    sa.Column("label", sa.String, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("revoked_at", sa.DateTime, nullable=True),
)

SIGN_IN_LINKS = sa.Table(
    "sign_in_links",
    _METADATA,
    sa.Column("link_id", sa.String(32), primary_key=True),
    sa.Column("browser_hash", sa.String(64), nullable=False),  # the first browser that used it; no other may
    sa.Column("used_at", sa.DateTime, nullable=False),
)

JOURNAL = sa.Table(
    "journal",
    _METADATA,
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("credential", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("account_id", sa.String, nullable=True),
    sa.Column("reason", sa.String, nullable=True),
    sa.Column("score_set", sa.String, nullable=True),
)
sa.Index("journal_by_account", JOURNAL.c.account_id, JOURNAL.c.at)

CONTRIBUTIONS = sa.Table(
    "contributions",
    _METADATA,
    sa.Column("contribution_id", sa.String(32), primary_key=True),  # its accepted rows are in the file of this name
    sa.Column("partner_id", sa.String, nullable=False),
    sa.Column("received_at", sa.DateTime, nullable=False),
    sa.Column("subject", sa.String, nullable=True),  # who gave it, as the credential names the person or application
    sa.Column("role", sa.String, nullable=True),
    sa.Column("credential", sa.String, nullable=False),
    sa.Column("file_name", sa.String, nullable=True),  # as the partner called it; null for rows sent as JSON
    sa.Column("content_hash", sa.String(64), nullable=False),  # SHA-256 of what was sent
    sa.Column("given", sa.Integer, nullable=False),
    sa.Column("accepted", sa.Integer, nullable=False),
    sa.Column("duplicates", sa.Integer, nullable=False),
    sa.Column("quarantined", sa.Integer, nullable=False),
    sa.Column("findings", sa.JSON, nullable=False),  # reasons with their counts, and the first broken rows with theirs
    sa.Column("withdrawn_at", sa.DateTime, nullable=True),
    sa.Column("withdrawn_by", sa.String, nullable=True),
)
_STANDS = CONTRIBUTIONS.c.withdrawn_at.is_(None)
sa.Index(
    "contributions_once",
    CONTRIBUTIONS.c.partner_id,
    CONTRIBUTIONS.c.content_hash,
    unique=True,
    sqlite_where=_STANDS,
    postgresql_where=_STANDS,
)


def _of_an_account(name: str, key: str, *columns: sa.Column[Any]) -> sa.Table:
    """Declare a table of what people of either side say about an account; `partner_id` is null for the vendor's."""
    table = sa.Table(
        name,
        _METADATA,
        sa.Column(key, sa.String(32), primary_key=True),
        sa.Column("partner_id", sa.String, nullable=True),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("recorded_at", sa.DateTime, nullable=False),
        sa.Column("subject", sa.String, nullable=True),
        sa.Column("role", sa.String, nullable=True),
        sa.Column("credential", sa.String, nullable=False),
        *columns,
    )
    sa.Index(f"{name}_by_account", table.c.account_id, table.c.recorded_at)
    return table


NOTES = _of_an_account(
    "notes",
    "note_id",
    sa.Column("occurred_at", sa.DateTime, nullable=False),
    sa.Column("text", sa.String, nullable=False),
    sa.Column("contribution_id", sa.String(32), nullable=True),  # null for a note that was written by itself
)

PLAYS = _of_an_account(
    "plays",
    "play_id",
    sa.Column("play", sa.String, nullable=False),
    sa.Column("performed_at", sa.DateTime, nullable=False),
    sa.Column("category", sa.String, nullable=False),
    sa.Column("cost", sa.Float, nullable=True),
    sa.Column("note", sa.String, nullable=True),
)

FEEDBACK = _of_an_account(
    "feedback",
    "feedback_id",
    sa.Column("target", sa.String, nullable=False),
    sa.Column("agrees", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=True),  # a code
    sa.Column("words", sa.String, nullable=True),
    sa.Column("score_set", sa.String, nullable=False),  # the one that was looked at
    sa.Column("probability", sa.Float, nullable=False),  # and what it said
)

_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS journal_no_{operation} BEFORE {operation} ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append only'); END
"""


def open_store(path: Path) -> sa.Engine:
    """Open the store in a file, and make its tables if they are not there; dispose of it when done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
    sa.event.listen(store, "connect", _prepare_connection)
    with store.begin() as connection:
        # one writer at a time makes the tables: two workers may start at once
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _METADATA.create_all(connection)
        for operation in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(_APPEND_ONLY.format(operation=operation))
    path.chmod(0o600)
    return store


def now() -> datetime:
    """Return the time, naive in UTC, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _prepare_connection(connection: Any, _record: object) -> None:
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"):
        connection.execute(statement)
