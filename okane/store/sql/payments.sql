-- name: accept
-- Insert the new payments, in the order of their keys (unsorted batches of two API processes deadlock). The sweep takes a
-- row after the grace if the time in its id differs from the database's clock (a skewed clock, or a batch that waited for
-- Postgres) or the sweep's cursor has passed it (a clock stepped back); at once if it gets no wake-up; at its time if it is
-- scheduled. A row with a time that is not in the future by this clock, or too far ahead, is left out.
INSERT INTO payments AS p (id, provider_key, {new}, sweep_at)
SELECT w.id, w.id::text, {new_values}, {first_sweep_at}
FROM unnest(%(id)s::uuid[], %(wake)s::boolean[], {new_arrays}) AS w (id, wake, {new})
WHERE {in_time}
ORDER BY w.account_id, w.idempotency_key
ON CONFLICT ON CONSTRAINT payments_idempotency_key DO NOTHING
RETURNING p.account_id, p.idempotency_key, p.created_at

-- name: first_sweep_at
-- Not a statement: others include it.
CASE WHEN w.execute_at IS NOT NULL THEN w.execute_at
            WHEN NOT w.wake THEN clock_timestamp()
            -- Once a batch. The transaction's id is taken before the clock is read: see sweep_horizon.
            WHEN (SELECT CASE WHEN pg_current_xact_id() IS NOT NULL
                              THEN abs(extract(epoch FROM clock_timestamp())::float8 - %(clock_s)s::float8)
                                   > %(grace_s)s::float8 / 2 END)
                 OR w.id < (SELECT c.passed FROM sweep_cursors c ORDER BY c.passed DESC LIMIT 1)
            THEN clock_timestamp() + %(grace_s)s::float8 * interval '1 second' END

-- name: in_time
-- Not a statement: others include it.
(w.execute_at IS NULL OR w.execute_at > now() AND w.execute_at <= now() + %(farthest_s)s::float8 * interval '1 second')
  AND (w.expires_at IS NULL OR w.expires_at > now() AND w.expires_at <= now() + %(farthest_s)s::float8 * interval '1 second')

-- name: accept_keyed
-- `accept` for payments in table partitions: the table of keys decides, and the row of a key and its payment are written
-- together. `untaken_in_first` looks into the table partition whose keys are in its own index.
WITH keyed AS (
    INSERT INTO payment_keys (digest, id)
    SELECT w.digest, w.id
    FROM unnest(%(digests)s::uuid[], %(id)s::uuid[], %(account_id)s::text[], %(idempotency_key)s::text[],
                %(execute_at)s::timestamptz[], %(expires_at)s::timestamptz[])
         AS w (digest, id, account_id, idempotency_key, execute_at, expires_at)
    WHERE {in_time}{untaken_in_first}
    ORDER BY w.digest
    ON CONFLICT DO NOTHING
    RETURNING id
)
INSERT INTO payments AS p (id, provider_key, {new}, sweep_at)
SELECT w.id, w.id::text, {new_values}, {first_sweep_at}
FROM unnest(%(id)s::uuid[], %(wake)s::boolean[], {new_arrays}) AS w (id, wake, {new})
WHERE (w.id IN (SELECT k.id FROM keyed k)) IS TRUE  -- hashed: a join of two lists would compare all with all
RETURNING p.account_id, p.idempotency_key, p.created_at

-- name: untaken
-- Not a statement: others include it.
NOT EXISTS (SELECT FROM payments_first f WHERE f.account_id = w.account_id AND f.idempotency_key = w.idempotency_key)

-- name: replicated
-- True, and has the statement commit: an answer by what it reads waits for a standby as if it had written that. After a crash
-- Postgres shows commits that no standby has, and a statement that only reads waits for none: what it acknowledges would be
-- lost with the server. A standby that has this commit has all before it. Not a statement: others include it.
(SELECT CASE current_setting('synchronous_standby_names')
             WHEN '' THEN true ELSE pg_logical_emit_message(true, 'okane', '') IS NOT NULL END)

-- name: by_digest
-- `by_key` for payments in table partitions. Not plain joins: these are planned once, perhaps while there are no keys.
SELECT {payment}, p.fingerprint
FROM unnest(%(account_ids)s::text[], %(keys)s::text[], %(digests)s::uuid[]) AS w (account_id, idempotency_key, digest)
CROSS JOIN LATERAL (SELECT k.id FROM payment_keys k WHERE k.digest = w.digest LIMIT 1) k
CROSS JOIN LATERAL (SELECT * FROM payments WHERE id = k.id LIMIT 1) p
WHERE p.account_id = w.account_id AND p.idempotency_key = w.idempotency_key AND {replicated}

