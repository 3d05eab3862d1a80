-- name: sweep_lock
-- One sweep at a time looks for lost wake-ups; the lock goes with the transaction, so a dead sweeper holds nothing.
SELECT pg_try_advisory_xact_lock(hashtext('okane.sweep'))

-- name: sweep_bound
-- Seconds since the epoch below which no payment can still be on its way into the table: the grace before now, and before
-- the start of the oldest transaction that may yet commit one.
SELECT extract(epoch FROM least(now(), min(a.xact_start)))::float8 - %(grace_s)s,
       extract(epoch FROM now())::float8
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.usename = current_user AND a.backend_xid IS NOT NULL

-- name: sweep_cursor
SELECT passed FROM sweep_cursors WHERE lane = %(lane)s

-- name: sweep_oldest
-- Where a first sweep starts.
SELECT id FROM payments ORDER BY id LIMIT 1

-- name: sweep_lost
-- Marks what the cursor is about to pass and what still waits on the happy path: no wake-up for it is alive. No SKIP
-- LOCKED: a row that is skipped because somebody just holds it would never be looked at again.
WITH window_ AS (
    SELECT p.id, p.status, p.sweep_at
    FROM payments p
    WHERE p.id >= %(after)s AND p.id < %(below)s AND p.lane = %(lane)s
    ORDER BY p.id
    LIMIT %(limit)s
), lost AS (
    SELECT p.id FROM payments p
    WHERE p.id IN (SELECT id FROM window_ WHERE status IN ('pending', 'processing') AND sweep_at IS NULL)
      AND p.status IN ('pending', 'processing') AND p.sweep_at IS NULL
    ORDER BY p.id
    FOR UPDATE
), marked AS (
    UPDATE payments p
    SET sweep_at = greatest(now(), coalesce(p.lease_until, now()))
    FROM lost WHERE p.id = lost.id
    RETURNING p.id
)
SELECT (SELECT count(*) FROM marked) AS lost,
       (SELECT count(*) FROM window_) AS seen,
       (SELECT id FROM window_ ORDER BY id DESC LIMIT 1) AS last

-- name: sweep_pass
INSERT INTO sweep_cursors AS c (lane, passed) VALUES (%(lane)s, %(passed)s)
ON CONFLICT (lane) DO UPDATE SET passed = greatest(c.passed, excluded.passed)

-- name: sweep_due
-- Takes payments whose wake-up is overdue and pushes their next look back, twice as far each time.
WITH due AS (
    SELECT p.id FROM payments p
    WHERE p.sweep_at <= now()
    ORDER BY p.sweep_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE payments p
SET sweep_at = now() + least(%(grace_ms)s::bigint * 2 ^ least(p.sweeps, 20), 300000) * interval '1 millisecond',
    sweeps = p.sweeps + 1
FROM due WHERE p.id = due.id
RETURNING p.id, p.lane

-- name: oldest_due
-- Age in seconds of what has waited longest past its time: new payments from the cursor on, others through `sweep_at`.
SELECT greatest(
    (SELECT extract(epoch FROM now() - p.created_at) FROM payments p
     WHERE p.id > coalesce((SELECT c.passed FROM sweep_cursors c ORDER BY c.passed LIMIT 1),
                           '00000000-0000-0000-0000-000000000000')
       AND p.status = 'pending'
     ORDER BY p.id LIMIT 1),
    (SELECT extract(epoch FROM now() - min(coalesce(p.lease_until, p.retry_at, p.created_at))) FROM payments p
     WHERE p.sweep_at IS NOT NULL AND p.status IN ('pending', 'processing', 'failed_retryable', 'unknown')
       AND coalesce(p.lease_until, p.retry_at, p.created_at) <= now()),
    0)::float8

-- name: counts
SELECT status, count(*) FROM payments GROUP BY status

-- name: off_path
-- Payments that wait for something other than their turn, by status: small, and found through the partial index.
SELECT status, count(*) FROM payments WHERE sweep_at IS NOT NULL GROUP BY status
