-- name: request
-- Reserve in the payments what these operations move, under the payments' locks, and write them, with their keys and events.
-- Each payment stands in one statement once. A key that exists makes no operation, and a refused one changes nothing; the
-- answer says why. An operation without a key is okane's own void of an authorization that is about to end.
WITH held AS MATERIALIZED (
    SELECT w.*, p.account_id AS account, p.status, p.attempts, p.version, {provider_of} AS provider, p.currency AS currency_of_payment,
           coalesce(w.amount_minor, l.left_minor) AS amount, l.left_minor,
           CASE WHEN w.account_id <> p.account_id THEN 'payment_not_found'
                WHEN w.currency <> p.currency THEN 'currency_mismatch'
                WHEN w.seen <> p.version THEN 'payment_changed'
                WHEN w.kind = 'refund' THEN
                    CASE WHEN p.status <> 'success' OR {provider_of} IS NULL THEN 'payment_not_captured'
                         WHEN l.left_minor <= 0 OR w.amount_minor > l.left_minor THEN 'refund_exceeds_captured' END
                WHEN p.status <> 'authorized' THEN 'payment_not_authorized'
                WHEN {has_open_operation} THEN 'operation_in_progress'
                WHEN w.amount_minor > l.left_minor THEN 'capture_exceeds_authorized'
                WHEN w.idempotency_key IS NULL AND NOT w.is_over AND {ends_soon} IS NOT TRUE THEN 'not_due' END AS refusal
    FROM unnest(%(ids)s::uuid[], %(payment_ids)s::uuid[], %(account_ids)s::text[], %(kinds)s::text[], %(keys)s::text[],
                %(fingerprints)s::bytea[], %(amounts_minor)s::bigint[], %(currencies)s::text[], %(reasons)s::text[],
                %(metadata)s::jsonb[], %(request_ids)s::text[], %(api_keys)s::text[], %(actors)s::text[],
                %(overs)s::boolean[], %(versions)s::integer[])
         AS w (id, payment_id, account_id, kind, idempotency_key, fingerprint, amount_minor, currency, reason, metadata,
               request_id, api_key, actor, is_over, seen)
    JOIN payments p ON p.id = w.payment_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN w.kind = 'refund'
                    THEN coalesce(p.amount_captured, p.amount_minor) - coalesce(p.refund_reserved, 0)
                    ELSE p.amount_minor END AS left_minor
    ) l
    ORDER BY p.id
    FOR NO KEY UPDATE OF p
), keyed AS (
    INSERT INTO idempotency_keys (account_id, idempotency_key, kind, id, fingerprint, request_id, api_key)
    SELECT h.account, h.idempotency_key, 'operation', h.id, h.fingerprint, h.request_id, h.api_key
    FROM held h
    WHERE h.refusal IS NULL AND h.idempotency_key IS NOT NULL
    ORDER BY h.account, h.idempotency_key
    ON CONFLICT DO NOTHING
    RETURNING id
), granted AS MATERIALIZED (
    SELECT h.* FROM held h
    WHERE h.refusal IS NULL AND (h.idempotency_key IS NULL OR h.id IN (SELECT k.id FROM keyed k))
), reserved AS (
    UPDATE payments p
    SET version = p.version + 1,
        refund_reserved = CASE WHEN g.kind = 'refund' THEN coalesce(p.refund_reserved, 0) + g.amount
                               ELSE p.refund_reserved END,
        open_operation = CASE WHEN g.kind = 'refund' THEN p.open_operation ELSE g.id END,
        updated_at = now()
    FROM granted g
    WHERE p.id = g.payment_id
    RETURNING p.id, p.version, g.kind || '_requested' AS event, p.status, p.attempts, g.actor, g.reason, g.id AS operation_id
), written AS (
    INSERT INTO operations (id, payment_id, account_id, kind, idempotency_key, amount_minor, currency, reason, metadata,
                            provider, provider_key, sweep_at)
    SELECT g.id, g.payment_id, g.account, g.kind, g.idempotency_key, g.amount, g.currency_of_payment, g.reason, g.metadata,
           g.provider, g.id::text, now() + %(grace_ms)s::bigint * interval '1 millisecond'
    FROM granted g
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, operation_id)
    SELECT id, version, event, status, attempts, actor, reason, operation_id FROM reserved
)
SELECT h.id, h.refusal, h.id IN (SELECT g.id FROM granted g) AS is_made, h.left_minor, h.account, h.currency_of_payment,
       h.amount, h.provider, h.status, now(), h.version
