-- name: movement
-- The movements of money in a span of time, by the events that wrote them: a charge that succeeded or was decided to have, a
-- capture, a refund, and a refund that failed after it had succeeded. The entries of the events are found by time, and each
-- leads to its payment, and never the other way round: OFFSET 0 keeps the planner from it. Without statistics it takes the
-- payments of a provider for few. Money that moved once counts once: a capture that was found beside a void, and the decision
-- about its payment, are one movement, the earlier one; and a refund that had come back, was tried again and failed again has
-- come back once. Both look at earlier events alone, so that the statement of a day never changes. Not a statement: others
-- include it.
FROM (
    SELECT e.payment_id, e.version, e.at, e.event, e.operation_id
    FROM payment_events e
    WHERE e.at >= %(begin)s::timestamptz AND e.at < %(end)s::timestamptz
      AND CASE e.event
              WHEN 'success' THEN e.status = 'success' AND e.operation_id IS NULL
              WHEN 'resolved' THEN e.status = 'success' AND e.operation_id IS NULL AND NOT EXISTS (
                  SELECT FROM payment_events before
                  WHERE before.payment_id = e.payment_id AND before.version < e.version AND before.event = 'captured')
              WHEN 'captured' THEN NOT EXISTS (
                  SELECT FROM payment_events before
                  WHERE before.payment_id = e.payment_id AND before.version < e.version AND before.event = 'resolved'
                    AND before.status = 'success')
              WHEN 'refunded' THEN true
              WHEN 'refund_failed' THEN 'refunded' = (
                  SELECT before.event FROM payment_events before
                  WHERE before.payment_id = e.payment_id AND before.version < e.version
                    AND before.operation_id = e.operation_id AND before.event IN ('refunded', 'refund_failed')
                  ORDER BY before.version DESC LIMIT 1)
              ELSE false
          END
    OFFSET 0
) e
JOIN payments p ON p.id = e.payment_id
LEFT JOIN operations o ON o.id = e.operation_id
WHERE (%(provider)s::text IS NULL OR {provider_of} = %(provider)s::text)

-- name: kind
-- Not a statement: others include it.
CASE e.event WHEN 'captured' THEN 'capture' WHEN 'refunded' THEN 'refund' WHEN 'refund_failed' THEN 'refund_reversal'
             ELSE 'charge' END

-- name: moved_minor
-- Of a payment that was decided after a capture of it had been found, the captured part. Not a statement: others include it.
coalesce(o.amount_minor, CASE e.event WHEN 'resolved' THEN p.amount_captured END, p.amount_minor)

-- name: totals
-- Number and sum of the movements, by kind, provider and currency.
SELECT {kind}, {provider_of}, p.currency, count(*), sum({moved_minor})
{movement}
GROUP BY 1, 2, 3

-- name: each
-- The movements one by one, in the order of time, from after a position on.
SELECT {kind}, e.at, e.version, p.id, o.id, p.account_id, {provider_of}, p.currency,
       {moved_minor},
       -- The name of an authorization, which its capture may have replaced.
       CASE WHEN e.event = 'captured' THEN coalesce(p.attempt_ref, p.provider_ref) ELSE p.provider_ref END, o.provider_ref
{movement}
  AND (e.at, e.payment_id, e.version)
      > (%(after_at)s::timestamptz, %(after_id)s::uuid, %(after_version)s::integer)
ORDER BY e.at, e.payment_id, e.version
LIMIT %(limit)s::bigint

-- name: payments
-- What these payments are here, for a comparison.
SELECT p.id, p.account_id, {provider_of}, p.provider_ref, p.attempt_ref, p.status, p.amount_minor, p.currency, p.amount_captured
FROM payments p
WHERE p.id = ANY (%(ids)s::uuid[])

-- name: operations
SELECT o.id, o.payment_id, o.kind, o.provider, o.provider_ref, o.status, o.amount_minor, o.currency
FROM operations o
WHERE o.id = ANY (%(ids)s::uuid[])

-- name: undecided
-- The payments accepted in a span of time whose outcome only their provider knows. Both partial indexes hold few rows.
SELECT p.id
FROM payments p
WHERE (p.sweep_at IS NOT NULL AND p.status = 'unknown' OR p.dead_at IS NOT NULL AND p.status = 'needs_review')
  AND {provider_of} = %(provider)s::text AND p.id >= %(first)s::uuid AND p.id < %(last)s::uuid
ORDER BY p.id

-- name: undecided_operations
SELECT o.id
FROM operations o
WHERE (o.sweep_at IS NOT NULL AND o.status = 'unknown' OR o.dead_at IS NOT NULL AND o.status = 'needs_review')
  AND o.provider = %(provider)s::text AND o.id >= %(first)s::uuid AND o.id < %(last)s::uuid
ORDER BY o.id

-- name: of_day
-- The results of the comparisons of a day, by provider.
SELECT provider, day, ran_at, listed, compared, differences, fees
FROM reconciliations
WHERE day = %(day)s::date

-- name: keep
-- Keep the result of a comparison in place of the one before.
INSERT INTO reconciliations AS r (provider, day, listed, compared, differences, fees)
VALUES (%(provider)s, %(day)s, %(listed)s, %(compared)s, %(differences)s::jsonb, %(fees)s::jsonb)
ON CONFLICT (provider, day) DO UPDATE
SET ran_at = now(), listed = excluded.listed, compared = excluded.compared, differences = excluded.differences,
    fees = excluded.fees

-- name: differences
-- The number of differences that the last comparison of each of the last days left, by provider and kind.
SELECT r.provider, d.key, sum(d.value::bigint)::bigint
FROM reconciliations r
CROSS JOIN LATERAL jsonb_each_text(r.differences) AS d
WHERE r.day >= (now() AT TIME ZONE 'UTC')::date - %(days)s::integer
GROUP BY 1, 2

-- name: ages
-- Seconds since the last comparison with each provider that is compared as a routine: on three days or more of the last
-- thirty. A comparison that could not be made has no row.
SELECT r.provider, extract(epoch FROM now() - max(r.ran_at))::float8
FROM reconciliations r
WHERE r.ran_at >= now() - interval '30 days'
GROUP BY r.provider
HAVING count(*) >= 3

-- name: now
SELECT now()
