"""A console with something on every screen, and with markup in all that comes from outside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from okane.api_key import Scope
from okane.operation import OperationStatus
from okane.payment import Payment, Status
from okane.store.console_audit import AuditEntry
from okane.store.operations import OperationStore
from streams import Message, Outcome, Retry, connect
from tests.console.served_console import Console
from tests.okane.stored_operations import asked, authorized, charged, done
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement
from tests.okane.webhook_rows import created, fetch, log_event
from tests.streams.running import Running, consumer, read_and_die

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
STATUSES = (Status.PENDING, Status.SUCCESS, Status.FAILED_FINAL, Status.NEEDS_REVIEW, Status.FAILED_RETRYABLE)


async def filled(console: Console, database_url: str, redis_url: str) -> dict[str, UUID]:
    """Write rows, messages and processes; return the ids of payments by status, held and refunded ones, and of an endpoint by
    state."""
    ids = {str(status): (await _payment(console, status)).id for status in STATUSES}
    ids |= await _operations(console, database_url)
    await _queues(console, redis_url, ids["pending"])
    await console.services.presence.announce("127.0.0.1:1", role="worker", name=MARKUP[:20])
    await console.services.providers.set_mode("http", "drain", reason=MARKUP, actor="operator")
    await console.key(Scope.READ, name=MARKUP)
    entry = AuditEntry(key="sk_test_x", session="", address="127.0.0.1", action="revoke key", target=MARKUP)
    await console.services.audit.note(entry, f"refused: {MARKUP}")
    return ids | await _endpoints(console, database_url, ids["success"])


async def _payment(console: Console, status: Status) -> Payment:
    store = console.services.payments
    fresh = replace(new(f"{status} {MARKUP}"), metadata={"order": MARKUP, MARKUP[:40]: "<b>bold</b>"})
    payment = (await accept_one(store, fresh)).payment
    if status is not Status.PENDING:
        claim = await claimed(store, payment.id)
        event = "spent" if status is Status.FAILED_FINAL else status.value  # spent: a dead letter
        await store.settle(settlement(claim.payment, status, event=event, reason=MARKUP, decline_code=MARKUP[:30]))
    return payment


async def _operations(console: Console, database_url: str) -> dict[str, UUID]:
    """Write a payment whose money is held, and one with a dispute and with refunds that wait for every kind of action."""
    store = OperationStore(database_url, actor=MARKUP[:20], lease=LEASE, grace=GRACE)
    held = await authorized(console.services.payments, "held", amount_minor=1_234_567)
    paid = await charged(console.services.payments, "paid", amount_minor=1_234_567)
    await store.request(asked(paid.id, key="waits", amount_minor=1, reason=MARKUP))
    for status in (OperationStatus.SUCCESS, OperationStatus.FAILED_FINAL, OperationStatus.NEEDS_REVIEW):
        new = asked(paid.id, key=status, amount_minor=2)
        await done(store, new, status, event="spent" if "failed" in status else status.value, reason=MARKUP)
    await store.aclose()
    insert = "INSERT INTO disputes (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, reason,"
    insert += " status) VALUES (gen_random_uuid(), %s, 'default', 'http', %s, 440, 'USD', %s, 'needs_response')"
    await fetch(database_url, insert, paid.id, MARKUP, MARKUP)
    return {"held": held.id, "refunded": paid.id}


async def _queues(console: Console, redis_url: str, payment_id: UUID) -> None:
    """Leave a delayed message, entries that a consumer holds, and one that waits."""
    publish, stream = console.services.producer.publish, console.services.stream
    handled = asyncio.Event()

    async def retry(_message: Message) -> Outcome:
        handled.set()
        return Retry(MARKUP, after=timedelta(hours=1))

    client = connect(redis_url)
    await publish(payment_id.bytes, lane="critical")
    async with Running(consumer(client, stream, retry)):
        await handled.wait()
    for lane in stream.lane_names:
        await publish(payment_id.bytes, lane=lane)
    await read_and_die(client, stream, name=MARKUP)
    await publish(payment_id.bytes, lane="low")
    await client.aclose()


async def _endpoints(console: Console, database_url: str, payment_id: UUID) -> dict[str, UUID]:
    """Write an endpoint with deliveries in every state, and one that is disabled."""
    store = console.services.endpoints
    enabled, disabled = [
        await created(store, url=f"https://hooks.example/<b>{i}", description=MARKUP) for i in range(2)
    ]
    await store.disable(disabled.account_id, disabled.id, reason="disabled by the account")
    for state in ("given_up", "delivered"):
        position = await log_event(database_url, payment_id=payment_id)
        await fetch(
            database_url,
            "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at)"
            " VALUES (%s, %s, %s, 9, 500, 12, %s, now())",
            enabled.id,
            position,
            state,
            MARKUP,
        )
    return {"enabled": enabled.id, "disabled": disabled.id}
