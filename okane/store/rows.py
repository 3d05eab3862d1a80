"""From rows to values, in the order of `statements.PAYMENT_COLUMNS`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from okane.payment import Payment, Status
from okane.store.prepared import Row
from okane.store.records import Event
from okane.time_slice import TimeSlice

WIDTH = 20
LARGE = 1_000  # characters of metadata: those of less take no longer to read than the rest of a row
STATUSES = {status.value: status for status in Status}  # a tenth of the price of Status(...), for every row


def payment(row: Row) -> Payment:
    """The payment in the first columns of a row."""
    metadata = {} if row[13] == "{}" else json.loads(row[13])
    columns: Row = (*row[:6], STATUSES[row[6]], *row[7:13], metadata, *row[14:WIDTH])
    return Payment(*columns)


async def payments(found: Sequence[Row]) -> Sequence[Payment]:
    """The payments in these rows. Many with much metadata take long: other tasks have their turn in between."""
    time_slice, read = TimeSlice(), []
    for row in found:
        read.append(payment(row))
        if len(row[13]) > LARGE:
            await time_slice.end_if_spent()
    return read


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