-- name: by_key_in_first
-- Run after `by_digest`, whose commit has waited for a standby.
SELECT {payment}, p.fingerprint
FROM unnest(%(account_ids)s::text[], %(keys)s::text[]) AS w (account_id, idempotency_key)
JOIN payments_first p USING (account_id, idempotency_key)

-- name: by_key
SELECT {payment}, p.fingerprint
FROM unnest(%(account_ids)s::text[], %(keys)s::text[]) AS w (account_id, idempotency_key)
JOIN payments p USING (account_id, idempotency_key)
WHERE {replicated}

-- name: clock
SELECT now()

-- name: by_id
SELECT {payment}, now()
FROM payments p
WHERE p.id = ANY (%(ids)s::uuid[])

-- name: known
-- A payment, for the answer to a request that did not change it.
SELECT {payment}
FROM payments p
WHERE p.id = %(id)s AND {replicated}

-- name: provider_of
-- The provider that a payment was sent to. Attempts of before version 4, whose rows name none, called `http`. Not a statement: others include it.
coalesce(p.provider, CASE WHEN p.attempts > 0 THEN 'http' END)

-- name: pinned
-- True if a call to the payment's provider may have been executed. Its provider is p.provider for ever; attempts of before
-- version 4, which have none, called `http`. Not a statement: others include it.
(p.pinned OR p.status IN ('processing', 'unknown', 'requires_action', 'submitted')
 OR p.provider_ref IS NOT NULL OR p.attempt_ref IS NOT NULL OR p.attempts > 0 AND p.provider IS NULL)

-- name: providers_to_choose_from
-- Those that this worker can call and that are neither switched off nor behind an open circuit; the first default one of
-- those that may charge. Not a statement: others include it.
usable AS MATERIALIZED (
    SELECT u.name, u.is_default, u.place, coalesce(r.mode, 'on') = 'on' AS may_charge
    FROM unnest(%(usable)s::text[], %(defaults)s::boolean[]) WITH ORDINALITY AS u (name, is_default, place)
    LEFT JOIN providers r ON r.name = u.name
    WHERE r.name IS NULL OR r.mode <> 'off' AND (r.open_until IS NULL OR r.open_until <= now())
), chosen AS MATERIALIZED (
    SELECT u.name FROM usable u WHERE u.is_default AND u.may_charge ORDER BY u.place LIMIT 1
)

-- name: has_provider
-- True if there is a provider for the payment now: the pinned one, the requested one, a candidate of its route, or any
-- default one. A drained provider takes look-ups only. Not a statement: others include it.
CASE WHEN {pinned}
     THEN EXISTS (SELECT FROM usable u WHERE u.name = coalesce(p.provider, 'http')
                  AND (u.may_charge OR p.status NOT IN ('pending', 'failed_retryable')))
     WHEN p.requested_provider IS NOT NULL
     THEN EXISTS (SELECT FROM usable u WHERE u.name = p.requested_provider AND u.may_charge)
     WHEN p.candidates IS NOT NULL THEN EXISTS (SELECT FROM usable u WHERE u.name = ANY (p.candidates) AND u.may_charge)
     ELSE EXISTS (SELECT FROM chosen) END

-- name: routed_provider
-- The first candidate of a route that can be called. After a provider that was unavailable another one is taken first, if
-- there is any; at a rate limit the payment waits instead. Not a statement: others include it.
(SELECT u.name FROM unnest(p.candidates) WITH ORDINALITY AS c (name, place)
 JOIN usable u ON u.name = c.name AND u.may_charge
 ORDER BY p.status = 'failed_retryable' AND c.name = p.provider
          AND (SELECT e.event FROM payment_events e WHERE e.payment_id = p.id ORDER BY e.version DESC LIMIT 1)
              = 'unavailable',
          c.place
 LIMIT 1)

-- name: claim_columns
-- The columns that a claim writes besides the status and the provider. Not a statement: others include it.
attempts = p.attempts + 1,
        version = p.version + 1,
        retries = p.retries + (p.status = 'processing')::integer,
        look_up_first = p.status IN ('processing', 'unknown', 'requires_action', 'submitted')
                        OR p.provider_ref IS NOT NULL,
        pinned = CASE WHEN {pinned} THEN true END,
        open_since = CASE WHEN p.status IN ('processing', 'unknown') THEN coalesce(p.open_since, p.called_at) END,
        -- The previous holder may have called the provider up to the end of its lease.
        called_at = CASE WHEN p.status = 'processing' THEN p.lease_until
                         WHEN p.status IN ('unknown', 'requires_action', 'submitted') THEN p.called_at
                         ELSE now() END,
        lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
        sweep_at = CASE WHEN p.sweep_at IS NOT NULL
                        THEN now() + (%(lease_ms)s::bigint + %(grace_ms)s::bigint) * interval '1 millisecond' END,
        updated_at = now()

