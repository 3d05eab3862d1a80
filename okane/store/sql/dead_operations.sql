-- name: page
-- Captures, voids and refunds of all accounts that were given up, newest first, from a place in this order on. Read through
-- their partial index; NULL leaves out a condition.
SELECT {operation}, o.dead_at
FROM operations o
WHERE o.dead_at IS NOT NULL
  AND (o.dead_at, o.id) < (%(before_dead_at)s::timestamptz, %(before_id)s::uuid)
  AND (%(status)s::text IS NULL OR o.status = %(status)s::text)
  AND (%(account_id)s::text IS NULL OR o.account_id = %(account_id)s::text)
ORDER BY o.dead_at DESC, o.id DESC
LIMIT %(limit)s::bigint

-- name: oldest
SELECT {operation}, o.dead_at
FROM operations o
WHERE o.dead_at IS NOT NULL
ORDER BY o.dead_at, o.id
LIMIT %(limit)s::bigint

-- name: some
SELECT {operation}, o.dead_at
FROM unnest(%(ids)s::uuid[]) AS s (id)
CROSS JOIN LATERAL (SELECT * FROM operations WHERE id = s.id LIMIT 1) o
WHERE o.dead_at IS NOT NULL

-- name: dismiss
-- The operation keeps its status, and is in the list no more. One that needs a review stays: nothing else lists it. NULL: all,
-- or any age.
UPDATE operations o
SET dead_at = NULL
WHERE o.dead_at IS NOT NULL AND o.status <> 'needs_review'
  AND (%(ids)s::uuid[] IS NULL OR o.id = ANY (%(ids)s::uuid[]))
  AND (%(older_than_ms)s::bigint IS NULL OR o.dead_at < now() - %(older_than_ms)s::bigint * interval '1 millisecond')
RETURNING o.id

-- name: retries
-- What a retry of these operations, in these versions, would take: of the amount that their payment has left for refunds, or
-- of its one place for a capture or void. One that cannot be retried takes nothing, and has no `takes`. One snapshot for all;
-- `retry` decides by the same conditions, one by one.
SELECT o.id, o.payment_id, o.kind = 'refund',
       CASE WHEN {is_retryable} AND o.version = w.version
            THEN CASE WHEN o.status <> 'failed_final' THEN 0 WHEN o.kind = 'refund' THEN o.amount_minor ELSE 1 END END AS takes,
       CASE WHEN o.kind <> 'refund' THEN (p.status = 'authorized' AND NOT {has_open_operation})::integer
            WHEN p.status = 'success' THEN {refund_room}
            ELSE 0 END AS room
FROM unnest(%(ids)s::uuid[], %(versions)s::integer[]) AS w (id, version)
CROSS JOIN LATERAL (SELECT * FROM operations WHERE id = w.id LIMIT 1) o
CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = o.payment_id LIMIT 1) p
