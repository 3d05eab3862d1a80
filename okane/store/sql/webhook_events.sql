-- name: moved
-- True if the snapshot of the last run was made by another server, whose dump was loaded here: its transaction ids mean
-- nothing, and every row of the outbox counts as new. Not a statement: others include it.
(w.server <> (pg_control_system()).system_identifier OR pg_snapshot_xmax(w.seen) > pg_snapshot_xmax(pg_current_snapshot()))

-- name: sequencer
-- The newest row is at the right end of the index, whatever dead ones a long transaction keeps. Not a statement: others
-- include it.
SELECT w.last, CASE WHEN {moved} THEN '1:1:'::pg_snapshot ELSE w.seen END AS seen
FROM webhook_sequencer w
ORDER BY w.last DESC
LIMIT 1

-- name: look
-- The highest position, and whether the outbox has rows that were not visible at the last run. A few index lookups.
SELECT s.last,
       EXISTS (SELECT FROM webhook_outbox o WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(s.seen))))
       OR EXISTS (SELECT FROM webhook_outbox o WHERE o.xid >= pg_snapshot_xmax(s.seen))
FROM ({sequencer}) s

-- name: lock
-- One sequencer at a time. The lock ends with the transaction, so a dead process holds nothing, and a stopped one for 2 s.
SELECT pg_try_advisory_xact_lock(hashtext('okane.webhook_sequencer'))

-- name: sequence
-- Move the outbox rows that are visible now, and were not at the last run, into the log. Its snapshot is taken under the
-- lock. Those rows have an id that was in progress then (`xip`), or one that was given out later (from `xmax` on). Without
-- these bounds the statement would take the same rows; with them it skips the dead ones, which pile up in front of the
-- others while a long transaction keeps them from being vacuumed.
--
-- Not `xid < xmin`, as in the sweep: one open transaction would delay the events of all accounts, and the order would break.
-- A transaction gets its id with its first row, and may then wait for another row: the lower id can carry the higher
-- version. A snapshot that shows version n + 1 of a payment shows n, for its row was locked until n was committed.
WITH s AS MATERIALIZED ({sequencer}), ended_since AS (
    DELETE FROM webhook_outbox o WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip(s.seen) FROM s))
    RETURNING o.*
), begun_since AS (
    DELETE FROM webhook_outbox o WHERE o.xid >= (SELECT pg_snapshot_xmax(s.seen) FROM s)
    RETURNING o.*
), sequenced AS (
    INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)
    SELECT s.last + row_number() OVER (ORDER BY c.version, f.xid, c.payment_id),
           f.account_id, c.payment_id, c.version, f.type, f.at
    FROM s, (SELECT * FROM ended_since UNION ALL SELECT * FROM begun_since) f,
         unnest(f.payment_ids, f.versions) AS c (payment_id, version)
    RETURNING type, at
), ticked AS (
    INSERT INTO webhook_sequencer (last, seen)
    SELECT s.last + n.count, pg_current_snapshot()
    FROM s, (SELECT count(*) FROM sequenced) n
    WHERE n.count > 0
    RETURNING last
), removed AS (
    DELETE FROM webhook_sequencer w USING s, ticked WHERE w.last = s.last
)
SELECT q.type, count(*), extract(epoch FROM now() - min(q.at))::float8, (SELECT t.last FROM ticked t)
FROM sequenced q
GROUP BY q.type

-- name: row
-- An event with the members of its body. Members that change come from its row in the history, never from the payment; the
-- attempt of a late result is an earlier one. Long metadata comes with `whole` alone: a dispatcher keeps thousands of rows in
-- memory. Neither its size nor its compression is a reason to fetch it; compressed, it may be a hundred times longer.
-- Not a statement: others include it.
e.position, e.account_id, e.payment_id, e.version, e.type, e.at,
h.status, CASE WHEN h.event = 'late_result'
               THEN (SELECT max(b.attempt) FROM payment_events b WHERE b.payment_id = e.payment_id AND b.version <= e.version)
               ELSE h.attempt END,
h.reason, h.decline_code, p.amount_minor, p.currency, p.idempotency_key, p.created_at,
CASE WHEN %(whole)s::boolean
       OR (pg_column_size(p.metadata) <= 2048 AND pg_column_compression(p.metadata) IS NULL)
     THEN p.metadata::text END,
CASE WHEN h.operation_id IS NOT NULL THEN ({operation}) END,
CASE WHEN h.event IN ('dispute_opened', 'dispute_closed') THEN ({dispute}) END