FROM held h

-- name: has_open_operation
-- True while a capture or void is under way, or waits for a decision. `open_operation` alone would do, but for one that is
-- found to have moved money in the moment in which another fails: each statement sees the operation of the other as it was
-- before. Not a statement: others include it.
(p.open_operation IS NOT NULL
 -- Not EXISTS: that might be planned as a hash of all operations.
 OR (SELECT r.id FROM operations r
     WHERE r.payment_id = p.id AND r.kind <> 'refund' AND r.status NOT IN ('success', 'failed_final', 'canceled')
     LIMIT 1) IS NOT NULL)

-- name: ends_soon
-- True once an authorization is about to end. Not a statement: others include it.
({void_due_at} <= now())

-- name: by_key
-- The operations that these keys have made, with the fingerprints of their requests. The key of a request that names no
-- account is one of its payment's account. `request` has locked the payment before, so that its commit has waited for a
-- standby: nothing that is found here is on this server alone (see `replicated` in payments.sql).
SELECT w.place, k.fingerprint, {operation}
FROM unnest(%(account_ids)s::text[], %(payment_ids)s::uuid[], %(keys)s::text[], %(places)s::integer[])
     AS w (account_id, payment_id, idempotency_key, place)
CROSS JOIN LATERAL (
    SELECT coalesce(w.account_id, (SELECT p.account_id FROM payments p WHERE p.id = w.payment_id)) AS id OFFSET 0
) account
-- Not plain joins: these are planned once, while there are no keys, and might begin with all of them.
CROSS JOIN LATERAL (
    SELECT k.id, k.fingerprint FROM idempotency_keys k
    WHERE k.account_id = account.id AND k.idempotency_key = w.idempotency_key AND k.kind = 'operation' LIMIT 1
) k
CROSS JOIN LATERAL (SELECT * FROM operations WHERE id = k.id LIMIT 1) o

-- name: by_id
SELECT {operation} FROM operations o WHERE o.id = %(id)s::uuid

-- name: known
-- An operation, for the answer to a request that did not change it.
SELECT {operation} FROM operations o WHERE o.id = %(id)s::uuid AND {replicated}

-- name: with_events
-- The events of an operation, its request first.
SELECT o.id AS operation_id, 0 AS version, o.created_at AS at, 'requested' AS event, 'pending' AS status, 0 AS attempt,
       coalesce((SELECT r.actor FROM payment_events r
                 WHERE r.payment_id = o.payment_id AND r.operation_id = o.id ORDER BY r.version LIMIT 1), 'api') AS actor,
       o.reason, NULL AS provider, NULL::integer AS latency_ms, NULL AS call, NULL AS decline_code
FROM operations o WHERE o.id = %(id)s::uuid
UNION ALL
SELECT {operation_event}
FROM operation_events e WHERE e.operation_id = %(id)s::uuid
ORDER BY version

-- name: claimable
-- True for an operation that is new, due again, or left by a worker whose lease expired. Not a statement: others include it.
(o.status = 'pending'
 OR o.status IN ('failed_retryable', 'unknown', 'submitted') AND o.retry_at <= now()
 OR o.status = 'processing' AND o.lease_until <= now())

-- name: is_reachable
-- True if the operation's provider can be called from here, and is neither switched off nor behind an open circuit. A drained
-- one takes operations: they finish what it has begun. Not a statement: others include it.
(o.provider = ANY (%(usable)s::text[])
 AND NOT EXISTS (SELECT FROM providers r WHERE r.name = o.provider AND (r.mode = 'off' OR r.open_until > now())))

