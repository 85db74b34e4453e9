"""The tables of the operational store: credentials, sessions, the journal, and what both sides contribute.

Times are naive, in UTC. A `partner_id` that is null is the vendor's.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

__all__ = [
    "ANSWERS",
    "API_KEYS",
    "CONTRIBUTIONS",
    "FEEDBACK",
    "JOURNAL",
    "METADATA",
    "NEWEST",
    "NOTES",
    "PLAYS",
    "SESSIONS",
    "SIGN_IN_LINKS",
    "now",
]

NEWEST = "0003"
"""The version of these tables; `serving/records/migrations/` leads there from every earlier one."""

METADATA = sa.MetaData()

API_KEYS = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("key_hash", sa.String(64), nullable=False),  # HMAC-SHA256 of the secret part, never the key itself
    sa.Column("partner_id", sa.String, nullable=True),  # null for the vendor
    sa.Column("scopes", sa.String, nullable=False),  # names, parted by blanks
    sa.Column("label", sa.String, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("revoked_at", sa.DateTime, nullable=True),
    sa.Column("role", sa.String, nullable=False, server_default="analyst"),
    sa.Column("expires_at", sa.DateTime, nullable=True),
    sa.Column("replaced_by", sa.String(16), nullable=True),  # the key that took over when this one was rotated
)

SIGN_IN_LINKS = sa.Table(
    "sign_in_links",
    METADATA,
    sa.Column("link_id", sa.String(32), primary_key=True),
    sa.Column("browser_hash", sa.String(64), nullable=False),  # the first browser that used it; no other may
    sa.Column("used_at", sa.DateTime, nullable=False),
)

SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("session_hash", sa.String(64), primary_key=True),  # of what the cookie holds
    sa.Column("partner_id", sa.String, nullable=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("seen_at", sa.DateTime, nullable=False),
    sa.Column("ended_at", sa.DateTime, nullable=True),
)

JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("line", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("credential", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("account_id", sa.String, nullable=True),
    sa.Column("reason", sa.String, nullable=True),
    sa.Column("score_set", sa.String, nullable=True),
    sa.Column("line_id", sa.String, nullable=True),  # given where the line was written first; null in lines older than that
    sa.Column("role", sa.String, nullable=True),
    sa.Column("subject", sa.String, nullable=True),
    sa.Column("request_id", sa.String, nullable=True),
)
sa.Index("journal_by_account", JOURNAL.c.account_id, JOURNAL.c.at)
sa.Index("journal_once", JOURNAL.c.line_id, unique=True)

CONTRIBUTIONS = sa.Table(
    "contributions",
    METADATA,
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
        METADATA,
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

ANSWERS = sa.Table(
    "answers",
    METADATA,
    sa.Column("caller", sa.String, primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),  # the caller's own, of one write
    sa.Column("fingerprint", sa.String(64), nullable=False),  # of the request
    sa.Column("begun_at", sa.DateTime, nullable=False),
    sa.Column("status", sa.Integer, nullable=True),  # null while it is being answered
    sa.Column("media_type", sa.String, nullable=True),
    sa.Column("body", sa.LargeBinary, nullable=True),
)


def now() -> datetime:
    """Return the time, naive in UTC, as the store keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)
