-- name: sweep_lock
-- One sweep at a time looks for lost wake-ups; the lock goes with the transaction, so a dead sweeper holds nothing.
SELECT pg_try_advisory_xact_lock(hashtext('okane.sweep'))

-- name: sweep_horizon
-- Moves the moment up to which every writing transaction is known to have ended. Ids are given in order, so transactions
-- that got theirs before `seen_at` have lower ids than ours, which is `seen_xmax` (a snapshot's own xmax is too low: it
-- counts ended transactions only). Once the oldest one still running is not below it, `seen_at` is proven. Goes by snapshots
-- alone, so it sees the transactions of every role. An id from the future is another server's, whose dump was loaded here.
UPDATE sweep_horizon h
SET proven_at = CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) >= h.seen_xmax THEN h.seen_at ELSE h.proven_at END,
    seen_at = now(),
    seen_xmax = pg_current_xact_id()
WHERE pg_snapshot_xmin(pg_current_snapshot()) >= h.seen_xmax
   OR pg_snapshot_xmax(pg_current_snapshot()) < h.seen_xmax

-- name: sweep_bound
-- Seconds since the epoch below which no payment can still be on its way into the table, and now.
SELECT extract(epoch FROM h.proven_at)::float8 - %(grace_s)s, extract(epoch FROM now())::float8 FROM sweep_horizon h

-- name: sweep_cursor
SELECT passed FROM sweep_cursors WHERE lane = %(lane)s

-- name: sweep_oldest
-- Where the first look starts.
SELECT id FROM payments ORDER BY id LIMIT 1

-- name: sweep_open
-- The first row that a lane's cursor may not pass without marking it, whatever its lane. On a table that was there before
-- its sweep, the lanes look for it together: each walking over all that is settled would cost as often as there are lanes.
WITH window_ AS (
    SELECT p.id, p.status, p.sweep_at
    FROM payments p
    WHERE p.id >= %(after)s AND p.id < %(below)s
    ORDER BY p.id
    LIMIT %(limit)s
)
SELECT (SELECT id FROM window_ WHERE status IN ('pending', 'processing') AND sweep_at IS NULL ORDER BY id LIMIT 1)
           AS first_open,
       (SELECT count(*) FROM window_) AS seen,
       (SELECT id FROM window_ ORDER BY id DESC LIMIT 1) AS last

-- name: sweep_lost
-- Marks what the lane's cursor is about to pass and what still waits on the happy path: no wake-up for it is alive. The
-- window counts rows of all lanes, so that a lane with few payments costs no more than any other. No SKIP LOCKED: a row
-- that is skipped because somebody just holds it would never be looked at again.
WITH window_ AS (
    SELECT p.id, p.lane, p.status, p.sweep_at
    FROM payments p
    WHERE p.id >= %(after)s AND p.id < %(below)s
    ORDER BY p.id
    LIMIT %(limit)s
), lost AS (
    SELECT p.id FROM payments p
    WHERE p.id IN (SELECT id FROM window_
                   WHERE lane = %(lane)s AND status IN ('pending', 'processing') AND sweep_at IS NULL)
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
-- Takes payments whose wake-up is overdue. They get another look when this one, at the end of its lane, must have been read.
-- `early_ms` is the grace where no wake-up can come: a retry, whose sweep_at is that much later than its retry_at, is then
-- taken at its own time. Once: one that was taken before goes by its sweep_at again, or each look would take it anew.
-- A process of the version before leaves sweep_at at a closed payment that it finds charged: what needs a review comes no more.
WITH due AS (
    SELECT p.id FROM payments p
    WHERE p.sweep_at <= now() + %(early_ms)s::bigint * interval '1 millisecond'
      AND (p.sweep_at <= now()
           OR p.status IN ('failed_retryable', 'unknown') AND p.sweeps = 0 AND p.retry_at <= now())
      AND p.lane = ANY (%(lanes)s::text[])
    ORDER BY p.sweep_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE payments p
SET sweep_at = CASE WHEN p.status <> 'needs_review' THEN now() + w.again_ms * interval '1 millisecond' END,
    sweeps = p.sweeps + 1
FROM due, unnest(%(lanes)s::text[], %(again_ms)s::bigint[]) AS w (lane, again_ms)
WHERE p.id = due.id AND w.lane = p.lane
RETURNING p.id, p.lane,
          p.execute_at IS NOT NULL AND p.status = 'pending' AND p.attempts = 0 AND p.sweeps = 1
          OR p.status IN ('failed_final', 'canceled') AS scheduled
