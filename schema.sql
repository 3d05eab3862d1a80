-- The schema of okane. Postgres >= 15. Applied to an empty database by `okane migrate`, and by processes with that option.
--
-- Older databases reach it by the steps in okane/store/migrations; a test compares the two.
--
-- Two tables carry the flow: `payments` (one row each, updated twice on its way) and `payment_events` (its history, appended
-- in the same transaction as every change). okane/payment.py has the allowed transitions; the WHERE of every UPDATE in
-- okane/store repeats them, and a test compares the two.
--
-- No index here may name a column that every payment changes (status, attempts, updated_at, lease_until): its UPDATEs would
-- not be heap-only any more, and cost 1.65 times as much. Queries use columns that only the unhappy path or a scheduled
-- payment sets (`sweep_at`, `dead_at`, `rare_status`), and the time in the id (uuid v7).

CREATE TABLE payments (
    id              uuid        PRIMARY KEY,             -- v7: the time of acceptance is its prefix
    account_id      text        NOT NULL,                -- the owner of the idempotency key
    idempotency_key text        NOT NULL,                -- the client's
    fingerprint     bytea       NOT NULL,                -- SHA-256 of the request's meaning
    amount_minor    bigint      NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    metadata        jsonb       NOT NULL DEFAULT '{}',
    lane            text        NOT NULL,                -- the stream of its wake-ups
    status          text        NOT NULL DEFAULT 'pending' CHECK (status IN (
        'pending', 'processing', 'success', 'failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review',
        'requires_action', 'submitted', 'authorized')),
    version         integer     NOT NULL DEFAULT 0,      -- + 1 with every change; the key of its event
    attempts        integer     NOT NULL DEFAULT 0,      -- claims so far: the fence under which results are written
    retries         integer     NOT NULL DEFAULT 0,      -- attempts that ended without a charge, crashes included
    look_ups        integer     NOT NULL DEFAULT 0,      -- look-ups since the outcome is open
    look_up_first   boolean     NOT NULL DEFAULT false,  -- this claim must look up before it charges
    provider_key    text        NOT NULL,                -- the idempotency key at the provider; fixed while open
    provider_ref    text,                                -- the provider's name for the charge
    decline_code    text,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    called_at       timestamptz,                         -- the last time that the provider may have been called
    lease_until     timestamptz,                         -- until then no other worker may claim it
    open_since      timestamptz,                         -- since then the outcome is open
    retry_at        timestamptz,                         -- not before this
    sweep_at        timestamptz,                         -- off the happy path: when the sweep takes it
    sweeps          integer     NOT NULL DEFAULT 0,      -- wake-ups sent by the sweep since the last outcome
    dead_at         timestamptz,                         -- a dead letter since then: spent, or in review
    execute_at      timestamptz,                         -- not before this: a payment that was scheduled
    expires_at      timestamptz,                         -- no charge is begun from then on
    rare_status     text,                                -- the status if few payments have it: for lists
    provider        text,                                -- its name; written by the claim, before the first call
    pinned          boolean,                             -- a call may have been executed: the provider never changes again
    requested_provider text,                             -- the only provider that may charge it; NULL: any of the default ones
    attempt_ref     text,                                -- the provider's name for an attempt that has moved no money yet
    pending_since   timestamptz,                         -- the provider has had it since then, and has not decided
    next_action     jsonb,                               -- the customer's part in it: kind and url
    payment_method  text,                                -- the provider's token for the customer's card or account
    return_url      text,                                -- where the customer goes after the next action
    manual_capture  boolean,                             -- authorized only; captured on request. NULL: captured with the charge
    capture_before  timestamptz,                         -- an authorization ends then
    amount_captured bigint,                              -- NULL: nothing yet, or all of amount_minor if it is `success`
    amount_refunded bigint,                              -- of refunds that succeeded
    refund_reserved bigint,                              -- of refunds that are open or succeeded: never above what was captured
    open_operation  uuid,                                -- the capture or void that is under way
    candidates      text[],                              -- the providers that a route chose, in order; NULL: the default ones
    soft_fallback   boolean,                             -- the next candidate is tried after a soft decline, too
    CONSTRAINT payments_idempotency_key UNIQUE (account_id, idempotency_key)
) WITH (fillfactor = 42);                                -- room for the two updates in the same page

