-- name: page
-- Newest first, from a place in this order on: whoever stood there may have left the list since.
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL
  AND (%(before_dead_at)s::timestamptz IS NULL
       OR (p.dead_at, p.id) < (%(before_dead_at)s::timestamptz, %(before_id)s::uuid))
ORDER BY p.dead_at DESC, p.id DESC
LIMIT %(limit)s

-- name: oldest
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL
ORDER BY p.dead_at, p.id
LIMIT %(limit)s

-- name: some
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL AND p.id = ANY (%(ids)s::uuid[])

-- name: dismiss
-- The payment stays what it is; it is no dead letter any more. NULL means all, or any age.
UPDATE payments p
SET dead_at = NULL
WHERE p.dead_at IS NOT NULL
  AND (%(ids)s::uuid[] IS NULL OR p.id = ANY (%(ids)s::uuid[]))
  AND (%(older_than_ms)s::bigint IS NULL OR p.dead_at < now() - %(older_than_ms)s::bigint * interval '1 millisecond')
RETURNING p.id
