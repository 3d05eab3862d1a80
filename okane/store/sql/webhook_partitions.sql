-- name: partition_lock
SELECT pg_try_advisory_xact_lock(hashtext('okane.webhook_partitions'))

-- name: partitions
-- The table partitions of the log and of the deliveries, by their numbers, with their sizes.
SELECT c.relname::text, pg_total_relation_size(c.oid)
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('webhook_events'::regclass, 'webhook_deliveries'::regclass)

-- name: ended_at
-- Seconds since the last event of a table partition, if it is full.
SELECT extract(epoch FROM now() - e.at)::float8 FROM webhook_events e WHERE e.position = %(end)s::bigint - 1

-- name: unpassed
-- The endpoints that still have to deliver an event below a position: the queue has not passed it, or a retry waits.
SELECT n.id
FROM webhook_endpoints n
JOIN webhook_queues q ON q.endpoint_id = n.id
WHERE n.status <> 'deleted' AND n.url IS NOT NULL
  AND (EXISTS (SELECT FROM webhook_events e
               WHERE e.account_id = n.account_id AND e.position > q.done_to AND e.position < %(end)s::bigint
                 AND {subscribed})
       OR EXISTS (SELECT FROM webhook_deliveries d
                  WHERE d.endpoint_id = n.id AND d.next_at IS NOT NULL AND d.position < %(end)s::bigint))

-- name: subscribed
-- True if the endpoint receives events of this type. Not a statement: others include it.
EXISTS (SELECT FROM unnest(n.types) t WHERE t = e.type OR right(t, 1) = '*' AND starts_with(e.type, rtrim(t, '*')))

-- name: give_up
-- Let the queues pass a position, and return how many deliveries that gives up. The epoch rejects what an owner still writes.
WITH behind AS MATERIALIZED (
    SELECT q.endpoint_id, q.done_to, n.account_id, n.types
    FROM webhook_queues q
    JOIN webhook_endpoints n ON n.id = q.endpoint_id
    WHERE n.status <> 'deleted' AND n.url IS NOT NULL AND q.done_to < %(end)s::bigint - 1
    FOR UPDATE OF q
), undelivered AS (
    SELECT count(*) FROM behind n
    JOIN webhook_events e ON e.account_id = n.account_id AND e.position > n.done_to AND e.position < %(end)s::bigint
    WHERE {subscribed}
      AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = n.endpoint_id AND d.position = e.position)
), waiting AS (
    SELECT count(*) FROM webhook_endpoints n
    JOIN webhook_deliveries d ON d.endpoint_id = n.id
    WHERE n.status <> 'deleted' AND n.url IS NOT NULL AND d.next_at IS NOT NULL AND d.position < %(end)s::bigint
), passed AS (
    UPDATE webhook_queues q
    SET done_to = %(end)s::bigint - 1, epoch = q.epoch + 1, owner = NULL  -- its lease stays: the owner may begin until it ends
    FROM behind b
    WHERE q.endpoint_id = b.endpoint_id
)
SELECT (SELECT * FROM undelivered) + (SELECT * FROM waiting)

-- name: last
SELECT w.last FROM webhook_sequencer w ORDER BY w.last DESC LIMIT 1

-- name: warn
-- Write `webhook_endpoint.disabled` once more for disabled endpoints that will lose events. The log says if that was done for
-- this reason already: the event of the disabling itself is older than the retention, or the endpoint would not be behind it.
WITH behind AS (
    SELECT n.id
    FROM webhook_endpoints n
    WHERE n.id = ANY (%(ids)s::uuid[]) AND n.status = 'disabled'
      AND NOT EXISTS (SELECT FROM webhook_events e
                      WHERE e.payment_id = n.id AND e.type = 'webhook_endpoint.disabled'
                        AND e.at > now() - %(recent)s::interval)
      AND NOT EXISTS (SELECT FROM webhook_outbox o
                      WHERE o.payment_ids[1] = n.id AND o.type = 'webhook_endpoint.disabled')
    FOR NO KEY UPDATE
), changed AS (
    UPDATE webhook_endpoints n SET version = n.version + 1 FROM behind b WHERE n.id = b.id
    RETURNING n.id, n.version, n.account_id
), written AS (
    INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)
    SELECT ARRAY[c.id], ARRAY[c.version], c.account_id, 'webhook_endpoint.disabled' FROM changed c
)
SELECT c.id, c.account_id FROM changed c
