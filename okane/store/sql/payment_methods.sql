-- name: method
-- The columns of a saved payment method `m`. Not a statement: the others include it.
m.id, m.account_id, m.kind,
ARRAY(SELECT t.provider FROM payment_method_tokens t WHERE t.payment_method = m.id ORDER BY t.provider) AS providers,
m.created_at, m.customer, m.brand, m.last4, m.expires_on, m.deleted_at

-- name: create
-- The key, the method and its tokens in one statement. Two requests with one key: the second waits for the first, inserts
-- nothing, and is answered by `of_key`.
WITH key AS (
    INSERT INTO idempotency_keys (account_id, idempotency_key, kind, id, fingerprint, request_id, api_key)
    VALUES (%(account_id)s::text, %(idempotency_key)s::text, 'payment_method', %(id)s::uuid, %(fingerprint)s::bytea,
            %(request_id)s::text, %(api_key)s::text)
    ON CONFLICT DO NOTHING
    RETURNING id, account_id
), token AS (
    INSERT INTO payment_method_tokens (payment_method, provider, token)
    SELECT key.id, given.provider, given.token
    FROM key, unnest(%(providers)s::text[], %(tokens)s::text[]) AS given (provider, token)
)
INSERT INTO payment_methods (id, account_id, customer, kind, brand, last4, expires_on)
SELECT key.id, key.account_id, %(customer)s::text, %(method_kind)s::text, %(brand)s::text, %(last4)s::text,
       %(expires_on)s::date
FROM key
RETURNING created_at

-- name: of_key
SELECT k.fingerprint, {method}
FROM idempotency_keys k
JOIN payment_methods m ON m.id = k.id
WHERE k.account_id = %(account_id)s::text AND k.idempotency_key = %(idempotency_key)s::text
  AND k.kind = 'payment_method' AND {replicated}

-- name: get
SELECT {method} FROM payment_methods m WHERE m.id = %(id)s::uuid AND m.account_id = %(account_id)s::text

-- name: newest
-- Newest first, without those that are deleted: their index holds no others. See `newest` of lists.sql for the comparison.
SELECT {method}
FROM payment_methods m
WHERE m.deleted_at IS NULL AND (m.account_id, m.id) < (%(account_id)s::text, %(before)s::uuid)
  AND (m.account_id, m.id) >= (%(account_id)s::text, '00000000-0000-0000-0000-000000000000'::uuid)
ORDER BY m.account_id DESC, m.id DESC
LIMIT %(limit)s::bigint

-- name: newest_of_customer
SELECT {method}
FROM payment_methods m
WHERE m.deleted_at IS NULL AND m.customer IS NOT NULL
  AND (m.account_id, m.customer, m.id) < (%(account_id)s::text, %(customer)s::text, %(before)s::uuid)
  AND (m.account_id, m.customer, m.id)
      >= (%(account_id)s::text, %(customer)s::text, '00000000-0000-0000-0000-000000000000'::uuid)
ORDER BY m.account_id DESC, m.customer DESC, m.id DESC
LIMIT %(limit)s::bigint

-- name: delete
-- A repeat keeps the time of the first. The tokens stay: payments that were accepted before are still charged.
UPDATE payment_methods m SET deleted_at = coalesce(m.deleted_at, now())
WHERE m.id = %(id)s::uuid AND m.account_id = %(account_id)s::text
RETURNING {method}

-- name: providers_of
-- The providers at which these methods have a token, for new payments.
SELECT m.account_id, m.id, t.provider
FROM unnest(%(account_ids)s::text[], %(ids)s::uuid[]) AS asked (account_id, id)
JOIN payment_methods m ON m.id = asked.id AND m.account_id = asked.account_id AND m.deleted_at IS NULL
JOIN payment_method_tokens t ON t.payment_method = m.id

-- name: tokens_of
-- All tokens of these methods, deleted ones included, for payments that were accepted.
SELECT m.account_id, m.id, t.provider, t.token
FROM unnest(%(account_ids)s::text[], %(ids)s::uuid[]) AS asked (account_id, id)
JOIN payment_methods m ON m.id = asked.id AND m.account_id = asked.account_id
JOIN payment_method_tokens t ON t.payment_method = m.id