-- name: claimable
-- True for a payment that is new and not scheduled for later, due again, or left by a worker whose lease expired. An expired
-- payment may only be looked up. Not a statement: others include it.
(p.status = 'pending' AND (p.execute_at IS NULL OR p.execute_at <= now())
           OR p.status IN ('failed_retryable', 'unknown', 'requires_action', 'submitted') AND p.retry_at <= now()
           OR p.status = 'processing' AND p.lease_until <= now())
      AND (p.expires_at IS NULL OR p.expires_at > now() OR p.provider_ref IS NOT NULL
           OR p.status IN ('processing', 'unknown', 'requires_action', 'submitted'))

-- name: claim_answer
-- The payment as claimed, and how long ago what happened. Not a statement: others include it.
{payment}, p.look_up_first, p.look_ups,
              coalesce(extract(epoch FROM now() - p.called_at), 0)::float8 AS since_call_s,
              coalesce(extract(epoch FROM now() - p.open_since), 0)::float8 AS open_s,
              coalesce(p.expires_at <= now(), false) AS expired,
              extract(epoch FROM now() - p.pending_since)::float8 AS pending_s,
              -- The age of the key: since the first claim under it.
              CASE WHEN p.attempts > 1
                   THEN coalesce((SELECT extract(epoch FROM now() - min(e.at)) FROM payment_events e
                                  WHERE e.payment_id = p.id AND e.event = 'claimed'
                                    AND e.version > coalesce(nullif(split_part(p.provider_key, ':', 2), ''), '0')::integer),
                                 0)::float8
                   ELSE 0::float8 END AS key_age_s

-- name: claim_logged
-- Not a statement: others include it.
logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, 'claimed', status, attempts, %(actor)s::text FROM claimed
)

-- name: its_provider
-- The provider of a claimed payment while every one may be called. Not a statement: others include it.
coalesce(CASE WHEN {pinned} THEN coalesce(p.provider, 'http') ELSE coalesce(p.requested_provider, p.candidates[1]) END,
         %(first_default)s::text)

-- name: claim
-- Fence every provider call. A crash counts as a retry, and like an unknown outcome it is looked up before anything is
-- charged again. The provider is chosen and written here, before it can be called; without one the claim is refused.
-- This is the claim while every provider may be called; otherwise it claims nothing, and `claim_and_choose` decides. That one
-- alone would do, but costs a fifth more in small batches. What a route leads past its first candidate is left to it, too.
WITH claimed AS (
    UPDATE payments p
    SET status = 'processing',
        rare_status = NULL,
        {claim_columns},
        provider = {its_provider}
    FROM unnest(%(ids)s::uuid[]) AS w (id)
    WHERE p.id = w.id
      AND {claimable}
      AND NOT EXISTS (SELECT FROM providers r WHERE r.mode <> 'on' OR r.open_until > now())
      AND {its_provider} = ANY (%(usable)s::text[])
      AND (p.candidates IS NULL OR p.status <> 'failed_retryable')
    RETURNING {claim_answer}, true AS may_charge
), {claim_logged}
SELECT * FROM claimed

-- name: claim_and_choose
-- The claim while a provider is switched off, drained or behind an open circuit, or a route's first candidate is not the
-- one to call.
WITH {providers_to_choose_from}, claimed AS (
    UPDATE payments p
    SET status = 'processing',
        rare_status = NULL,
        {claim_columns},
        provider = CASE WHEN {pinned} THEN coalesce(p.provider, 'http')
                        WHEN p.requested_provider IS NOT NULL THEN p.requested_provider
                        WHEN p.candidates IS NOT NULL THEN {routed_provider}
                        ELSE (SELECT c.name FROM chosen c) END
    FROM unnest(%(ids)s::uuid[]) AS w (id)
    WHERE p.id = w.id
      AND {claimable}
      AND {has_provider}
    RETURNING {claim_answer}, NOT p.look_up_first OR (SELECT u.may_charge FROM usable u WHERE u.name = p.provider) AS may_charge
), {claim_logged}
SELECT * FROM claimed

