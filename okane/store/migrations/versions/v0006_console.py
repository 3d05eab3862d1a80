"""Add the audit table of the console."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(TABLE)


TABLE = """
CREATE TABLE IF NOT EXISTS console_audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun   bigint      UNIQUE,
    at      timestamptz NOT NULL DEFAULT now(),
    key     text        NOT NULL,
    session text        NOT NULL,
    address text        NOT NULL,
    action  text        NOT NULL,
    target  text        NOT NULL DEFAULT '',
    filter  jsonb,
    count   bigint,
    answer  text
);
"""
