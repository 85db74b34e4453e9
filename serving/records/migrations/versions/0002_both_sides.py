"""Roles, expiry and rotation of keys, sessions, who said what about accounts; on PostgreSQL row-level security on all of it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen keys and journal, add the tables of sessions and contributions, and put up the wall between tenants."""
    op.add_column("api_keys", sa.Column("role", sa.String, nullable=False, server_default="analyst"))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime, nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", sa.String(16), nullable=True))
    for name in ("line_id", "role", "subject", "request_id"):
        op.add_column("journal", sa.Column(name, sa.String, nullable=True))
    op.create_index("journal_once", "journal", ["line_id"], unique=True)
    op.create_table(
        "sessions",
        sa.Column("session_hash", sa.String(64), primary_key=True),
        sa.Column("partner_id", sa.String, nullable=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("seen_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime, nullable=True),
    )
    _contributions()
    _of_an_account(
        "notes",
        "note_id",
        sa.Column("occurred_at", sa.DateTime, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("contribution_id", sa.String(32), nullable=True),
    )
    _of_an_account(
        "plays",
        "play_id",
        sa.Column("play", sa.String, nullable=False),
        sa.Column("performed_at", sa.DateTime, nullable=False),
        sa.Column("category", sa.String, nullable=False),
        sa.Column("cost", sa.Float, nullable=True),
        sa.Column("note", sa.String, nullable=True),
    )
    _of_an_account(
        "feedback",
        "feedback_id",
        sa.Column("target", sa.String, nullable=False),
        sa.Column("agrees", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("words", sa.String, nullable=True),
        sa.Column("score_set", sa.String, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _wall_off_tenants()


def _contributions() -> None:
    op.create_table(
        "contributions",
        sa.Column("contribution_id", sa.String(32), primary_key=True),
        sa.Column("partner_id", sa.String, nullable=False),
        sa.Column("received_at", sa.DateTime, nullable=False),
        sa.Column("subject", sa.String, nullable=True),
        sa.Column("role", sa.String, nullable=True),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("file_name", sa.String, nullable=True),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("given", sa.Integer, nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("quarantined", sa.Integer, nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("withdrawn_at", sa.DateTime, nullable=True),
        sa.Column("withdrawn_by", sa.String, nullable=True),
    )
    stands = sa.text("withdrawn_at IS NULL")
    columns = ["partner_id", "content_hash"]
    op.create_index("contributions_once", "contributions", columns, unique=True, sqlite_where=stands, postgresql_where=stands)


def _of_an_account(name: str, key: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        name,
        sa.Column(key, sa.String(32), primary_key=True),
        sa.Column("partner_id", sa.String, nullable=True),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("recorded_at", sa.DateTime, nullable=False),
        sa.Column("subject", sa.String, nullable=True),
        sa.Column("role", sa.String, nullable=True),
        sa.Column("credential", sa.String, nullable=False),
        *columns,
    )
    op.create_index(f"{name}_by_account", name, ["account_id", "recorded_at"])


# A transaction that names no tenant, or an empty one, compares with NULL or '' below and finds nothing.
_TENANT = "current_setting('renewcast.tenant', true)"
_SERVICE = f"{_TENANT} = 'service'"
_OWN = f"({_TENANT} = 'partner:' || partner_id OR ({_TENANT} = 'vendor' AND partner_id IS NULL))"
_OWN_OR_VENDOR_ASKS = f"({_TENANT} = 'vendor' OR {_TENANT} = 'partner:' || partner_id)"
_SAID_TO_ME = f"({_OWN_OR_VENDOR_ASKS} OR ({_TENANT} LIKE 'partner:%' AND partner_id IS NULL))"
_MY_LINES = f"({_TENANT} = 'vendor' OR {_TENANT} = caller)"

_MAY_READ_AND_WRITE = {
    "api_keys": (_SERVICE, _SERVICE),
    "sign_in_links": (_SERVICE, _SERVICE),
    "sessions": (_SERVICE, _SERVICE),
    "journal": (f"{_SERVICE} OR {_MY_LINES}", _SERVICE),
    "contributions": (f"{_SERVICE} OR {_OWN_OR_VENDOR_ASKS}", f"{_SERVICE} OR {_OWN_OR_VENDOR_ASKS}"),
    **dict.fromkeys(("notes", "plays", "feedback"), (f"{_SERVICE} OR {_SAID_TO_ME}", f"{_SERVICE} OR {_OWN}")),
}


def _wall_off_tenants() -> None:
    for table, (reads, writes) in _MAY_READ_AND_WRITE.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY reads ON {table} FOR SELECT USING ({reads})")
        op.execute(f"CREATE POLICY adds ON {table} FOR INSERT WITH CHECK ({writes})")
        if table != "journal":
            op.execute(f"CREATE POLICY changes ON {table} FOR UPDATE USING ({writes}) WITH CHECK ({writes})")
            op.execute(f"CREATE POLICY removes ON {table} FOR DELETE USING ({writes})")
