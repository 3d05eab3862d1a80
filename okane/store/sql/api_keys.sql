-- name: find
-- The stored side of a key check. `left_s`: seconds until the key expires, NULL for never.
SELECT k.prefix, k.secret_hash, k.account_id, k.mode, k.scopes, k.rate_limit, k.revoked_at IS NOT NULL AS revoked,
       extract(epoch FROM k.expires_at - now())::float8 AS left_s
FROM api_keys k
WHERE k.prefix = ANY (%(prefixes)s::text[])

-- name: create
INSERT INTO api_keys AS k (prefix, secret_hash, account_id, mode, scopes, name, rate_limit, expires_at)
VALUES (%(prefix)s, %(secret_hash)s, %(account_id)s, %(mode)s, %(scopes)s, %(name)s, %(rate_limit)s,
        now() + %(lifetime_ms)s::bigint * interval '1 millisecond')
RETURNING {key}

-- name: list
SELECT {key}
FROM api_keys k
WHERE (%(account_id)s::text IS NULL OR k.account_id = %(account_id)s)
  AND (%(ended)s::boolean OR k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()))
  AND (%(after)s::text IS NULL OR (k.account_id, k.created_at, k.prefix) >
       (SELECT a.account_id, a.created_at, a.prefix FROM api_keys a WHERE a.prefix = %(after)s))
ORDER BY k.account_id, k.created_at, k.prefix
LIMIT %(limit)s::bigint

-- name: revoke
UPDATE api_keys k
SET revoked_at = coalesce(k.revoked_at, now())
WHERE k.prefix = %(prefix)s
RETURNING {key}

-- name: rotate
-- Insert a key with the scopes and the lifetime of the old one, which expires after the overlap.
WITH old AS (
    UPDATE api_keys k
    SET expires_at = least(k.expires_at, now() + %(overlap_ms)s::bigint * interval '1 millisecond')
    FROM (SELECT prefix, expires_at - created_at AS lifetime FROM api_keys
          WHERE prefix = %(old)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
          FOR UPDATE) AS was
    WHERE k.prefix = was.prefix
    RETURNING k.account_id, k.mode, k.scopes, k.name, k.rate_limit, was.lifetime
)
INSERT INTO api_keys AS k (prefix, secret_hash, account_id, mode, scopes, name, rate_limit, expires_at)
SELECT %(prefix)s, %(secret_hash)s, account_id, mode, scopes, name, rate_limit, now() + lifetime FROM old
RETURNING {key}

-- name: touch
-- At most once a minute for each key, for any number of requests and processes.
UPDATE api_keys k
SET last_used_at = now()
WHERE k.prefix = ANY (%(prefixes)s::text[])
  AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')
RETURNING k.prefix