-- name: refused
-- The reason of a refused claim: the status, the error if all retries are spent (not for a decline), the seconds until it can
-- be claimed, whether it has expired, whether it is closed and the sweep sent it for a late look-up, and whether no provider
-- can take it now.
WITH {providers_to_choose_from}
SELECT p.id, p.status,
       CASE WHEN p.status = 'failed_final' AND p.decline_code IS NULL THEN coalesce(p.last_error, 'spent') END AS spent,
       greatest(0, extract(epoch FROM coalesce(CASE p.status WHEN 'processing' THEN p.lease_until
                                                             WHEN 'pending' THEN p.execute_at
                                                             ELSE p.retry_at END,
                                               now()) - now()))::float8 AS wait_s,
       coalesce(p.expires_at <= now() AND p.status IN ('pending', 'failed_retryable') AND p.provider_ref IS NULL, false)
           AS expired,
       p.status IN ('failed_final', 'canceled', 'authorized') AND p.sweep_at IS NOT NULL AND p.sweeps > 0 AS look_up_late,
       p.status IN ('pending', 'processing', 'failed_retryable', 'unknown', 'requires_action', 'submitted')
           AND NOT {has_provider} AS no_provider
FROM payments p
WHERE p.id = ANY (%(ids)s::uuid[])

-- name: postpone
-- Postpone the sweep of payments that no provider can take now, and return the seconds until one may: until the first open
-- circuit closes. Their wake-ups come again by then; the sweep must not send a second one meanwhile. An operator's switch
-- lasts, and its end makes them due at once (`wake_waiting` in providers.sql): a backlog must not be looked at every second.
WITH wait AS MATERIALIZED (
    SELECT least(greatest(coalesce(extract(epoch FROM min(r.open_until) FILTER (WHERE r.open_until > now()) - now())::float8,
                                   CASE WHEN bool_or(r.mode <> 'on') THEN %(switched_wait_s)s::float8 END,
                                   %(wait_s)s::float8),
                          1), 60)::float8 AS s
    FROM providers r
)
UPDATE payments p
SET sweep_at = now() + wait.s * interval '1 second' + %(grace_ms)s::bigint * interval '1 millisecond'
FROM wait
WHERE p.id = ANY (%(ids)s::uuid[])
  AND (p.status IN ('pending', 'failed_retryable', 'unknown', 'requires_action', 'submitted')
       OR p.status = 'processing' AND p.lease_until <= now())
RETURNING p.id, wait.s

-- name: renew
UPDATE payments p
SET lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
    sweep_at = CASE WHEN p.sweep_at IS NOT NULL
                    THEN now() + (%(lease_ms)s::bigint + %(grace_ms)s::bigint) * interval '1 millisecond' END
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS w (id, attempt)
WHERE p.id = w.id AND p.attempts = w.attempt AND p.status = 'processing'
RETURNING p.id, p.attempts

-- name: settle
-- Write the outcome of one attempt, under that attempt alone, with its event.
WITH changed AS (
    UPDATE payments p
    SET status = w.status,
        rare_status = CASE WHEN w.status <> 'success' THEN w.status END,
        version = p.version + 1,
        retries = p.retries + (w.event = 'unavailable')::integer,
        look_ups = CASE WHEN w.status IN ('unknown', 'requires_action', 'submitted') THEN p.look_ups + 1 ELSE 0 END,
        provider_ref = coalesce(w.provider_ref, p.provider_ref),
        attempt_ref = coalesce(w.attempt_ref, p.attempt_ref),
        pending_since = CASE WHEN w.status IN ('requires_action', 'submitted') THEN coalesce(p.pending_since, now()) END,
        next_action = w.next_action,
        capture_before = w.capture_before,
        decline_code = w.decline_code,
        last_error = w.reason,
        open_since = CASE WHEN w.status IN ('unknown', 'needs_review') THEN coalesce(p.open_since, p.called_at) END,
        called_at = CASE WHEN w.call = 'charge' THEN now() ELSE p.called_at END,
        lease_until = NULL,
        retry_at = now() + w.delay_ms * interval '1 millisecond',
        -- A first attempt has no other call that may still be on its way: no late look-up.
        -- An authorization is voided shortly before it ends, and looked up each day if its provider does not tell when.
        sweep_at = CASE WHEN w.capture_before IS NOT NULL
                        THEN {void_at}
                        WHEN w.status = 'authorized' THEN now() + interval '1 day'
                        ELSE now() + CASE WHEN w.status <> 'failed_final' THEN w.delay_ms + %(grace_ms)s::bigint
                                          WHEN p.attempts > 1 AND {ended_attempts} < p.attempts - 1 THEN %(late_ms)s::bigint
                                     END * interval '1 millisecond' END,
        sweeps = 0,
        dead_at = CASE WHEN w.event = 'spent' OR w.status = 'needs_review' THEN now() END,
        updated_at = now()
    FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[], %(events)s::text[],
                %(provider_refs)s::text[], %(decline_codes)s::text[], %(reasons)s::text[], %(calls)s::text[],
                %(delays_ms)s::bigint[], %(providers)s::text[], %(latencies_ms)s::integer[],
                %(attempt_refs)s::text[], %(next_actions)s::jsonb[], %(captures_before)s::timestamptz[])
         AS w (id, attempt, status, event, provider_ref, decline_code, reason, call, delay_ms, provider, latency_ms,
               attempt_ref, next_action, capture_before)
    WHERE p.id = w.id AND p.attempts = w.attempt AND p.status = 'processing'
      -- Another attempt's success was recorded meanwhile: looked up, not given up, after the lease has expired.
      AND NOT (w.status = 'failed_final' AND p.provider_ref IS NOT NULL)
    RETURNING p.id, p.version, p.account_id, w.event, p.status, p.attempts, w.reason, w.provider, w.latency_ms, w.call,
              w.decline_code, extract(epoch FROM now() - p.created_at)::float8 AS age_s
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, provider, latency_ms,
                                call, decline_code)
    SELECT id, version, event, status, attempts, %(actor)s::text, reason, provider, latency_ms, call, decline_code
    FROM changed
), {outboxed}
SELECT id, attempts, age_s FROM changed

