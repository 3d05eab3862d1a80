"""Add the columns and indexes of lists, scheduled payments, and the call of an attempt."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(COLUMNS)
    with op.get_context().autocommit_block():
        op.execute(BACKFILL)
        for index in INDEXES:
            op.execute(index)


# Processes of version 2 do not write `rare_status`: the trigger does it for them, from this transaction on. Drop it, with
# its function, in the first step after a release of version 3: by then no process of version 2 runs any more.
COLUMNS = """
ALTER TABLE payments ADD COLUMN IF NOT EXISTS execute_at timestamptz;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS rare_status text;
ALTER TABLE payment_events ADD COLUMN IF NOT EXISTS call text;
ALTER TABLE payment_events ADD COLUMN IF NOT EXISTS decline_code text;
CREATE OR REPLACE FUNCTION payments_set_rare_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payments
    SET rare_status = CASE
        WHEN status IN ('failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review') THEN status END
    WHERE id = NEW.id;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER payments_set_rare_status AFTER UPDATE OF status ON payments FOR EACH ROW
    WHEN (NEW.rare_status IS DISTINCT FROM CASE
        WHEN NEW.status IN ('failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review') THEN NEW.status END)
    EXECUTE FUNCTION payments_set_rare_status();
"""
# For rows that the trigger has not seen. In batches, each a transaction of its own: a payment is locked for milliseconds,
# and the table not at all.
BACKFILL = """
DO $$
DECLARE
    passed uuid := '00000000-0000-0000-0000-000000000000';
    last uuid;
BEGIN
    LOOP
        SELECT id INTO last
        FROM (SELECT id FROM payments WHERE id > passed ORDER BY id LIMIT 2000) AS batch
        ORDER BY id DESC LIMIT 1;
        EXIT WHEN last IS NULL;
        UPDATE payments SET rare_status = status
        WHERE id IN (
            SELECT id FROM payments
            WHERE id > passed AND id <= last
              AND status IN ('failed_retryable', 'failed_final', 'unknown', 'canceled', 'needs_review')
              AND rare_status IS DISTINCT FROM status
            ORDER BY id FOR UPDATE);
        COMMIT;
        passed := last;
    END LOOP;
END
$$
"""
# The second try of a step that was cut off finds what the first one left: an index that is not valid.
INDEXES = (
    "DROP INDEX CONCURRENTLY IF EXISTS payments_account",
    "CREATE INDEX CONCURRENTLY payments_account ON payments (account_id, id)",
    "DROP INDEX CONCURRENTLY IF EXISTS payments_rare_status",
    "CREATE INDEX CONCURRENTLY payments_rare_status ON payments (account_id, rare_status, id)"
    " WHERE rare_status IS NOT NULL",
)
