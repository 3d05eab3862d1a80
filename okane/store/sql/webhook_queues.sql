-- name: lease
-- Lease queues without an owner, the longest free ones first. Two dispatchers at once take different ones. `seen_version` is
-- that of the endpoint that is returned: a change that commits meanwhile is confirmed later. A place behind the end of the log
-- is from another log, which a failover has lost: the queue goes on from the end, and rows behind it are of other events.
WITH log AS MATERIALIZED (
    SELECT max(w.last) AS last FROM webhook_sequencer w
), free AS (
    SELECT q.endpoint_id, q.owner, q.done_to
    FROM webhook_queues q
    JOIN webhook_endpoints ep ON ep.id = q.endpoint_id
    WHERE q.lease_until <= now() AND ep.status = 'enabled' AND ep.url IS NOT NULL
    ORDER BY q.lease_until
    LIMIT %(limit)s::bigint
    FOR UPDATE OF q SKIP LOCKED
), removed AS (
    DELETE FROM webhook_deliveries d USING free f, log
    WHERE f.done_to > log.last AND d.endpoint_id = f.endpoint_id AND d.position > log.last
)
UPDATE webhook_queues q
SET owner = %(owner)s::text, epoch = q.epoch + 1, lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
    seen_version = ep.version, done_to = least(q.done_to, log.last)
FROM free, log, webhook_endpoints ep
WHERE q.endpoint_id = free.endpoint_id AND ep.id = free.endpoint_id
RETURNING {endpoint}, q.done_to, q.epoch, q.failures, q.last_error, free.owner IS NOT NULL,
          EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = q.endpoint_id AND d.next_at IS NOT NULL),
          EXISTS (SELECT FROM webhook_replays r WHERE r.endpoint_id = q.endpoint_id),
          EXISTS (SELECT FROM webhook_events e WHERE e.account_id = ep.account_id AND e.position > q.done_to), log.last

-- name: share
-- The queues to serve, those without an owner, those of them that are so for a while, and the dispatchers. A process that is
-- stopped keeps its session, and runs nothing on it; one that is about to end has changed the name of its session. A new
-- queue has never had a lease.
SELECT count(*), count(*) FILTER (WHERE q.lease_until <= now()),
       count(*) FILTER (WHERE greatest(q.lease_until, ep.created_at)
                              <= now() - %(orphaned_ms)s::bigint * interval '1 millisecond'),
       (SELECT greatest(count(*), 1) FROM pg_stat_activity a
        WHERE a.datname = current_database() AND a.application_name = %(session)s::text
          AND (a.state_change IS NULL OR a.state_change > now() - %(silent_ms)s::bigint * interval '1 millisecond')),
       EXISTS (SELECT FROM webhook_accounts) OR EXISTS (SELECT FROM webhook_outbox), extract(epoch FROM now())::float8
FROM webhook_queues q
JOIN webhook_endpoints ep ON ep.id = q.endpoint_id
WHERE ep.status = 'enabled' AND ep.url IS NOT NULL

-- name: renew
-- Renew every lease of the owner; return their number. `idle_to`: the idle queues have no open event up to it. Others may, also
-- those that the owner does not know of, since the answer to their lease was lost.
WITH renewed AS (
    UPDATE webhook_queues q
    SET lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
        done_to = CASE WHEN q.endpoint_id = ANY (%(idle)s::uuid[]) THEN greatest(q.done_to, %(idle_to)s::bigint)
                       ELSE q.done_to END
    WHERE q.owner = %(owner)s::text
    RETURNING q.endpoint_id
)
SELECT count(*) FROM renewed

-- name: owned
SELECT q.endpoint_id, q.epoch FROM webhook_queues q WHERE q.owner = %(owner)s::text

-- name: changed
-- The endpoints of the owner that have changed since it confirmed them.
SELECT {endpoint}, q.epoch
FROM webhook_queues q
JOIN webhook_endpoints ep ON ep.id = q.endpoint_id
WHERE q.owner = %(owner)s::text AND ep.version <> q.seen_version

