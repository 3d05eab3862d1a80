-- name: waiting
-- Payments that need a review, newest first. Read account by account through the partial index: an account without any costs
-- one lookup.
WITH RECURSIVE accounts (account_id) AS (
    (SELECT p.account_id FROM payments p
     WHERE p.rare_status IS NOT NULL AND p.account_id >= coalesce(%(account_id)s::text, '')
     ORDER BY p.account_id LIMIT 1)
    UNION ALL
    SELECT (SELECT p.account_id FROM payments p
            WHERE p.rare_status IS NOT NULL AND p.account_id > a.account_id
            ORDER BY p.account_id LIMIT 1)
    FROM accounts a
    WHERE a.account_id IS NOT NULL AND %(account_id)s::text IS NULL
)
SELECT {payment}
FROM accounts a
CROSS JOIN LATERAL (SELECT * FROM payments p
                    WHERE p.account_id = a.account_id AND p.rare_status = 'needs_review' AND p.id < %(before)s::uuid
                    ORDER BY p.account_id DESC, p.rare_status DESC, p.id DESC
                    LIMIT %(limit)s::bigint) p
WHERE %(account_id)s::text IS NULL OR a.account_id = %(account_id)s::text
ORDER BY p.id DESC
LIMIT %(limit)s::bigint

-- name: operations
-- The captures, voids and refunds of an account that need a review, newest first, among the newest `window` of all accounts
-- that were given up.
SELECT {operation}
FROM (SELECT * FROM operations w WHERE w.dead_at IS NOT NULL ORDER BY w.dead_at DESC, w.id DESC LIMIT %(window)s::bigint) o
WHERE o.account_id = %(account_id)s::text AND o.status = 'needs_review'
ORDER BY o.dead_at DESC, o.id DESC
LIMIT %(limit)s::bigint

-- name: one
SELECT {payment} FROM payments p WHERE p.id = %(id)s::uuid
