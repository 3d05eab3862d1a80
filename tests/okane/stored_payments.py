"""Payments in a real store: new ones, claimed ones, settled ones."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from uuid import UUID

import psycopg

from okane.payment import Payment, Status
from okane.store import AcceptedRow, Claim, NewPayment, PaymentStore, Settlement

LEASE = timedelta(seconds=30)


GRACE = timedelta(seconds=10)


def new(key: str = "key", *, amount_minor: int = 440, fingerprint: bytes = b"f" * 32) -> NewPayment:
    return NewPayment(
        account_id="default",
        idempotency_key=key,
        fingerprint=fingerprint,
        amount_minor=amount_minor,
        currency="USD",
        lane="low",
        metadata={"order": "7"},
    )


def settlement(payment: Payment, status: Status = Status.SUCCESS, **more: object) -> Settlement:
    plain = Settlement(
        payment_id=payment.id,
        attempt=payment.attempts,
        status=status,
        event=status.value,
        call="charge",
        provider="test",
        latency=timedelta(milliseconds=5),
        provider_ref="ref" if status is Status.SUCCESS else None,
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type] # any field of a settlement


async def accept_one(store: PaymentStore, new: NewPayment, *, wake: bool = True) -> AcceptedRow:
    """Write one payment. Raises the exception in the place of its row."""
    [row] = await store.accept_many([new], wakes=int(wake))
    if isinstance(row, BaseException):
        raise row
    return row


async def claimed(store: PaymentStore, payment_id: UUID) -> Claim:
    claim = await store.claim(payment_id)
    assert isinstance(claim, Claim)
    return claim


async def expire_lease(url: str, payment_id: UUID) -> None:
    await execute(url, "UPDATE payments SET lease_until = now() WHERE id = %s", [payment_id])


async def execute(url: str, statement: str, parameters: list[object]) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, parameters)
