"""Days of money: rows of payments, operations and their events at chosen times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

DAY = datetime(2026, 3, 14, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)


def uuid7(at: datetime) -> UUID:
    """Return an id that was made at this time."""
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62) | (uuid4().int >> 68))


@dataclass(kw_only=True)
class Row:
    """A payment, with its events: name, status, time, operation."""

    accepted: datetime
    amount: int = 100
    currency: str = "USD"
    status: str = "success"
    provider: str | None = "http"
    provider_ref: str | None = None
    account: str = "default"
    captured: int | None = None
    attempts: int = 1
    id: UUID = field(default_factory=lambda: UUID(int=0))
    events: list[tuple[str, str, datetime, UUID | None]] = field(default_factory=list)
    operations: list[tuple[UUID, str, int, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.id = uuid7(self.accepted)

    def event(self, name: str, at: datetime, status: str = "success", operation: UUID | None = None) -> Row:
        self.events.append((name, status, at, operation))
        return self

    def operation(self, kind: str, amount: int, *, status: str = "success", provider_ref: str | None = None) -> UUID:
        self.operations.append((uuid7(self.accepted), kind, amount, status, provider_ref))
        return self.operations[-1][0]


def charged(at: datetime, amount: int = 100, *, accepted: datetime | None = None, **more: Any) -> Row:
    """Return a payment that was charged at this time."""
    begun = accepted or at - timedelta(seconds=1)
    return Row(accepted=begun, amount=amount, **more).event("claimed", begun, "processing").event("success", at)


async def write(url: str, rows: Sequence[Row]) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = connection.cursor()
        await cursor.executemany(
            "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, metadata, lane, "
            "status, version, attempts, provider_key, provider_ref, created_at, updated_at, provider, amount_captured, "
            "rare_status, dead_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 'low', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    row.id,
                    row.account,
                    str(row.id),
                    b"f" * 32,
                    row.amount,
                    row.currency,
                    json.dumps({}),
                    row.status,
                    len(row.events),
                    row.attempts,
                    str(row.id),
                    row.provider_ref,
                    row.accepted,
                    row.events[-1][2] if row.events else row.accepted,
                    row.provider,
                    row.captured,
                    None if row.status in ("success", "pending", "processing") else row.status,
                    row.accepted if row.status == "needs_review" else None,
                )
                for row in rows
            ],
        )
        await cursor.executemany(
            "INSERT INTO operations (id, payment_id, account_id, kind, amount_minor, currency, status, provider, "
            "provider_key, provider_ref, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    one,
                    row.id,
                    row.account,
                    kind,
                    amount,
                    row.currency,
                    status,
                    row.provider,
                    str(one),
                    ref,
                    row.accepted,
                )
                for row in rows
                for one, kind, amount, status, ref in row.operations
            ],
        )
        await cursor.executemany(
            "INSERT INTO payment_events (payment_id, version, at, event, status, attempt, actor, operation_id) "
            "VALUES (%s, %s, %s, %s, %s, 1, 'test', %s)",
            [
                (row.id, version, at, name, status, operation)
                for row in rows
                for version, (name, status, at, operation) in enumerate(row.events, start=1)
            ],
        )