CREATE INDEX payments_sweep_at ON payments (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX payments_dead_at ON payments (dead_at, id) WHERE dead_at IS NOT NULL;
CREATE INDEX payments_account ON payments (account_id, id);  -- lists; both columns never change
CREATE INDEX payments_rare_status ON payments (account_id, rare_status, id) WHERE rare_status IS NOT NULL;

-- One row for every change of a payment. `version` counts 1, 2, 3 ... without a gap; acceptance is version 0, in `payments`
-- itself (created_at), which saves an insert for every payment. No foreign key: only statements that change the payment
-- insert here, and the check would cost a query a row.
CREATE TABLE payment_events (
    payment_id uuid        NOT NULL,
    version    integer     NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    event      text        NOT NULL,                     -- claimed, success, unavailable, declined, retried, ...
    status     text        NOT NULL,                     -- the status after it
    attempt    integer     NOT NULL,                     -- the claim it belongs to
    actor      text        NOT NULL,                     -- the worker, `operator`, or `api` and the name of the key
    reason     text,
    provider   text,
    latency_ms integer,                                  -- of the provider call that ended the attempt
    call       text,                                     -- the call: charge or look_up
    decline_code text,
    operation_id uuid,                                   -- the operation that was requested or has ended
    PRIMARY KEY (payment_id, version)
);
-- For the statement of a day. Rows are appended in the order of time: an entry for each megabyte of them is enough, and an
-- insert changes none (docs/decisions/025-the-events-of-a-day.md).
CREATE INDEX payment_events_at ON payment_events USING brin (at) WITH (autosummarize = on);

-- Captures, voids and refunds. One row each, with the life cycle of a payment; okane/operation.py has the transitions. Its
-- request and its outcome also change its payment, in the same statement. `sweep_at` is set while it is open.
CREATE TABLE operations (
    id              uuid        PRIMARY KEY,             -- v7
    payment_id      uuid        NOT NULL,
    account_id      text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('capture', 'void', 'refund')),
    idempotency_key text,                                -- the client's; NULL: okane's own void of an expired authorization
    amount_minor    bigint      NOT NULL CHECK (amount_minor > 0),
    currency        text        NOT NULL,                -- the payment's
    reason          text,                                -- the client's
    metadata        jsonb       NOT NULL DEFAULT '{}',
    status          text        NOT NULL DEFAULT 'pending' CHECK (status IN (
        'pending', 'processing', 'submitted', 'success', 'failed_retryable', 'failed_final', 'unknown', 'canceled',
        'needs_review')),
    version         integer     NOT NULL DEFAULT 0,
    attempts        integer     NOT NULL DEFAULT 0,
    retries         integer     NOT NULL DEFAULT 0,
    look_ups        integer     NOT NULL DEFAULT 0,
    look_up_first   boolean     NOT NULL DEFAULT false,
    provider        text        NOT NULL,                -- the payment's: an operation goes nowhere else
    provider_key    text        NOT NULL,                -- the idempotency key at the provider
    provider_ref    text,                                -- the provider's name for the capture or refund
    decline_code    text,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    called_at       timestamptz,
    lease_until     timestamptz,
    open_since      timestamptz,
    pending_since   timestamptz,
    retry_at        timestamptz,
    sweep_at        timestamptz,
    sweeps          integer     NOT NULL DEFAULT 0,
    dead_at         timestamptz
) WITH (fillfactor = 50);
CREATE INDEX operations_payment ON operations (payment_id, id);
CREATE INDEX operations_account ON operations (account_id, id);
CREATE INDEX operations_sweep_at ON operations (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX operations_dead_at ON operations (dead_at, id) WHERE dead_at IS NOT NULL;

-- One row for every change of an operation, like payment_events.
CREATE TABLE operation_events (
    operation_id uuid        NOT NULL,
    version      integer     NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    event        text        NOT NULL,
    status       text        NOT NULL,
    attempt      integer     NOT NULL,
    actor        text        NOT NULL,
    reason       text,
    provider     text,
    latency_ms   integer,
    call         text,                                   -- operate or look_up
    decline_code text,
    PRIMARY KEY (operation_id, version)
);

-- The idempotency keys of all that is not a payment. Payments have theirs in `payments`: see docs/decisions.
CREATE TABLE idempotency_keys (
    account_id      text        NOT NULL,
    idempotency_key text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('operation', 'payment_method')),
    id              uuid        NOT NULL,                -- what was made under it
    fingerprint     bytea       NOT NULL,                -- SHA-256 of the request's meaning
    created_at      timestamptz NOT NULL DEFAULT now(),
    request_id      text,
    api_key         text,                                -- its prefix
    PRIMARY KEY (account_id, idempotency_key, kind)
) PARTITION BY HASH (account_id, idempotency_key);
DO $$ BEGIN
    FOR part IN 0..31 LOOP
        EXECUTE format('CREATE TABLE idempotency_keys_%s PARTITION OF idempotency_keys
                        FOR VALUES WITH (MODULUS 32, REMAINDER %s)', part, part);
    END LOOP;
END $$;

-- Saved payment methods: one id for a customer's card or account, with its token at each provider. Never a card number.
CREATE TABLE payment_methods (
    id         uuid        PRIMARY KEY,                  -- v7
    account_id text        NOT NULL,
    customer   text,                                     -- the client's name for the customer
    kind       text        NOT NULL,                     -- card, bank_account, wallet
    brand      text,
    last4      text        CHECK (last4 ~ '^[0-9]{4}$'),
    expires_on date,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
-- Of those that can be used: a list reads no other row.
CREATE INDEX payment_methods_account ON payment_methods (account_id, id) WHERE deleted_at IS NULL;
CREATE INDEX payment_methods_customer ON payment_methods (account_id, customer, id)
    WHERE deleted_at IS NULL AND customer IS NOT NULL;
CREATE TABLE payment_method_tokens (
    payment_method uuid NOT NULL,
    provider       text NOT NULL,
    token          text NOT NULL,
    PRIMARY KEY (payment_method, provider)
);

-- Disputes as providers report them, each as it was fetched last.
CREATE TABLE disputes (
    id           uuid        PRIMARY KEY,                -- v7
    payment_id   uuid        NOT NULL,
    account_id   text        NOT NULL,
    provider     text        NOT NULL,
    provider_ref text        NOT NULL,
    amount_minor bigint      NOT NULL,
    currency     text        NOT NULL,
    reason       text,
    status       text        NOT NULL CHECK (status IN
        ('needs_response', 'under_review', 'won', 'lost', 'closed')),
    due_by       timestamptz,                            -- evidence is taken until then
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT disputes_provider_ref UNIQUE (provider, provider_ref)
);
CREATE INDEX disputes_payment ON disputes (payment_id);
CREATE INDEX disputes_account ON disputes (account_id, id);
CREATE INDEX disputes_to_answer ON disputes (provider) WHERE status = 'needs_response';

-- A dispute as it was at one event of its payment (payment_events): later changes of the dispute change no event.
CREATE TABLE dispute_events (
    payment_id   uuid        NOT NULL,
    version      integer     NOT NULL,
    dispute_id   uuid        NOT NULL,
    provider     text        NOT NULL,
    provider_ref text        NOT NULL,
    amount_minor bigint      NOT NULL,
    currency     text        NOT NULL,
    reason       text,
    status       text        NOT NULL,
    due_by       timestamptz,
    PRIMARY KEY (payment_id, version)
);

-- Disputes that a notice was about, until they are fetched from the provider.
CREATE TABLE dispute_notices (
    provider     text        NOT NULL,
    provider_ref text        NOT NULL,
    fence        uuid,                                   -- of the last claim; NULL: a notice has come since
    tries        integer     NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    noticed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, provider_ref)
);
CREATE INDEX dispute_notices_due ON dispute_notices (due_at);

-- The last comparison of a day with the provider's own list (`okane reconcile`).
CREATE TABLE reconciliations (
    provider    text        NOT NULL,
    day         date        NOT NULL,                    -- UTC
    ran_at      timestamptz NOT NULL DEFAULT now(),
    listed      bigint      NOT NULL,                    -- the provider's records of the day
    compared    bigint      NOT NULL,                    -- our movements of money of the day
    differences jsonb       NOT NULL,                    -- the number that is left, by kind
    fees        jsonb       NOT NULL,                    -- by currency, in minor units, where the provider tells them
    PRIMARY KEY (provider, day)
);

-- The position of the sweep, by lane: no row with an older id is unsettled and on the happy path.
CREATE TABLE sweep_cursors (
    lane   text PRIMARY KEY,
    passed uuid NOT NULL
);

-- The time before which every transaction that inserts payments has ended (one row; see sweep.sql).
CREATE TABLE sweep_horizon (
    one       boolean     PRIMARY KEY DEFAULT true CHECK (one),
    proven_at timestamptz NOT NULL DEFAULT '-infinity',
    seen_at   timestamptz NOT NULL DEFAULT now(),
    seen_xmax xid8        NOT NULL DEFAULT pg_snapshot_xmax(pg_current_snapshot())
);
INSERT INTO sweep_horizon DEFAULT VALUES;

-- The switch and the shared circuit breaker of each provider. A provider without a row is on and closed.
CREATE TABLE providers (
    name         text PRIMARY KEY,
    mode         text NOT NULL DEFAULT 'on' CHECK (mode IN ('on', 'drain', 'off')),  -- drain: look-ups only
    reason       text,
    changed_by   text,
    changed_at   timestamptz,
    suspected_by text,                                   -- the worker whose calls failed, and when
    suspected_at timestamptz,
    open_until   timestamptz,                            -- the circuit is open until then: no worker calls it
    open_count   integer NOT NULL DEFAULT 0              -- how often in a row it was opened
);

-- The webhooks of providers, each once. Hints only: an outcome is fetched under a claim. Deleted after 30 days.
CREATE TABLE provider_events (
    provider     text        NOT NULL,
    event_id     text        NOT NULL,                   -- the provider's, or the SHA-256 of the body
    kind         text        NOT NULL,
    payment_id   uuid,
    provider_ref text,
    operation_id uuid,
    received_at  timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,                            -- its payment was woken, or needs no wake-up
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX provider_events_open ON provider_events (received_at) WHERE done_at IS NULL;
CREATE INDEX provider_events_received_at ON provider_events (received_at);  -- to delete the old ones

-- The API keys. Only the SHA-256 of a secret is stored: reading this table gives no access.
CREATE TABLE api_keys (
    prefix       text        PRIMARY KEY,                -- the public part of a key
    secret_hash  bytea       NOT NULL CHECK (octet_length(secret_hash) = 32),
    account_id   text        NOT NULL,
    mode         text        NOT NULL CHECK (mode IN ('test', 'live')),
    scopes       text[]      NOT NULL CHECK (scopes <@ ARRAY['read', 'write', 'operate', 'webhooks', 'system']),
    name         text        NOT NULL DEFAULT '',        -- a label
    rate_limit   text,                                   -- NULL: the setting for all keys
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz                             -- to the minute
);

-- Webhooks. A change writes an outbox row in its own statement, sequencing gives the row a position in the log, and each
-- endpoint queue moves a cursor over the log. Payments have no column and no index for it.

-- The accounts with an endpoint: only their changes go to the outbox.
CREATE TABLE webhook_accounts (
    account_id text PRIMARY KEY
);

CREATE TABLE webhook_endpoints (
    id              uuid        PRIMARY KEY,
    account_id      text        NOT NULL,
    url             text,                                -- NULL: events are recorded only, for `okane listen`
    types           text[]      NOT NULL,                -- of events: names, or `payment.*`
    payload         text        NOT NULL DEFAULT 'snapshot' CHECK (payload IN ('snapshot', 'thin')),
    api_version     text        NOT NULL,                -- of the bodies; never changes
    description     text        NOT NULL DEFAULT '',
    max_in_flight   smallint    NOT NULL DEFAULT 8 CHECK (max_in_flight BETWEEN 1 AND 64),
    rate_limit      integer     CHECK (rate_limit > 0),  -- requests per second
    timeout_s       smallint    NOT NULL DEFAULT 15 CHECK (timeout_s > 0),
    hold_s          integer     NOT NULL DEFAULT 300 CHECK (hold_s >= 0),  -- a failing delivery holds later versions so long
    key_generation  integer     NOT NULL DEFAULT 1,      -- the secret is derived from it; no secret is stored
    older_key_until timestamptz,                         -- the secret of the generation before signs, too
    v1a             boolean     NOT NULL DEFAULT false,  -- asymmetric signatures beside `v1`
    status          text        NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled', 'deleted')),
    disabled_reason text,
    version         integer     NOT NULL DEFAULT 1,      -- + 1 with every change; the owner of the queue confirms it
    created_at      timestamptz NOT NULL DEFAULT now(),
    starts_after    bigint      NOT NULL,                -- its first event has a higher position
    polled_at       timestamptz,                         -- without a URL: the last poll
    deleted_at      timestamptz
);
CREATE INDEX webhook_endpoints_account ON webhook_endpoints (account_id);

-- One row for each endpoint, updated in place. `done_to` is the cursor: every event up to it is delivered, given up, or has a
-- row in webhook_deliveries. A result is written under the epoch of its lease alone.
CREATE TABLE webhook_queues (
    endpoint_id   uuid        PRIMARY KEY,
    done_to       bigint      NOT NULL,
    owner         text,                                  -- the dispatcher that holds the lease
    epoch         integer     NOT NULL DEFAULT 0,        -- + 1 with every lease
    lease_until   timestamptz NOT NULL DEFAULT '-infinity',
    seen_version  integer     NOT NULL DEFAULT 0,        -- the version of the endpoint that the owner works by
    failing_since timestamptz,
    failures      integer     NOT NULL DEFAULT 0,        -- in a row
    last_error    text
) WITH (fillfactor = 50);

-- The changes that have no position yet: a few rows, one for all payments of an account that a statement changed in the same
-- way. `at` equals that of the rows in payment_events: one transaction wrote both. For `webhook_endpoint.*` the ids are the
-- endpoint's. Truncating takes a lock for which every change would wait. The rows are short-lived: up to a page they stay in
-- the table, uncompressed.
CREATE TABLE webhook_outbox (
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    account_id  text        NOT NULL,
    type        text        NOT NULL,
    payment_ids uuid[]      NOT NULL,
    versions    integer[]   NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
) WITH (vacuum_truncate = false, toast_tuple_target = 8160);
CREATE INDEX webhook_outbox_xid ON webhook_outbox (xid);  -- new entries go to its right end, where sequencing reads

-- Where sequencing stands: the highest position, and the snapshot whose outbox rows it has taken. One visible row: each run
-- inserts the next and deletes its predecessor. An UPDATE in place would leave a chain of versions that every read follows
-- while a long transaction keeps them; here the newest is at the right end of the index. `server` is the server of the
-- transaction ids: a dump that is loaded into another server brings ids that mean nothing there.
CREATE TABLE webhook_sequencer (
    last   bigint      PRIMARY KEY DEFAULT 0,
    seen   pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    server bigint      NOT NULL DEFAULT (pg_control_system()).system_identifier
);
INSERT INTO webhook_sequencer DEFAULT VALUES;

-- The log. Positions are dense and become visible in their order. Table partitions of 5,000,000 positions are made ahead and
-- dropped whole.
CREATE TABLE webhook_events (
    position   bigint      PRIMARY KEY,
    account_id text        NOT NULL,
    payment_id uuid        NOT NULL,
    version    integer     NOT NULL,
    type       text        NOT NULL,
    at         timestamptz NOT NULL
) PARTITION BY RANGE (position);
CREATE INDEX webhook_events_account ON webhook_events (account_id, position);
CREATE INDEX webhook_events_payment ON webhook_events (payment_id, version);

-- One event at one endpoint, from its first attempt that ended. `earlier`: the failed attempts before the last, at most 20.
CREATE TABLE webhook_deliveries (
    endpoint_id uuid        NOT NULL,
    position    bigint      NOT NULL,
    state       text        NOT NULL CHECK (state IN ('delivered', 'waiting', 'given_up')),
    attempts    smallint    NOT NULL,
    status      smallint,                                -- of HTTP, in the last attempt
    ms          integer,                                 -- how long that took
    reason      text,
    at          timestamptz NOT NULL,
    next_at     timestamptz,                             -- of a waiting one
    earlier     jsonb,
    PRIMARY KEY (endpoint_id, position)
) PARTITION BY RANGE (position);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_at) WHERE next_at IS NOT NULL;

CREATE TABLE webhook_events_0 PARTITION OF webhook_events FOR VALUES FROM (0) TO (5000000);
CREATE TABLE webhook_events_1 PARTITION OF webhook_events FOR VALUES FROM (5000000) TO (10000000);
CREATE TABLE webhook_deliveries_0 PARTITION OF webhook_deliveries FOR VALUES FROM (0) TO (5000000);
CREATE TABLE webhook_deliveries_1 PARTITION OF webhook_deliveries FOR VALUES FROM (5000000) TO (10000000);

-- Ranges of the log that are delivered again: a cursor, not a row for each event.
CREATE TABLE webhook_replays (
    endpoint_id   uuid,
    from_position bigint,
    to_position   bigint  NOT NULL,
    next          bigint  NOT NULL,                      -- the position that is due
    only_failed   boolean NOT NULL,
    PRIMARY KEY (endpoint_id, from_position)
);

-- The actions in the console, and its log-ins. Rows are only added: an action writes one before it runs, and its answer in a
-- second one, so that an action whose process died is there without an answer.
CREATE TABLE console_audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun   bigint      UNIQUE,                          -- of an answer: the row of its action
    at      timestamptz NOT NULL DEFAULT now(),
    key     text        NOT NULL,                        -- the prefix of the API key; empty where none are used
    session text        NOT NULL,
    address text        NOT NULL,                        -- of the client
    action  text        NOT NULL,
    target  text        NOT NULL DEFAULT '',
    filter  jsonb,                                       -- of an action on many payments
    count   bigint,                                      -- payments that it changed
    answer  text                                         -- NULL: the action has begun
);

-- The version of this file in a database.
CREATE TABLE okane_schema (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO okane_schema (version) VALUES (7);
