-- name: dispute
-- The columns of a dispute `d`. Not a statement: the others include it.
d.id, d.payment_id, d.account_id, d.provider, d.provider_ref, d.amount_minor, d.currency, d.status, d.created_at, d.updated_at,
d.reason, d.due_by

-- name: claim
-- Claim the fetch of disputes that are due. The claim lasts until the next try is due: a worker that dies costs that delay.
-- A notice that comes meanwhile, or another claim, changes the fence: the answer of this fetch counts for nothing then.
UPDATE dispute_notices n
SET fence = gen_random_uuid(),
    tries = n.tries + 1,
    due_at = now() + least(60 * 2 ^ least(n.tries, 6), 3600) * interval '1 second'
FROM (SELECT w.provider, w.provider_ref
      FROM dispute_notices w
      WHERE w.due_at <= now() AND w.provider = ANY (%(providers)s::text[])
      ORDER BY w.due_at
      LIMIT %(limit)s::bigint
      FOR UPDATE SKIP LOCKED) due
WHERE n.provider = due.provider AND n.provider_ref = due.provider_ref
RETURNING n.provider, n.provider_ref, n.fence, n.tries

-- name: drop
-- Forget a notice about a dispute that is not of a payment of ours.
DELETE FROM dispute_notices n
WHERE n.provider = %(provider)s::text AND n.provider_ref = %(provider_ref)s::text AND n.fence = %(fence)s::uuid
RETURNING n.fence

-- name: write
-- Write a dispute as it was fetched, once for the claim: the dispute, the event of its payment if it has opened or is over,
-- and the end of the notice are one statement. The payment's row is locked first, as by every change of it.
WITH fetched AS MATERIALIZED (
    DELETE FROM dispute_notices n
    WHERE n.provider = %(provider)s::text AND n.provider_ref = %(provider_ref)s::text AND n.fence = %(fence)s::uuid
    RETURNING n.provider, n.provider_ref
), held AS MATERIALIZED (
    SELECT p.id, p.account_id
    FROM payments p
    WHERE p.id = %(payment_id)s::uuid AND {provider_of} = %(provider)s::text AND EXISTS (SELECT FROM fetched)
    FOR NO KEY UPDATE
), was AS MATERIALIZED (
    SELECT d.status IN {over} AS is_over
    FROM disputes d
    WHERE d.provider = %(provider)s::text AND d.provider_ref = %(provider_ref)s::text
), written AS (
    INSERT INTO disputes AS d (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, reason, status,
                               due_by)
    SELECT %(id)s::uuid, h.id, h.account_id, f.provider, f.provider_ref, %(amount_minor)s::bigint, %(currency)s::text,
           %(reason)s::text, %(status)s::text, %(due_by)s::timestamptz
    FROM fetched f, held h
    ON CONFLICT ON CONSTRAINT disputes_provider_ref DO UPDATE
    SET amount_minor = excluded.amount_minor,
        currency = excluded.currency,
        reason = excluded.reason,
        status = excluded.status,
        due_by = excluded.due_by,
        updated_at = now()
    WHERE d.payment_id = excluded.payment_id
    RETURNING d.*
), changed AS (
    UPDATE payments p
    SET version = p.version + 1,
        updated_at = now()
    FROM written d
    WHERE p.id = d.payment_id
      AND (d.status IN {over}) IS DISTINCT FROM (SELECT w.is_over FROM was w)
    RETURNING p.id, p.version, p.account_id, p.status, p.attempts,
              CASE WHEN d.status IN {over} THEN 'dispute_closed' ELSE 'dispute_opened' END AS event
), logged AS (
    -- Without a provider: that stands for a call, and makes an attempt.
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
    SELECT c.id, c.version, c.event, c.status, c.attempts, %(actor)s::text,
           concat_ws(': ', d.provider || ' ' || d.provider_ref, concat_ws(', ', d.reason, d.status))
    FROM changed c, written d
), kept AS (
    INSERT INTO dispute_events (payment_id, version, dispute_id, provider, provider_ref, amount_minor, currency, reason,
                                status, due_by)
    SELECT c.id, c.version, d.id, d.provider, d.provider_ref, d.amount_minor, d.currency, d.reason, d.status, d.due_by
    FROM changed c, written d
), {outboxed}
SELECT (SELECT count(*) FROM fetched)::int, (SELECT count(*) FROM written)::int, (SELECT c.event FROM changed c)

-- name: over
-- Nothing more is expected. Not a statement: others include it.
('won', 'lost', 'closed')

-- name: get
SELECT {dispute} FROM disputes d WHERE d.id = %(id)s::uuid AND d.account_id = %(account_id)s::text

-- name: wanted
-- The filter of lists; each NULL leaves out a condition. Not a statement: the others include it.
(%(statuses)s::text[] IS NULL OR d.status = ANY (%(statuses)s::text[]))
AND (%(provider)s::text IS NULL OR d.provider = %(provider)s::text)

-- name: newest
-- Newest first. Reads at most `window` rows, and returns where it stopped if it reached that bound, as the lists of payments
-- do. See `newest` of lists.sql for the comparison.
WITH found AS MATERIALIZED (
    SELECT d.*
    FROM (SELECT * FROM disputes
          WHERE (account_id, id) < (%(account_id)s::text, %(before)s::uuid)
            AND (account_id, id) >= (%(account_id)s::text, '00000000-0000-0000-0000-000000000000'::uuid)
          ORDER BY account_id DESC, id DESC
          LIMIT %(window)s::bigint) d
    WHERE {wanted}
    ORDER BY d.account_id DESC, d.id DESC
    LIMIT %(limit)s::bigint
)
SELECT {dispute}, reached.id
FROM (SELECT (SELECT w.id FROM disputes w
              WHERE (SELECT count(*) FROM found) < %(limit)s::bigint
                AND (w.account_id, w.id) < (%(account_id)s::text, %(before)s::uuid)
                AND (w.account_id, w.id) >= (%(account_id)s::text, '00000000-0000-0000-0000-000000000000'::uuid)
              ORDER BY w.account_id DESC, w.id DESC
              OFFSET %(window)s::bigint - 1 LIMIT 1)) AS reached (id)
LEFT JOIN found d ON true
ORDER BY d.id DESC

-- name: of_payment
SELECT {dispute}, NULL::uuid
FROM (SELECT * FROM disputes o WHERE o.payment_id = %(payment_id)s::uuid OFFSET 0) d
WHERE d.account_id = %(account_id)s::text AND d.id < %(before)s::uuid AND {wanted}
ORDER BY d.id DESC
LIMIT %(limit)s::bigint