-- name: operation
-- The operation that an event of a payment reports, with those of its members that never change: most events have none. What
-- the provider said is in the operation's own event of that moment: one statement wrote both. Long metadata is left out, by
-- its length alone, so that a body has the same bytes at every read. Not a statement: others include it.
SELECT json_build_object('id', o.id, 'kind', o.kind, 'event', h.event, 'amount', o.amount_minor,
                         'idempotency_key', o.idempotency_key, 'reason', o.reason,
                         'created_us', (extract(epoch FROM o.created_at) * 1000000)::bigint,
                         'decline_code', (SELECT x.decline_code FROM operation_events x
                                          WHERE x.operation_id = o.id AND x.at = h.at ORDER BY x.version DESC LIMIT 1),
                         'metadata', CASE WHEN octet_length(o.metadata::text) <= 2048 THEN o.metadata END)::text
FROM operations o
WHERE o.id = h.operation_id

-- name: dispute
-- The dispute that an event of a payment reports, as it was then. Not a statement: others include it.
SELECT json_build_object('id', d.dispute_id, 'provider', d.provider, 'provider_ref', d.provider_ref, 'status', d.status,
                         'amount', d.amount_minor, 'currency', d.currency, 'reason', d.reason,
                         'due_us', (extract(epoch FROM d.due_by) * 1000000)::bigint)::text
FROM dispute_events d
WHERE d.payment_id = e.payment_id AND d.version = e.version

-- name: joined
-- Not a statement: others include it.
LEFT JOIN payment_events h ON h.payment_id = e.payment_id AND h.version = e.version
LEFT JOIN payments p ON p.id = e.payment_id

-- name: read
-- The events of all accounts after a position: the feed of a dispatcher. A standby has them: others may be at these positions
-- after a failover otherwise, which the dispatcher would pass over.
SELECT {row}
FROM (SELECT * FROM webhook_events v WHERE v.position > %(after)s::bigint ORDER BY v.position LIMIT %(limit)s::bigint) e
{joined}
WHERE CASE WHEN e.position > %(after)s::bigint THEN {replicated} END
ORDER BY e.position

-- name: last
SELECT s.last FROM ({sequencer}) s

-- name: page
-- The events of one account after a position. Looks at `window` of them at most, and returns the position that it has come to
-- and how many it found. Comparing and ordering by account and position together leaves only the account's index to the
-- planner; the position alone leaves out table partitions. What it passes by is on a standby, as in `read`.
WITH seen AS MATERIALIZED (
    SELECT v.*
    FROM webhook_events v
    WHERE (v.account_id, v.position) > (%(account_id)s::text, %(after)s::bigint)
      AND (v.account_id, v.position) <= (%(account_id)s::text, %(up_to)s::bigint)
      AND v.position > %(after)s::bigint AND v.position <= %(up_to)s::bigint
    ORDER BY v.account_id, v.position
    LIMIT %(window)s::bigint
), found AS MATERIALIZED (
    SELECT v.*
    FROM seen v
    WHERE (%(all_types)s::boolean OR v.type = ANY (%(types)s::text[]))
      AND (%(endpoint_id)s::uuid IS NULL
           OR NOT EXISTS (SELECT FROM webhook_deliveries d
                          WHERE d.endpoint_id = %(endpoint_id)s::uuid AND d.position = v.position))
    ORDER BY v.position
    LIMIT %(limit)s::bigint
), reached AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM found) = %(limit)s::bigint THEN (SELECT max(f.position) FROM found f)
                WHEN (SELECT count(*) FROM seen) = %(window)s::bigint THEN (SELECT max(v.position) FROM seen v)
                ELSE greatest(%(after)s::bigint, least(%(up_to)s::bigint, s.last)) END AS position
    FROM ({sequencer}) s
)
SELECT r.position, {row}
FROM reached r
LEFT JOIN found e ON true
{joined}
WHERE CASE WHEN r.position > %(after)s::bigint THEN {replicated} ELSE true END
ORDER BY e.position

-- name: of_payment
-- The events of one payment, or of one endpoint. One that was retried a thousand times has as many: a page is chosen before
-- the members of the bodies are read.
SELECT {row}
FROM (SELECT *
      FROM (SELECT * FROM webhook_events v WHERE v.payment_id = %(payment_id)s::uuid OFFSET 0) v
      WHERE v.account_id = %(account_id)s::text AND v.position > %(after)s::bigint
        AND (%(all_types)s::boolean OR v.type = ANY (%(types)s::text[]))
      ORDER BY v.position
      LIMIT %(limit)s::bigint) e
{joined}
ORDER BY e.position

-- name: one
SELECT {row}
FROM (SELECT * FROM webhook_events v
      WHERE v.payment_id = %(payment_id)s::uuid AND v.version = %(version)s::integer OFFSET 0) e
{joined}
WHERE e.account_id = %(account_id)s::text
ORDER BY e.position
LIMIT 1

-- name: many
SELECT {row}
FROM unnest(%(positions)s::bigint[]) AS w (position)
CROSS JOIN LATERAL (SELECT * FROM webhook_events v WHERE v.position = w.position LIMIT 1) e
{joined}
ORDER BY e.position