-- name: void_at
-- When an authorization that is written now is voided, if nothing was captured: shortly before its end. Not a statement:
-- others include it.
greatest(now(), w.capture_before - least(interval '5 minutes', (w.capture_before - now()) / 10))

-- name: void_due_at
-- The same for an authorization that is written; NULL if its end is not known. Not a statement: others include it.
(p.capture_before - least(interval '5 minutes', (p.capture_before - coalesce(p.called_at, p.created_at)) / 10))

-- name: settled_before
-- Those of these outcomes that are already written: by a first `settle` that was committed, and whose reply was lost.
SELECT p.id, p.attempts, extract(epoch FROM p.updated_at - p.created_at)::float8 AS age_s
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[]) AS w (id, attempt, status)
JOIN payments p ON p.id = w.id AND p.attempts = w.attempt AND p.status = w.status

-- name: fall_back
-- Let a payment go from the provider that has declined it softly, after the charge was closed there: no call under its key can
-- move money any more, so the pin ends with the key. The provider is no candidate from now on.
WITH changed AS (
    UPDATE payments p
    SET status = 'failed_retryable',
        rare_status = 'failed_retryable',
        version = p.version + 1,
        look_ups = 0,
        provider_key = p.id || ':' || p.version + 1,
        attempt_ref = NULL,
        pinned = NULL,
        candidates = array_remove(p.candidates, p.provider),
        pending_since = NULL,
        next_action = NULL,
        last_error = %(reason)s,
        open_since = NULL,
        lease_until = NULL,
        retry_at = now(),
        sweep_at = now() + %(grace_ms)s::bigint * interval '1 millisecond',
        sweeps = 0,
        updated_at = now()
    WHERE p.id = %(id)s AND p.attempts = %(attempt)s AND p.status = 'processing' AND p.provider_ref IS NULL
      AND cardinality(array_remove(p.candidates, p.provider)) > 0
    RETURNING p.id, p.version, p.account_id, p.status, p.attempts, 'fell_back' AS event,
              extract(epoch FROM now() - p.created_at)::float8 AS age_s
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, provider, latency_ms,
                                call, decline_code)
    SELECT id, version, event, status, attempts, %(actor)s::text, %(reason)s::text, %(provider)s::text,
           %(latency_ms)s::integer, %(call)s::text, %(decline_code)s::text
    FROM changed
), {outboxed}
SELECT age_s FROM changed
UNION ALL
-- It was written before: the reply was lost.
SELECT extract(epoch FROM p.updated_at - p.created_at)::float8 FROM payments p
WHERE p.id = %(id)s AND p.attempts = %(attempt)s AND p.status = 'failed_retryable' AND NOT EXISTS (SELECT FROM changed)
  AND EXISTS (SELECT FROM payment_events e
              WHERE e.payment_id = p.id AND e.event = 'fell_back' AND e.attempt = %(attempt)s)

