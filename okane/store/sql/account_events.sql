-- name: last
SELECT w.last FROM webhook_sequencer w ORDER BY w.last DESC LIMIT 1

-- name: with_events
-- One index lookup for each account.
SELECT a.account_id
FROM unnest(%(account_ids)s::text[]) AS a (account_id)
WHERE EXISTS (SELECT FROM webhook_events e WHERE e.account_id = a.account_id AND e.position > %(after)s::bigint)
