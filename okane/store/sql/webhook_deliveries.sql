-- name: delivery
-- Not a statement: others include it.
d.endpoint_id, d.position, d.state, d.attempts, d.status, d.ms, d.reason, d.at, d.next_at, d.earlier

-- name: of_event
SELECT {delivery}
FROM webhook_endpoints ep
JOIN webhook_deliveries d ON d.endpoint_id = ep.id AND d.position = %(position)s::bigint
WHERE ep.account_id = %(account_id)s::text
ORDER BY ep.created_at, ep.id

-- name: of_endpoint
-- The newest deliveries of an endpoint before a position: of `window` of them at most those in these states, and how far that
-- was. In the order of the primary key, so it needs no index of its own.
SELECT l.looked, l.reached, e.position, e.account_id, e.payment_id, e.version, e.type, e.at, {delivery}
FROM webhook_endpoints ep
CROSS JOIN LATERAL (
    SELECT count(*) AS looked, min(w.position) AS reached,
           (array_agg(w.position ORDER BY w.position DESC)
            FILTER (WHERE w.state = ANY (%(states)s::text[])))[1:%(most)s::integer] AS positions
    FROM (SELECT o.position, o.state FROM webhook_deliveries o
          WHERE o.endpoint_id = ep.id AND o.position < %(before)s::bigint
          ORDER BY o.position DESC LIMIT %(window)s::bigint) w) l
LEFT JOIN LATERAL unnest(l.positions) AS p (position) ON true
LEFT JOIN webhook_deliveries d ON d.endpoint_id = ep.id AND d.position = p.position
LEFT JOIN webhook_events e ON e.position = d.position
WHERE ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status <> 'deleted'

-- name: redeliver
-- The failed attempts so far stay in `earlier`. Without a row the event was not tried yet, or its row is from before the
-- endpoint. The new version tells the owner of the queue to look.
WITH ep AS (
    UPDATE webhook_endpoints ep SET version = ep.version + 1
    WHERE ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status <> 'deleted'
    RETURNING ep.id
)
INSERT INTO webhook_deliveries AS d (endpoint_id, position, state, attempts, at, next_at)
SELECT ep.id, %(position)s::bigint, 'waiting', 0, now(), now()
FROM ep
ON CONFLICT (endpoint_id, position) DO UPDATE SET state = 'waiting', next_at = now()
RETURNING {delivery}

-- name: of_reader
-- Not a statement: others include it.
ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status <> 'deleted' AND ep.url IS NULL

-- name: redelivered
SELECT d.position, now()
FROM webhook_endpoints ep JOIN webhook_deliveries d ON d.endpoint_id = ep.id
WHERE {of_reader} AND d.next_at <= now()
ORDER BY d.next_at LIMIT %(most)s::bigint

-- name: confirm_redelivered
-- One that is asked for again since it was read has a later time, and stays due.
UPDATE webhook_deliveries d SET state = 'delivered', attempts = d.attempts + 1, at = now(), next_at = NULL
FROM webhook_endpoints ep
WHERE {of_reader} AND d.endpoint_id = ep.id AND d.position = ANY (%(positions)s::bigint[])
  AND d.next_at <= %(read_at)s::timestamptz

-- name: ends
SELECT (SELECT position FROM webhook_events ORDER BY position LIMIT 1),
       (SELECT position FROM webhook_events ORDER BY position DESC LIMIT 1)

-- name: at
SELECT at FROM webhook_events WHERE position >= %(position)s::bigint ORDER BY position LIMIT 1

-- name: of_account
-- The events of an account between two positions. Comparing account and position together leaves only the account's index to
-- the planner: with an equality it might scan the events of all accounts. Not a statement: others include it.
FROM webhook_events e
WHERE (e.account_id, e.position) >= (%(account_id)s::text, %(first)s::bigint)
  AND (e.account_id, e.position) <= (%(account_id)s::text, %(last)s::bigint)
  AND e.position >= %(first)s::bigint AND e.position <= %(last)s::bigint

-- name: range
-- Both ends look at `window` events at most. If none of those is of the time, the range begins, or ends, with them.
SELECT (SELECT coalesce(min(w.position) FILTER (WHERE w.at >= %(since)s::timestamptz AND w.at < %(until)s::timestamptz),
                        CASE WHEN count(*) = %(window)s::bigint THEN max(w.position) END)
        FROM (SELECT e.position, e.at {of_account}
              ORDER BY e.account_id, e.position LIMIT %(window)s::bigint) w),
       (SELECT coalesce(max(w.position) FILTER (WHERE w.at >= %(since)s::timestamptz AND w.at < %(until)s::timestamptz),
                        CASE WHEN count(*) = %(window)s::bigint THEN min(w.position) END)
        FROM (SELECT e.position, e.at {of_account}
              ORDER BY e.account_id DESC, e.position DESC LIMIT %(window)s::bigint) w)

-- name: count
SELECT count(*)
FROM webhook_endpoints ep
JOIN (SELECT e.type {of_account} ORDER BY e.account_id, e.position LIMIT %(most)s::bigint) e
  ON e.type = ANY (ep.types) OR '*' = ANY (ep.types) OR split_part(e.type, '.', 1) || '.*' = ANY (ep.types)
WHERE ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text

-- name: recover
-- The new version tells the owner of the queue to look.
WITH ep AS (
    UPDATE webhook_endpoints ep SET version = ep.version + 1
    WHERE ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status <> 'deleted'
      AND (SELECT count(*) FROM webhook_replays o
           WHERE o.endpoint_id = ep.id AND o.from_position <> %(first)s::bigint) < %(most)s::bigint
    RETURNING ep.id
)
INSERT INTO webhook_replays AS r (endpoint_id, from_position, to_position, next, only_failed)
SELECT ep.id, %(first)s::bigint, %(last)s::bigint, %(first)s::bigint, %(only_failed)s::boolean
FROM ep
ON CONFLICT (endpoint_id, from_position) DO UPDATE SET
    to_position = greatest(r.to_position, excluded.to_position), next = excluded.next,
    only_failed = r.only_failed AND excluded.only_failed
RETURNING r.endpoint_id