-- name: claim
-- Fence the call, as the claim of a payment does. The sweep's time stays as it is, which keeps the update in the row's page:
-- the sweep itself leaves an operation in a live claim alone.
WITH claimed AS (
    UPDATE operations o
    SET status = 'processing',
        attempts = o.attempts + 1,
        version = o.version + 1,
        retries = o.retries + (o.status = 'processing')::integer,
        look_up_first = o.status IN ('processing', 'unknown', 'submitted') OR o.provider_ref IS NOT NULL,
        open_since = CASE WHEN o.status IN ('processing', 'unknown') THEN coalesce(o.open_since, o.called_at) END,
        called_at = CASE WHEN o.status = 'processing' THEN o.lease_until
                         WHEN o.status IN ('unknown', 'submitted') THEN o.called_at
                         ELSE now() END,
        lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond',
        updated_at = now()
    FROM unnest(%(ids)s::uuid[]) AS w (id), payments p
    WHERE o.id = w.id AND p.id = o.payment_id AND {claimable} AND {is_reachable}
    RETURNING {operation}, {payment}, o.look_up_first, o.look_ups,
              coalesce(extract(epoch FROM now() - o.called_at), 0)::float8 AS since_call_s,
              coalesce(extract(epoch FROM now() - o.open_since), 0)::float8 AS open_s,
              extract(epoch FROM now() - o.pending_since)::float8 AS pending_s,
              CASE WHEN o.attempts > 1
                   THEN coalesce((SELECT extract(epoch FROM now() - min(e.at)) FROM operation_events e
                                  WHERE e.operation_id = o.id AND e.event = 'claimed'
                                    AND e.version > coalesce(nullif(split_part(o.provider_key, ':', 2), ''), '0')::integer),
                                 0)::float8
                   ELSE 0::float8 END AS key_age_s,
              o.id AS operation_id, o.version AS operation_version, o.attempts AS operation_attempts
), logged AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor)
    SELECT operation_id, operation_version, 'claimed', 'processing', operation_attempts, %(actor)s::text FROM claimed
)
SELECT * FROM claimed

-- name: refused
-- The reason of a refused claim, as for payments.
SELECT o.id, o.status,
       CASE WHEN o.status = 'failed_final' AND o.decline_code IS NULL THEN coalesce(o.last_error, 'spent') END AS spent,
       greatest(0, extract(epoch FROM coalesce(CASE o.status WHEN 'processing' THEN o.lease_until ELSE o.retry_at END, now())
                                      - now()))::float8 AS wait_s,
       o.status IN ('success', 'failed_final', 'canceled') AND o.sweep_at IS NOT NULL AND o.sweeps > 0 AS look_up_late,
       o.status IN ('pending', 'processing', 'failed_retryable', 'unknown', 'submitted') AND NOT {is_reachable} AS no_provider
FROM operations o
WHERE o.id = ANY (%(ids)s::uuid[])

