-- name: wanted
-- The filter of lists; each NULL leaves out a condition. Not a statement: the others include it.
(%(statuses)s::text[] IS NULL OR p.status = ANY (%(statuses)s::text[]))
AND (%(currency)s::text IS NULL OR p.currency = %(currency)s::text)
AND (%(created_from)s::timestamptz IS NULL OR p.created_at >= %(created_from)s::timestamptz)
AND (%(created_before)s::timestamptz IS NULL OR p.created_at < %(created_before)s::timestamptz)
AND (%(updated_from)s::timestamptz IS NULL OR p.updated_at >= %(updated_from)s::timestamptz)
AND (%(updated_before)s::timestamptz IS NULL OR p.updated_at < %(updated_before)s::timestamptz)
AND (%(amount_min)s::bigint IS NULL OR p.amount_minor >= %(amount_min)s::bigint)
AND (%(amount_max)s::bigint IS NULL OR p.amount_minor <= %(amount_max)s::bigint)
AND (%(provider_ref)s::text IS NULL OR coalesce(p.provider_ref, p.attempt_ref) = %(provider_ref)s::text)
AND (%(metadata)s::jsonb IS NULL OR p.metadata @> %(metadata)s::jsonb)
AND (%(provider)s::text IS NULL
     OR EXISTS (SELECT FROM payment_events e WHERE e.payment_id = p.id AND e.provider = %(provider)s::text))

-- name: newest
-- Newest first, or oldest first with ASC, between two ids. Reads at most `window` rows, and returns where it stopped if it
-- reached that bound. Comparing and ordering by account and id together leaves only the account's index to the planner: with
-- an equality it might scan the payments of all accounts by id.
WITH found AS MATERIALIZED (
    SELECT p.*
    FROM (SELECT * FROM payments
          WHERE (account_id, id) < (%(account_id)s::text, %(before)s::uuid)
            AND (account_id, id) >= (%(account_id)s::text, %(oldest)s::uuid)
          ORDER BY account_id {order}, id {order}
          LIMIT %(window)s::bigint) p
    WHERE {wanted}
    ORDER BY p.account_id {order}, p.id {order}
    LIMIT %(limit)s::bigint
)
SELECT {payment}, reached.id
FROM (SELECT (SELECT w.id FROM payments w
              WHERE (SELECT count(*) FROM found) < %(limit)s::bigint
                AND (w.account_id, w.id) < (%(account_id)s::text, %(before)s::uuid)
                AND (w.account_id, w.id) >= (%(account_id)s::text, %(oldest)s::uuid)
              ORDER BY w.account_id {order}, w.id {order}
              OFFSET %(window)s::bigint - 1 LIMIT 1)) AS reached (id)
LEFT JOIN found p ON true
ORDER BY p.id {order}

-- name: newest_rare
-- The same for statuses that few payments have: each is read through the partial index, and the lists are merged. Where a
-- list was cut off, the page ends at the first such place.
WITH kinds AS MATERIALIZED (
    SELECT s.status, w.id, row_number() OVER (PARTITION BY s.status ORDER BY w.id {order}) AS place
    FROM unnest(%(statuses)s::text[]) AS s (status)
    CROSS JOIN LATERAL (
        SELECT r.id FROM payments r
        WHERE r.rare_status IS NOT NULL
          AND (r.account_id, r.rare_status, r.id) < (%(account_id)s::text, s.status, %(before)s::uuid)
          AND (r.account_id, r.rare_status, r.id) >= (%(account_id)s::text, s.status, %(oldest)s::uuid)
        ORDER BY r.account_id {order}, r.rare_status {order}, r.id {order}
        LIMIT %(window)s::bigint) w
), cut AS MATERIALIZED (
    SELECT (SELECT k.id FROM kinds k WHERE k.place = %(window)s::bigint ORDER BY k.id {order} LIMIT 1) AS id
), found AS MATERIALIZED (
    SELECT p.*
    FROM kinds k
    CROSS JOIN cut
    CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = k.id LIMIT 1) p  -- a join might begin with all payments
    WHERE (cut.id IS NULL OR k.id {within} cut.id) AND {wanted}
    ORDER BY p.id {order}
    LIMIT %(limit)s::bigint
)
SELECT {payment}, CASE WHEN (SELECT count(*) FROM found) < %(limit)s::bigint THEN cut.id END
FROM cut
LEFT JOIN found p ON true
ORDER BY p.id {order}

