-- name: lock_account
-- Creations and deletions of one account come one after the other: the limit is counted, and its last endpoint is known.
SELECT true FROM webhook_accounts WHERE account_id = %(account_id)s::text FOR UPDATE

-- name: limit_lock
-- Changes of payments wait behind the lock below: they must not for long.
SET LOCAL lock_timeout = '250ms'

-- name: lock_outbox
-- Waits for every change that is in progress: its INSERT holds ROW EXCLUSIVE even if it inserts no row. A change that begins
-- now takes its snapshot after this transaction, and sees the account.
LOCK TABLE webhook_outbox IN SHARE MODE

-- name: add_account
-- The row is locked, too, if another transaction has added it since.
INSERT INTO webhook_accounts (account_id) VALUES (%(account_id)s::text)
ON CONFLICT (account_id) DO UPDATE SET account_id = excluded.account_id

-- name: create
-- An event that commits after this gets a position above `last`.
WITH made AS (
    INSERT INTO webhook_endpoints AS ep (id, account_id, url, types, payload, api_version, description, max_in_flight,
        rate_limit, timeout_s, hold_s, v1a, starts_after, polled_at)
    SELECT %(id)s::uuid, %(account_id)s::text, %(url)s::text, %(types)s::text[], %(payload)s::text, %(api_version)s::text,
        %(description)s::text, %(max_in_flight)s::smallint, %(rate_limit)s::integer, %(timeout_s)s::smallint,
        %(hold_s)s::integer, %(asymmetric)s::boolean, s.last, CASE WHEN %(url)s::text IS NULL THEN now() END
    FROM (SELECT last FROM webhook_sequencer ORDER BY last DESC LIMIT 1) s
    WHERE (SELECT count(*) FROM webhook_endpoints o
           WHERE o.account_id = %(account_id)s::text AND o.status <> 'deleted') < %(most)s::bigint
    RETURNING ep.*
), queued AS (
    INSERT INTO webhook_queues (endpoint_id, done_to) SELECT id, starts_after FROM made WHERE url IS NOT NULL
)
SELECT {endpoint} FROM made ep

-- name: states
-- The backlog reads a bounded number of events, however far behind the endpoint is.
SELECT {endpoint}, coalesce(backlog.n, 0), coalesce(waiting.n, 0), q.failing_since, coalesce(q.failures, 0), q.last_error
FROM webhook_endpoints ep
LEFT JOIN webhook_queues q ON q.endpoint_id = ep.id
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE e.type = ANY (ep.types) OR '*' = ANY (ep.types)
                               OR split_part(e.type, '.', 1) || '.*' = ANY (ep.types)) AS n
    FROM (SELECT type FROM webhook_events
          WHERE (account_id, position) > (ep.account_id, q.done_to) AND position > q.done_to
            AND (account_id, position) <= (ep.account_id, 9223372036854775807)
          ORDER BY account_id, position LIMIT %(most)s::bigint) e) backlog ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS n
    FROM (SELECT FROM webhook_deliveries d
          WHERE d.endpoint_id = ep.id AND d.next_at IS NOT NULL LIMIT %(most)s::bigint) d) waiting ON true
WHERE ep.account_id = %(account_id)s::text AND ep.status <> 'deleted'
  AND (%(id)s::uuid IS NULL OR ep.id = %(id)s::uuid)
ORDER BY ep.created_at, ep.id

-- name: mine
-- An endpoint that its account still has. Not a statement: others include it.
ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status <> 'deleted'

-- name: change
UPDATE webhook_endpoints ep SET
    url = CASE WHEN %(has_url)s::boolean THEN %(url)s::text ELSE url END,
    types = CASE WHEN %(has_types)s::boolean THEN %(types)s::text[] ELSE types END,
    description = CASE WHEN %(has_description)s::boolean THEN %(description)s::text ELSE description END,
    max_in_flight = CASE WHEN %(has_max_in_flight)s::boolean THEN %(max_in_flight)s::smallint ELSE max_in_flight END,
    rate_limit = CASE WHEN %(has_rate_limit)s::boolean THEN %(rate_limit)s::integer ELSE rate_limit END,
    timeout_s = CASE WHEN %(has_timeout_s)s::boolean THEN %(timeout_s)s::smallint ELSE timeout_s END,
    hold_s = CASE WHEN %(has_hold_s)s::boolean THEN %(hold_s)s::integer ELSE hold_s END,
    v1a = CASE WHEN %(has_asymmetric)s::boolean THEN %(asymmetric)s::boolean ELSE v1a END,
    version = version + 1
WHERE {mine}
RETURNING {endpoint}

-- name: rotate
UPDATE webhook_endpoints ep SET
    key_generation = key_generation + 1,
    older_key_until = now() + %(older_ms)s::bigint * interval '1 millisecond',
    version = version + 1
WHERE {mine}
RETURNING {endpoint}

-- name: disable
UPDATE webhook_endpoints ep SET status = 'disabled', disabled_reason = %(reason)s::text, version = version + 1
WHERE {mine} AND (%(seen)s::bigint IS NULL OR ep.version = %(seen)s)
RETURNING {endpoint}

