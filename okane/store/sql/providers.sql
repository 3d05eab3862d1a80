-- name: all
-- The providers that an operator or a breaker wrote about; one without a row is on. `open_s`: for how long the shared level
-- of the breaker is still open.
SELECT name, mode, reason, changed_by, changed_at, suspected_by, suspected_at,
       greatest(coalesce(extract(epoch FROM open_until - now()), 0), 0)::float8 AS open_s, open_count
FROM providers
ORDER BY name

-- name: set_mode
-- With `if_seen`, only a provider that was not switched since `seen` (NULL: that never was). Returns a row if it is switched.
INSERT INTO providers AS p (name, mode, reason, changed_by, changed_at)
VALUES (%(name)s, %(mode)s, %(reason)s, %(actor)s, now())
ON CONFLICT (name) DO UPDATE
SET mode = excluded.mode, reason = excluded.reason, changed_by = excluded.changed_by, changed_at = excluded.changed_at
WHERE NOT %(if_seen)s OR p.changed_at IS NOT DISTINCT FROM %(seen)s::timestamptz
RETURNING p.name

-- name: end_opening
-- An operator who enables a provider wants the next claim to use it.
UPDATE providers
SET open_until = NULL, open_count = 0, suspected_by = NULL, suspected_at = NULL
WHERE name = %(name)s AND (open_until IS NOT NULL OR suspected_by IS NOT NULL OR open_count > 0)
RETURNING name

-- name: wake_waiting
-- Make payments that wait for a provider due for the sweep, a batch at a time: those that no call is open for and that wait
-- for nothing else.
WITH waiting AS (
    SELECT p.id FROM payments p
    WHERE p.sweep_at > now() + interval '1 second' AND p.status IN ('pending', 'failed_retryable')
      AND (p.execute_at IS NULL OR p.execute_at <= now()) AND p.lease_until IS NULL
      AND (p.retry_at IS NULL OR p.retry_at <= now())
    ORDER BY p.sweep_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE payments p SET sweep_at = now() FROM waiting WHERE p.id = waiting.id
RETURNING p.id

-- name: suspect
-- Note that a worker's breaker has opened. If another worker's opened a short while ago, or the worker is the only one, open
-- the shared level: for the first length, and twice as long each time that it opens again. An opening of long ago is
-- forgotten. While it is open nothing is written: the calls that fail now began before.
INSERT INTO providers AS p (name, suspected_by, suspected_at, open_until, open_count)
VALUES (%(name)s, %(worker)s, now(),
        CASE WHEN %(alone)s THEN now() + %(first_ms)s * interval '1 millisecond' END, %(alone)s::integer)
ON CONFLICT (name) DO UPDATE
SET (suspected_by, suspected_at, open_until, open_count) = (
    SELECT excluded.suspected_by, now(),
           CASE WHEN opens THEN now() + least(%(longest_ms)s, %(first_ms)s * 2 ^ least(count, 20)) * interval '1 millisecond'
                ELSE p.open_until END,
           CASE WHEN opens THEN count + 1 ELSE count END
    FROM (SELECT %(alone)s OR p.suspected_by <> %(worker)s
                           AND p.suspected_at > now() - %(within_ms)s * interval '1 millisecond' AS opens,
                 CASE WHEN p.open_until > now() - %(forget_ms)s * interval '1 millisecond' THEN p.open_count ELSE 0 END
                     AS count) was)
WHERE p.open_until IS NULL OR p.open_until <= now()
RETURNING coalesce(p.open_until > now(), false)
