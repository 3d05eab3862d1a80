"""A payment that is with its provider, for tests that need one: `dataclasses.replace` makes another of it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from okane.payment import Payment, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAYMENT = Payment(
    id=UUID("0198c0de-0000-7000-8000-000000000001"),
    account_id="default",
    idempotency_key="demo-key-1",
    amount_minor=440,
    currency="USD",
    lane="low",
    status=Status.PROCESSING,
    attempts=1,
    retries=0,
    version=2,
    provider_key="pk-1",
    created_at=NOW,
    updated_at=NOW,
    metadata={},
)