-- name: of_metadata
-- Newest first, by the optional index on metadata. Reads at most `window` payments of all accounts that have the pairs, and
-- tells whether there were so many: then some are missing.
WITH matching AS MATERIALIZED (
    SELECT m.id, m.account_id FROM payments m WHERE m.metadata @> %(metadata)s::jsonb LIMIT %(window)s::bigint
), found AS MATERIALIZED (
    SELECT p.*
    FROM matching m
    CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = m.id LIMIT 1) p
    WHERE m.account_id = %(account_id)s::text AND m.id < %(before)s::uuid AND m.id >= %(oldest)s::uuid AND {wanted}
    ORDER BY p.id DESC
    LIMIT %(limit)s::bigint
)
SELECT {payment}, (SELECT count(*) FROM matching) = %(window)s::bigint
FROM (SELECT 1) AS one (row)
LEFT JOIN found p ON true
ORDER BY p.id DESC

-- name: timeline
-- The events of a payment after version `after`; acceptance is version 0.
SELECT p.id AS payment_id, 0 AS version, p.created_at AS at, 'accepted' AS event, 'pending' AS status, 0 AS attempt,
       'api' AS actor, NULL AS reason, NULL AS provider, NULL AS latency_ms, NULL AS call, NULL AS decline_code,
       NULL::uuid AS operation_id
FROM payments p WHERE p.id = %(id)s::uuid AND p.account_id = %(account_id)s::text AND %(after)s::integer < 0
UNION ALL
SELECT {event}
FROM payment_events e
WHERE e.payment_id = %(id)s::uuid AND e.version > %(after)s::integer
  AND EXISTS (SELECT FROM payments p WHERE p.id = %(id)s::uuid AND p.account_id = %(account_id)s::text)
ORDER BY version
LIMIT %(limit)s::bigint

-- name: attempts
-- The attempts of a payment after number `after`, up to `last`, with their outcomes. What became of its captures and refunds is
-- no outcome of an attempt to charge it.
SELECT {event}
FROM payment_events e
WHERE e.payment_id = %(id)s::uuid AND e.attempt > %(after)s::integer AND e.attempt <= %(last)s::integer
  AND (e.event = 'claimed' OR e.provider IS NOT NULL) AND e.operation_id IS NULL
  AND EXISTS (SELECT FROM payments p WHERE p.id = %(id)s::uuid AND p.account_id = %(account_id)s::text)
ORDER BY e.version

-- name: waited_for
-- Those of these payments that have come to one of these statuses. The caller has checked that their accounts may read them.
SELECT p.id, p.status FROM payments p WHERE p.id = ANY (%(ids)s::uuid[]) AND p.status = ANY (%(statuses)s::text[])

-- name: of_key
-- An idempotency key has one payment at most. OFFSET 0 keeps the planner from the index of (account_id, id), which it prefers
-- on a table that was never analyzed.
SELECT {payment}, NULL::uuid
FROM (SELECT * FROM payments k
      WHERE k.account_id = %(account_id)s::text AND k.idempotency_key = %(idempotency_key)s::text OFFSET 0) p
WHERE p.id < %(before)s::uuid AND p.id >= %(oldest)s::uuid
  AND {wanted}

-- name: of_key_in_parts
-- `of_key` for payments in table partitions, whose keys are in a table of their own; `keys_of_first` adds those of
-- the first table partition.
SELECT {payment}, NULL::uuid
FROM (SELECT d.id FROM payment_keys d WHERE d.digest = %(digest)s::uuid{keys_of_first}) k
CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = k.id LIMIT 1) p
WHERE p.account_id = %(account_id)s::text AND p.idempotency_key = %(idempotency_key)s::text
  AND p.id < %(before)s::uuid AND p.id >= %(oldest)s::uuid
  AND {wanted}

-- name: in_first
-- Not a statement: others include it.
SELECT f.id FROM payments_first f
WHERE f.account_id = %(account_id)s::text AND f.idempotency_key = %(idempotency_key)s::text
