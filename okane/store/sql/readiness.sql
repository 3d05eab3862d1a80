-- name: writable
-- Raises if a table is missing. Read-only: a standby, or default_transaction_read_only.
SELECT
    current_setting('transaction_read_only')::boolean,
    (SELECT max(version) FROM okane_schema),
    has_table_privilege('payments', 'INSERT') AND has_table_privilege('payment_events', 'INSERT')
