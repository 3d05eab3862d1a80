-- name: take
-- Store the notices that are new. An open payment of this provider is due at once, and needs a wake-up; its sweep finds a
-- lost one. A closed one is due for a late look-up, unless the notice says no more than that no money moved; one whose money
-- is held is due for a look-up if the notice says that. One in work is
-- left to its holder: the notice stays open, for `wake_noticed`. The locks are taken in the order of the ids. Payments that no
-- notice changes are not locked: a lock writes to the row's page.
WITH sent AS MATERIALIZED (
    SELECT w.*, row_number() OVER (PARTITION BY w.event_id ORDER BY w.place) AS nth
    FROM unnest(%(event_ids)s::text[], %(kinds)s::text[], %(payment_ids)s::uuid[], %(provider_refs)s::text[],
                %(provider_keys)s::text[], %(refusals)s::boolean[])
         WITH ORDINALITY AS w (event_id, kind, payment_id, provider_ref, provider_key, is_refusal, place)
), held AS MATERIALIZED (
    SELECT p.id, p.status, p.provider_key
    FROM payments p
    WHERE p.id IN (SELECT s.payment_id FROM sent s)
      AND {provider_of} = %(provider)s::text
      AND p.status NOT IN ('success', 'needs_review')
    ORDER BY p.id
    FOR NO KEY UPDATE
), mine AS MATERIALIZED (
    -- The reference of an attempt under an earlier key, before a manual retry, must not stand for the present attempt.
    SELECT s.event_id, s.kind, s.payment_id, s.is_refusal, s.place, h.status,
           CASE WHEN coalesce(s.provider_key, s.payment_id::text) = coalesce(h.provider_key, s.payment_id::text)
                THEN s.provider_ref END AS provider_ref
    FROM sent s
    LEFT JOIN held h ON h.id = s.payment_id
    WHERE s.nth = 1
), stored AS (
    INSERT INTO provider_events (provider, event_id, kind, payment_id, provider_ref, done_at)
    SELECT %(provider)s::text, m.event_id, m.kind, m.payment_id, m.provider_ref,
           CASE WHEN m.status IS DISTINCT FROM 'processing' THEN now() END
    FROM mine m
    ORDER BY m.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
), news AS MATERIALIZED (
    SELECT m.payment_id, bool_and(m.is_refusal) AS is_refusal,
           (array_agg(m.provider_ref ORDER BY m.place) FILTER (WHERE m.provider_ref IS NOT NULL))[1] AS provider_ref
    FROM mine m
    JOIN stored USING (event_id)
    WHERE m.status <> 'processing'
    GROUP BY m.payment_id
), made_due AS (
    UPDATE payments p
    SET attempt_ref = coalesce(p.attempt_ref, n.provider_ref),
        retry_at = CASE WHEN p.status IN {open} THEN now() ELSE p.retry_at END,
        sweep_at = CASE WHEN p.status IN {open} THEN now() + %(grace_ms)s::bigint * interval '1 millisecond'
                        WHEN p.status IN {closed} AND p.provider_ref IS NULL AND NOT n.is_refusal THEN now()
                        WHEN p.status = 'authorized' AND p.open_operation IS NULL AND n.is_refusal THEN now()
                        ELSE p.sweep_at END,
        sweeps = CASE WHEN p.status IN {open} THEN 0 ELSE p.sweeps END,
        look_ups = {look_ups}
    FROM news n
    WHERE p.id = n.payment_id
    RETURNING p.id, p.lane, p.status
)
SELECT CASE WHEN s.nth > 1 OR t.event_id IS NULL THEN 'repeated'
            WHEN EXISTS (SELECT FROM payments p WHERE p.id = s.payment_id AND {provider_of} = %(provider)s::text) THEN 'taken'
            ELSE 'unmatched' END,
       d.id, d.lane
FROM sent s
LEFT JOIN stored t USING (event_id)
LEFT JOIN made_due d ON d.id = s.payment_id AND d.status IN {open}
ORDER BY s.place

-- name: open
-- The outcome is at the provider: a look-up may find it. Not a statement: others include it.
('unknown', 'requires_action', 'submitted')

-- name: look_ups
-- The look-up that a notice causes counts for none: the next poll must not come later for it. Not a statement: others
-- include it.
CASE WHEN p.status IN {open} AND p.retry_at > now() THEN greatest(p.look_ups - 1, 0) ELSE p.look_ups END

-- name: closed
-- Closed without a charge. Not a statement: others include it.
('failed_final', 'canceled')

