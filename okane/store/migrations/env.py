"""Run by alembic for every command, never imported: bind the steps to the caller's connection."""

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
