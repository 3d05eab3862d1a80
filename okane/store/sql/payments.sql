-- name: accept
-- Inserts what is new, in the order of the keys (unsorted batches of two API processes deadlock). A row whose id is not
-- of this moment by the database's clock (a skewed clock, or a batch that waited for Postgres), or that the sweep's cursor
-- has passed already (clocks that stepped back), goes to the sweep after the grace; one that gets no wake-up, at once; one that
-- scheduled, at its time. One whose times are not in the future by this clock, or too far ahead, is left out.
INSERT INTO payments AS p (id, provider_key, {new}, sweep_at)
SELECT w.id, w.id::text, {new},
       CASE WHEN w.execute_at IS NOT NULL THEN w.execute_at
            WHEN NOT w.wake THEN clock_timestamp()
            -- Once a batch. The transaction's id is taken before the clock is read: see sweep_horizon.
            WHEN (SELECT CASE WHEN pg_current_xact_id() IS NOT NULL
                              THEN abs(extract(epoch FROM clock_timestamp())::float8 - %(clock_s)s::float8)
                                   > %(grace_s)s::float8 / 2 END)
                 OR w.id < (SELECT c.passed FROM sweep_cursors c ORDER BY c.passed DESC LIMIT 1)
            THEN clock_timestamp() + %(grace_s)s::float8 * interval '1 second' END
FROM unnest(%(id)s::uuid[], %(wake)s::boolean[], {new_arrays}) AS w (id, wake, {new})
WHERE (w.execute_at IS NULL OR w.execute_at > now() AND w.execute_at <= now() + %(farthest_s)s::float8 * interval '1 second')
  AND (w.expires_at IS NULL OR w.expires_at > now() AND w.expires_at <= now() + %(farthest_s)s::float8 * interval '1 second')
ORDER BY w.account_id, w.idempotency_key
ON CONFLICT ON CONSTRAINT payments_idempotency_key DO NOTHING
RETURNING p.account_id, p.idempotency_key, p.created_at

-- name: by_key
SELECT {payment}, p.fingerprint
FROM unnest(%(account_ids)s::text[], %(keys)s::text[]) AS w (account_id, idempotency_key)
JOIN payments p USING (account_id, idempotency_key)

-- name: clock
SELECT now()

-- name: by_id
SELECT {payment}, now()
FROM payments p
WHERE p.id = ANY (%(ids)s::uuid[])

-- name: claim
-- Fences every provider call. Claimable: new and not scheduled for later, due again, or left behind by a worker whose lease ran out; such a crash
-- counts as a retry, and like an unknown outcome it is looked up before anything is charged again.
WITH claimed AS (
    UPDATE payments p
    SET status = 'processing',
        rare_status = NULL,
        attempts = p.attempts + 1,
        version = p.version + 1,
        retries = p.retries + (p.status = 'processing')::integer,
        look_up_first = p.status IN ('processing', 'unknown') OR p.provider_ref IS NOT NULL,
        open_since = CASE WHEN p.status IN ('processing', 'unknown') THEN coalesce(p.open_since, p.called_at) END,
        -- Whoever held it until now may have called the provider up to the end of the lease.
        called_at = CASE p.status WHEN 'processing' THEN p.lease_until WHEN 'unknown' THEN p.called_at ELSE now() END,
        lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
        sweep_at = CASE WHEN p.sweep_at IS NOT NULL
                        THEN now() + (%(lease_ms)s::bigint + %(grace_ms)s::bigint) * interval '1 millisecond' END,
        updated_at = now()
    FROM unnest(%(ids)s::uuid[]) AS w (id)
    WHERE p.id = w.id
      AND (p.status = 'pending' AND (p.execute_at IS NULL OR p.execute_at <= now())
           OR p.status IN ('failed_retryable', 'unknown') AND p.retry_at <= now()
           OR p.status = 'processing' AND p.lease_until <= now())
      -- One that has expired may only be looked up.
      AND (p.expires_at IS NULL OR p.expires_at > now() OR p.provider_ref IS NOT NULL
           OR p.status IN ('processing', 'unknown'))
    RETURNING {payment}, p.look_up_first, p.look_ups,
              coalesce(extract(epoch FROM now() - p.called_at), 0)::float8 AS since_call_s,
              coalesce(extract(epoch FROM now() - p.open_since), 0)::float8 AS open_s,
              coalesce(p.expires_at <= now(), false) AS expired
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, 'claimed', status, attempts, %(actor)s::text FROM claimed
)
SELECT * FROM claimed

