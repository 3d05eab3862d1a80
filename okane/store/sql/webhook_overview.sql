-- name: used
SELECT EXISTS (SELECT FROM webhook_endpoints)

-- name: outbox
-- Changes that have no place in the log yet: those that the next run of the sequencer takes. Rows that wait for pruning only
-- are not among them. The count ends at a million rows of the outbox.
SELECT coalesce(sum(cardinality(f.versions)), 0)::bigint, coalesce(extract(epoch FROM now() - min(f.at)), 0)::float8
FROM (SELECT o.versions, o.at FROM webhook_outbox o
      WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(w.seen) FROM webhook_sequencer w))
      UNION ALL
      (SELECT o.versions, o.at FROM webhook_outbox o
       WHERE o.xid >= (SELECT pg_snapshot_xmax(w.seen) FROM webhook_sequencer w) ORDER BY o.xid LIMIT 1000000)) f

-- name: queues
-- Endpoints with an address, by state: their number, those of them without a dispatcher, and what they have not received yet.
-- Of each queue ten thousand events count at most: a scrape must not read the backlog of an endpoint that was off for days.
-- An event that waits for its next attempt is in the backlog, but not among those whose age counts: it was sent in time.
WITH queues AS MATERIALIZED (
    SELECT e.account_id, e.types, q.endpoint_id, q.done_to, q.failing_since,
           CASE WHEN e.status = 'disabled' THEN 'disabled' WHEN q.failing_since IS NULL THEN 'healthy' ELSE 'failing' END AS state,
           e.status = 'enabled' AND q.lease_until < now() AS unowned
    FROM webhook_endpoints e JOIN webhook_queues q ON q.endpoint_id = e.id
    WHERE e.status <> 'deleted' AND e.url IS NOT NULL)
SELECT q.state, count(*), count(*) FILTER (WHERE q.unowned),
       coalesce(sum(ahead.events + waiting.events), 0)::bigint,
       coalesce(extract(epoch FROM now() - min(ahead.oldest)), 0)::float8,
       coalesce(extract(epoch FROM now() - min(q.failing_since) FILTER (WHERE q.state = 'failing')), 0)::float8,
       min(ahead.first)
FROM queues q
CROSS JOIN LATERAL (
    SELECT count(*) AS events, min(l.at) AS oldest, min(l.position) AS first
    FROM (SELECT v.type, v.at, v.position FROM webhook_events v
          WHERE v.account_id = q.account_id AND v.position > q.done_to
            AND q.done_to < (SELECT s.last FROM webhook_sequencer s)  -- idle queues are not looked up
          ORDER BY v.position LIMIT 10000) l
    WHERE EXISTS (SELECT FROM unnest(q.types) t
                  WHERE t IN (l.type, '*') OR (right(t, 2) = '.*' AND starts_with(l.type, left(t, -1))))) ahead
CROSS JOIN LATERAL (
    SELECT count(*) AS events
    FROM (SELECT d.position FROM webhook_deliveries d  -- in the order of the partial index: the primary key has all deliveries
          WHERE d.endpoint_id = q.endpoint_id AND d.next_at IS NOT NULL ORDER BY d.next_at LIMIT 10000) w
    WHERE w.position <= q.done_to) waiting
GROUP BY q.state

-- name: endpoints
-- The endpoints of every account, those in trouble first; a bounded number.
SELECT e.account_id, e.id, e.url, e.status, e.disabled_reason, q.failing_since, q.last_error,
       coalesce((SELECT s.last FROM webhook_sequencer s) - q.done_to, 0)::bigint AS behind,
       CASE WHEN q.lease_until > now() THEN q.owner END AS owner
FROM webhook_endpoints e LEFT JOIN webhook_queues q ON q.endpoint_id = e.id
WHERE e.status <> 'deleted'
ORDER BY (e.status = 'enabled' AND q.failing_since IS NOT NULL) DESC, (e.status = 'disabled') DESC, behind DESC, e.id
LIMIT %(limit)s::bigint

-- name: log
-- The log and its deliveries: the positions that they hold, and their bytes with indexes.
SELECT (SELECT min(position) FROM webhook_events), (SELECT last FROM webhook_sequencer),
       (SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)::bigint
        FROM (SELECT relid FROM pg_partition_tree('webhook_events') UNION ALL
              SELECT relid FROM pg_partition_tree('webhook_deliveries')) t)

-- name: ended
-- Seconds since the last position of a table partition was written; no row while it is not.
SELECT extract(epoch FROM now() - at)::float8 FROM webhook_events WHERE position = %(last)s
