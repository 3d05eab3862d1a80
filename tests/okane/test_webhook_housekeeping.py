"""The housekeeping of events: what it makes, drops, warns about and deletes, against a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from okane.errors import StoreUnavailable
from okane.store.webhook_endpoints import Endpoint, NewEndpoint, WebhookEndpointStore
from okane.store.webhook_events import WebhookEventStore
from okane.store.webhook_partitions import POSITIONS, Dropped
from okane.webhooks.housekeeping import Housekeeping
from okane.webhooks.metrics import DispatcherMetrics
from tests.okane.stored_payments import execute

DAY = timedelta(days=1)
LAST = POSITIONS - 1  # of the first table partition


class House:
    """A housekeeping over a database of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events = WebhookEventStore(url)
        self.endpoints = WebhookEndpointStore(url)
        self.metrics = DispatcherMetrics(CollectorRegistry())

    def keeping(self, keep: timedelta = 30 * DAY, max_bytes: int | None = None) -> Housekeeping:
        return Housekeeping(
            events=self.events, endpoints=self.endpoints, metrics=self.metrics, keep=keep, max_bytes=max_bytes
        )

    async def endpoint(self, *, url: str | None = "https://example.com/hook") -> UUID:
        new = NewEndpoint(id=uuid4(), account_id="a", url=url, types=["payment.*"], api_version="2026-12-01")
        made = await self.endpoints.create(new)
        assert isinstance(made, Endpoint)
        return made.id

    async def fill_first_partition(self, age: str) -> None:
        """Let the log stand in its second table partition; the first one ended `age` ago."""
        for position, of in ((LAST - 1, "3650 days"), (LAST, age), (POSITIONS, "1 second")):
            await execute(
                self.url,
                "INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)"
                " VALUES (%s, 'a', gen_random_uuid(), 2, 'payment.succeeded', now() - %s::interval)",
                [position, of],
            )
        await execute(self.url, "UPDATE webhook_sequencer SET last = %s", [POSITIONS])

    async def partitions(self) -> set[str]:
        rows = await self.rows("SELECT relname::text FROM pg_class WHERE relname ~ '^webhook_events_[0-9]+$'")
        return {str(name) for [name] in rows}

    async def rows(self, statement: str) -> Sequence[tuple[object, ...]]:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            return await (await connection.execute(statement.encode())).fetchall()

    def given_up(self) -> float | None:
        return self.metrics.registry.get_sample_value("okane_webhook_given_up_total")


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    one = House(database_url)
    yield one
    await one.events.aclose()
    await one.endpoints.aclose()


async def test_table_partitions_are_made_ahead(house: House) -> None:
    await house.keeping().run_once()
    assert await house.partitions() >= {"webhook_events_0", "webhook_events_1", "webhook_events_2"}


async def test_a_partition_that_nothing_needs_is_dropped_when_its_last_event_is_too_old(house: House) -> None:
    await house.endpoint()
    await house.fill_first_partition("31 days")
    await execute(house.url, "UPDATE webhook_queues SET done_to = %s", [POSITIONS])
    assert (await house.keeping(32 * DAY).run_once()).partitions == []
    with capture_logs() as logs:
        assert (await house.keeping().run_once()).partitions == [0]
    assert "webhook_events_0" not in await house.partitions()
    assert house.given_up() == 0
    assert [line["event"] for line in logs] == ["webhook_events_dropped"]


async def test_a_partition_that_an_endpoint_needs_is_kept_and_its_account_warned_once(house: House) -> None:
    endpoint_id = await house.endpoint()
    await house.fill_first_partition("31 days")
    await house.endpoints.disable("a", endpoint_id, reason="request")
    keeping = house.keeping()
    with capture_logs() as logs:
        for _ in range(2):
            assert (await keeping.run_once()).kept_for == [endpoint_id]
    assert "webhook_events_0" in await house.partitions()
    assert [line["event"] for line in logs] == ["webhook_events_kept"]
    assert await house.rows("SELECT payment_ids[1], versions[1], type, account_id FROM webhook_outbox") == [
        (endpoint_id, 3, "webhook_endpoint.disabled", "a")
    ]
    await house.events.sequence()
    await keeping.run_once()  # the event is in the log now
    assert await house.rows("SELECT * FROM webhook_outbox") == []


async def test_a_week_later_its_deliveries_are_given_up_and_counted(house: House) -> None:
    endpoint_id = await house.endpoint()
    await house.fill_first_partition("38 days")
    await house.endpoints.disable("a", endpoint_id, reason="request")
    with capture_logs() as logs:
        assert (await house.keeping().run_once()).partitions == [0]
    assert house.given_up() == 2
    assert [(line["event"], line["deliveries"]) for line in logs] == [("webhook_events_lost", 2)]


async def test_beyond_its_size_the_log_loses_its_oldest_partition_whatever_its_age(house: House) -> None:
    await house.endpoint()
    await house.fill_first_partition("1 minute")
    assert (await house.keeping(max_bytes=10**12).run_once()).partitions == []
    assert (await house.keeping(max_bytes=1).run_once()).partitions == [0]


async def test_an_account_is_warned_before_the_log_is_too_large(house: House) -> None:
    endpoint_id = await house.endpoint()
    await house.fill_first_partition("1 minute")
    await house.endpoints.disable("a", endpoint_id, reason="request")
    size_bytes = (await house.keeping().run_once()).size_bytes
    assert (await house.keeping(max_bytes=2 * size_bytes).run_once()).kept_for == ()
    near = await house.keeping(max_bytes=size_bytes + 8192).run_once()
    assert (near.partitions, near.kept_for) == ([], [endpoint_id])
    assert await house.rows("SELECT payment_ids[1], type FROM webhook_outbox") == [
        (endpoint_id, "webhook_endpoint.disabled")
    ]


async def test_an_endpoint_whose_reader_is_gone_is_deleted(house: House) -> None:
    endpoint_id = await house.endpoint(url=None)
    await house.keeping().run_once()
    assert await house.endpoints.get("a", endpoint_id) is not None
    await execute(house.url, "UPDATE webhook_endpoints SET polled_at = now() - interval '61 minutes'", [])
    await house.keeping().run_once()
    assert await house.endpoints.get("a", endpoint_id) is None


async def test_housekeeping_goes_on_after_an_outage_and_after_a_bug(house: House) -> None:
    stop = asyncio.Event()
    errors: list[Exception] = [StoreUnavailable("away"), RuntimeError("a bug")]

    class Flawed(WebhookEventStore):
        async def prepare_partitions(self) -> int:
            if errors:
                raise errors.pop(0)
            return await super().prepare_partitions()

        async def drop_partitions(self, keep: timedelta, max_bytes: int | None) -> Dropped:
            stop.set()
            return await super().drop_partitions(keep, max_bytes)

    house.events = Flawed(house.url)
    keeping = Housekeeping(
        events=house.events,
        endpoints=house.endpoints,
        metrics=house.metrics,
        keep=DAY,
        max_bytes=None,
        interval=timedelta(milliseconds=1),
    )
    with capture_logs() as logs:
        async with asyncio.timeout(60):
            await keeping.run(stop)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["housekeeping_failed"]
