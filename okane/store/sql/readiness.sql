-- name: writable
-- Raises where a table is missing. Read-only: a standby, or a session that was told to be.
SELECT
    current_setting('transaction_read_only')::boolean,
    (SELECT max(version) FROM okane_schema),
    has_table_privilege('payments', 'INSERT') AND has_table_privilege('payment_events', 'INSERT')
