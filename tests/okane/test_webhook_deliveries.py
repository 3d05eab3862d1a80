"""Deliveries in Postgres: read by event, repeated one by one, and repeated by a range of time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.store.session import IN_ORDER
from okane.store.webhook_deliveries import MAX_RECOVERIES, SQL, WINDOW, WebhookDeliveryStore
from okane.store.webhook_endpoints import SQL as ENDPOINT_SQL
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.store.webhook_events import FARTHEST
from tests.okane.webhook_rows import created, fetch, log_event

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
async def endpoints(database_url: str) -> AsyncIterator[WebhookEndpointStore]:
    one = WebhookEndpointStore(database_url)
    yield one
    await one.aclose()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[WebhookDeliveryStore]:
    one = WebhookDeliveryStore(database_url)
    yield one
    await one.aclose()


async def deliver(url: str, endpoint_id: UUID, position: int, state: str = "delivered") -> None:
    """Write a delivery as the dispatcher does."""
    await fetch(
        url,
        """INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, status, ms, reason, at, earlier)
        VALUES (%s, %s, %s, 2, 200, 12, NULL, now(), '[{"reason": "timeout"}]')""",
        endpoint_id,
        position,
        state,
    )


async def test_an_event_has_a_delivery_at_each_endpoint_also_at_deleted_ones(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str
) -> None:
    one, two, other = [await created(endpoints, account) for account in ("default", "default", "another")]
    position = await log_event(database_url)
    for endpoint in (one, two, other):
        await deliver(database_url, endpoint.id, position)
    await endpoints.delete("default", two.id)
    found = await store.of_event("default", position)
    assert [delivery.endpoint_id for delivery in found] == [one.id, two.id]
    assert (found[0].state, found[0].attempts, found[0].status, found[0].ms) == ("delivered", 2, 200, 12)
    assert found[0].earlier == [{"reason": "timeout"}]
    assert await store.of_event("default", position + 1) == []


async def test_deliveries_of_an_endpoint_come_newest_first_in_pages(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str
) -> None:
    made, other = await created(endpoints), await created(endpoints)
    positions = [await log_event(database_url) for _ in range(7)]
    for position in positions[:5]:
        await deliver(database_url, made.id, position)
    await deliver(database_url, other.id, positions[6])
    seen, before = [], FARTHEST
    for count in (2, 2, 1):
        page = await store.of_endpoint("default", made.id, before=before, limit=2)
        assert page is not None
        assert all(event.position == delivery.position for event, delivery in page.found)
        assert len(page.found) == count
        seen += [delivery.position for _, delivery in page.found]
        before = page.reached or 0
    assert (seen, before) == (positions[4::-1], 0)
    assert await store.of_endpoint("another", made.id, limit=2) is None
    await endpoints.delete("default", made.id)
    assert await store.of_endpoint("default", made.id, limit=2) is None


async def test_deliveries_of_a_state_are_looked_for_in_a_bounded_part_at_a_time(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.webhook_deliveries.MAX_LOOKED", 3)
    made = await created(endpoints)
    positions = [await log_event(database_url) for _ in range(8)]
    for position in positions:
        await deliver(database_url, made.id, position, "given_up" if position in positions[:2] else "delivered")
    pages, before = [], FARTHEST
    while before:
        page = await store.of_endpoint("default", made.id, before=before, limit=1, states=["given_up"])
        assert page is not None
        pages.append([delivery.position for _, delivery in page.found])
        before = page.reached or 0
    assert pages == [[], [], [positions[1]], [positions[0]]]


async def test_a_page_of_deliveries_reads_no_more_than_it_may(
    endpoints: WebhookEndpointStore, database_url: str
) -> None:
    made = await created(endpoints)
    await fetch(database_url, FILL)
    await fetch(
        database_url,
        "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at)"
        " SELECT id, position, 'delivered', 1, now()"
        " FROM (SELECT %s::uuid AS id UNION SELECT gen_random_uuid()) e, webhook_events",
        made.id,
    )
    parameters = {"account_id": "default", "id": made.id, "before": FARTHEST, "states": ["delivered"], "most": 3}
    for table, most in (("_deliveries", 100 + 3), ("_events", 3)):
        assert 0 < await rows_read(database_url, table, SQL["of_endpoint"], parameters | {"window": 100}) <= most


async def test_a_delivered_event_becomes_due_again(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str
) -> None:
    made, position = await created(endpoints), await log_event(database_url)
    await deliver(database_url, made.id, position)
    due = await store.redeliver("default", made.id, position)
    assert due is not None
    assert (due.state, due.attempts, due.next_at is not None) == ("waiting", 2, True)
    assert await store.redeliver("another", made.id, position) is None
    assert await store.redeliver("default", uuid4(), position) is None
    await endpoints.delete("default", made.id)
    assert await store.redeliver("default", made.id, position) is None


async def test_what_is_redelivered_stays_due_until_the_reader_of_an_endpoint_has_confirmed_it(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str
) -> None:
    made, sending = await created(endpoints, url=None), await created(endpoints)
    positions = [await log_event(database_url) for _ in range(3)]
    for endpoint in (made, sending):
        for position in (positions[2], positions[0]):
            await store.redeliver("default", endpoint.id, position)
    assert await store.redelivered("another", made.id) is None
    assert await store.redelivered("default", sending.id) is None  # a dispatcher sends these
    lost = await store.redelivered("default", made.id)
    read = await store.redelivered("default", made.id)
    assert lost is not None
    assert read is not None
    assert lost.positions == read.positions == (positions[0], positions[2])
    await store.redeliver("default", made.id, positions[2])  # once more, since it was read
    await store.confirm_redelivered("another", made.id, read)
    await store.confirm_redelivered("default", sending.id, read)
    for _ in range(2):  # a confirmation may be repeated
        await store.confirm_redelivered("default", made.id, read)
        again = await store.redelivered("default", made.id)
        assert again is not None
        assert again.positions == (positions[2],)
    states = {one.endpoint_id: (one.state, one.attempts) for one in await store.of_event("default", positions[0])}
    assert states == {made.id: ("delivered", 1), sending.id: ("waiting", 0)}


@pytest.mark.parametrize("count", [0, 1, 2, 7, 50])
async def test_a_range_of_time_is_found_in_the_log(store: WebhookDeliveryStore, database_url: str, count: int) -> None:
    """The events of an account between those of another, one every half hour."""
    own = []
    for number in range(count):
        at = START + number * timedelta(minutes=30)
        own.append((await log_event(database_url, at=at), at))
        await log_event(database_url, "another", at=at)
    for since, until in ((0, None), (3, 9), (5, 6), (40, None), (-9, 100)):
        start, end = START + timedelta(hours=since), None if until is None else START + timedelta(hours=until)
        wanted = [position for position, at in own if at >= start and (end is None or at < end)]
        found = await store.range_between("default", start, end)
        assert found == ((wanted[0], wanted[-1]) if wanted else None)


async def test_a_range_is_longer_than_its_time_if_there_are_too_many_events(
    store: WebhookDeliveryStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("okane.store.webhook_deliveries.WINDOW", 3)
    positions = [await log_event(database_url, at=START + timedelta(minutes=number)) for number in range(20)]
    found = await store.range_between("default", START + timedelta(minutes=9), START + timedelta(minutes=11))
    assert found == (positions[2], positions[17])


async def test_events_that_were_sequenced_late_are_in_the_range_of_their_time(
    store: WebhookDeliveryStore, database_url: str
) -> None:
    times = [START + timedelta(minutes=minute) for minute in (0, 50, 10, 40, 20, 30)]
    positions = [await log_event(database_url, at=at) for at in times]
    found = await store.range_between("default", START + timedelta(minutes=9), START + timedelta(minutes=31))
    assert found == (positions[2], positions[5])


async def test_a_recovery_is_a_cursor_and_an_endpoint_has_a_few_at_most(
    store: WebhookDeliveryStore, endpoints: WebhookEndpointStore, database_url: str
) -> None:
    made = await created(endpoints)
    assert await store.recover("default", made.id, first=10, last=90, only_failed=True)
    assert await store.recover("default", made.id, first=10, last=50, only_failed=False)
    rows = await fetch(database_url, "SELECT from_position, to_position, next, only_failed FROM webhook_replays")
    assert rows == [(10, 90, 10, False)]
    for first in range(20, 20 + MAX_RECOVERIES - 1):
        assert await store.recover("default", made.id, first=first, last=99, only_failed=True)
    assert not await store.recover("default", made.id, first=99, last=99, only_failed=True)
    assert await store.recover("default", made.id, first=10, last=99, only_failed=True)
    assert not await store.recover("another", made.id, first=1, last=99, only_failed=True)


FILL = """
INSERT INTO webhook_events
SELECT n, CASE WHEN mod(n, 4000) = 0 THEN 'default' ELSE 'account-' || mod(n, 10) END, gen_random_uuid(), 2,
       'payment.succeeded', '2026-11-01'::timestamptz + n * interval '1 minute'
