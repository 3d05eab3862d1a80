"""Reads of the log: what a body needs of each change, as it was right after the change, through indexes alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from okane.payment import Status
from okane.store import EventRow, PaymentStore, WebhookEventStore
from okane.store.session import IN_ORDER
from okane.store.webhook_events import FARTHEST, SQL, WINDOW, ReportedOperation
from okane.store.webhook_partitions import POSITIONS
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, execute, expire_lease, new, settlement
from tests.okane.webhook_rows import log_event

SUBSCRIBE = "INSERT INTO webhook_accounts VALUES ('default')"


@pytest.fixture
async def payments(database_url: str) -> AsyncIterator[PaymentStore]:
    await execute(database_url, SUBSCRIBE, [])
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
async def events(database_url: str) -> AsyncIterator[WebhookEventStore]:
    store = WebhookEventStore(database_url)
    yield store
    await store.aclose()


async def logged(events: WebhookEventStore) -> list[EventRow]:
    await events.sequence()
    return list(await events.read(0, 100))


async def test_a_row_has_what_the_change_wrote_and_the_payment_never_changes(
    payments: PaymentStore, events: WebhookEventStore
) -> None:
    payment = (await accept_one(payments, new("7"))).payment
    claim = await claimed(payments, payment.id)
    await payments.settle(
        settlement(
            claim.payment, Status.FAILED_FINAL, event="declined", decline_code="stolen_card", reason="card stolen"
        )
    )
    [row] = await logged(events)
    after = await payments.get(payment.id, account_id="default")
    assert (row.event.position, row.event.account_id, row.event.payment_id) == (1, "default", payment.id)
    assert (row.event.type, row.event.version, row.event.at) == ("payment.failed", 2, after.updated_at)
    assert (row.status, row.attempts, row.decline_code, row.reason) == ("failed_final", 1, "stolen_card", "card stolen")
    assert (row.amount_minor, row.currency, row.idempotency_key) == (440, "USD", "7")
    assert (row.created_at, row.metadata) == (payment.created_at, {"order": "7"})


async def test_a_row_stays_as_it_is_whatever_happens_to_its_payment(
    payments: PaymentStore, events: WebhookEventStore
) -> None:
    payment = (await accept_one(payments, new("7"))).payment
    claim = await claimed(payments, payment.id)
    await payments.settle(settlement(claim.payment, Status.FAILED_FINAL, event="declined", decline_code="stolen_card"))
    [first] = await logged(events)
    await payments.retry(payment.id, account_id="default", actor="api")
    claim = await claimed(payments, payment.id)
    await payments.settle(settlement(claim.payment))
    rows = await logged(events)
    assert rows[0] == first
    assert [(row.event.type, row.attempts) for row in rows] == [
        ("payment.failed", 1),
        ("payment.retried", 1),
        ("payment.succeeded", 2),
    ]


async def test_the_attempts_of_a_late_result_are_those_of_the_payment(
    payments: PaymentStore, events: WebhookEventStore, database_url: str
) -> None:
    payment = (await accept_one(payments, new("7"))).payment
    first = await claimed(payments, payment.id)
    await expire_lease(database_url, payment.id)
    second = await claimed(payments, payment.id)
    await payments.settle(settlement(second.payment))
    await payments.record_late(settlement(first.payment, provider_ref="other"))
    assert [(row.event.type, row.attempts) for row in await logged(events)] == [
        ("payment.succeeded", 2),
        ("payment.late_result", 2),
    ]


OPERATION = """INSERT INTO operations (id, payment_id, account_id, kind, idempotency_key, amount_minor, currency, reason,
metadata, provider, provider_key, created_at)
VALUES (%s, %s, 'default', 'refund', 'r-1', 40, 'USD', 'returned', %s, 'http', 'k', '2026-11-22T01:19:52.796174Z')"""
REPORTED = """INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, operation_id)
VALUES (%s, 3, 'refunded', 'success', 1, 'worker', %s)"""


@pytest.mark.parametrize("length", [1, 3000])
async def test_an_event_of_a_refund_has_the_refund(
    payments: PaymentStore, events: WebhookEventStore, database_url: str, length: int
) -> None:
    payment, refund = (await accept_one(payments, new("7"))).payment, uuid4()
    await payments.settle(settlement((await claimed(payments, payment.id)).payment))
    metadata = {"order": "x" * length}
    await execute(database_url, OPERATION, [refund, payment.id, json.dumps(metadata)])
    await execute(database_url, REPORTED, [payment.id, refund])
    await log_event(database_url, type_="refund.succeeded", payment_id=payment.id, version=3)
    await log_event(database_url, payment_id=payment.id, version=2)
    refunded, succeeded = await events.read(0, 10)
    assert refunded.operation == ReportedOperation(
        refund,
        "refund",
        "refunded",
        40,
        datetime(2026, 11, 22, 1, 19, 52, 796174, tzinfo=UTC),
        "r-1",
        "returned",
        None,
        metadata if length == 1 else None,
    )
    assert (refunded.status, refunded.amount_minor) == ("success", 440)
    assert succeeded.operation is None
    assert await events.get("default", f"evt_{payment.id.hex}_3") == refunded


async def test_an_event_of_an_endpoint_has_no_payment(events: WebhookEventStore, database_url: str) -> None:
    endpoint_id = uuid4()
    await log_event(database_url, type_="webhook_endpoint.failing", payment_id=endpoint_id, version=3)
    [row] = await events.read(0, 10)
    assert (row.event.payment_id, row.event.version, row.event.type) == (endpoint_id, 3, "webhook_endpoint.failing")
    assert (row.status, row.amount_minor, row.metadata) == ("", 0, {})


async def test_an_event_is_found_by_its_id_by_its_account_only(events: WebhookEventStore, database_url: str) -> None:
    payment_id = uuid4()
    await log_event(database_url, payment_id=payment_id, version=4)
    event_id = f"evt_{payment_id.hex}_4"
    found = await events.get("default", event_id)
    assert found is not None
    assert found.event.version == 4
    assert await events.get("another", event_id) is None
    for wrong in ("", "evt_", f"evt_{payment_id}_4", f"evt_{payment_id.hex}_04", f"evt_{payment_id.hex}_99999999999"):
        assert await events.get("default", wrong) is None


async def test_a_page_is_of_some_types_or_of_one_payment(events: WebhookEventStore, database_url: str) -> None:
    one = uuid4()
    for number in range(6):
        payment_id = one if number % 2 else uuid4()
        await log_event(
            database_url,
            type_=("payment.failed", "payment.retried")[number // 3],
            payment_id=payment_id,
            version=number,
        )
    await log_event(database_url, "another")

    async def page(after: int = 0, limit: int = 10, **more: Any) -> tuple[list[int], int]:
        found = await events.page("default", after, limit, **more)
        return [row.event.position for row in found.rows], found.reached

    assert await page() == ([1, 2, 3, 4, 5, 6], 7)
    assert await page(2, 2) == ([3, 4], 4)
    assert await page(types=["payment.retried"]) == ([4, 5, 6], 7)
    assert await page(types=[]) == ([], 7)
    assert await page(payment_id=one) == ([2, 4, 6], 7)
    assert await page(limit=2, payment_id=one) == ([2, 4], 4)
    assert await page(4, payment_id=one, types=["payment.retried"]) == ([6], 7)
    assert await page(7) == ([], 7)
    assert (await events.page("another", 0, 10, payment_id=one)).rows == []


async def test_a_read_looks_at_a_window_and_says_how_far_it_came(
    events: WebhookEventStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.webhook_events.WINDOW", 4)
    for number in range(10):
        await log_event(database_url, type_="payment.failed" if number == 9 else "payment.succeeded")
    reached, seen, found = 0, list[int](), list[int]()
    while reached < 10:
        page = await events.read_account("default", reached, 5, ["payment.failed"])
        reached = page.reached
        seen.append(reached)
        found += [row.event.position for row in page.rows]
    assert seen == [4, 8, 10]
    assert found == [10]


async def test_a_read_may_leave_out_what_an_endpoint_has_and_what_comes_later(
    events: WebhookEventStore, database_url: str
) -> None:
    endpoint_id = uuid4()
    for _ in range(5):
        await log_event(database_url)
    await execute(
        database_url,
        "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at) VALUES"
        " (%s, 2, 'delivered', 1, now()), (gen_random_uuid(), 3, 'delivered', 1, now())",
        [endpoint_id],
    )
    page = await events.read_account("default", 0, 10, up_to=4, undelivered_to=endpoint_id)
    assert [row.event.position for row in page.rows] == [1, 3, 4]
    assert page.reached == 4


PARAMETERS: dict[str, Any] = {
    "after": POSITIONS - 3,
    "up_to": FARTHEST,
    "limit": 100,
    "window": WINDOW,
    "account_id": "account-1",
    "all_types": True,
    "types": [],
    "endpoint_id": None,
    "payment_id": UUID(int=1),
    "version": 2,
    "positions": [POSITIONS - 1, POSITIONS + 1],
    "whole": False,
}
FILL = """
INSERT INTO webhook_events
SELECT n, 'account-' || mod(n, 10), gen_random_uuid(), 2, 'payment.succeeded', now() FROM generate_series(%s, %s) n
"""


@pytest.mark.parametrize("name", ["read", "page", "of_payment", "one", "many"])
@pytest.mark.parametrize("is_planned_empty", [True, False])
async def test_a_read_goes_through_indexes_also_if_it_was_planned_on_an_empty_log(
    database_url: str, name: str, is_planned_empty: bool
) -> None:
    """20,000 events of ten accounts on both sides of the end of a table partition: a scan of one would read thousands."""
    statement = SQL[name]
    values = sql.SQL(", ").join(sql.Literal(PARAMETERS[parameter]) for parameter in statement.encoders)
    run = sql.SQL("EXECUTE one ({})").format(values)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for setting, text in IN_ORDER.items():
            await connection.execute(f"SET {setting} = '{text}'".encode())
        await connection.execute(b"PREPARE one AS " + statement.text)
        if is_planned_empty:
            await connection.execute(run)
        await execute(database_url, FILL, [POSITIONS - 10_000, POSITIONS + 9_999])
        if not is_planned_empty:
            await execute(database_url, "ANALYZE webhook_events", [])
        explained = await connection.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}").format(run))
        row = await explained.fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert all(node["Actual Rows"] <= WINDOW for node in nodes(plan))
    assert {node["Node Type"] for node in nodes(plan) if "webhook_events" in node.get("Relation Name", "")} <= {
        "Index Scan",
        "Index Only Scan",
    }


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a plan that ran, with the rows that a filter has removed counted as read."""
    if plan["Actual Loops"]:
        yield plan | {"Actual Rows": plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)}
    for child in plan.get("Plans", ()):
        yield from nodes(child)