-- name: enable
UPDATE webhook_endpoints ep SET status = 'enabled', disabled_reason = NULL, version = version + 1
WHERE {mine} AND (%(seen)s::bigint IS NULL OR ep.version = %(seen)s)
RETURNING {endpoint}

-- name: restart_queue
-- The failures begin anew. With a new place the queue is taken from its owner, whose results would move it back. The lease
-- stays: no other dispatcher begins while that owner may still send.
UPDATE webhook_queues q SET
    failing_since = NULL,
    failures = 0,
    done_to = CASE WHEN %(from_now)s::boolean THEN greatest(done_to, (SELECT max(s.last) FROM webhook_sequencer s))
                   ELSE done_to END,
    owner = CASE WHEN %(from_now)s::boolean THEN NULL ELSE owner END,
    epoch = CASE WHEN %(from_now)s::boolean THEN epoch + 1 ELSE epoch END
WHERE q.endpoint_id = %(id)s::uuid

-- name: give_up_waiting
UPDATE webhook_deliveries d SET state = 'given_up', next_at = NULL, reason = %(reason)s::text, at = now()
WHERE d.endpoint_id = %(id)s::uuid AND d.next_at IS NOT NULL

-- name: end_replays
DELETE FROM webhook_replays WHERE endpoint_id = %(id)s::uuid

-- name: confirmed
SELECT NOT EXISTS (
    SELECT FROM webhook_queues q
    WHERE q.endpoint_id = %(id)s::uuid
      AND q.lease_until > clock_timestamp() AND q.seen_version < %(version)s::integer)

-- name: delete
UPDATE webhook_endpoints ep SET status = 'deleted', version = version + 1, deleted_at = now()
WHERE {mine}
RETURNING {endpoint}

-- name: deleting
-- One that a request has deleted, and that a dispatcher may still have.
SELECT {endpoint} FROM webhook_endpoints ep JOIN webhook_queues q ON q.endpoint_id = ep.id
WHERE ep.id = %(id)s::uuid AND ep.account_id = %(account_id)s::text AND ep.status = 'deleted'

-- name: is_unused
-- True for an account whose last endpoint was deleted an hour ago. Its changes are recorded until then: the first endpoint of
-- an account holds up the changes of all, and a client that creates and deletes one again and again must not do that. Not a
-- statement: others include it.
EXISTS (SELECT FROM webhook_endpoints o WHERE o.account_id = a.account_id)
AND NOT EXISTS (SELECT FROM webhook_endpoints o
                WHERE o.account_id = a.account_id
                  AND (o.status <> 'deleted' OR o.deleted_at > now() - interval '1 hour'))

-- name: unused_accounts
SELECT a.account_id FROM webhook_accounts a WHERE {is_unused} LIMIT 100

-- name: forget_account
DELETE FROM webhook_accounts a WHERE a.account_id = %(account_id)s::text AND {is_unused}

-- name: forget_oldest_deleted
DELETE FROM webhook_endpoints o
WHERE o.id IN (SELECT d.id FROM webhook_endpoints d
               WHERE d.account_id = %(account_id)s::text AND d.status = 'deleted'
                 AND NOT EXISTS (SELECT FROM webhook_queues q WHERE q.endpoint_id = d.id)
               ORDER BY d.deleted_at DESC OFFSET %(kept)s::bigint)

-- name: remove_queue
-- True once there is no queue. A lease that is written at the same time holds the row: this waits for it, and reads it again.
WITH removed AS (
    DELETE FROM webhook_queues q USING webhook_endpoints ep
    WHERE q.endpoint_id = %(id)s::uuid AND ep.id = q.endpoint_id AND ep.status = 'deleted'
      AND (q.lease_until <= clock_timestamp() OR q.seen_version >= ep.version)
    RETURNING q.endpoint_id
)
SELECT EXISTS (SELECT FROM removed) OR NOT EXISTS (SELECT FROM webhook_queues q WHERE q.endpoint_id = %(id)s::uuid)

-- name: poll
-- Written once a minute at most.
WITH polled AS (
    UPDATE webhook_endpoints ep SET polled_at = now()
    WHERE {mine} AND ep.url IS NULL AND ep.polled_at < now() - interval '1 minute'
)
SELECT {endpoint} FROM webhook_endpoints ep WHERE {mine}

-- name: unpolled
SELECT account_id, id FROM webhook_endpoints
WHERE url IS NULL AND status <> 'deleted' AND polled_at < now() - %(unpolled_ms)s::bigint * interval '1 millisecond'
LIMIT 100

-- name: unfinished
SELECT {endpoint} FROM webhook_endpoints ep JOIN webhook_queues q ON q.endpoint_id = ep.id
WHERE ep.status = 'deleted' AND ep.deleted_at < now() - interval '1 minute'
LIMIT 100

-- name: forget_deleted
DELETE FROM webhook_endpoints ep
WHERE ep.status = 'deleted' AND ep.deleted_at < now() - %(keep_ms)s::bigint * interval '1 millisecond'
  AND NOT EXISTS (SELECT FROM webhook_queues q WHERE q.endpoint_id = ep.id)
