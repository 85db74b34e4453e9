"""Keys, sign-in links and the journal: what a store held before it had versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSE = "the journal is append only"


def upgrade() -> None:
    """Make the tables of the first store."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("partner_id", sa.String, nullable=True),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("revoked_at", sa.DateTime, nullable=True),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("link_id", sa.String(32), primary_key=True),
        sa.Column("browser_hash", sa.String(64), nullable=False),
        sa.Column("used_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "journal",
        sa.Column("line", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("account_id", sa.String, nullable=True),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("score_set", sa.String, nullable=True),
    )
    op.create_index("journal_by_account", "journal", ["account_id", "at"])
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER journal_no_{operation} BEFORE {operation} ON journal BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END"
        for operation in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        f"""
        CREATE FUNCTION renewcast_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{_REFUSE}' USING ERRCODE = 'integrity_constraint_violation'; END $$
        """,
        "CREATE TRIGGER journal_only_grows BEFORE UPDATE OR DELETE ON journal FOR EACH ROW EXECUTE FUNCTION renewcast_append_only()",
        "CREATE TRIGGER journal_is_kept BEFORE TRUNCATE ON journal FOR EACH STATEMENT EXECUTE FUNCTION renewcast_append_only()",
    ],
}
