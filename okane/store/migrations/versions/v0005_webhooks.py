"""Add the tables of events and webhooks, and two scopes of API keys."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(TABLES)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE api_keys VALIDATE CONSTRAINT api_keys_scopes_check")


TABLES = """
ALTER TABLE api_keys DROP CONSTRAINT api_keys_scopes_check;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_scopes_check
    CHECK (scopes <@ ARRAY['read', 'write', 'operate', 'webhooks', 'system']) NOT VALID;
CREATE TABLE IF NOT EXISTS webhook_accounts (
    account_id text PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id              uuid        PRIMARY KEY,
    account_id      text        NOT NULL,
    url             text,
    types           text[]      NOT NULL,
    payload         text        NOT NULL DEFAULT 'snapshot' CHECK (payload IN ('snapshot', 'thin')),
    api_version     text        NOT NULL,
    description     text        NOT NULL DEFAULT '',
    max_in_flight   smallint    NOT NULL DEFAULT 8 CHECK (max_in_flight BETWEEN 1 AND 64),
    rate_limit      integer     CHECK (rate_limit > 0),
    timeout_s       smallint    NOT NULL DEFAULT 15 CHECK (timeout_s > 0),
    hold_s          integer     NOT NULL DEFAULT 300 CHECK (hold_s >= 0),
    key_generation  integer     NOT NULL DEFAULT 1,
    older_key_until timestamptz,
    v1a             boolean     NOT NULL DEFAULT false,
    status          text        NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled', 'deleted')),
    disabled_reason text,
    version         integer     NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    starts_after    bigint      NOT NULL,
    polled_at       timestamptz,
    deleted_at      timestamptz
);
CREATE INDEX IF NOT EXISTS webhook_endpoints_account ON webhook_endpoints (account_id);
CREATE TABLE IF NOT EXISTS webhook_queues (
    endpoint_id   uuid        PRIMARY KEY,
    done_to       bigint      NOT NULL,
    owner         text,
    epoch         integer     NOT NULL DEFAULT 0,
    lease_until   timestamptz NOT NULL DEFAULT '-infinity',
    seen_version  integer     NOT NULL DEFAULT 0,
    failing_since timestamptz,
    failures      integer     NOT NULL DEFAULT 0,
    last_error    text
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS webhook_outbox (
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    account_id  text        NOT NULL,
    type        text        NOT NULL,
    payment_ids uuid[]      NOT NULL,
    versions    integer[]   NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
) WITH (vacuum_truncate = false, toast_tuple_target = 8160);
CREATE INDEX IF NOT EXISTS webhook_outbox_xid ON webhook_outbox (xid);
CREATE TABLE IF NOT EXISTS webhook_sequencer (
    last   bigint      PRIMARY KEY DEFAULT 0,
    seen   pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    server bigint      NOT NULL DEFAULT (pg_control_system()).system_identifier
);
INSERT INTO webhook_sequencer (last) SELECT 0 WHERE NOT EXISTS (SELECT FROM webhook_sequencer);
CREATE TABLE IF NOT EXISTS webhook_events (
    position   bigint      PRIMARY KEY,
    account_id text        NOT NULL,
    payment_id uuid        NOT NULL,
    version    integer     NOT NULL,
    type       text        NOT NULL,
    at         timestamptz NOT NULL
) PARTITION BY RANGE (position);
CREATE INDEX IF NOT EXISTS webhook_events_account ON webhook_events (account_id, position);
CREATE INDEX IF NOT EXISTS webhook_events_payment ON webhook_events (payment_id, version);
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    endpoint_id uuid        NOT NULL,
    position    bigint      NOT NULL,
    state       text        NOT NULL CHECK (state IN ('delivered', 'waiting', 'given_up')),
    attempts    smallint    NOT NULL,
    status      smallint,
    ms          integer,
    reason      text,
    at          timestamptz NOT NULL,
    next_at     timestamptz,
    earlier     jsonb,
    PRIMARY KEY (endpoint_id, position)
) PARTITION BY RANGE (position);
CREATE INDEX IF NOT EXISTS webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_at) WHERE next_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS webhook_events_0 PARTITION OF webhook_events FOR VALUES FROM (0) TO (5000000);
CREATE TABLE IF NOT EXISTS webhook_events_1 PARTITION OF webhook_events FOR VALUES FROM (5000000) TO (10000000);
CREATE TABLE IF NOT EXISTS webhook_deliveries_0 PARTITION OF webhook_deliveries FOR VALUES FROM (0) TO (5000000);
CREATE TABLE IF NOT EXISTS webhook_deliveries_1 PARTITION OF webhook_deliveries FOR VALUES FROM (5000000) TO (10000000);
CREATE TABLE IF NOT EXISTS webhook_replays (
    endpoint_id   uuid,
    from_position bigint,
    to_position   bigint  NOT NULL,
    next          bigint  NOT NULL,
    only_failed   boolean NOT NULL,
    PRIMARY KEY (endpoint_id, from_position)
);
"""
