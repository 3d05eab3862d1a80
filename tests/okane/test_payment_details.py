"""One payment with its history: what is read, and how much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import pytest

from okane.payment import Status
from okane.store import PaymentStore
from okane.store import payment_details as details_module
from okane.store.payment_details import PaymentDetailsStore
from okane.store.prepared_statements import PreparedStatement
from okane.store.session import Session
from okane.store.webhook_endpoints import WebhookEndpointStore
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement
from tests.okane.webhook_rows import created, fetch, log_event

ROWS_READ = """
SELECT (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes)
     + (SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables)
"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="worker-1", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
async def details(database_url: str) -> AsyncIterator[PaymentDetailsStore]:
    store = PaymentDetailsStore(database_url)
    yield store
    await store.aclose()


async def rows_read(details: PaymentDetailsStore) -> int:
    """Return how many rows this session has read. The other sessions are idle."""
    async with details._sessions.lend("default") as session:
        await session.fetch("SELECT pg_stat_force_next_flush()")
        await session.fetch("SELECT pg_stat_clear_snapshot()")
        return int((await session.fetch(ROWS_READ))[0][0])


async def paid(store: PaymentStore, key: str = "k") -> UUID:
    payment = (await accept_one(store, new(key))).payment
    await store.settle(settlement((await claimed(store, payment.id)).payment))
    return payment.id


async def test_a_payment_comes_with_its_schedule_and_its_events(
    store: PaymentStore, details: PaymentDetailsStore
) -> None:
    payment = (await accept_one(store, new())).payment
    claim = await claimed(store, payment.id)
    held = await details.read(payment.id, account_id="default")
    assert held is not None
    assert held.lease_until is not None
    assert timedelta(0) < held.lease_until - held.now <= LEASE
    delay = timedelta(minutes=5)
    await store.settle(settlement(claim.payment, Status.FAILED_RETRYABLE, event="unavailable", delay=delay))
    found = await details.read(payment.id, account_id="default")
    assert found is not None
    assert found.payment == await store.get(payment.id, account_id="default")
    assert [(one.version, one.event) for one in found.events] == [(0, "accepted"), (1, "claimed"), (2, "unavailable")]
    assert list(found.events) == list(await store.events(payment.id))
    assert (found.left_out, found.notices, found.deliveries, found.notices_cut) == (0, (), (), False)
    assert found.sweep_at is not None
    assert found.sweep_at > found.now


async def test_another_account_has_no_such_payment(store: PaymentStore, details: PaymentDetailsStore) -> None:
    theirs = (await accept_one(store, replace(new(), account_id="globex"))).payment
    assert await details.read(theirs.id, account_id="default") is None
    assert await details.read(uuid4(), account_id="default") is None


async def test_deliveries_come_with_the_event_that_they_are_about(
    store: PaymentStore, details: PaymentDetailsStore, database_url: str
) -> None:
    endpoints = WebhookEndpointStore(database_url)
    mine, theirs = await created(endpoints), await created(endpoints, "globex")
    await endpoints.aclose()
    payment_id = await paid(store)
    for owner, endpoint, about in (
        ("default", mine, payment_id),
        ("default", mine, uuid4()),
        ("globex", theirs, payment_id),
    ):
        position = await log_event(database_url, owner, payment_id=about, version=2)
        await fetch(
            database_url,
            "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at)"
            " VALUES (%s, %s, 'delivered', 1, now())",
            endpoint.id,
            position,
        )
    found = await details.read(payment_id, account_id="default")
    assert found is not None
    [one] = found.deliveries
    assert (one.version, one.type, one.url) == (2, "payment.succeeded", mine.url)
    assert (one.delivery.endpoint_id, one.delivery.position, one.delivery.state) == (mine.id, 1, "delivered")


async def test_of_a_payment_with_a_long_history_the_newest_events_are_read(
    store: PaymentStore, details: PaymentDetailsStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "MAX_EVENTS", 3)
    payment_id = await paid(store)
    await fetch(
        database_url,
        "INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)"
        " SELECT %s, n, 'late_result', 'success', 1, 'worker-1' FROM generate_series(3, 10) AS n",
        payment_id,
    )
    await fetch(database_url, "UPDATE payments SET version = 10 WHERE id = %s", payment_id)
    found = await details.read(payment_id, account_id="default")
    assert found is not None
    assert [one.version for one in found.events] == [0, 8, 9, 10]
    assert found.left_out == 7


NOTICES = """
INSERT INTO provider_events (provider, event_id, kind, payment_id, received_at)
SELECT 'stripe', prefix || n, 'charge.succeeded', CASE WHEN n %% 1000 = 999 THEN %s::uuid END, p.updated_at + n * step
FROM payments p, generate_series(0, 2999) AS n, (VALUES ('a', interval '1 ms'), ('b', interval '1 hour')) AS of (prefix, step)
WHERE p.id = %s
"""


async def test_notices_are_found_near_the_two_ends_of_a_payment(
    store: PaymentStore, details: PaymentDetailsStore, database_url: str
) -> None:
    payment_id = await paid(store)
    await fetch(database_url, NOTICES, payment_id, payment_id)
    found = await details.read(payment_id, account_id="default")
    assert found is not None
    assert [one.event_id for one in found.notices] == ["a2999"]  # those in the middle were not looked at
    assert found.notices_cut


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_page_costs_a_bounded_number_of_rows_however_many_there_are(
    store: PaymentStore, details: PaymentDetailsStore, database_url: str, analyzed: bool
) -> None:
    payment_id = await paid(store)
    await fetch(database_url, NOTICES, payment_id, payment_id)
    await fetch(
        database_url,
        "INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)"
        " SELECT gen_random_uuid(), 1, 'claimed', 'processing', 1, 'worker-1' FROM generate_series(1, 20000)",
    )
    await fetch(
        database_url,
        "INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)"
        " SELECT n, 'default', gen_random_uuid(), 1, 'payment.succeeded', now() FROM generate_series(1, 20000) AS n",
    )
    if analyzed:
        await fetch(database_url, "ANALYZE")
    before = await rows_read(details)
    assert await details.read(payment_id, account_id="default") is not None
    assert 0 < await rows_read(details) - before <= 3 * details_module.NOTICES_WINDOW


async def test_a_payment_takes_the_same_statements_however_long_its_history(
    store: PaymentStore, details: PaymentDetailsStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[object] = []
    fetch_one = Session.fetch

    async def counting(
        self: Session, statement: LiteralString | PreparedStatement, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        counted.append(statement)
        return await fetch_one(self, statement, parameters)

    async def count(payment_id: UUID) -> int:
        counted.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Session, "fetch", counting)
            assert await details.read(payment_id, account_id="default") is not None
        return len(counted)

    payment_id = await paid(store)
    assert await count(payment_id) == 2
    counted.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Session, "fetch", counting)
        known = await details.read(payment_id, account_id="default", is_known=lambda _: True)
    assert known is not None
    assert (len(counted), known.events) == (1, ())
    for _ in range(5):
        await store.record_late(settlement(await store.get(payment_id, account_id="default")))
        await log_event(database_url, payment_id=payment_id)
    await fetch(database_url, NOTICES, payment_id, payment_id)
    assert await count(payment_id) == 4
    assert (await details.read(payment_id, account_id="default", is_known=lambda _: True)) != known