-- name: record_late
-- Record the outcome of an attempt that had lost the payment, as an event. If money moved, or is held, for a failed or
-- canceled payment, it needs a review; an authorization that okane has let go is no news. With `once` a known charge changes
-- nothing.
WITH changed AS (
    UPDATE payments p
    SET version = p.version + 1,
        status = CASE WHEN was.is_contradicted THEN 'needs_review' ELSE p.status END,
        rare_status = CASE WHEN was.is_contradicted THEN 'needs_review' ELSE p.rare_status END,
        provider_ref = coalesce(p.provider_ref, %(provider_ref)s),
        attempt_ref = coalesce(p.attempt_ref, %(attempt_ref)s),
        last_error = CASE WHEN was.is_contradicted THEN %(reason)s ELSE p.last_error END,
        dead_at = CASE WHEN was.is_contradicted OR %(approved)s AND p.status = 'needs_review' THEN now() ELSE p.dead_at END,
        sweep_at = CASE WHEN was.is_contradicted THEN NULL ELSE p.sweep_at END,
        updated_at = now()
    FROM (
        SELECT p.id, p.status,
               %(approved)s AND p.status IN ('failed_final', 'canceled') AND NOT {was_let_go} AS is_contradicted
        FROM payments p
        WHERE p.id = %(id)s
        FOR NO KEY UPDATE
    ) was
    WHERE p.id = was.id AND (NOT %(once)s OR p.provider_ref IS DISTINCT FROM %(provider_ref)s
                            OR p.attempt_ref IS DISTINCT FROM coalesce(%(attempt_ref)s, p.attempt_ref))
    RETURNING p.id, p.version, p.account_id, p.status,
              CASE WHEN p.status = was.status THEN 'late_result' ELSE p.status END AS event  -- for the outbox
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, provider, latency_ms,
                                call, decline_code)
    SELECT id, version, 'late_result', status, %(attempt)s, %(actor)s, %(reason)s, %(provider)s, %(latency_ms)s,
           %(call)s, %(decline_code)s
    FROM changed
), {outboxed}
SELECT status FROM changed
UNION ALL
SELECT p.status FROM payments p WHERE p.id = %(id)s AND NOT EXISTS (SELECT FROM changed)

-- name: was_let_go
-- True if the void of this authorization has succeeded. Not a statement: others include it.
(p.status = 'canceled' AND p.attempt_ref IS NOT DISTINCT FROM %(attempt_ref)s::text AND p.attempt_ref IS NOT NULL
 AND EXISTS (SELECT FROM operations o WHERE o.payment_id = p.id AND o.kind = 'void' AND o.status = 'success'))

-- name: as_seen
-- True for the version that a human has decided by; NULL for any. Not a statement: others include it.
(%(seen)s::integer IS NULL OR p.version = %(seen)s::integer)

-- name: retry
-- The manual retry. A declined charge gets a new provider key: under the old one the provider would repeat its refusal.
-- Otherwise the key stays, so that an unrecorded charge is found and not made twice. After a decision against a known charge
-- (a refunded one, say) there is no retry: the same key would find that charge, and count it as a success.
WITH changed AS (
    UPDATE payments p
    SET status = 'pending',
        rare_status = NULL,
        version = p.version + 1,
        retries = 0,
        look_ups = 0,
        provider_key = CASE WHEN p.decline_code IS NULL THEN p.provider_key ELSE p.id || ':' || p.version + 1 END,
        decline_code = NULL,
        last_error = NULL,
        attempt_ref = CASE WHEN p.decline_code IS NULL THEN p.attempt_ref END,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = now() + %(grace_ms)s::bigint * interval '1 millisecond',
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    WHERE p.id = %(id)s AND p.account_id = %(account_id)s AND p.status IN ('failed_final', 'failed_retryable')
      AND NOT (p.status = 'failed_final' AND p.provider_ref IS NOT NULL) AND {as_seen}
    RETURNING {payment}, 'retried' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, event, status, attempts, %(actor)s FROM changed
), {outboxed}
SELECT * FROM changed

-- name: cancel
-- Cancel a payment that no worker is charging, unless a late charge is known.
WITH changed AS (
    UPDATE payments p
    SET status = 'canceled',
        rare_status = 'canceled',
        version = p.version + 1,
        retry_at = NULL,
        sweep_at = {late_look_up},
        sweeps = 0,
        updated_at = now()
    WHERE p.id = %(id)s AND p.account_id = %(account_id)s AND p.status IN ('pending', 'failed_retryable')
      AND p.provider_ref IS NULL AND {as_seen}
    RETURNING {payment}, 'canceled' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, event, status, attempts, %(actor)s FROM changed
), {outboxed}
SELECT * FROM changed

-- name: expire
-- Cancel an expired payment for which nothing was charged, and no outcome is open.
WITH changed AS (
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
    RETURNING p.id, p.version, p.account_id, p.status, p.attempts, 'canceled' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, event, status, attempts, %(actor)s, 'expired' FROM changed
), {outboxed}
SELECT id FROM changed