-- name: refused
-- Why a claim was refused: what the payment is now, why it failed if its retries were spent (a decline is no such end),
-- in how many seconds it could be claimed, whether it has expired instead, and whether the sweep sent it to be looked up
-- although it is closed.
SELECT p.id, p.status,
       CASE WHEN p.status = 'failed_final' AND p.decline_code IS NULL THEN coalesce(p.last_error, 'spent') END AS spent,
       greatest(0, extract(epoch FROM coalesce(CASE p.status WHEN 'processing' THEN p.lease_until
                                                             WHEN 'pending' THEN p.execute_at
                                                             ELSE p.retry_at END,
                                               now()) - now()))::float8 AS wait_s,
       coalesce(p.expires_at <= now() AND p.status IN ('pending', 'failed_retryable') AND p.provider_ref IS NULL, false)
           AS expired,
       p.status IN ('failed_final', 'canceled') AND p.sweep_at IS NOT NULL AND p.sweeps > 0 AS look_up_late
FROM payments p
WHERE p.id = ANY (%(ids)s::uuid[])

-- name: renew
UPDATE payments p
SET lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
    sweep_at = CASE WHEN p.sweep_at IS NOT NULL
                    THEN now() + (%(lease_ms)s::bigint + %(grace_ms)s::bigint) * interval '1 millisecond' END
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS w (id, attempt)
WHERE p.id = w.id AND p.attempts = w.attempt AND p.status = 'processing'
RETURNING p.id, p.attempts

-- name: settle
-- Writes the outcome of one attempt, under that attempt alone, with its event.
WITH settled AS (
    UPDATE payments p
    SET status = w.status,
        rare_status = CASE WHEN w.status <> 'success' THEN w.status END,
        version = p.version + 1,
        retries = p.retries + (w.status = 'failed_retryable')::integer,
        look_ups = CASE WHEN w.status = 'unknown' THEN p.look_ups + 1 ELSE 0 END,
        provider_ref = coalesce(w.provider_ref, p.provider_ref),
        decline_code = w.decline_code,
        last_error = w.reason,
        open_since = CASE WHEN w.status IN ('unknown', 'needs_review') THEN coalesce(p.open_since, p.called_at) END,
        called_at = CASE WHEN w.call = 'charge' THEN now() ELSE p.called_at END,
        lease_until = NULL,
        retry_at = now() + w.delay_ms * interval '1 millisecond',
        -- What fails at the first attempt has no other call that may be on its way: it is not asked for.
        sweep_at = now() + CASE WHEN w.status <> 'failed_final' THEN w.delay_ms + %(grace_ms)s::bigint
                                WHEN p.attempts > 1 AND {ended_attempts} < p.attempts - 1 THEN %(late_ms)s::bigint
                           END * interval '1 millisecond',
        sweeps = 0,
        dead_at = CASE WHEN w.event = 'spent' OR w.status = 'needs_review' THEN now() END,
        updated_at = now()
    FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[], %(events)s::text[],
                %(provider_refs)s::text[], %(decline_codes)s::text[], %(reasons)s::text[], %(calls)s::text[],
                %(delays_ms)s::bigint[], %(providers)s::text[], %(latencies_ms)s::integer[])
         AS w (id, attempt, status, event, provider_ref, decline_code, reason, call, delay_ms, provider, latency_ms)
    WHERE p.id = w.id AND p.attempts = w.attempt AND p.status = 'processing'
      -- Another attempt's success was heard of meanwhile: not given up but looked up, once the lease has run out.
      AND NOT (w.status = 'failed_final' AND p.provider_ref IS NOT NULL)
    RETURNING p.id, p.version, w.event, p.status, p.attempts, w.reason, w.provider, w.latency_ms, w.call, w.decline_code,
              extract(epoch FROM now() - p.created_at)::float8 AS age_s
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, provider, latency_ms,
                                call, decline_code)
    SELECT id, version, event, status, attempts, %(actor)s::text, reason, provider, latency_ms, call, decline_code
    FROM settled
)
SELECT id, attempts, age_s FROM settled

-- name: settled_before
-- Which of these outcomes already stand: a repeated `settle` whose first try was committed without our hearing of it.
SELECT p.id, p.attempts, extract(epoch FROM p.updated_at - p.created_at)::float8 AS age_s
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[]) AS w (id, attempt, status)
JOIN payments p ON p.id = w.id AND p.attempts = w.attempt AND p.status = w.status

