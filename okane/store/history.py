"""All payments, operations and their events in one read-only snapshot, streamed: for checks of a whole history.

Small values for many rows: a torture run has 200,000 payments and a million events.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
from psycopg.rows import TupleRow

from okane.operation import OperationKind, OperationStatus
from okane.payment import Status
from okane.store import sql_files
from okane.store.session import Session

SQL = sql_files.load_statements("history.sql")
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """One row of `payments`. `reason` is its last error."""

    id: str
    account_id: str
    key: str  # the client's idempotency key
    amount_minor: int
    currency: str
    status: Status
    version: int
    attempts: int
    provider_key: str
    created_at_s: float  # since the epoch, by Postgres' clock
    reason: str | None = None
    retries: int = 0
    amount_captured: int | None = None
    amount_refunded: int | None = None
    refund_reserved: int | None = None
    open_operation: str | None = None
    requested_provider: str | None = None
    candidates: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One row of `payment_events`. Its payment is the key of the mapping that holds it."""

    version: int
    at_s: float  # since the epoch, by Postgres' clock: when its transaction began
    event: str
    status: Status
    attempt: int
    actor: str
    provider: str | None = None
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """One row of `operations`. `key` is the client's, None for a void of okane's own; `reason` its last error."""

    id: str
    payment_id: str
    account_id: str
    kind: OperationKind
    key: str | None
    amount_minor: int
    currency: str
    status: OperationStatus
    version: int
    attempts: int
    provider: str
    provider_key: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEventRow:
    """One row of `operation_events`. Its operation is the key of the mapping that holds it."""

    version: int
    at_s: float  # since the epoch, by Postgres' clock: when its transaction began
    event: str
    status: OperationStatus
    attempt: int
    actor: str
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentHistory:
    """`rows` and `operations` by their ids; `events` by payment, `operation_events` by operation, in order of versions."""

    rows: Mapping[str, PaymentRow]
    events: Mapping[str, Sequence[EventRow]]
    operations: Mapping[str, OperationRow] = field(default_factory=dict)
    operation_events: Mapping[str, Sequence[OperationEventRow]] = field(default_factory=dict)


class HistoryStore:
    """Read the whole history."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(minutes=5)) -> None:
        self._session = Session(url, name="history", timeout=timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def read(self) -> PaymentHistory:
        """Return all payments, operations and events of one snapshot. Raises StoreUnavailable."""
        async with self._session.transaction() as connection:
            await connection.execute(SQL["one_snapshot"])
            await connection.execute(SQL["no_hurry"])
            return PaymentHistory(
                rows=await _payments(connection),
                events=await _events(connection),
                operations=await _operations(connection),
                operation_events=await _operation_events(connection),
            )


async def _payments(connection: psycopg.AsyncConnection[TupleRow]) -> Mapping[str, PaymentRow]:
    rows: dict[str, PaymentRow] = {}
    async with connection.cursor(name="payments") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(SQL["payments"])
        async for row in cursor:
            id_, account, key, amount, currency, status, version, attempts, called_as, at_s, reason, retries, *moved = (
                row
            )
            captured, refunded, reserved, open_operation, requested, candidates = moved
            rows[id_] = PaymentRow(
                id=id_,
                account_id=sys.intern(account),
                key=key,
                amount_minor=amount,
                currency=sys.intern(currency),
                status=Status(status),
                version=version,
                attempts=attempts,
                provider_key=id_ if called_as == id_ else called_as,
                created_at_s=at_s,
                reason=reason,
                retries=retries,
                amount_captured=captured,
                amount_refunded=refunded,
                refund_reserved=reserved,
                open_operation=open_operation,
                requested_provider=None if requested is None else sys.intern(requested),
                candidates=None if candidates is None else tuple(map(sys.intern, candidates)),
            )
    return rows


async def _events(connection: psycopg.AsyncConnection[TupleRow]) -> Mapping[str, Sequence[EventRow]]:
    events: dict[str, list[EventRow]] = {}
    async with connection.cursor(name="events") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(SQL["events"])
        async for payment_id, version, at_s, event, status, attempt, actor, provider, operation_id in cursor:
            line = EventRow(
                version=version,
                at_s=at_s,
                event=sys.intern(event),
                status=Status(status),
                attempt=attempt,
                actor=sys.intern(actor),
                provider=None if provider is None else sys.intern(provider),
                operation_id=operation_id,
            )
            events.setdefault(payment_id, []).append(line)
    return events


async def _operations(connection: psycopg.AsyncConnection[TupleRow]) -> Mapping[str, OperationRow]:
    rows: dict[str, OperationRow] = {}
    async with connection.cursor(name="operations") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(SQL["operations"])
        async for row in cursor:
            (
                id_,
                payment_id,
                account,
                kind,
                key,
                amount,
                currency,
                status,
                version,
                attempts,
                provider,
                called_as,
                why,
            ) = row
            rows[id_] = OperationRow(
                id=id_,
                payment_id=payment_id,
                account_id=sys.intern(account),
                kind=OperationKind(kind),
                key=key,
                amount_minor=amount,
                currency=sys.intern(currency),
                status=OperationStatus(status),
                version=version,
                attempts=attempts,
                provider=sys.intern(provider),
                provider_key=id_ if called_as == id_ else called_as,
                reason=why,
            )
    return rows


async def _operation_events(
    connection: psycopg.AsyncConnection[TupleRow],
) -> Mapping[str, Sequence[OperationEventRow]]:
    events: dict[str, list[OperationEventRow]] = {}
    async with connection.cursor(name="operation_events") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        await cursor.execute(SQL["operation_events"])
        async for operation_id, version, at_s, event, status, attempt, actor, provider in cursor:
            line = OperationEventRow(
                version=version,
                at_s=at_s,
                event=sys.intern(event),
                status=OperationStatus(status),
                attempt=attempt,
                actor=sys.intern(actor),
                provider=None if provider is None else sys.intern(provider),
            )
            events.setdefault(operation_id, []).append(line)
    return events
