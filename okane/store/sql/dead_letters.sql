-- name: wanted
-- The filter of dead letters; each NULL leaves out a condition. Not a statement: the others include it.
(%(account_id)s::text IS NULL OR p.account_id = %(account_id)s::text)
AND (%(statuses)s::text[] IS NULL OR p.status = ANY (%(statuses)s::text[]))
AND (%(ids)s::uuid[] IS NULL OR p.id = ANY (%(ids)s::uuid[]))
AND (%(currency)s::text IS NULL OR p.currency = %(currency)s::text)
AND (%(lane)s::text IS NULL OR p.lane = %(lane)s::text)
AND (%(dead_from)s::timestamptz IS NULL OR p.dead_at >= %(dead_from)s::timestamptz)
AND (%(dead_before)s::timestamptz IS NULL OR p.dead_at < %(dead_before)s::timestamptz)

-- name: page
-- Newest first, or oldest first with ASC, from a place in this order: the letter of that place may have left the list. Reads
-- at most `window` of them, and returns where it stopped if it reached that bound.
WITH seen AS MATERIALIZED (
    SELECT d.id, d.dead_at, row_number() OVER () AS place
    FROM (SELECT id, dead_at FROM payments
          WHERE dead_at IS NOT NULL
            AND (dead_at, id) {beyond} (%(place_dead_at)s::timestamptz, %(place_id)s::uuid)
            AND dead_at {within} %(end_dead_at)s::timestamptz
          ORDER BY dead_at {order}, id {order}
          LIMIT %(window)s::bigint) d
), found AS MATERIALIZED (
    SELECT p.*
    FROM seen s
    CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = s.id LIMIT 1) p
    WHERE {wanted}
    ORDER BY s.place
    LIMIT %(limit)s::bigint
)
SELECT {payment}, p.dead_at, reached.dead_at, reached.id
FROM (SELECT 1) AS one
LEFT JOIN seen reached
    ON reached.place = %(window)s::bigint AND (SELECT count(*) FROM found) < %(limit)s::bigint
LEFT JOIN found p ON true
ORDER BY p.dead_at {order}, p.id {order}

-- name: oldest
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL AND {wanted}
ORDER BY p.dead_at, p.id
LIMIT %(limit)s::bigint

-- name: tally
-- How many dead letters match among the oldest `window` of all accounts, since when the oldest of them is dead, and whether
-- there were more than the window. A count of all would read the whole list.
SELECT count(*) FILTER (WHERE {wanted}), min(p.dead_at) FILTER (WHERE {wanted}), count(*) = %(window)s::bigint
FROM (SELECT * FROM payments WHERE dead_at IS NOT NULL ORDER BY dead_at, id LIMIT %(window)s::bigint) p

-- name: chosen
-- Those of these payments that are dead letters and match, in no order. Each is read by its id: the index of the list would be
-- read to its end.
SELECT {payment}, p.dead_at
FROM unnest(%(ids)s::uuid[]) AS s (id)
CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = s.id LIMIT 1) p
WHERE p.dead_at IS NOT NULL AND {wanted}

-- name: some
SELECT {payment}, p.dead_at
FROM payments p
WHERE p.dead_at IS NOT NULL AND p.id = ANY (%(ids)s::uuid[])

-- name: dismiss
-- The payment keeps its status, and is no dead letter any more. NULL: all, or any age. With `versions`, one for each id, those
-- that have changed since stay.
UPDATE payments p
SET dead_at = NULL
WHERE p.dead_at IS NOT NULL
  AND (%(ids)s::uuid[] IS NULL OR p.id = ANY (%(ids)s::uuid[]))
  AND (%(versions)s::integer[] IS NULL
       OR p.version = (%(versions)s::integer[])[array_position(%(ids)s::uuid[], p.id)])
  AND (%(older_than_ms)s::bigint IS NULL OR p.dead_at < now() - %(older_than_ms)s::bigint * interval '1 millisecond')
RETURNING p.id
