"""An operation that is with its provider, for tests that need one: `dataclasses.replace` makes another of it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

from okane.operation import Operation, OperationKind, OperationStatus
from okane.payment import Payment
from tests.payments import NOW, PAYMENT

OPERATION = Operation(
    id=UUID("0198c0de-0000-7000-8000-000000000002"),
    payment_id=PAYMENT.id,
    account_id="default",
    kind=OperationKind.REFUND,
    idempotency_key="demo-refund-1",
    amount_minor=440,
    currency="USD",
    status=OperationStatus.PROCESSING,
    attempts=1,
    retries=0,
    version=1,
    provider="http",
    provider_key="ok-1",
    created_at=NOW,
    updated_at=NOW,
    metadata={},
)


def operation_of(payment: Payment, kind: OperationKind, amount_minor: int | None = None) -> Operation:
    """Return a new operation of a payment, by default over its whole amount."""
    id_ = uuid4()
    return replace(
        OPERATION,
        id=id_,
        payment_id=payment.id,
        kind=kind,
        amount_minor=payment.amount_minor if amount_minor is None else amount_minor,
        currency=payment.currency,
        provider=payment.provider or "http",
        provider_key=str(id_),
        created_at=payment.created_at,
        updated_at=payment.updated_at,
    )
