"""What Alembic runs for each upgrade of the store; `serving.records.store` hands it an open connection."""

from alembic import context

from serving.records.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
