-- name: page
-- Newest first; the cursor is the last payment of the page before.
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL
  AND (%(before)s::uuid IS NULL
       OR (p.dead_at, p.id) < (SELECT b.dead_at, b.id FROM payments b WHERE b.id = %(before)s::uuid))
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