-- name: take_of_operations
-- The same for notices about captures, voids and refunds. One that had succeeded is due for a late look-up if the notice says
-- that no money moved: a bank may return a refund days later.
WITH sent AS MATERIALIZED (
    SELECT w.*, row_number() OVER (PARTITION BY w.event_id ORDER BY w.place) AS nth
    FROM unnest(%(event_ids)s::text[], %(kinds)s::text[], %(payment_ids)s::uuid[], %(operation_ids)s::uuid[],
                %(provider_refs)s::text[], %(refusals)s::boolean[])
         WITH ORDINALITY AS w (event_id, kind, payment_id, operation_id, provider_ref, is_refusal, place)
), held AS MATERIALIZED (
    SELECT o.id, o.status
    FROM operations o
    WHERE o.id IN (SELECT s.operation_id FROM sent s)
      AND o.provider = %(provider)s::text
      AND o.status <> 'needs_review'
    ORDER BY o.id
    FOR NO KEY UPDATE
), stored AS (
    INSERT INTO provider_events (provider, event_id, kind, payment_id, operation_id, provider_ref, done_at)
    SELECT %(provider)s::text, s.event_id, s.kind, s.payment_id, s.operation_id, s.provider_ref,
           CASE WHEN h.status IS DISTINCT FROM 'processing' THEN now() END
    FROM sent s
    LEFT JOIN held h ON h.id = s.operation_id
    WHERE s.nth = 1
    ORDER BY s.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
), news AS MATERIALIZED (
    SELECT s.operation_id, bool_and(s.is_refusal) AS is_refusal
    FROM sent s
    JOIN stored USING (event_id)
    JOIN held h ON h.id = s.operation_id
    WHERE h.status <> 'processing'
    GROUP BY s.operation_id
), made_due AS (
    UPDATE operations o
    SET retry_at = CASE WHEN o.status IN {open_operation} THEN now() ELSE o.retry_at END,
        sweep_at = CASE WHEN o.status IN {open_operation} THEN now() + %(grace_ms)s::bigint * interval '1 millisecond'
                        WHEN o.status IN {closed} AND NOT n.is_refusal THEN now()
                        WHEN o.status = 'success' AND n.is_refusal THEN now()
                        ELSE o.sweep_at END,
        sweeps = CASE WHEN o.status IN {open_operation} THEN 0 ELSE o.sweeps END,
        look_ups = {operation_look_ups}
    FROM news n
    WHERE o.id = n.operation_id
    RETURNING o.id, o.kind, o.status
)
SELECT CASE WHEN s.nth > 1 OR t.event_id IS NULL THEN 'repeated'
            WHEN EXISTS (SELECT FROM operations k WHERE k.id = s.operation_id AND k.provider = %(provider)s::text)
                 THEN 'taken'
            ELSE 'unmatched' END,
       d.id, d.kind
FROM sent s
LEFT JOIN stored t USING (event_id)
LEFT JOIN made_due d ON d.id = s.operation_id AND d.status IN {open_operation}
ORDER BY s.place

-- name: take_of_disputes
-- The same for notices about disputes: each new one makes the fetch of its dispute due.
WITH sent AS MATERIALIZED (
    SELECT w.*, row_number() OVER (PARTITION BY w.event_id ORDER BY w.place) AS nth
    FROM unnest(%(event_ids)s::text[], %(kinds)s::text[], %(dispute_refs)s::text[])
         WITH ORDINALITY AS w (event_id, kind, dispute_ref, place)
), stored AS (
    INSERT INTO provider_events (provider, event_id, kind, provider_ref, done_at)
    SELECT %(provider)s::text, s.event_id, s.kind, s.dispute_ref, now()
    FROM sent s
    WHERE s.nth = 1
    ORDER BY s.event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
), due AS (
    INSERT INTO dispute_notices AS n (provider, provider_ref)
    SELECT DISTINCT %(provider)s::text, s.dispute_ref
    FROM sent s
    JOIN stored USING (event_id)
    ORDER BY s.dispute_ref
    ON CONFLICT (provider, provider_ref) DO UPDATE SET fence = NULL, tries = 0, due_at = now(), noticed_at = now()
)
SELECT CASE WHEN s.nth > 1 OR t.event_id IS NULL THEN 'repeated' ELSE 'taken' END
FROM sent s
LEFT JOIN stored t USING (event_id)
ORDER BY s.place

-- name: open_operation
-- As `open`. Not a statement: others include it.
('unknown', 'submitted')

-- name: operation_look_ups
-- As `look_ups`. Not a statement: others include it.
CASE WHEN o.status IN {open_operation} AND o.retry_at > now() THEN greatest(o.look_ups - 1, 0) ELSE o.look_ups END

