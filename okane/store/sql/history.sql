-- name: one_snapshot
-- Rows and events must be of one snapshot: a change between the two reads would look like a gap.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: no_hurry
-- Reading locks nothing. On a busy machine a chunk of rows may take the reader longer than the usual idle time-out.
SET LOCAL idle_in_transaction_session_timeout = 0

-- name: payments
SELECT p.id::text, p.account_id, p.idempotency_key, p.amount_minor, p.currency, p.status, p.version, p.attempts,
       p.provider_key, extract(epoch FROM p.created_at)::float8, p.last_error, p.retries,
       p.amount_captured, p.amount_refunded, p.refund_reserved, p.open_operation::text, p.requested_provider, p.candidates
FROM payments p

-- name: events
SELECT e.payment_id::text, e.version, extract(epoch FROM e.at)::float8, e.event, e.status, e.attempt, e.actor, e.provider,
       e.operation_id::text
FROM payment_events e
ORDER BY e.payment_id, e.version

-- name: operations
SELECT o.id::text, o.payment_id::text, o.account_id, o.kind, o.idempotency_key, o.amount_minor, o.currency, o.status,
       o.version, o.attempts, o.provider, o.provider_key, o.last_error
FROM operations o

-- name: operation_events
SELECT e.operation_id::text, e.version, extract(epoch FROM e.at)::float8, e.event, e.status, e.attempt, e.actor, e.provider
FROM operation_events e
ORDER BY e.operation_id, e.version
