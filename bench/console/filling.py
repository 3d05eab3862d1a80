"""A database that a long time has filled: payments of every kind, their events, and what the other pages list."""

from __future__ import annotations

import psycopg

# One payment in a thousand is another account's. The statuses that lists have an index for are rare, as they are in life.
_PAYMENTS = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, metadata, lane, status,
                      rare_status, version, attempts, provider_key, provider_ref, decline_code, last_error, created_at,
                      updated_at, called_at, dead_at, provider, pinned)
SELECT id, CASE WHEN i %% 1000 = 999 THEN 'another' ELSE 'default' END, 'order-' || i, sha256(int4send(i)),
       100 + (i * 7919::bigint) %% 50000, CASE WHEN i %% 10 = 3 THEN 'EUR' ELSE 'USD' END,
       jsonb_build_object('order', 'A-' || i, 'customer', 'C-' || i %% 1000), lane,
       coalesce(rare, 'success'), rare, 2, 1, id::text, CASE WHEN rare IS NULL THEN 'ch_' || i END,
       CASE WHEN rare = 'failed_final' THEN 'card_declined' END, CASE WHEN rare IS NOT NULL THEN 'declined' END,
       at, at, at, CASE WHEN i %% 400 = 12 OR rare = 'needs_review' THEN at END, 'http', true
FROM (SELECT i, uuidv7(shift) AS id, now() + shift AS at, (ARRAY['critical', 'default', 'low'])[1 + i %% 3] AS lane,
             CASE WHEN i %% 100 = 12 THEN 'failed_final' WHEN i %% 2000 = 7 THEN 'needs_review'
                  WHEN i %% 500 = 3 THEN 'canceled' END AS rare
      FROM generate_series(1, %(payments)s::integer) AS i,
           LATERAL (SELECT interval '-1 hour' - (%(payments)s::integer - i) * interval '0.1 s') AS s (shift)) AS many
"""
_EVENTS = """
INSERT INTO payment_events (payment_id, version, at, event, status, attempt, actor, provider, latency_ms, call)
SELECT p.id, e.version, p.created_at, e.event, CASE e.version WHEN 1 THEN 'processing' ELSE p.status END, 1, 'worker-1',
       e.provider, e.latency_ms, e.call
FROM (SELECT * FROM payments ORDER BY id DESC LIMIT %(events)s::integer) p,
     (VALUES (1, 'claimed', NULL, NULL::integer, NULL), (2, 'success', 'http', 16, 'charge')) AS e (version, event, provider,
      latency_ms, call)
"""
_CURSORS = """
INSERT INTO sweep_cursors (lane, passed)
SELECT lane, uuidv7(interval '-1 hour') FROM unnest(ARRAY['critical', 'default', 'low']) AS lane
ON CONFLICT (lane) DO UPDATE SET passed = EXCLUDED.passed
"""
_ENDPOINTS = """
WITH made AS (
    INSERT INTO webhook_endpoints (id, account_id, url, types, api_version, starts_after)
    SELECT gen_random_uuid(), CASE WHEN i <= 10 THEN 'default' ELSE 'account-' || i END, 'https://shop.example/hook/' || i,
           ARRAY['payment.*'], '2026-11-01', 0
    FROM generate_series(1, %(lists)s::integer / 10 + 1) AS i
    RETURNING id, account_id),
accounts AS (INSERT INTO webhook_accounts SELECT DISTINCT account_id FROM made)
INSERT INTO webhook_queues (endpoint_id, done_to) SELECT id, %(events)s FROM made
"""
_LOG = """
INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)
SELECT row_number() OVER (ORDER BY p.id), p.account_id, p.id, 2, 'payment.succeeded', p.created_at
FROM (SELECT * FROM payments ORDER BY id DESC LIMIT %(events)s::integer) p
"""
_DELIVERIES = """
INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, at)
SELECT e.id, w.position, CASE WHEN w.position %% 100 = 7 THEN 'given_up' ELSE 'delivered' END, 1, 204, 12, w.at
FROM webhook_events w, (SELECT id FROM webhook_endpoints WHERE account_id = 'default' ORDER BY id LIMIT 1) e
"""
_SEQUENCER = "UPDATE webhook_sequencer SET last = %(events)s"
_KEYS = """
INSERT INTO api_keys (prefix, secret_hash, account_id, mode, scopes, name)
SELECT 'sk_test_' || lpad(i::text, 12, '0'), sha256(int4send(i)), 'account-' || i, 'test', ARRAY['read'], 'key ' || i
FROM generate_series(1, %(lists)s::integer) AS i
"""
_AUDIT = """
INSERT INTO console_audit (key, session, address, action, target, answer)
SELECT 'sk_test_000000000001', md5(i::text), '127.0.0.1', 'cancel payment', gen_random_uuid(), 'done'
FROM generate_series(1, 10 * %(lists)s::integer) AS i
"""
_NOTICES = """
INSERT INTO provider_events (provider, event_id, kind, payment_id, received_at, done_at)
SELECT 'http', 'evt_' || id, 'charge.succeeded', id, created_at, created_at
FROM (SELECT * FROM payments ORDER BY id DESC LIMIT %(events)s::integer) p
"""
_OPERATIONS = """
INSERT INTO operations (id, payment_id, account_id, kind, idempotency_key, amount_minor, currency, status, version, attempts,
                        provider, provider_key, last_error, created_at, updated_at, dead_at)
SELECT uuidv7(interval '-1 minute'), p.id, p.account_id, 'refund', 'refund-' || p.id, 50, p.currency,
       CASE WHEN p.row %% 100 = 1 THEN 'needs_review' ELSE 'success' END, 1, 1, 'http', p.id::text, NULL, p.created_at,
       p.created_at, CASE WHEN p.row %% 100 = 1 THEN p.created_at END
FROM (SELECT *, row_number() OVER (ORDER BY id DESC) AS row FROM payments ORDER BY id DESC LIMIT %(events)s::integer) p
"""
_STEPS = """
INSERT INTO operation_events (operation_id, version, at, event, status, attempt, actor, provider, latency_ms, call)
SELECT o.id, 1, o.created_at, o.status, o.status, 1, 'worker-1', 'http', 16, 'operate' FROM operations o
"""
_DISPUTES = """
INSERT INTO disputes (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, reason, status, created_at)
SELECT uuidv7(interval '-1 minute'), p.id, p.account_id, 'http', 'dp_' || p.id, p.amount_minor, p.currency, 'fraudulent',
       CASE WHEN p.row %% 100 = 1 THEN 'needs_response' WHEN p.row %% 3 = 1 THEN 'won' ELSE 'lost' END, p.created_at
FROM (SELECT *, row_number() OVER (ORDER BY id DESC) AS row FROM payments ORDER BY id DESC LIMIT %(events)s::integer) p
"""
_STATEMENTS = (
    _PAYMENTS,
    _EVENTS,
    _CURSORS,
    _ENDPOINTS,
    _LOG,
    _DELIVERIES,
    _SEQUENCER,
    _KEYS,
    _AUDIT,
    _NOTICES,
    _OPERATIONS,
    _STEPS,
    _DISPUTES,
)


def fill_everything(url: str, payments: int, *, events: int, lists: int = 1_000) -> None:
    """Put in so many payments, the newest `events` of them with events, deliveries, notices,
    a refund and a dispute each; and long lists of the rest.

    Every table has statistics then.
    """
    parameters = {"payments": payments, "events": min(events, payments), "lists": lists}
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _STATEMENTS:
            connection.execute(statement, parameters)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