-- name: confirm
UPDATE webhook_queues q SET seen_version = n.version
FROM unnest(%(ids)s::uuid[], %(versions)s::integer[]) AS n (endpoint_id, version)
WHERE q.endpoint_id = n.endpoint_id AND q.owner = %(owner)s::text

-- name: release
-- From now on it counts how long a queue has no owner.
UPDATE webhook_queues q SET owner = NULL, lease_until = now()
WHERE q.owner = %(owner)s::text AND q.endpoint_id = ANY (%(ids)s::uuid[])

-- name: write
-- Write the results of some queues, if their owner still holds them: a stale epoch writes nothing. The cursor of a queue moves
-- with the rows that it passes. A row without a duration is no attempt: it only moves the time of the next one. The first
-- failed attempt stays in `earlier`: the hold counts from it.
WITH queues AS (
    UPDATE webhook_queues q
    SET done_to = greatest(q.done_to, n.done_to),
        failures = n.failures,
        failing_since = CASE WHEN n.failures = 0 THEN NULL
                             WHEN n.succeeded THEN now()
                             ELSE coalesce(q.failing_since, now()) END,
        last_error = CASE WHEN n.failures = 0 THEN NULL ELSE coalesce(n.last_error, q.last_error) END
    FROM unnest(%(queue_ids)s::uuid[], %(epochs)s::integer[], %(done_tos)s::bigint[], %(failures)s::integer[],
                %(succeeded)s::boolean[], %(last_errors)s::text[])
        AS n (endpoint_id, epoch, done_to, failures, succeeded, last_error)
    WHERE q.endpoint_id = n.endpoint_id AND q.epoch = n.epoch AND q.owner = %(owner)s::text
    RETURNING q.endpoint_id
), moved AS (
    UPDATE webhook_replays r SET next = n.next
    FROM unnest(%(replay_ids)s::uuid[], %(replay_froms)s::bigint[], %(replay_befores)s::bigint[], %(replay_nexts)s::bigint[])
        AS n (endpoint_id, from_position, before, next)
    JOIN queues USING (endpoint_id)
    WHERE r.endpoint_id = n.endpoint_id AND r.from_position = n.from_position AND r.next = n.before  -- else it began anew
), written AS (
    INSERT INTO webhook_deliveries AS d (endpoint_id, position, state, attempts, status, ms, reason, at, next_at)
    SELECT r.endpoint_id, r.position, r.state, r.attempts::smallint, r.status::smallint, r.ms, r.reason,
           now() - r.age_ms * interval '1 millisecond', now() + r.delay_ms * interval '1 millisecond'
    FROM unnest(%(row_ids)s::uuid[], %(positions)s::bigint[], %(states)s::text[], %(attempts)s::integer[],
                %(statuses)s::integer[], %(ms)s::integer[], %(reasons)s::text[], %(ages_ms)s::bigint[], %(delays_ms)s::bigint[])
        AS r (endpoint_id, position, state, attempts, status, ms, reason, age_ms, delay_ms)
    JOIN queues USING (endpoint_id)
    -- Its table partition may have been dropped meanwhile: such a result has no place, and must not hold up the others.
    WHERE r.position >= coalesce((SELECT e.position FROM webhook_events e ORDER BY e.position LIMIT 1), 0)
    ON CONFLICT (endpoint_id, position) DO UPDATE
    SET next_at = CASE WHEN excluded.ms IS NULL AND d.state <> 'waiting' THEN d.next_at ELSE excluded.next_at END,
        state = CASE WHEN excluded.ms IS NULL THEN d.state ELSE excluded.state END,
        attempts = CASE WHEN excluded.ms IS NULL THEN d.attempts ELSE excluded.attempts END,
        status = CASE WHEN excluded.ms IS NULL THEN d.status ELSE excluded.status END,
        ms = CASE WHEN excluded.ms IS NULL THEN d.ms ELSE excluded.ms END,
        reason = CASE WHEN excluded.ms IS NULL THEN d.reason ELSE excluded.reason END,
        at = CASE WHEN excluded.ms IS NULL THEN d.at ELSE excluded.at END,
        earlier = CASE WHEN excluded.ms IS NULL OR d.ms IS NULL THEN d.earlier
                       ELSE CASE WHEN jsonb_array_length(d.earlier) >= %(most_earlier)s::integer THEN d.earlier - 1
                                 ELSE coalesce(d.earlier, '[]') END
                            || jsonb_build_object('at', d.at, 'status', d.status, 'ms', d.ms, 'reason', d.reason) END
)
SELECT endpoint_id FROM queues

