-- name: wanted
-- The filter of lists; each NULL leaves out a condition. Not a statement: the others include it.
(%(kinds)s::text[] IS NULL OR o.kind = ANY (%(kinds)s::text[]))
AND (%(statuses)s::text[] IS NULL OR o.status = ANY (%(statuses)s::text[]))
AND (%(payment_id)s::uuid IS NULL OR o.payment_id = %(payment_id)s::uuid)
AND (%(currency)s::text IS NULL OR o.currency = %(currency)s::text)
AND (%(created_from)s::timestamptz IS NULL OR o.created_at >= %(created_from)s::timestamptz)
AND (%(created_before)s::timestamptz IS NULL OR o.created_at < %(created_before)s::timestamptz)

-- name: newest
-- Newest first, or oldest first with ASC, between two ids. Reads at most `window` rows, and returns where it stopped if it
-- reached that bound, as the lists of payments do.
WITH found AS MATERIALIZED (
    SELECT o.*
    FROM (SELECT * FROM operations
          WHERE (account_id, id) < (%(account_id)s::text, %(before)s::uuid)
            AND (account_id, id) >= (%(account_id)s::text, %(oldest)s::uuid)
          ORDER BY account_id {order}, id {order}
          LIMIT %(window)s::bigint) o
    WHERE {wanted}
    ORDER BY o.account_id {order}, o.id {order}
    LIMIT %(limit)s::bigint
)
SELECT {operation}, reached.id
FROM (SELECT (SELECT w.id FROM operations w
              WHERE (SELECT count(*) FROM found) < %(limit)s::bigint
                AND (w.account_id, w.id) < (%(account_id)s::text, %(before)s::uuid)
                AND (w.account_id, w.id) >= (%(account_id)s::text, %(oldest)s::uuid)
              ORDER BY w.account_id {order}, w.id {order}
              OFFSET %(window)s::bigint - 1 LIMIT 1)) AS reached (id)
LEFT JOIN found o ON true
ORDER BY o.id {order}

-- name: newest_of_payment
-- The same for one payment, through the index of its operations.
WITH found AS MATERIALIZED (
    SELECT o.*
    FROM (SELECT * FROM operations
          WHERE (payment_id, id) < (%(payment_id)s::uuid, %(before)s::uuid)
            AND (payment_id, id) >= (%(payment_id)s::uuid, %(oldest)s::uuid)
          ORDER BY payment_id {order}, id {order}
          LIMIT %(window)s::bigint) o
    WHERE o.account_id = %(account_id)s::text AND {wanted}
    ORDER BY o.payment_id {order}, o.id {order}
    LIMIT %(limit)s::bigint
)
SELECT {operation}, reached.id
FROM (SELECT (SELECT w.id FROM operations w
              WHERE (SELECT count(*) FROM found) < %(limit)s::bigint
                AND (w.payment_id, w.id) < (%(payment_id)s::uuid, %(before)s::uuid)
                AND (w.payment_id, w.id) >= (%(payment_id)s::uuid, %(oldest)s::uuid)
              ORDER BY w.payment_id {order}, w.id {order}
              OFFSET %(window)s::bigint - 1 LIMIT 1)) AS reached (id)
LEFT JOIN found o ON true
ORDER BY o.id {order}

-- name: of_key
-- An idempotency key has one operation at most.
SELECT {operation}, NULL::uuid
FROM (SELECT k.id FROM idempotency_keys k
      WHERE k.account_id = %(account_id)s::text AND k.idempotency_key = %(idempotency_key)s::text AND k.kind = 'operation'
      LIMIT 1) k
CROSS JOIN LATERAL (SELECT * FROM operations WHERE id = k.id LIMIT 1) o
WHERE o.id < %(before)s::uuid AND o.id >= %(oldest)s::uuid AND {wanted}

-- name: of_payment
-- The operations of a payment, oldest first; one row of NULLs for a payment that has none.
SELECT {operation}
FROM payments p
LEFT JOIN LATERAL (SELECT * FROM operations o WHERE o.payment_id = p.id ORDER BY o.payment_id, o.id LIMIT %(limit)s::bigint) o
    ON true
WHERE p.id = %(payment_id)s::uuid AND (%(account_id)s::text IS NULL OR p.account_id = %(account_id)s::text)
ORDER BY o.id