-- name: postpone
-- Postpone operations whose provider cannot be called now, and return the seconds until it may be, as for payments.
UPDATE operations o
SET sweep_at = now() + wait.s * interval '1 second' + %(grace_ms)s::bigint * interval '1 millisecond'
FROM unnest(%(ids)s::uuid[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT least(greatest(coalesce((SELECT CASE WHEN r.open_until > now() THEN extract(epoch FROM r.open_until - now())::float8
                                                WHEN r.mode = 'off' THEN %(switched_wait_s)s::float8 END
                                    FROM operations k JOIN providers r ON r.name = k.provider
                                    WHERE k.id = w.id),
                                   %(wait_s)s::float8), 1), 60)::float8 AS s
) wait
WHERE o.id = w.id
  AND (o.status IN ('pending', 'failed_retryable', 'unknown', 'submitted')
       OR o.status = 'processing' AND o.lease_until <= now())
RETURNING o.id, wait.s

-- name: renew
UPDATE operations o
SET lease_until = now() + %(lease_ms)s::bigint * interval '1 millisecond'
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS w (id, attempt)
WHERE o.id = w.id AND o.attempts = w.attempt AND o.status = 'processing'
RETURNING o.id, o.attempts

-- name: settle
-- Write the outcome of one attempt, under that attempt alone, with its event. A final one changes the payment, too.
WITH settled AS (
    UPDATE operations o
    SET status = w.status,
        version = o.version + 1,
        retries = o.retries + (w.event = 'unavailable')::integer,
        look_ups = CASE WHEN w.status IN ('unknown', 'submitted') THEN o.look_ups + 1 ELSE 0 END,
        provider_ref = coalesce(w.provider_ref, o.provider_ref),
        pending_since = CASE WHEN w.status = 'submitted' THEN coalesce(o.pending_since, now()) END,
        decline_code = w.decline_code,
        last_error = w.reason,
        open_since = CASE WHEN w.status IN ('unknown', 'needs_review') THEN coalesce(o.open_since, o.called_at) END,
        called_at = CASE WHEN w.call = 'operate' THEN now() ELSE o.called_at END,
        lease_until = NULL,
        retry_at = now() + w.delay_ms * interval '1 millisecond',
        sweep_at = now() + CASE WHEN w.status <> 'failed_final' THEN w.delay_ms + %(grace_ms)s::bigint
                                WHEN o.attempts > 1 AND {ended_calls} < o.attempts - 1 THEN %(late_ms)s::bigint
                           END * interval '1 millisecond',
        sweeps = 0,
        dead_at = CASE WHEN w.event = 'spent' OR w.status = 'needs_review' THEN now() END,
        updated_at = now()
    FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[], %(events)s::text[],
                %(provider_refs)s::text[], %(decline_codes)s::text[], %(reasons)s::text[], %(calls)s::text[],
                %(delays_ms)s::bigint[], %(providers)s::text[], %(latencies_ms)s::integer[])
         AS w (id, attempt, status, event, provider_ref, decline_code, reason, call, delay_ms, provider, latency_ms)
    WHERE o.id = w.id AND o.attempts = w.attempt AND o.status = 'processing'
      -- Another attempt's success was recorded meanwhile: looked up, not given up, after the lease has expired. Its reservation
      -- must not be given back: the money has moved. The reference of one that was submitted says nothing.
      AND NOT (w.status = 'failed_final' AND o.provider_ref IS NOT NULL AND o.pending_since IS NULL
               AND w.provider_ref IS DISTINCT FROM o.provider_ref)
    RETURNING o.id, o.payment_id, o.kind, o.idempotency_key, o.amount_minor, o.version, w.event, o.status, o.attempts,
              w.reason AS why, o.provider_ref, w.provider, w.latency_ms, w.call, w.decline_code,
              extract(epoch FROM now() - o.created_at)::float8 AS age_s
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason, provider, latency_ms, call,
                                  decline_code)
    SELECT id, version, event, status, attempts, %(actor)s::text, why, provider, latency_ms, call, decline_code
    FROM settled
), ended AS (
    SELECT s.*, 'processing' AS was FROM settled s WHERE s.status IN ('success', 'failed_final')
), {moved}
SELECT id, attempts, age_s FROM settled