-- name: record_late
-- An outcome that came after its attempt had lost the payment is kept as an event. Money that moved for a payment which
-- we call failed or canceled is for a human to see. With `once` a charge that is known changes nothing.
WITH recorded AS (
    UPDATE payments p
    SET version = p.version + 1,
        status = CASE WHEN %(approved)s AND p.status IN ('failed_final', 'canceled') THEN 'needs_review'
                      ELSE p.status END,
        rare_status = CASE WHEN %(approved)s AND p.status IN ('failed_final', 'canceled') THEN 'needs_review'
                           ELSE p.rare_status END,
        provider_ref = coalesce(p.provider_ref, %(provider_ref)s),
        last_error = CASE WHEN %(approved)s AND p.status IN ('failed_final', 'canceled') THEN %(reason)s
                          ELSE p.last_error END,
        dead_at = CASE WHEN %(approved)s AND p.status IN ('failed_final', 'canceled', 'needs_review') THEN now()
                       ELSE p.dead_at END,
        sweep_at = CASE WHEN %(approved)s AND p.status IN ('failed_final', 'canceled') THEN NULL ELSE p.sweep_at END,
        updated_at = now()
    WHERE p.id = %(id)s AND (NOT %(once)s OR p.provider_ref IS DISTINCT FROM %(provider_ref)s)
    RETURNING p.id, p.version, p.status
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, provider, latency_ms,
                                call, decline_code)
    SELECT id, version, 'late_result', status, %(attempt)s, %(actor)s, %(reason)s, %(provider)s, %(latency_ms)s,
           %(call)s, %(decline_code)s
    FROM recorded
)
SELECT status FROM recorded
UNION ALL
SELECT p.status FROM payments p WHERE p.id = %(id)s AND NOT EXISTS (SELECT FROM recorded)

-- name: retry
-- A human asks for another try. A declined charge gets a new provider key: under the old one the provider would only
-- repeat its no. Otherwise the key stays, so that a charge nobody heard of is found and not made twice. Where a human has
-- decided against a charge that is known (given back, say), the same key would find it again, and call it a success.
WITH retried AS (
    UPDATE payments p
    SET status = 'pending',
        rare_status = NULL,
        version = p.version + 1,
        retries = 0,
        look_ups = 0,
        provider_key = CASE WHEN p.decline_code IS NULL THEN p.provider_key ELSE p.id || ':' || p.version + 1 END,
        decline_code = NULL,
        last_error = NULL,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = now() + %(grace_ms)s::bigint * interval '1 millisecond',
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    WHERE p.id = %(id)s AND p.account_id = %(account_id)s AND p.status IN ('failed_final', 'failed_retryable')
      AND NOT (p.status = 'failed_final' AND p.provider_ref IS NOT NULL)
    RETURNING {payment}
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, 'retried', status, attempts, %(actor)s FROM retried
)
SELECT * FROM retried

-- name: cancel
-- Withdraws what nobody is charging. Where a charge has been heard of late, it is no longer ours to withdraw.
WITH canceled AS (
    UPDATE payments p
    SET status = 'canceled',
        rare_status = 'canceled',
        version = p.version + 1,
        retry_at = NULL,
        sweep_at = {late_look_up},
        sweeps = 0,
        updated_at = now()
    WHERE p.id = %(id)s AND p.account_id = %(account_id)s AND p.status IN ('pending', 'failed_retryable')
      AND p.provider_ref IS NULL
    RETURNING {payment}
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, 'canceled', status, attempts, %(actor)s FROM canceled
)
SELECT * FROM canceled

-- name: expire
-- The time for it is over, and nothing is charged or may have been.
WITH expired AS (
    UPDATE payments p
    SET status = 'canceled',
        rare_status = 'canceled',
        version = p.version + 1,
        last_error = 'expired',
        retry_at = NULL,
        sweep_at = {late_look_up},
        sweeps = 0,
        updated_at = now()
    WHERE p.id = %(id)s AND p.status IN ('pending', 'failed_retryable') AND p.provider_ref IS NULL
      AND p.expires_at <= now()
    RETURNING p.id, p.version, p.status, p.attempts
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'canceled', status, attempts, %(actor)s, 'expired' FROM expired
)
SELECT id FROM expired

-- name: bury
-- A payment whose stream entry kills the workers that take it: a human decides. Only from a status that is not settled.
WITH buried AS (
    UPDATE payments p
    SET status = 'needs_review',
        rare_status = 'needs_review',
        version = p.version + 1,
        last_error = %(reason)s,
        lease_until = NULL,
        retry_at = NULL,
        sweep_at = NULL,
        dead_at = now(),
        updated_at = now()
    WHERE p.id = %(id)s
      AND (p.status IN ('pending', 'failed_retryable', 'unknown')
           OR p.status = 'processing' AND p.lease_until <= now())
    RETURNING p.id, p.version, p.status, p.attempts
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'needs_review', status, attempts, %(actor)s, %(reason)s FROM buried
)
SELECT id FROM buried

