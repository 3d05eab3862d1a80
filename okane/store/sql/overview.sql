-- name: oldest_due
-- Seconds since the longest waiting payment was due: new payments from the cursor on, others through `sweep_at`. The
-- `sweep_at` of a due payment is ahead by the grace and five minutes at most (of a claimed one, by its lease and the grace,
-- but that one is not due). Further ahead are payments that wait for a later time, and closed ones, for up to a day.
SELECT greatest(
    (SELECT extract(epoch FROM now() - p.created_at) FROM payments p
     WHERE p.id >= coalesce((SELECT c.passed FROM sweep_cursors c WHERE c.lane <> '' ORDER BY c.passed LIMIT 1),
                            (SELECT c.passed FROM sweep_cursors c WHERE c.lane = ''),  -- no lane has its own yet
                            '00000000-0000-0000-0000-000000000000')
       AND p.status = 'pending' AND p.sweep_at IS NULL
     ORDER BY p.id LIMIT 1),
    (SELECT extract(epoch FROM now() - min(greatest(coalesce(p.lease_until, p.retry_at, p.updated_at), p.execute_at)))
     FROM payments p
     WHERE p.sweep_at <= now() + interval '1 hour'
       AND p.status IN ('pending', 'processing', 'failed_retryable', 'unknown', 'requires_action', 'submitted')
       AND greatest(coalesce(p.lease_until, p.retry_at, p.updated_at), p.execute_at) <= now()),
    0)::float8

-- name: count_all
SELECT status, count(*) FROM payments GROUP BY status

-- name: count_dead
SELECT count(*) FROM payments WHERE dead_at IS NOT NULL

-- name: count_dead_operations
SELECT count(*) FROM operations WHERE dead_at IS NOT NULL

-- name: count_disputes
-- Disputes that wait for evidence, read through their partial index.
SELECT provider, count(*) FROM disputes WHERE status = 'needs_response' GROUP BY provider

-- name: count_waiting
-- Payments that wait off the happy path, by status: few, and read through the partial indexes. Payments in needs_review are
-- among the dead letters, not the sweep's; closed ones wait for a late look-up.
SELECT status, count(*) FROM payments WHERE sweep_at IS NOT NULL AND status <> 'needs_review' GROUP BY status
UNION ALL
SELECT status, count(*) FROM payments WHERE dead_at IS NOT NULL AND status = 'needs_review' GROUP BY status

-- name: oldest_due_operation
-- Seconds since the longest waiting capture, void or refund was due. An open one always has its `sweep_at`.
SELECT coalesce(extract(epoch FROM now() - min(coalesce(o.lease_until, o.retry_at, o.updated_at))), 0)::float8
FROM operations o
WHERE o.sweep_at <= now() + interval '1 hour'
  AND o.status IN ('pending', 'processing', 'failed_retryable', 'unknown', 'submitted')
  AND coalesce(o.lease_until, o.retry_at, o.updated_at) <= now()

-- name: count_waiting_operations
-- As `count_waiting`: read through the partial indexes. Closed ones that wait for a late look-up are not counted.
SELECT kind, status, count(*) FROM operations
WHERE sweep_at IS NOT NULL AND status IN ('pending', 'processing', 'failed_retryable', 'unknown', 'submitted')
GROUP BY kind, status
UNION ALL
SELECT kind, status, count(*) FROM operations WHERE dead_at IS NOT NULL AND status = 'needs_review' GROUP BY kind, status
