-- name: add
-- Write that an action began (no answer), or that something happened at once.
INSERT INTO console_audit (key, session, address, action, target, filter, answer)
VALUES (%(key)s, %(session)s, %(address)s, %(action)s, %(target)s, %(filter)s::jsonb, %(answer)s)
RETURNING id

-- name: answer
-- Write the answer to an action. A repeat adds nothing.
INSERT INTO console_audit (begun, key, session, address, action, target, count, answer)
SELECT a.id, a.key, a.session, a.address, a.action, a.target, %(count)s, %(answer)s
FROM console_audit a
WHERE a.id = %(id)s
ON CONFLICT (begun) DO NOTHING
RETURNING id

-- name: logged_out
-- The sessions that were logged out a short while ago, by the newest `limit` rows.
SELECT a.session
FROM (SELECT c.session, c.at, c.action, c.answer FROM console_audit c ORDER BY c.id DESC LIMIT %(limit)s) a
WHERE a.action = %(action)s AND a.answer = %(answer)s AND a.at > now() - %(within_ms)s::bigint * interval '1 millisecond'

-- name: page
-- The newest actions, each with its answer, before the one with the id `before`.
SELECT a.id, a.at, a.key, a.session, a.address, a.action, a.target, a.filter, coalesce(o.count, a.count),
       coalesce(o.answer, a.answer), o.at
FROM console_audit a
LEFT JOIN console_audit o ON o.begun = a.id
WHERE a.begun IS NULL AND a.id < %(before)s
ORDER BY a.id DESC
LIMIT %(limit)s
