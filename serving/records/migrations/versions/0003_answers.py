"""What was answered to writes, so that they are done once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SERVICE = "current_setting('renewcast.tenant', true) = 'service'"


def upgrade() -> None:
    """Add the table of answers, which is the service's own."""
    op.create_table(
        "answers",
        sa.Column("caller", sa.String, primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("begun_at", sa.DateTime, nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("media_type", sa.String, nullable=True),
        sa.Column("body", sa.LargeBinary, nullable=True),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE answers ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE answers FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY service ON answers USING ({_SERVICE}) WITH CHECK ({_SERVICE})")