-- name: moved
-- The changes of the payments by operations that have come to an end (`ended`), however many of one payment: one update of
-- each payment, and for each operation an event with a version of its own. `was` is the status before: an operation that had
-- failed or was canceled holds no reservation, and takes it again if money moved after all (it needs a review then); a refund
-- that had succeeded counts as refunded. okane's own void that fails leaves an authorization that may last: a human must look
-- at it. Not a statement: others include it.
sums AS MATERIALIZED (
    SELECT e.payment_id,
           count(*)::integer AS number,
           coalesce(sum(CASE WHEN e.status IN ('failed_final', 'canceled') THEN -e.amount_minor
                             WHEN e.status = 'needs_review' THEN e.amount_minor END)
                    FILTER (WHERE e.kind = 'refund'), 0)::bigint AS reserved,
           coalesce(sum(CASE WHEN e.status = 'success' THEN e.amount_minor WHEN e.was = 'success' THEN -e.amount_minor END)
                    FILTER (WHERE e.kind = 'refund'), 0)::bigint AS refunded,
           max(e.amount_minor) FILTER (WHERE e.kind = 'capture' AND e.status = 'success') AS captured,
           max(e.provider_ref) FILTER (WHERE e.kind = 'capture' AND e.status = 'success') AS capture_ref,
           max(CASE WHEN e.status = 'success' THEN CASE e.kind WHEN 'capture' THEN 'success' WHEN 'void' THEN 'canceled' END
                    WHEN e.status = 'failed_final' AND e.idempotency_key IS NULL THEN 'needs_review' END) AS leads_to,
           bool_or(e.kind = 'capture' AND e.status IN ('success', 'needs_review')) AS is_captured,
           (array_agg(e.id) FILTER (WHERE e.kind <> 'refund' AND e.status = 'needs_review'))[1] AS reopened,
           array_agg(e.id ORDER BY e.id) AS operation_ids,
           array_agg(CASE WHEN e.status = 'needs_review' THEN 'late_result'
                          WHEN e.status = 'failed_final' AND e.idempotency_key IS NULL THEN 'needs_review'
                          WHEN e.status = 'failed_final' THEN e.kind || '_failed'
                          WHEN e.status = 'canceled' THEN e.kind || '_canceled'
                          WHEN e.kind = 'capture' THEN 'captured'
                          ELSE e.kind || 'ed' END ORDER BY e.id) AS events,
           array_agg(e.why ORDER BY e.id) AS reasons
    FROM ended e
    GROUP BY e.payment_id
    ORDER BY e.payment_id
), paid AS (
    UPDATE payments p
    SET version = p.version + s.number,
        status = {status_after},
        rare_status = CASE WHEN {status_after} <> p.status THEN nullif({status_after}, 'success') ELSE p.rare_status END,
        provider_ref = CASE WHEN s.captured IS NOT NULL THEN coalesce(s.capture_ref, p.attempt_ref, p.provider_ref)
                            ELSE p.provider_ref END,
        amount_captured = coalesce(s.captured, p.amount_captured),
        refund_reserved = CASE WHEN s.reserved <> 0 THEN coalesce(p.refund_reserved, 0) + s.reserved
                               ELSE p.refund_reserved END,
        amount_refunded = CASE WHEN s.refunded <> 0 THEN coalesce(p.amount_refunded, 0) + s.refunded
                               ELSE p.amount_refunded END,
        open_operation = CASE WHEN s.reopened IS NOT NULL AND p.status = 'authorized'
                              THEN coalesce(p.open_operation, s.reopened)
                              WHEN p.open_operation = ANY (s.operation_ids) AND s.reopened IS NULL
                              -- NULL, unless an earlier one was found to have moved money.
                              THEN (SELECT r.id FROM operations r
                                    WHERE r.payment_id = p.id AND r.kind <> 'refund' AND r.id <> ALL (s.operation_ids)
                                      AND r.status NOT IN ('success', 'failed_final', 'canceled')
                                    LIMIT 1)
                              ELSE p.open_operation END,
        last_error = CASE WHEN {needs_review_now} THEN s.reasons[1] ELSE p.last_error END,
        dead_at = CASE WHEN {needs_review_now} THEN now() ELSE p.dead_at END,
        sweep_at = CASE WHEN {status_after} <> p.status THEN NULL ELSE p.sweep_at END,
        updated_at = now()
    FROM sums s
    WHERE p.id = s.payment_id
    RETURNING p.id, p.version - s.number AS version_before, p.account_id, p.status, p.attempts, s.operation_ids, s.events,
              s.reasons, p.status = 'needs_review' AND p.dead_at = now() AS is_new_review
), changed AS MATERIALIZED (
    SELECT p.id, p.version_before + e.place::integer AS version, p.account_id, p.status, p.attempts, e.event AS logged_as,
           CASE WHEN p.is_new_review THEN p.status ELSE e.event END AS event,  -- for the outbox
           e.reason, e.operation_id
    FROM paid p
    CROSS JOIN LATERAL unnest(p.operation_ids, p.events, p.reasons) WITH ORDINALITY AS e (operation_id, event, reason, place)
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason, operation_id)
    SELECT id, version, logged_as, status, attempts, %(actor)s::text, reason, operation_id FROM changed
), {outboxed}

-- name: status_after
-- An authorized payment leaves its status by an operation alone. A capture of one that was voided needs a review. Not a
-- statement: others include it.
CASE WHEN p.status = 'authorized' THEN coalesce(s.leads_to, p.status)
     WHEN p.status = 'canceled' AND s.is_captured THEN 'needs_review'
     ELSE p.status END

-- name: needs_review_now
-- Not a statement: others include it.
({status_after} = 'needs_review' AND p.status <> 'needs_review')

-- name: ended_calls
-- The number of attempts whose answer leaves no call on its way, as for payments. Not a statement: others include it.
(SELECT count(*) FROM operation_events e
 WHERE e.operation_id = o.id AND e.event IN ('unavailable', 'deferred', 'pending', 'declined', 'spent'))

-- name: late_look_up
-- The first late look-up of an operation that ends without having moved money; NULL if no call can be on its way. Not a
-- statement: others include it.
CASE WHEN {ended_calls} < o.attempts THEN now() + %(late_ms)s::bigint * interval '1 millisecond' END