FROM generate_series(1, 20000) n
"""


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("name", ["range", "count", "of_event", "states"])
async def test_reads_of_an_account_go_through_its_own_events(
    endpoints: WebhookEndpointStore, database_url: str, name: str, is_analyzed: bool
) -> None:
    """Five of its own among 20,000."""
    made = await created(endpoints)
    await fetch(database_url, FILL)
    if is_analyzed:
        await fetch(database_url, "ANALYZE")
    parameters = {
        "account_id": "default",
        "id": made.id,
        "position": 4000,
        "first": 0,
        "last": FARTHEST,
        "since": START,
        "until": "infinity",
        "window": WINDOW,
        "most": 1000,
    }
    statement = ENDPOINT_SQL[name] if name == "states" else SQL[name]
    assert await rows_read(database_url, "_events", statement, parameters) <= 20


async def rows_read(url: str, table: str, statement: str, parameters: dict[str, Any]) -> int:
    """Return how many rows of a table a statement reads in a session of the store's kind."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for setting, text in IN_ORDER.items():
            await connection.execute(f"SET {setting} = '{text}'".encode())
        cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), parameters)
        row = await cursor.fetchone()
    assert row is not None
    found = [node for node in nodes(row[0][0]["Plan"]) if table in node.get("Relation Name", "")]
    return sum(int(node["Actual Rows"] * node["Actual Loops"]) for node in found)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a plan that ran, with the rows that a filter has removed counted as read."""
    if plan["Actual Loops"]:
        yield plan | {"Actual Rows": plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)}
    for child in plan.get("Plans", ()):
        yield from nodes(child)
