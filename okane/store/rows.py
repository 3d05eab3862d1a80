"""From rows to values, in the order of `statements.PAYMENT_COLUMNS`."""

from __future__ import annotations

import json

from okane.payment import Payment, Status
from okane.store.prepared import Row
from okane.store.records import Event

WIDTH = 20
STATUSES = {status.value: status for status in Status}  # a tenth of the price of Status(...), for every row


def payment(row: Row) -> Payment:
    """The payment in the first columns of a row."""
    metadata = {} if row[13] == "{}" else json.loads(row[13])
    columns: Row = (*row[:6], STATUSES[row[6]], *row[7:13], metadata, *row[14:WIDTH])
    return Payment(*columns)


def event(row: Row) -> Event:
    """One line of a timeline, as the statements `events` and `timeline` return it."""
    payment_id, version, at, name, status, attempt, actor, reason, provider, latency_ms, call, decline_code = row
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
        call=call,
        decline_code=decline_code,
    )