-- name: room
-- What a payment has left for another operation.
SELECT p.status, {refund_room}
FROM payments p
WHERE p.id = %(payment_id)s::uuid

-- name: settled_before
SELECT o.id, o.attempts, extract(epoch FROM o.updated_at - o.created_at)::float8 AS age_s
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(statuses)s::text[]) AS w (id, attempt, status)
JOIN operations o ON o.id = w.id AND o.attempts = w.attempt AND o.status = w.status

-- name: due
-- Take operations whose wake-up is overdue, as the sweep takes payments. One in a live claim is left to its holder, and looked
-- at again after its lease.
WITH due AS (
    SELECT o.id FROM operations o
    WHERE o.sweep_at <= now() + %(early_ms)s::bigint * interval '1 millisecond'
      AND (o.sweep_at <= now()
           OR o.status IN ('failed_retryable', 'unknown', 'submitted') AND o.sweeps = 0 AND o.retry_at <= now())
      AND o.kind = ANY (%(lanes)s::text[])
    ORDER BY o.sweep_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE operations o
SET sweep_at = greatest(now(), coalesce(o.lease_until, now())) + w.again_ms * interval '1 millisecond',
    sweeps = o.sweeps + (o.lease_until IS NULL OR o.lease_until <= now())::integer
FROM due, unnest(%(lanes)s::text[], %(again_ms)s::bigint[]) AS w (lane, again_ms)
WHERE o.id = due.id AND w.lane = o.kind
RETURNING o.id, o.kind, o.status IN ('success', 'failed_final', 'canceled'), coalesce(o.lease_until > now(), false)

-- name: as_seen
-- Not a statement: others include it.
(%(seen)s::integer IS NULL OR o.version = %(seen)s::integer)

-- name: of_account
-- Not a statement: others include it.
(%(account_id)s::text IS NULL OR o.account_id = %(account_id)s::text)

-- name: cancel
-- Cancel a refund that no worker has in hand, and of which no money can have moved.
WITH canceled AS (
    UPDATE operations o
    SET status = 'canceled',
        version = o.version + 1,
        retry_at = NULL,
        sweep_at = {late_look_up},
        sweeps = 0,
        updated_at = now()
    WHERE o.id = %(id)s AND {of_account} AND o.kind = 'refund' AND o.status IN ('pending', 'failed_retryable')
      AND o.provider_ref IS NULL AND {as_seen}
    RETURNING {operation}
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor)
    SELECT id, version, 'canceled', status, attempts, %(actor)s::text FROM canceled
), ended AS (
    SELECT c.*, NULL::text AS why, 'pending' AS was FROM canceled c
), {moved}
SELECT * FROM canceled

-- name: is_retryable
-- One whose money is known to have moved is not tried again, unless the provider has declined it. Not a statement: others
-- include it.
(o.status = 'failed_retryable' OR o.status = 'failed_final' AND (o.provider_ref IS NULL OR o.decline_code IS NOT NULL))

-- name: refund_room
-- The amount that a payment has left for refunds. Not a statement: others include it.
(coalesce(p.amount_captured, p.amount_minor) - coalesce(p.refund_reserved, 0))

