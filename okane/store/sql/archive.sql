-- name: columns
-- The columns of a table with their types, in order.
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum

-- name: place
-- 'attached', 'pending' while it is being detached, 'detached'; no row if there is no such table.
SELECT CASE WHEN i.inhdetachpending THEN 'pending' WHEN i.inhrelid IS NOT NULL THEN 'attached' ELSE 'detached' END
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.oid = to_regclass(%(table)s::text)

-- name: left
-- The tables that an archive run has begun to detach and not dropped.
SELECT c.relname
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT p.relnamespace FROM pg_class p WHERE p.oid = to_regclass('payments'))
  AND c.relname ~ '^(payments|payment_events|operations|operation_events)_(first|[0-9]{8})$'
  AND (i.inhrelid IS NULL OR i.inhdetachpending)

-- name: open_payment
-- A payment of the ids that is not at rest: open, in review, or with a look or an operation to come.
SELECT p.id, CASE WHEN p.status NOT IN ('success', 'failed_final', 'canceled') THEN p.status
                  WHEN p.open_operation IS NOT NULL THEN 'with an open operation'
                  ELSE 'to be looked up again' END
FROM payments p
WHERE p.id >= %(begin)s::uuid AND p.id < %(end)s::uuid
  AND (p.status NOT IN ('success', 'failed_final', 'canceled') OR p.sweep_at IS NOT NULL OR p.open_operation IS NOT NULL)
LIMIT 1

-- name: open_operation
-- An operation that is not at rest, of these ids or of a payment of these ids.
SELECT o.payment_id, o.kind || ' ' || o.id || ' is ' || o.status
FROM operations o
WHERE (o.id >= %(begin)s::uuid AND o.id < %(end)s::uuid OR o.payment_id >= %(begin)s::uuid AND o.payment_id < %(end)s::uuid)
  AND (o.status NOT IN ('success', 'failed_final', 'canceled') OR o.sweep_at IS NOT NULL)
LIMIT 1

-- name: young
-- A payment, capture, void or refund of these ids that is younger than its id says: its key must stay valid.
SELECT p.id, 'it was made at ' || p.created_at || ', by a clock that was wrong'
FROM payments p
WHERE p.id >= %(begin)s::uuid AND p.id < %(end)s::uuid AND p.created_at >= %(before)s::timestamptz
UNION ALL
SELECT o.payment_id, o.kind || ' ' || o.id || ' was made at ' || o.created_at || ', by a clock that was wrong'
FROM operations o
WHERE o.id >= %(begin)s::uuid AND o.id < %(end)s::uuid AND o.created_at >= %(before)s::timestamptz
LIMIT 1

-- name: event
-- A payment with an event that endpoints may still have to get.
SELECT e.payment_id, 'an event in webhook_events'
FROM webhook_events e
WHERE e.payment_id >= %(begin)s::uuid AND e.payment_id < %(end)s::uuid AND e.type NOT LIKE 'webhook_endpoint.%%'
UNION ALL
SELECT u.id, 'an event in webhook_outbox'
FROM webhook_outbox o, unnest(o.payment_ids) AS u (id)
WHERE u.id >= %(begin)s::uuid AND u.id < %(end)s::uuid AND o.type NOT LIKE 'webhook_endpoint.%%'
LIMIT 1

-- name: dispute
SELECT d.payment_id, 'dispute ' || d.id || ' is ' || d.status
FROM disputes d
WHERE d.payment_id >= %(begin)s::uuid AND d.payment_id < %(end)s::uuid AND d.status IN ('needs_response', 'under_review')
LIMIT 1

-- name: notice
SELECT e.payment_id, 'a notice of ' || e.provider || ' is not done'
FROM provider_events e
WHERE e.payment_id >= %(begin)s::uuid AND e.payment_id < %(end)s::uuid AND e.done_at IS NULL
LIMIT 1

-- name: delete_keys
-- Delete the keys of payments that are archived. Not those of others under the same key, which a newer payment may have.
DELETE FROM payment_keys k
USING unnest(%(digests)s::uuid[], %(ids)s::uuid[]) AS w (digest, id)
WHERE k.digest = w.digest AND k.id = w.id
