-- name: with_schedule
-- One payment with its schedule, and the time of these; whether it has events for webhooks, whether any notice came in its
-- time, and whether it has operations or disputes. Most have none of these.
SELECT {payment}, p.requested_provider, coalesce(p.pinned, false), p.lease_until, p.sweep_at, p.dead_at, now(),
       EXISTS (SELECT FROM webhook_events w WHERE w.payment_id = p.id),
       p.attempts > 0 AND EXISTS (SELECT FROM provider_events n
           WHERE n.received_at >= p.created_at
             AND n.received_at < p.updated_at + %(notices_after_ms)s::bigint * interval '1 millisecond'),
       EXISTS (SELECT FROM operations o WHERE o.payment_id = p.id),
       EXISTS (SELECT FROM disputes d WHERE d.payment_id = p.id)
FROM payments p
WHERE p.id = %(id)s::uuid AND p.account_id = %(account_id)s::text

-- name: events
-- The events of a payment after version `after`, up to the version of the row that was read before.
SELECT {event}
FROM payment_events e
WHERE e.payment_id = %(id)s::uuid AND e.version > %(after)s::integer AND e.version <= %(version)s::integer
ORDER BY e.version

-- name: deliveries
-- The deliveries of the events of a payment after version `after`, at each endpoint that the account has or had.
SELECT v.version, v.type, ep.url, d.endpoint_id, d.position, d.state, d.attempts, d.status, d.ms, d.reason, d.at, d.next_at,
       d.earlier
FROM (SELECT w.position, w.version, w.type, w.account_id
      FROM webhook_events w
      WHERE w.payment_id = %(id)s::uuid AND w.version > %(after)s::integer
      LIMIT %(limit)s::bigint) v
JOIN webhook_endpoints ep ON ep.account_id = v.account_id
JOIN webhook_deliveries d ON d.endpoint_id = ep.id AND d.position = v.position
WHERE v.account_id = %(account_id)s::text
LIMIT %(limit)s::bigint

-- name: operations
-- The newest captures, voids and refunds of a payment, oldest first.
SELECT {operation}
FROM (SELECT * FROM operations n
      WHERE n.payment_id = %(id)s::uuid
      ORDER BY n.payment_id DESC, n.id DESC
      LIMIT %(most)s::bigint) o
ORDER BY o.id

-- name: steps
-- The newest events of each of these operations.
SELECT {operation_event}
FROM unnest(%(operation_ids)s::uuid[]) AS w (id)
CROSS JOIN LATERAL (SELECT * FROM operation_events n
                    WHERE n.operation_id = w.id
                    ORDER BY n.operation_id DESC, n.version DESC
                    LIMIT %(most)s::bigint) e
ORDER BY e.at, e.operation_id, e.version

-- name: disputes
-- The newest disputes of a payment, oldest first.
SELECT {dispute}
FROM (SELECT * FROM (SELECT * FROM disputes o WHERE o.payment_id = %(id)s::uuid OFFSET 0) n
      ORDER BY n.id DESC
      LIMIT %(most)s::bigint) d
ORDER BY d.id

-- name: notices
-- The notices of providers about a payment, among the first of a time and the last of it: there is no index by payment, since
-- every notice would pay for it. `cut` is true if there were more between the two.
WITH earliest AS MATERIALIZED (
    SELECT n.provider, n.event_id, n.kind, n.received_at, n.done_at, n.payment_id
    FROM provider_events n
    WHERE n.received_at >= %(since)s::timestamptz AND n.received_at < %(until)s::timestamptz
    ORDER BY n.received_at
    LIMIT %(window)s::bigint
), latest AS MATERIALIZED (
    SELECT n.provider, n.event_id, n.kind, n.received_at, n.done_at, n.payment_id
    FROM provider_events n
    WHERE n.received_at < %(until)s::timestamptz
      AND n.received_at > (SELECT coalesce(max(e.received_at), 'infinity') FROM earliest e)
    ORDER BY n.received_at DESC
    LIMIT %(window)s::bigint
)
SELECT (SELECT count(*) FROM latest) = %(window)s::bigint AS cut, o.provider, o.event_id, o.kind, o.received_at, o.done_at
FROM (SELECT 1) AS one (row)
LEFT JOIN (SELECT * FROM earliest e WHERE e.payment_id = %(id)s::uuid
           UNION ALL
           SELECT * FROM latest l WHERE l.payment_id = %(id)s::uuid) o ON true
