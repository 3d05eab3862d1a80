"""Run by alembic for every command, and never imported: binds the steps to the connection of whoever has called."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", transaction_per_migration=True)
else:
    context.configure(
        connection=attributes["connection"], transaction_per_migration=True, on_version_apply=attributes["note"]
    )
with context.begin_transaction():
    context.run_migrations()