-- name: retry
-- The manual retry. A final failure has given its reservation back: without room for it there is no retry. A declined
-- operation gets a new provider key, as a payment does.
WITH it AS MATERIALIZED (
    SELECT o.id, o.payment_id, o.kind, o.amount_minor, o.status
    FROM operations o
    WHERE o.id = %(id)s AND {of_account} AND {as_seen} AND {is_retryable}
    FOR NO KEY UPDATE
), reserved AS (
    UPDATE payments p
    SET version = p.version + 1,
        refund_reserved = CASE WHEN it.kind = 'refund' THEN coalesce(p.refund_reserved, 0) + it.amount_minor
                               ELSE p.refund_reserved END,
        open_operation = CASE WHEN it.kind = 'refund' THEN p.open_operation ELSE it.id END,
        updated_at = now()
    FROM it
    WHERE p.id = it.payment_id AND it.status = 'failed_final'
      AND CASE WHEN it.kind = 'refund'
               THEN p.status = 'success' AND {refund_room} >= it.amount_minor
               ELSE p.status = 'authorized' AND NOT {has_open_operation} END
    RETURNING p.id, p.version, it.kind || '_requested' AS event, p.status, p.attempts, it.id AS operation_id
), again AS (
    UPDATE operations o
    SET status = 'pending',
        version = o.version + 1,
        retries = 0,
        look_ups = 0,
        provider_key = CASE WHEN o.decline_code IS NULL THEN o.provider_key ELSE o.id || ':' || o.version + 1 END,
        provider_ref = CASE WHEN o.decline_code IS NULL THEN o.provider_ref END,
        decline_code = NULL,
        last_error = NULL,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = now() + %(grace_ms)s::bigint * interval '1 millisecond',
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    FROM it
    WHERE o.id = it.id AND (it.status = 'failed_retryable' OR EXISTS (SELECT FROM reserved))
    RETURNING {operation}
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor)
    SELECT id, version, 'retried', status, attempts, %(actor)s::text FROM again
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, operation_id)
    SELECT id, version, event, status, attempts, %(actor)s::text, operation_id FROM reserved
)
SELECT * FROM again

-- name: resolve
-- An operator's decision.
WITH resolved AS (
    UPDATE operations o
    SET status = %(status)s::text,
        version = o.version + 1,
        look_ups = 0,
        provider_ref = coalesce(%(provider_ref)s::text, o.provider_ref),
        decline_code = CASE WHEN %(status)s::text <> 'success' THEN o.decline_code END,
        last_error = CASE WHEN %(status)s::text <> 'success' THEN %(reason)s::text END,
        open_since = NULL,
        retry_at = NULL,
        sweep_at = CASE WHEN %(status)s::text = 'failed_final' AND coalesce(%(provider_ref)s::text, o.provider_ref) IS NULL
                        THEN {late_look_up} END,
        sweeps = 0,
        dead_at = NULL,
        updated_at = now()
    WHERE o.id = %(id)s AND {of_account} AND o.status = 'needs_review' AND {as_seen}
    RETURNING {operation}
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'resolved', status, attempts, %(actor)s::text, %(reason)s::text FROM resolved
), ended AS (
    SELECT r.*, %(reason)s::text AS why, 'needs_review' AS was FROM resolved r
), {moved}
SELECT * FROM resolved

-- name: decided
-- True if a decision is the last event of this operation.
SELECT coalesce((SELECT e.event FROM operation_events e
                 WHERE e.operation_id = %(id)s AND e.event <> 'late_result'
                 ORDER BY e.version DESC LIMIT 1) = 'resolved', false)

-- name: bury
-- Move an open operation whose stream entry kills its workers to needs_review. Its payment keeps the reservation.
WITH buried AS (
    UPDATE operations o
    SET status = 'needs_review',
        version = o.version + 1,
        last_error = %(reason)s::text,
        lease_until = NULL,
        retry_at = NULL,
        sweep_at = NULL,
        dead_at = now(),
        updated_at = now()
    WHERE o.id = %(id)s
      AND (o.status IN ('pending', 'failed_retryable', 'unknown', 'submitted')
           OR o.status = 'processing' AND o.lease_until <= now())
    RETURNING o.id, o.version, o.status, o.attempts
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'needs_review', status, attempts, %(actor)s::text, %(reason)s::text FROM buried
)
SELECT id FROM buried