-- name: bury
-- Move a payment whose stream entry kills its workers to needs_review. Only from a status that is not settled.
WITH changed AS (
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
      AND (p.status IN ('pending', 'failed_retryable', 'unknown', 'requires_action', 'submitted')
           OR p.status = 'processing' AND p.lease_until <= now())
    RETURNING p.id, p.version, p.account_id, p.status, p.attempts, 'needs_review' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, event, status, attempts, %(actor)s, %(reason)s FROM changed
), {outboxed}
SELECT id FROM changed

-- name: outboxed
-- Record the change for webhooks, if its account has an endpoint: in the statement of the change, so that both are committed
-- or neither. With no endpoint at all this looks once at an empty table. The outbox is locked in any case (ROW EXCLUSIVE):
-- the first endpoint of an account waits for the statements that began without it. Not a statement: others include it.
outboxed AS (
    INSERT INTO webhook_outbox (account_id, type, payment_ids, versions)
    SELECT r.account_id, r.type, array_agg(r.id), array_agg(r.version)
    FROM (SELECT c.account_id, {webhook_type} AS type, c.id, c.version
          FROM changed c
          WHERE EXISTS (SELECT FROM webhook_accounts)
            AND EXISTS (SELECT FROM webhook_accounts a WHERE a.account_id = c.account_id)) r
    WHERE r.type IS NOT NULL
    GROUP BY r.account_id, r.type
)

-- name: webhook_type
-- The type of a change, as `okane.webhooks.types` has it. Not a statement: others include it.
CASE c.event
    WHEN 'retried' THEN 'payment.retried'
    WHEN 'capture_requested' THEN NULL
    WHEN 'void_requested' THEN NULL
    WHEN 'refund_requested' THEN NULL
    WHEN 'refund_canceled' THEN NULL
    WHEN 'void_failed' THEN NULL
    WHEN 'capture_failed' THEN 'payment.capture_failed'
    WHEN 'refunded' THEN 'refund.succeeded'
    WHEN 'refund_failed' THEN 'refund.failed'
    WHEN 'dispute_opened' THEN 'dispute.opened'
    WHEN 'dispute_closed' THEN 'dispute.closed'
    WHEN 'late_result' THEN 'payment.late_result'
    ELSE CASE c.status
        WHEN 'success' THEN 'payment.succeeded'
        WHEN 'failed_final' THEN 'payment.failed'
        WHEN 'canceled' THEN 'payment.canceled'
        WHEN 'needs_review' THEN 'payment.review_required'
        WHEN 'failed_retryable' THEN 'payment.retry_scheduled'
        WHEN 'unknown' THEN 'payment.outcome_unknown'
        WHEN 'requires_action' THEN 'payment.action_required'
        WHEN 'submitted' THEN 'payment.submitted'
        WHEN 'authorized' THEN 'payment.authorized'
    END
END

-- name: ended_attempts
-- The number of attempts whose answer leaves no call on its way. An attempt that ended `unknown`, or whose worker died, does
-- not count. Not a statement: others include it.
(SELECT count(*) FROM payment_events e
 WHERE e.payment_id = p.id AND e.event IN ('unavailable', 'deferred', 'pending', 'declined', 'spent', 'fell_back'))

-- name: late_look_up
-- The first late look-up of a payment that is closed without a charge; NULL if no call can be on its way. Not a statement:
-- others include it.
CASE WHEN p.provider_ref IS NULL AND {ended_attempts} < p.attempts
     THEN now() + %(late_ms)s::bigint * interval '1 millisecond' END

-- name: begin_late_look_up
-- Begin the look-up of a closed payment that the sweep has sent. It is due again by itself, each time later, unless
-- `plan_late_look_up` decides otherwise: a worker that dies, or a provider that does not answer, costs a delay.
UPDATE payments p
SET look_ups = p.look_ups + 1,
    open_since = coalesce(p.open_since, now()),
    sweep_at = now() + (%(again_ms)s::bigint[])[least(p.look_ups + 1, cardinality(%(again_ms)s::bigint[]))]
                       * interval '1 millisecond',
    sweeps = 0
WHERE p.id = %(id)s AND p.status IN ('failed_final', 'canceled') AND p.sweep_at IS NOT NULL AND p.sweeps > 0
RETURNING {payment}, extract(epoch FROM now() - p.open_since)::float8, now()

-- name: begin_authorization_look_up
-- Begin the look-up of an authorization that the sweep has sent. Without an answer it is due again after an hour.
UPDATE payments p
SET sweep_at = greatest(p.sweep_at, least(now() + interval '1 hour', {void_due_at})),
    sweeps = 0