-- name: accounts_between
-- The accounts that have an event between two positions: after a burst, only their queues read their own backlogs.
SELECT DISTINCT e.account_id
FROM webhook_events e
WHERE e.position > %(after)s::bigint AND e.position <= %(up_to)s::bigint

-- name: due
-- The rows that are due at each of these endpoints, up to its room, and the milliseconds until the next one that is not.
SELECT w.endpoint_id, d.position, d.attempts, n.next_ms
FROM unnest(%(ids)s::uuid[], %(rooms)s::bigint[]) AS w (endpoint_id, room)
LEFT JOIN LATERAL (
    SELECT o.position, o.attempts
    FROM webhook_deliveries o
    WHERE o.endpoint_id = w.endpoint_id AND o.next_at <= now()
    ORDER BY o.endpoint_id, o.next_at LIMIT w.room) d ON true
LEFT JOIN LATERAL (
    SELECT (extract(epoch FROM o.next_at - now()) * 1000)::bigint AS next_ms
    FROM webhook_deliveries o
    WHERE o.endpoint_id = w.endpoint_id AND o.next_at > now()
    ORDER BY o.endpoint_id, o.next_at LIMIT 1) n ON true

-- name: holds
-- The waiting rows that hold back later events of their payments: those that were never sent (no time), and those that failed
-- first less than `hold_s` ago, with the milliseconds that are left.
SELECT w.endpoint_id, e.payment_id, d.position,
       CASE WHEN d.ms IS NOT NULL THEN greatest(0, extract(epoch FROM d.ends_at - now()) * 1000)::bigint END
FROM unnest(%(ids)s::uuid[], %(holds_s)s::bigint[]) AS w (endpoint_id, hold_s)
CROSS JOIN LATERAL (
    SELECT h.*
    FROM (SELECT o.position, o.ms,
                 coalesce((o.earlier -> 0 ->> 'at')::timestamptz, o.at) + w.hold_s * interval '1 second' AS ends_at
          FROM webhook_deliveries o
          WHERE o.endpoint_id = w.endpoint_id AND o.next_at IS NOT NULL) h
    WHERE h.ms IS NULL OR h.ends_at > now()
    LIMIT %(most)s::bigint) d
JOIN webhook_events e ON e.position = d.position

-- name: replays
-- The first replay of each of these endpoints.
SELECT DISTINCT ON (r.endpoint_id) r.endpoint_id, r.from_position, r.to_position, r.next, r.only_failed
FROM webhook_replays r
WHERE r.endpoint_id = ANY (%(ids)s::uuid[])
ORDER BY r.endpoint_id, r.from_position