-- name: wake_noticed_operations
-- The same as `wake_noticed`, for captures, voids and refunds.
WITH waiting AS MATERIALIZED (
    SELECT e.provider, e.event_id, e.operation_id, e.received_at
    FROM provider_events e
    WHERE e.done_at IS NULL AND e.operation_id IS NOT NULL
    ORDER BY e.received_at
    LIMIT %(window)s::bigint
), settled AS MATERIALIZED (
    SELECT w.*
    FROM waiting w
    JOIN operations o ON o.id = w.operation_id
    WHERE o.status <> 'processing'
    ORDER BY w.received_at
    LIMIT %(limit)s::bigint
), held AS MATERIALIZED (
    SELECT o.id, o.status
    FROM operations o
    WHERE o.id IN (SELECT s.operation_id FROM settled s)
    ORDER BY o.id
    FOR NO KEY UPDATE SKIP LOCKED
), done AS (
    UPDATE provider_events e
    SET done_at = now()
    FROM settled s
    JOIN held h ON h.id = s.operation_id
    WHERE e.provider = s.provider AND e.event_id = s.event_id AND e.done_at IS NULL AND h.status <> 'processing'
    RETURNING e.operation_id, e.provider
), made_due AS (
    UPDATE operations o
    SET retry_at = CASE WHEN o.status IN {open_operation} THEN now() ELSE o.retry_at END,
        sweep_at = CASE WHEN o.status IN {open_operation} THEN now() + %(grace_ms)s::bigint * interval '1 millisecond'
                        WHEN o.status = 'success' AND o.kind = 'refund' THEN now()
                        WHEN o.status IN {closed} AND o.sweep_at IS NOT NULL THEN least(o.sweep_at, now())
                        ELSE o.sweep_at END,
        sweeps = CASE WHEN o.status IN {open_operation} THEN 0 ELSE o.sweeps END,
        look_ups = {operation_look_ups}
    FROM (SELECT DISTINCT d.operation_id, d.provider FROM done d) n
    WHERE o.id = n.operation_id AND o.provider = n.provider
    RETURNING o.id, o.kind, o.status
)
SELECT d.id, d.kind FROM made_due d WHERE d.status IN {open_operation}

-- name: wake_noticed
-- The notices that came while a worker had the payment in work, now that it is settled. The answer that was written may be
-- older than the notice. A closed payment is looked up at once if late look-ups are planned; otherwise the provider has
-- answered for good. Two workers may do this at once: the second finds the rows locked, or makes them due again.
WITH waiting AS MATERIALIZED (
    SELECT e.provider, e.event_id, e.payment_id, e.provider_ref, e.received_at
    FROM provider_events e
    WHERE e.done_at IS NULL AND e.operation_id IS NULL
    ORDER BY e.received_at
    LIMIT %(window)s::bigint
), settled AS MATERIALIZED (
    SELECT w.*, p.status
    FROM waiting w
    JOIN payments p ON p.id = w.payment_id
    WHERE p.status <> 'processing'
    ORDER BY w.received_at
    LIMIT %(limit)s::bigint
), held AS MATERIALIZED (
    SELECT p.id, p.status
    FROM payments p
    WHERE p.id IN (SELECT s.payment_id FROM settled s WHERE s.status NOT IN ('success', 'needs_review'))
    ORDER BY p.id
    FOR NO KEY UPDATE SKIP LOCKED
), done AS (
    UPDATE provider_events e
    SET done_at = now()
    FROM settled s
    LEFT JOIN held h ON h.id = s.payment_id
    WHERE e.provider = s.provider AND e.event_id = s.event_id AND e.done_at IS NULL
      AND (s.status IN ('success', 'needs_review') OR h.status <> 'processing')
    RETURNING e.payment_id, e.provider, e.provider_ref, e.received_at
), news AS MATERIALIZED (
    SELECT d.payment_id, d.provider,
           -- A manual retry or a fallback since then has given the payment another key, and its attempt another reference:
           -- the old one would keep it at the provider that has declined it.
           (array_agg(d.provider_ref ORDER BY d.received_at) FILTER (WHERE d.provider_ref IS NOT NULL AND NOT EXISTS (
               SELECT FROM payment_events r
               WHERE r.payment_id = d.payment_id AND r.event IN ('retried', 'fell_back')
                 AND r.at >= d.received_at)))[1] AS provider_ref
    FROM done d
    GROUP BY d.payment_id, d.provider
), made_due AS (
    UPDATE payments p
    SET attempt_ref = coalesce(p.attempt_ref, n.provider_ref),
        retry_at = CASE WHEN p.status IN {open} THEN now() ELSE p.retry_at END,
        sweep_at = CASE WHEN p.status IN {open} THEN now() + %(grace_ms)s::bigint * interval '1 millisecond'
                        WHEN p.status IN {closed} AND p.sweep_at IS NOT NULL THEN least(p.sweep_at, now())
                        -- The notice may have said that the authorization is over: a look-up does no harm.
                        WHEN p.status = 'authorized' AND p.open_operation IS NULL THEN least(p.sweep_at, now())
                        ELSE p.sweep_at END,
        sweeps = CASE WHEN p.status IN {open} THEN 0 ELSE p.sweeps END,
        look_ups = {look_ups}
    FROM news n
    JOIN held h ON h.id = n.payment_id
    WHERE p.id = n.payment_id AND {provider_of} = n.provider AND h.status <> 'processing'
    RETURNING p.id, p.lane, p.status
)
SELECT d.id, d.lane FROM made_due d WHERE d.status IN {open}

-- name: delete_old
DELETE FROM provider_events e
USING (SELECT o.provider, o.event_id FROM provider_events o
       WHERE o.received_at < now() - %(older_than_ms)s::bigint * interval '1 millisecond'
       ORDER BY o.received_at
       LIMIT %(limit)s::bigint
       FOR UPDATE SKIP LOCKED) old
WHERE e.provider = old.provider AND e.event_id = old.event_id
RETURNING e.event_id