-- name: ended_attempts
-- How many attempts ended with an answer that leaves no call on its way. An attempt that ended `unknown`, or whose worker
-- died, is none of them. Not a statement: others hold it.
(SELECT count(*) FROM payment_events e
 WHERE e.payment_id = p.id AND e.event IN ('unavailable', 'declined', 'spent'))

-- name: late_look_up
-- When a payment that is being closed without a charge is first looked up again; NULL if no call can be on its way. Not a
-- statement: others hold it.
CASE WHEN p.provider_ref IS NULL AND {ended_attempts} < p.attempts
     THEN now() + %(late_ms)s::bigint * interval '1 millisecond' END

-- name: begin_late_look_up
-- The look-up of a closed payment that the sweep has sent begins. It comes again by itself, each time later, unless
-- `plan_late_look_up` says otherwise: a worker that dies over it, or a provider that does not answer, cost a delay.
UPDATE payments p
SET look_ups = p.look_ups + 1,
    open_since = coalesce(p.open_since, now()),
    sweep_at = now() + (%(again_ms)s::bigint[])[least(p.look_ups + 1, cardinality(%(again_ms)s::bigint[]))]
                       * interval '1 millisecond',
    sweeps = 0
WHERE p.id = %(id)s AND p.status IN ('failed_final', 'canceled') AND p.sweep_at IS NOT NULL AND p.sweeps > 0
RETURNING {payment}, extract(epoch FROM now() - p.open_since)::float8, now()

-- name: plan_late_look_up
-- There is no charge yet: when it is looked up next, counted from when it was closed. NULL: that was the last time. A time that
-- came after this look-up was begun is still ahead, however late its answer is written (Postgres was away, its worker stopped).
UPDATE payments p
SET look_ups = 0,
    open_since = NULL,
    sweep_at = (SELECT min(p.updated_at + late.ms * interval '1 millisecond')
                FROM unnest(%(late_ms)s::bigint[]) AS late (ms)
                WHERE p.updated_at + late.ms * interval '1 millisecond' > %(begun_at)s::timestamptz),
    sweeps = 0
WHERE p.id = %(id)s AND p.version = %(version)s AND p.status IN ('failed_final', 'canceled')
  AND p.sweep_at IS NOT NULL

-- name: fail_late_look_up
-- The provider has not said for too long whether there is a charge: a human asks.
WITH failed AS (
    UPDATE payments p
    SET status = 'needs_review',
        rare_status = 'needs_review',
        version = p.version + 1,
        last_error = %(reason)s,
        sweep_at = NULL,
        dead_at = now(),
        updated_at = now()
    WHERE p.id = %(id)s AND p.version = %(version)s AND p.status IN ('failed_final', 'canceled')
    RETURNING p.id, p.version, p.status, p.attempts
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'unanswered', status, attempts, %(actor)s, %(reason)s FROM failed
)
SELECT id FROM failed

-- name: resolve
-- A human has decided. Where no charge is known and a call may still be on its way, it is looked up as after any close.
WITH resolved AS (
    UPDATE payments p
    SET status = %(status)s,
        rare_status = CASE WHEN %(status)s <> 'success' THEN %(status)s END,
        version = p.version + 1,
        look_ups = 0,
        provider_ref = coalesce(%(provider_ref)s, p.provider_ref),
        decline_code = CASE WHEN %(status)s <> 'success' THEN p.decline_code END,
        last_error = CASE WHEN %(status)s <> 'success' THEN %(reason)s END,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = CASE WHEN %(status)s = 'failed_final' THEN {late_look_up} END,
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    WHERE p.id = %(id)s AND (%(account_id)s::text IS NULL OR p.account_id = %(account_id)s::text)
      AND p.status = 'needs_review'
    RETURNING {payment}
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'resolved', status, attempts, %(actor)s, %(reason)s FROM resolved
)
SELECT * FROM resolved

-- name: decided
-- Whether a human's decision made this payment what it is.
SELECT coalesce((SELECT e.event FROM payment_events e
                 WHERE e.payment_id = %(id)s AND e.event <> 'late_result'
                 ORDER BY e.version DESC LIMIT 1) = 'resolved', false)

-- name: events
-- The timeline of one payment, acceptance first.
SELECT p.id AS payment_id, 0 AS version, p.created_at AS at, 'accepted' AS event, 'pending' AS status, 0 AS attempt,
       'api' AS actor, NULL AS reason, NULL AS provider, NULL AS latency_ms, NULL AS call, NULL AS decline_code
FROM payments p WHERE p.id = %(id)s
UNION ALL
SELECT {event}
FROM payment_events e WHERE e.payment_id = %(id)s
ORDER BY version