-- name: replay_page
-- The positions of a replay after `after`, and the position that this page has come to. Looks at `window` events at most.
WITH seen AS MATERIALIZED (
    SELECT v.position, v.type
    FROM webhook_events v
    WHERE (v.account_id, v.position) > (%(account_id)s::text, %(after)s::bigint)
      AND (v.account_id, v.position) <= (%(account_id)s::text, %(up_to)s::bigint)
      AND v.position > %(after)s::bigint AND v.position <= %(up_to)s::bigint
    ORDER BY v.account_id, v.position
    LIMIT %(window)s::bigint
), found AS MATERIALIZED (
    SELECT v.position
    FROM seen v
    WHERE v.type = ANY (%(types)s::text[])
      AND NOT (%(only_failed)s::boolean
               AND EXISTS (SELECT FROM webhook_deliveries d
                           WHERE d.endpoint_id = %(endpoint_id)s::uuid AND d.position = v.position AND d.state = 'delivered'))
    ORDER BY v.position
    LIMIT %(limit)s::bigint
)
SELECT CASE WHEN (SELECT count(*) FROM found) = %(limit)s::bigint THEN (SELECT max(f.position) FROM found f)
            WHEN (SELECT count(*) FROM seen) = %(window)s::bigint THEN (SELECT max(v.position) FROM seen v)
            ELSE greatest(%(after)s::bigint, %(up_to)s::bigint) END,
       ARRAY(SELECT f.position FROM found f ORDER BY f.position)

-- name: end_replay
DELETE FROM webhook_replays r
USING webhook_queues q
WHERE r.endpoint_id = %(id)s::uuid AND r.from_position = %(from_position)s::bigint
  AND r.next > r.to_position AND q.endpoint_id = r.endpoint_id AND q.owner = %(owner)s::text AND q.epoch = %(epoch)s::integer

-- name: report_failing
-- Write `webhook_endpoint.failing` for endpoints of the owner that have failed for an hour, and once more after a day. The log
-- says which events were written: a new owner does not repeat them.
WITH late AS (
    SELECT q.endpoint_id, q.failing_since, q.last_error
    FROM webhook_queues q
    JOIN webhook_endpoints ep ON ep.id = q.endpoint_id
    WHERE q.owner = %(owner)s::text AND ep.status = 'enabled'
      AND q.failing_since <= now() - %(first_ms)s::bigint * interval '1 millisecond'
      AND (SELECT count(*) FROM webhook_events e
           WHERE e.payment_id = q.endpoint_id AND e.type = 'webhook_endpoint.failing' AND e.at >= q.failing_since)
        + (SELECT count(*) FROM webhook_outbox o
           WHERE o.payment_ids[1] = q.endpoint_id AND o.type = 'webhook_endpoint.failing')
        < CASE WHEN q.failing_since <= now() - %(second_ms)s::bigint * interval '1 millisecond' THEN 2 ELSE 1 END
), changed AS (
    UPDATE webhook_endpoints ep SET version = ep.version + 1
    FROM late
    WHERE ep.id = late.endpoint_id AND ep.status = 'enabled'
    RETURNING ep.id, ep.version, ep.account_id, extract(epoch FROM now() - late.failing_since)::float8 AS failing_s,
              late.last_error
), written AS (
    INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)
    SELECT ARRAY[c.id], ARRAY[c.version], c.account_id, 'webhook_endpoint.failing' FROM changed c
)
SELECT c.id, c.account_id, c.failing_s, c.last_error FROM changed c

-- name: disable
-- Disable endpoints of the owner that are gone (410), or have failed for five days. Their places in the log are kept.
WITH changed AS (
    UPDATE webhook_endpoints ep
    SET status = 'disabled', version = ep.version + 1,
        disabled_reason = CASE WHEN ep.id = ANY (%(gone)s::uuid[]) THEN 'gone' ELSE 'failing' END
    FROM webhook_queues q
    WHERE q.endpoint_id = ep.id AND q.owner = %(owner)s::text AND ep.status = 'enabled'
      AND (ep.id = ANY (%(gone)s::uuid[])
           OR q.failing_since <= now() - %(after_ms)s::bigint * interval '1 millisecond')
    RETURNING ep.id, ep.version, ep.account_id, ep.disabled_reason, q.last_error
), written AS (
    INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)
    SELECT ARRAY[c.id], ARRAY[c.version], c.account_id, 'webhook_endpoint.disabled' FROM changed c
)
SELECT c.id, c.account_id, c.disabled_reason, c.last_error FROM changed c
