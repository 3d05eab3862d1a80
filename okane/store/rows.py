"""From rows to values, in the order of `statements.PAYMENT_COLUMNS`."""

from __future__ import annotations

from okane.payment import Payment, Status
from okane.store.records import Event
from okane.store.session import Row

WIDTH = 18


def payment(row: Row) -> Payment:
    """The payment in the first columns of a row."""
    (
        id_,
        account_id,
        idempotency_key,
        amount_minor,
        currency,
        lane,
        status,
        attempts,
        retries,
        version,
        provider_key,
        created_at,
        updated_at,
        metadata,
        provider_ref,
        decline_code,
        last_error,
        retry_at,
    ) = row[:WIDTH]
    return Payment(
        id=id_,
        account_id=account_id,
        idempotency_key=idempotency_key,
        amount_minor=amount_minor,
        currency=currency,
        lane=lane,
        status=Status(status),
        attempts=attempts,
        retries=retries,
        version=version,
        provider_key=provider_key,
        created_at=created_at,
        updated_at=updated_at,
        metadata=metadata,
        provider_ref=provider_ref,
        decline_code=decline_code,
        last_error=last_error,
        retry_at=retry_at,
    )


def event(row: Row) -> Event:
    """One line of a timeline, as the statement `events` returns it."""
    payment_id, version, at, name, status, attempt, actor, reason, provider, latency_ms = row
    return Event(
        payment_id=payment_id,
        version=version,
        at=at,
        event=name,
        status=Status(status),
        attempt=attempt,
        actor=actor,
        reason=reason,
        provider=provider,
        latency_ms=latency_ms,
    )
