"""One payment with all that is known about it: its schedule, its events, the deliveries of them, the provider's notices, its
captures, voids and refunds, and its disputes.

Guarantee: two statements, or up to seven with all of these, each of a bounded number of rows, however often the payment was
retried or refunded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from okane.dispute import Dispute
from okane.errors import PaymentNotFound
from okane.operation import Operation
from okane.payment import Payment, Status
from okane.store import columns, sql_files
from okane.store.disputes import read_dispute
from okane.store.fair_sessions import FairSessions
from okane.store.operation_records import OperationEvent
from okane.store.payment_layout import PaymentLayout
from okane.store.records import API, Event
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds
from okane.store.webhook_deliveries import Delivery

CONNECTIONS = 3  # of one process; one account uses two of them
MAX_EVENTS = 300  # the newest ones
MAX_DELIVERIES = 300
NOTICES_WINDOW = 300  # notices of all payments, at each end of a payment's time
NOTICES_AFTER = timedelta(minutes=1)  # a notice may come so long after the last change
MAX_OPERATIONS = 50  # the newest ones
MAX_STEPS = 20  # the newest events of each
MAX_DISPUTES = 20  # the newest ones

SQL = sql_files.prepare_statements(
    "payment_details.sql",
    "with_schedule",
    "events",
    "deliveries",
    "notices",
    "operations",
    "steps",
    "disputes",
    blocks_of="disputes.sql",
)
_DELIVERY = [one.name for one in fields(Delivery)]


@dataclass(frozen=True, slots=True)
class PaymentDelivery:
    """The delivery of an event of a payment, the change to `version`. `url` is that of the endpoint, None without one."""

    version: int
    type: str
    url: str | None
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook of a provider about a payment. `done_at`: when its payment was woken, or needed no wake-up."""

    provider: str
    event_id: str
    kind: str
    received_at: datetime
    done_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentDetails:
    """A payment and its schedule at `now`, by the database's clock.

    `events` begins with the acceptance; `left_out` counts those between it and the next one. `notices_cut`: there may be more
    notices than these. `operations` are the newest captures, voids and refunds, oldest first, `steps` their newest events by
    time; `operations_cut`: there are older ones. `disputes` are the newest, oldest first.
    """

    payment: Payment
    requested_provider: str | None
    pinned: bool
    lease_until: datetime | None
    sweep_at: datetime | None
    dead_at: datetime | None
    now: datetime
    events: Sequence[Event] = ()
    left_out: int = 0
    deliveries: Sequence[PaymentDelivery] = ()
    notices: Sequence[Notice] = ()
    notices_cut: bool = False
    operations: Sequence[Operation] = ()
    operations_cut: bool = False
    steps: Sequence[OperationEvent] = ()
    disputes: Sequence[Dispute] = ()


class PaymentDetailsStore:
    """Read one payment at a time. Each method raises StoreUnavailable, or AccountBusy."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=2)) -> None:
        sessions = [Session(url, name="details", timeout=timeout, index_only=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)
        self._layout = PaymentLayout()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def missing(self, payment_id: UUID, *, account_id: str) -> PaymentNotFound:
        """Return the error for a payment that `read` has not found."""
        async with self._sessions.lend(account_id) as session:
            return await self._layout.missing(session, payment_id)

    async def read(
        self, payment_id: UUID, *, account_id: str, is_known: Callable[[PaymentDetails], bool] | None = None
    ) -> PaymentDetails | None:
        """Return a payment with its history; None if the account has no such payment.

        `is_known` gets a payment that has nothing but events, before these are read. If it tells that nothing has changed,
        the payment comes without events.
        """
        async with self._sessions.lend(account_id) as session:
            which: dict[str, Any] = {"id": payment_id, "account_id": account_id}
            which["notices_after_ms"] = milliseconds(NOTICES_AFTER)
            found = await session.fetch_repeatable(SQL["with_schedule"], which)
            if not found:
                return None
            payment = columns.read_payment(found[0])
            requested, pinned, lease_until, sweep_at, dead_at, now, *used = found[0][columns.WIDTH :]
            is_delivered, is_noticed, is_operated, is_disputed = used
            after = max(0, payment.version - MAX_EVENTS)
            details = PaymentDetails(
                payment=payment,
                requested_provider=requested,
                pinned=pinned,
                lease_until=lease_until,
                sweep_at=sweep_at,
                dead_at=dead_at,
                now=now,
                left_out=after,
            )
            if is_known is not None and not any(used) and is_known(details):
                return details
            # What happens after this read is left to the next one: row and events agree.
            which |= {"after": after, "version": payment.version, "limit": MAX_DELIVERIES}
            events = [columns.read_event(row) for row in await session.fetch_repeatable(SQL["events"], which)]
            deliveries = await _deliveries(session, which) if is_delivered else ()
            notices, cut = await _notices(session, payment) if is_noticed else ((), False)
            if is_operated:
                details = await _with_operations(session, details)
            disputes = await _disputes(session, payment) if is_disputed else ()
        return replace(
            details,
            events=[_acceptance(payment), *events],
            deliveries=deliveries,
            notices=notices,
            notices_cut=cut,
            disputes=disputes,
        )


async def _deliveries(session: Session, which: Mapping[str, Any]) -> Sequence[PaymentDelivery]:
    found = await session.fetch_repeatable(SQL["deliveries"], which)
    return [
        PaymentDelivery(row[0], row[1], row[2], Delivery(**dict(zip(_DELIVERY, row[3:], strict=True)))) for row in found
    ]


async def _notices(session: Session, payment: Payment) -> tuple[Sequence[Notice], bool]:
    """Return the notices about a payment, and whether there may be more."""
    parameters = {
        "id": payment.id,
        "since": payment.created_at,
        "until": payment.updated_at + NOTICES_AFTER,
        "window": NOTICES_WINDOW,
    }
    found = await session.fetch_repeatable(SQL["notices"], parameters)
    return [Notice(*row[1:]) for row in found if row[1] is not None], found[0][0]


async def _with_operations(session: Session, details: PaymentDetails) -> PaymentDetails:
    which = {"id": details.payment.id, "most": MAX_OPERATIONS + 1}
    found = [columns.read_operation(row) for row in await session.fetch_repeatable(SQL["operations"], which)]
    newest = found[-MAX_OPERATIONS:]
    of_these = {"operation_ids": [one.id for one in newest], "most": MAX_STEPS}
    steps = [columns.read_operation_event(row) for row in await session.fetch_repeatable(SQL["steps"], of_these)]
    return replace(details, operations=newest, operations_cut=len(newest) < len(found), steps=steps)


async def _disputes(session: Session, payment: Payment) -> Sequence[Dispute]:
    which = {"id": payment.id, "most": MAX_DISPUTES}
    return [read_dispute(row) for row in await session.fetch_repeatable(SQL["disputes"], which)]


def _acceptance(payment: Payment) -> Event:
    """Return the event of version 0, which has no row of its own."""
    return Event(payment.id, 0, payment.created_at, "accepted", Status.PENDING, 0, API, None, None, None)
