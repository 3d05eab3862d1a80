"""API keys."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(API_KEYS)


API_KEYS = """
CREATE TABLE api_keys (
    prefix       text        PRIMARY KEY,
    secret_hash  bytea       NOT NULL CHECK (octet_length(secret_hash) = 32),
    account_id   text        NOT NULL,
    mode         text        NOT NULL CHECK (mode IN ('test', 'live')),
    scopes       text[]      NOT NULL CHECK (scopes <@ ARRAY['read', 'write', 'operate']),
    name         text        NOT NULL DEFAULT '',
    rate_limit   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
"""
