-- name: sweep_lock
-- One sweep at a time looks for lost wake-ups; the lock ends with the transaction, so a dead process holds nothing.
SELECT pg_try_advisory_xact_lock(hashtext('okane.sweep'))

-- name: sweep_horizon
-- Move the time before which every writing transaction is known to have ended. Transaction ids are assigned in order, so
-- transactions with an id from before `seen_at` have lower ids than ours, which is `seen_xmax` (the xmax of a snapshot is
-- too low: it counts ended transactions only). Once the oldest running one is not below it, `seen_at` is proven. Snapshots
-- show the transactions of every role. An id from the future comes from another server, whose dump was loaded here.
UPDATE sweep_horizon h
SET proven_at = CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) >= h.seen_xmax THEN h.seen_at ELSE h.proven_at END,
    seen_at = now(),
    seen_xmax = pg_current_xact_id()
WHERE pg_snapshot_xmin(pg_current_snapshot()) >= h.seen_xmax
   OR pg_snapshot_xmax(pg_current_snapshot()) < h.seen_xmax

-- name: sweep_bound
-- Seconds since the epoch before which no insert of a payment can still be uncommitted, and now.
SELECT extract(epoch FROM h.proven_at)::float8 - %(grace_s)s, extract(epoch FROM now())::float8 FROM sweep_horizon h

-- name: sweep_cursor
SELECT passed FROM sweep_cursors WHERE lane = %(lane)s

-- name: sweep_oldest
-- The start of the first scan.
SELECT id FROM payments ORDER BY id LIMIT 1

-- name: sweep_open
-- The first row of any lane that a cursor may not pass without marking it. On a table that existed before its sweep, one scan
-- finds it for all lanes: otherwise each lane would scan all settled payments.
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
-- Mark the open rows that the lane's cursor is about to pass: they have no live wake-up. The window counts rows of all lanes,
-- so that a lane with few payments costs no more than any other. No SKIP LOCKED: the sweep would never return to a row that
-- was skipped because it was locked.
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
-- Take payments whose wake-up is overdue. They are due again when the wake-up that is added now, at the end of its lane, must
-- have been read. `early_ms` is the grace while no wake-up can come: a retry, whose sweep_at is that much later than its
-- retry_at, is then taken at its own time. Only once: after that its sweep_at counts, or each round would take it again.
-- A process of the previous version leaves sweep_at at a closed payment that it finds charged: needs_review clears it.
WITH due AS (
    SELECT p.id FROM payments p
    WHERE p.sweep_at <= now() + %(early_ms)s::bigint * interval '1 millisecond'
      AND (p.sweep_at <= now()
           OR p.status IN ('failed_retryable', 'unknown', 'requires_action', 'submitted') AND p.sweeps = 0
              AND p.retry_at <= now())
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
          OR p.status IN ('failed_final', 'canceled', 'authorized') AS scheduled

-- name: sweep_authorizations
-- Read a page of the index of rare statuses after a place, and give the authorizations among them that have no time of their
-- next look one within a day, or at their end. Returns how many, the number of rows, and the last of them.
WITH page AS MATERIALIZED (
    SELECT p.account_id, p.rare_status, p.id  -- no more than the index has
    FROM payments p
    WHERE p.rare_status IS NOT NULL
      AND (p.account_id, p.rare_status, p.id) > (%(account_id)s::text, %(status)s::text, %(id)s::uuid)
    ORDER BY p.account_id, p.rare_status, p.id
    LIMIT %(limit)s::bigint
), unplanned AS MATERIALIZED (
    SELECT p.id
    FROM payments p
    WHERE p.id IN (SELECT g.id FROM page g WHERE g.rare_status = 'authorized')
      AND p.status = 'authorized' AND p.sweep_at IS NULL
    ORDER BY p.id
    FOR NO KEY UPDATE SKIP LOCKED
), planned AS (
    UPDATE payments p
    SET sweep_at = least({void_due_at}, now() + random() * interval '1 day'),
        sweeps = 0
    FROM unplanned u
    WHERE p.id = u.id
    RETURNING p.id
)
SELECT (SELECT count(*) FROM planned), (SELECT count(*) FROM page), l.account_id, l.rare_status, l.id
FROM (SELECT 1) one
LEFT JOIN LATERAL (
    SELECT g.account_id, g.rare_status, g.id FROM page g
    ORDER BY g.account_id DESC, g.rare_status DESC, g.id DESC LIMIT 1
) l ON true

-- name: sweep_webhooks
-- Whether there may be changes without a position in the log of events: two looks at empty tables without webhooks.
SELECT EXISTS (SELECT FROM webhook_accounts) OR EXISTS (SELECT FROM webhook_outbox)
