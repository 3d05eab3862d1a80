"""What lists find payments by, payments for later, and which call an attempt made."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(COLUMNS)
    with op.get_context().autocommit_block():
        for index in INDEXES:
            op.execute(index)


# What failed for good stays where it is, so it is marked here. What is to be tried again is marked when it is.
COLUMNS = """
ALTER TABLE payments ADD COLUMN execute_at timestamptz;
ALTER TABLE payments ADD COLUMN expires_at timestamptz;
ALTER TABLE payments ADD COLUMN rare_status text;
ALTER TABLE payment_events ADD COLUMN call text;
ALTER TABLE payment_events ADD COLUMN decline_code text;
UPDATE payments SET rare_status = status WHERE status IN ('failed_final', 'canceled', 'needs_review');
"""
# The second try of a step that was cut off finds what the first one left: an index that is not valid.
INDEXES = (
    "DROP INDEX CONCURRENTLY IF EXISTS payments_account",
    "CREATE INDEX CONCURRENTLY payments_account ON payments (account_id, id)",
    "DROP INDEX CONCURRENTLY IF EXISTS payments_rare_status",
    "CREATE INDEX CONCURRENTLY payments_rare_status ON payments (account_id, rare_status, id)"
    " WHERE rare_status IS NOT NULL",
)
