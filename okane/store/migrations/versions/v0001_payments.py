"""The schema of the first version, as it was. Never changed again."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(SCHEMA)


SCHEMA = """
CREATE TABLE payments (
    id              uuid        PRIMARY KEY,
    account_id      text        NOT NULL,
    idempotency_key text        NOT NULL,
    fingerprint     bytea       NOT NULL,
    amount_minor    bigint      NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    metadata        jsonb       NOT NULL DEFAULT '{}',
    lane            text        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending' CHECK (status IN (
        'pending', 'processing', 'success', 'failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review')),
    version         integer     NOT NULL DEFAULT 0,
    attempts        integer     NOT NULL DEFAULT 0,
    retries         integer     NOT NULL DEFAULT 0,
    look_ups        integer     NOT NULL DEFAULT 0,
    look_up_first   boolean     NOT NULL DEFAULT false,
    provider_key    text        NOT NULL,
    provider_ref    text,
    decline_code    text,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    called_at       timestamptz,
    lease_until     timestamptz,
    open_since      timestamptz,
    retry_at        timestamptz,
    sweep_at        timestamptz,
    sweeps          integer     NOT NULL DEFAULT 0,
    dead_at         timestamptz,
    CONSTRAINT payments_idempotency_key UNIQUE (account_id, idempotency_key)
) WITH (fillfactor = 50);

CREATE INDEX payments_sweep_at ON payments (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX payments_dead_at ON payments (dead_at, id) WHERE dead_at IS NOT NULL;

CREATE TABLE payment_events (
    payment_id uuid        NOT NULL,
    version    integer     NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    event      text        NOT NULL,
    status     text        NOT NULL,
    attempt    integer     NOT NULL,
    actor      text        NOT NULL,
    reason     text,
    provider   text,
    latency_ms integer,
    PRIMARY KEY (payment_id, version)
);

CREATE TABLE sweep_cursors (
    lane   text PRIMARY KEY,
    passed uuid NOT NULL
);

CREATE TABLE sweep_horizon (
    one       boolean     PRIMARY KEY DEFAULT true CHECK (one),
    proven_at timestamptz NOT NULL DEFAULT '-infinity',
    seen_at   timestamptz NOT NULL DEFAULT now(),
    seen_xmax xid8        NOT NULL DEFAULT pg_snapshot_xmax(pg_current_snapshot())
);
INSERT INTO sweep_horizon DEFAULT VALUES;

CREATE TABLE okane_schema (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""
