"""Captures, voids and refunds in a real store: requested, claimed and settled ones; and the books that must agree."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from okane.operation import NewOperation, Operation, OperationKind, OperationStatus
from okane.payment import Payment, Status
from okane.store import PaymentStore
from okane.store.operation_records import OperationClaim, OperationSettlement
from okane.store.operations import OperationStore
from tests.okane.stored_payments import accept_one, claimed, new, settlement

CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND

# Payments whose amounts disagree with their operations, or whose events have a gap.
WRONG: LiteralString = """
SELECT p.id, p.status, p.amount_captured, p.amount_refunded, p.refund_reserved, p.open_operation
FROM payments p
WHERE coalesce(p.refund_reserved, 0) <> coalesce((SELECT sum(o.amount_minor) FROM operations o
          WHERE o.payment_id = p.id AND o.kind = 'refund' AND o.status NOT IN ('failed_final', 'canceled')), 0)
   OR coalesce(p.amount_refunded, 0) <> coalesce((SELECT sum(o.amount_minor) FROM operations o
          WHERE o.payment_id = p.id AND o.kind = 'refund' AND o.status = 'success'), 0)
   OR coalesce(p.amount_captured, 0) > p.amount_minor
   OR p.status = 'authorized' AND p.open_operation IS NULL AND EXISTS (SELECT FROM operations o
          WHERE o.payment_id = p.id AND o.kind <> 'refund' AND o.status NOT IN ('success', 'failed_final', 'canceled'))
   OR p.status = 'authorized' AND p.open_operation IS NOT NULL AND NOT EXISTS (SELECT FROM operations o
          WHERE o.id = p.open_operation AND o.status NOT IN ('success', 'failed_final', 'canceled'))
   OR p.status = 'canceled' AND p.amount_captured IS NOT NULL
   OR p.version <> (SELECT count(*) FROM payment_events e WHERE e.payment_id = p.id)
   OR p.version <> coalesce((SELECT max(e.version) FROM payment_events e WHERE e.payment_id = p.id), 0)
   OR (p.status NOT IN ('success', 'pending', 'processing')) <> (p.rare_status IS NOT DISTINCT FROM p.status)
UNION ALL
SELECT o.id, o.status, o.version, NULL, NULL, NULL FROM operations o
WHERE o.version <> (SELECT count(*) FROM operation_events e WHERE e.operation_id = o.id)
   OR o.sweep_at IS NULL AND o.status NOT IN ('success', 'failed_final', 'canceled', 'needs_review')
   OR (o.lease_until IS NOT NULL) <> (o.status = 'processing')
"""

EXCEEDED: LiteralString = """
SELECT p.id FROM payments p
WHERE coalesce(p.refund_reserved, 0)
      > CASE WHEN p.status = 'success' THEN coalesce(p.amount_captured, p.amount_minor) ELSE 0 END
"""


def asked(payment_id: UUID, kind: OperationKind = REFUND, key: str = "op", **more: object) -> NewOperation:
    plain = NewOperation(
        payment_id=payment_id, account_id="default", kind=kind, idempotency_key=key, fingerprint=b"f" * 32
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type] # any field of a request


def outcome(
    operation: Operation, status: OperationStatus = OperationStatus.SUCCESS, **more: object
) -> OperationSettlement:
    plain = OperationSettlement(
        operation_id=operation.id,
        attempt=operation.attempts,
        status=status,
        event=status.value,
        call="operate",
        provider=operation.provider,
        latency=timedelta(milliseconds=5),
        provider_ref="re_1" if status is OperationStatus.SUCCESS else None,
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type] # any field of a settlement


async def charged(payments: PaymentStore, key: str = "key", *, amount_minor: int = 440) -> Payment:
    """A payment that was captured with its charge."""
    accepted = await accept_one(payments, new(key, amount_minor=amount_minor))
    claim = await claimed(payments, accepted.payment.id)
    await payments.settle(settlement(claim.payment, provider="http"))
    return await payments.get(accepted.payment.id, account_id="default")


async def authorized(
    payments: PaymentStore, key: str = "key", *, amount_minor: int = 440, ends_in: timedelta | None = timedelta(days=7)
) -> Payment:
    """A payment whose money is held."""
    accepted = await accept_one(payments, dataclasses.replace(new(key, amount_minor=amount_minor), manual_capture=True))
    claim = await claimed(payments, accepted.payment.id)
    ends = None if ends_in is None else datetime.now(UTC) + ends_in
    held = settlement(claim.payment, Status.AUTHORIZED, attempt_ref="pi_1", capture_before=ends, provider="http")
    assert await payments.settle(held) is not None
    return await payments.get(accepted.payment.id, account_id="default")


async def claim_of(store: OperationStore, operation_id: UUID) -> OperationClaim:
    claim = await store.claim(operation_id)
    assert isinstance(claim, OperationClaim), claim
    return claim


async def done(
    store: OperationStore, new: NewOperation, status: OperationStatus = OperationStatus.SUCCESS, **more: object
) -> Operation:
    """An operation that was requested, claimed and settled."""
    requested = await store.request(new)
    claim = await claim_of(store, requested.operation.id)
    assert await store.settle(outcome(claim.operation, status, **more)) is not None
    return await store.get(requested.operation.id)


async def rows(url: str, query: LiteralString, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await (await connection.execute(query, parameters or None)).fetchall()


async def assert_books_agree(url: str, *, may_exceed: bool = False) -> None:
    """Compare payments with their operations. `may_exceed`: money was found to have moved that was not reserved."""
    assert await rows(url, WRONG) == []
    assert may_exceed or await rows(url, EXCEEDED) == []