WHERE p.id = %(id)s AND p.status = 'authorized' AND p.sweep_at IS NOT NULL AND p.sweeps > 0
RETURNING {payment}

-- name: plan_authorization_look_up
-- The money is still held: the next look is that of an authorization that is written now. A notice that came during the
-- look-up has made it due again.
UPDATE payments p
SET sweep_at = coalesce({void_due_at}, now() + interval '1 day')
WHERE p.id = %(id)s AND p.version = %(version)s AND p.status = 'authorized' AND p.sweep_at > now() AND p.sweeps = 0

-- name: plan_late_look_up
-- No charge was found: set the next late look-up, counted from the close; NULL after the last. A time after the begin of this
-- look-up still counts, however late its result is written (Postgres was away, its worker stopped). A notice that came during
-- the look-up has made the payment due again, and may be newer than its result.
UPDATE payments p
SET look_ups = 0,
    open_since = NULL,
    sweep_at = CASE WHEN p.sweep_at <= now() OR p.sweeps > 0 THEN p.sweep_at
                    ELSE (SELECT min(p.updated_at + late.ms * interval '1 millisecond')
                          FROM unnest(%(late_ms)s::bigint[]) AS late (ms)
                          WHERE p.updated_at + late.ms * interval '1 millisecond' > %(begun_at)s::timestamptz) END
WHERE p.id = %(id)s AND p.version = %(version)s AND p.status IN ('failed_final', 'canceled')
  AND p.sweep_at IS NOT NULL

-- name: fail_late_look_up
-- The provider has not answered late look-ups for too long: needs_review.
WITH changed AS (
    UPDATE payments p
    SET status = 'needs_review',
        rare_status = 'needs_review',
        version = p.version + 1,
        last_error = %(reason)s,
        sweep_at = NULL,
        dead_at = now(),
        updated_at = now()
    WHERE p.id = %(id)s AND p.version = %(version)s AND p.status IN ('failed_final', 'canceled')
    RETURNING p.id, p.version, p.account_id, p.status, p.attempts, 'unanswered' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, event, status, attempts, %(actor)s, %(reason)s FROM changed
), {outboxed}
SELECT id FROM changed

-- name: resolve
-- An operator's decision. If no charge is known and a call may still be on its way, it is looked up as after any close. What
-- was in doubt stays with its provider, should it be retried. Of a capture that was found beside a void, or has ended without
-- an answer, no more than its amount has been taken, and can be refunded.
WITH changed AS (
    UPDATE payments p
    SET status = %(status)s,
        rare_status = CASE WHEN %(status)s <> 'success' THEN %(status)s END,
        version = p.version + 1,
        look_ups = 0,
        provider_ref = coalesce(%(provider_ref)s, p.provider_ref),
        pinned = CASE WHEN p.attempts > 0 THEN true END,
        decline_code = CASE WHEN %(status)s <> 'success' THEN p.decline_code END,
        last_error = CASE WHEN %(status)s <> 'success' THEN %(reason)s END,
        amount_captured = CASE WHEN %(status)s = 'success' AND p.manual_capture AND p.amount_captured IS NULL
                               THEN (SELECT max(o.amount_minor) FROM operations o
                                     WHERE o.payment_id = p.id AND o.kind = 'capture'
                                       AND (o.status = 'needs_review'
                                            OR o.status = 'failed_final' AND o.decline_code IS NULL))
                               ELSE p.amount_captured END,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = CASE WHEN %(status)s = 'failed_final' THEN {late_look_up} END,
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    WHERE p.id = %(id)s AND (%(account_id)s::text IS NULL OR p.account_id = %(account_id)s::text)
      AND p.status = 'needs_review' AND {as_seen}
    RETURNING {payment}, 'resolved' AS event
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT id, version, event, status, attempts, %(actor)s, %(reason)s FROM changed
), {outboxed}
SELECT * FROM changed

-- name: decided
-- True if a decision is the last event of this payment.
SELECT coalesce((SELECT e.event FROM payment_events e
                 WHERE e.payment_id = %(id)s AND e.event <> 'late_result'
                 ORDER BY e.version DESC LIMIT 1) = 'resolved', false)

-- name: events
-- The events of one payment, acceptance first.
SELECT p.id AS payment_id, 0 AS version, p.created_at AS at, 'accepted' AS event, 'pending' AS status, 0 AS attempt,
       'api' AS actor, NULL AS reason, NULL AS provider, NULL AS latency_ms, NULL AS call, NULL AS decline_code,
       NULL::uuid AS operation_id
FROM payments p WHERE p.id = %(id)s
UNION ALL
SELECT {event}
FROM payment_events e WHERE e.payment_id = %(id)s
ORDER BY version
