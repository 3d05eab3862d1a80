"""Add the columns and tables of providers, and two statuses. It contracts, too: the trigger of version 3 goes."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute(TABLES)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE payments VALIDATE CONSTRAINT payments_status_check")


# The trigger kept `rare_status` right for processes of version 2. It does not know the new statuses.
TABLES = """
DROP TRIGGER IF EXISTS payments_set_rare_status ON payments;
DROP FUNCTION IF EXISTS payments_set_rare_status();
ALTER TABLE payments ADD COLUMN IF NOT EXISTS provider text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS pinned boolean;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS requested_provider text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS attempt_ref text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS pending_since timestamptz;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS next_action jsonb;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS payment_method text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS return_url text;
ALTER TABLE payments SET (fillfactor = 42);
ALTER TABLE payments DROP CONSTRAINT payments_status_check;
ALTER TABLE payments ADD CONSTRAINT payments_status_check CHECK (status IN (
    'pending', 'processing', 'success', 'failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review',
    'requires_action', 'submitted')) NOT VALID;
CREATE TABLE IF NOT EXISTS providers (
    name         text PRIMARY KEY,
    mode         text NOT NULL DEFAULT 'on' CHECK (mode IN ('on', 'drain', 'off')),
    reason       text,
    changed_by   text,
    changed_at   timestamptz,
    suspected_by text,
    suspected_at timestamptz,
    open_until   timestamptz,
    open_count   integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS provider_events (
    provider     text        NOT NULL,
    event_id     text        NOT NULL,
    kind         text        NOT NULL,
    payment_id   uuid,
    provider_ref text,
    received_at  timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX IF NOT EXISTS provider_events_open ON provider_events (received_at) WHERE done_at IS NULL;
CREATE INDEX IF NOT EXISTS provider_events_received_at ON provider_events (received_at);
"""