-- name: record_late
-- Record an outcome that came too late for its attempt, as an event. If money moved for an operation that had failed or was
-- canceled, it needs a review, and its payment reserves the amount again. A refund that had succeeded and has failed since
-- (`reverses`) gives it back. With `once` a known outcome changes nothing.
WITH was AS MATERIALIZED (
    SELECT o.id, o.status,
           CASE WHEN %(approved)s::boolean AND o.status IN ('failed_final', 'canceled') THEN 'needs_review'
                WHEN %(reverses)s::boolean AND o.status = 'success' AND o.kind = 'refund' THEN 'failed_final'
                ELSE o.status END AS becomes
    FROM operations o WHERE o.id = %(id)s FOR NO KEY UPDATE
), late AS (
    UPDATE operations o
    SET status = w.becomes,
        version = o.version + 1,
        -- The reference of what is not decided would stand for money that has moved.
        provider_ref = CASE WHEN %(approved)s::boolean THEN coalesce(o.provider_ref, %(provider_ref)s::text)
                            ELSE o.provider_ref END,
        -- A decline that was not true is forgotten: it would allow a retry, under a new key, of what has moved money.
        decline_code = CASE WHEN w.becomes = 'failed_final' AND w.status = 'success' THEN %(decline_code)s::text
                            WHEN w.becomes = 'needs_review' AND w.status <> 'needs_review' THEN NULL
                            ELSE o.decline_code END,
        last_error = CASE WHEN w.becomes <> w.status THEN %(reason)s::text ELSE o.last_error END,
        dead_at = CASE WHEN %(approved)s::boolean AND w.becomes = 'needs_review' THEN now() ELSE o.dead_at END,
        sweep_at = CASE WHEN w.becomes <> w.status THEN NULL ELSE o.sweep_at END,
        updated_at = now()
    FROM was w
    WHERE o.id = w.id
      AND (NOT %(once)s::boolean OR w.becomes <> w.status OR o.provider_ref IS DISTINCT FROM %(provider_ref)s::text)
    RETURNING {operation}, w.status AS was
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason, provider, latency_ms, call,
                                  decline_code)
    SELECT id, version, 'late_result', status, %(attempt)s::integer, %(actor)s::text, %(reason)s::text, %(provider)s::text,
           %(latency_ms)s::integer, %(call)s::text, %(decline_code)s::text
    FROM late
), ended AS (
    SELECT l.*, %(reason)s::text AS why FROM late l WHERE l.status <> l.was
), {moved}
SELECT status FROM late
UNION ALL
SELECT o.status FROM operations o WHERE o.id = %(id)s AND NOT EXISTS (SELECT FROM late)

-- name: begin_late_look_up
-- Begin the look-up of an operation that has ended and that the sweep has sent. It is due again by itself, as for payments.
UPDATE operations o
SET look_ups = o.look_ups + 1,
    open_since = coalesce(o.open_since, now()),
    sweep_at = now() + (%(again_ms)s::bigint[])[least(o.look_ups + 1, cardinality(%(again_ms)s::bigint[]))]
                       * interval '1 millisecond',
    sweeps = 0
FROM payments p
WHERE o.id = %(id)s AND p.id = o.payment_id AND o.status IN ('success', 'failed_final', 'canceled')
  AND o.sweep_at IS NOT NULL AND o.sweeps > 0
RETURNING {operation}, {payment}, extract(epoch FROM now() - o.open_since)::float8, now()

-- name: plan_late_look_up
-- Nothing new was found: set the next late look-up, counted from the end of the operation; NULL after the last, and after a
-- success. A notice that came during the look-up has made the operation due again, as for payments.
UPDATE operations o
SET look_ups = 0,
    open_since = NULL,
    sweep_at = CASE WHEN o.sweep_at <= now() OR o.sweeps > 0 THEN o.sweep_at
                    WHEN o.status <> 'success'
                    THEN (SELECT min(o.updated_at + late.ms * interval '1 millisecond')
                          FROM unnest(%(late_ms)s::bigint[]) AS late (ms)
                          WHERE o.updated_at + late.ms * interval '1 millisecond' > %(begun_at)s::timestamptz) END
WHERE o.id = %(id)s AND o.version = %(version)s AND o.status IN ('success', 'failed_final', 'canceled')
  AND o.sweep_at IS NOT NULL

-- name: fail_late_look_up
-- The provider has not answered late look-ups for too long: needs_review, and the payment reserves the amount again.
WITH unanswered AS (
    UPDATE operations o
    SET status = 'needs_review',
        version = o.version + 1,
        last_error = %(reason)s::text,
        sweep_at = NULL,
        dead_at = now(),
        updated_at = now()
    FROM (SELECT w.id, w.status FROM operations w WHERE w.id = %(id)s FOR NO KEY UPDATE) was
    WHERE o.id = was.id AND o.version = %(version)s AND o.status IN ('failed_final', 'canceled')
    RETURNING {operation}, was.status AS was
), told AS (
    INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason)
    SELECT id, version, 'unanswered', status, attempts, %(actor)s::text, %(reason)s::text FROM unanswered
), ended AS (
    SELECT u.*, %(reason)s::text AS why FROM unanswered u
), {moved}
SELECT id FROM unanswered
