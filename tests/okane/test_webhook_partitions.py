"""The table partitions of the log: made ahead under traffic, made late, and dropped without a trace of them left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.errors import StoreBusy, StoreUnavailable
from okane.store import WebhookEventStore
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.store.webhook_partitions import AHEAD, POSITIONS
from tests.okane.stored_payments import execute
from tests.okane.webhook_rows import created, fetch, lease

WRITE = (
    "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
    " VALUES (ARRAY[%s::uuid], '{2}', 'default', 'payment.failed')"
)
PARTS = """
SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('webhook_events'::regclass, 'webhook_deliveries'::regclass) ORDER BY 1
"""
# The indexes of a partition, without its number: of one made by the schema and one made later they must be equal.
INDEXES = """
SELECT replace(pg_get_indexdef(x.indexrelid), '%s', ''), x.indisvalid,
       (SELECT p.relname::text FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent WHERE h.inhrelid = x.indexrelid)
FROM pg_index x WHERE x.indrelid = '%s'::regclass ORDER BY 1
"""
DAY = timedelta(days=1)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[WebhookEventStore]:
    store = WebhookEventStore(database_url)
    yield store
    await store.aclose()


async def stand_at(url: str, last: int) -> None:
    """Let the log stand at this position."""
    await execute(url, "UPDATE webhook_sequencer SET last = %s", [last])


async def event_at(url: str, position: int, *, days: int = 0, account_id: str = "default") -> None:
    await execute(
        url,
        "INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)"
        " VALUES (%s, %s, %s, 2, 'payment.succeeded', now() - %s * interval '1 day')",
        [position, account_id, uuid4(), days],
    )


async def full_first_partition(url: str, *, days: int) -> None:
    await event_at(url, POSITIONS - 1, days=days)
    await event_at(url, POSITIONS)
    await stand_at(url, POSITIONS)


async def parts(url: str) -> list[str]:
    return [name for (name,) in await fetch(url, PARTS)]


async def test_partitions_are_made_ahead_of_the_last_position(store: WebhookEventStore, database_url: str) -> None:
    assert await store.prepare_partitions() == 2  # of both tables
    assert await store.prepare_partitions() == 0
    await stand_at(database_url, 3 * POSITIONS - 1)
    assert await store.prepare_partitions() == 2 * (AHEAD + 1)
    assert {f"webhook_events_{number}" for number in range(3, 4 + AHEAD)} <= set(await parts(database_url))


@pytest.mark.parametrize("parent", ["webhook_events", "webhook_deliveries"])
async def test_a_partition_that_is_made_later_equals_one_of_the_schema(
    store: WebhookEventStore, database_url: str, parent: str
) -> None:
    await store.prepare_partitions()
    of_schema, later = [await fetch(database_url, INDEXES % (f"_{n}", f"{parent}_{n}")) for n in (1, 2)]
    assert later == of_schema
    assert all(valid and of_parent for _, valid, of_parent in later)


async def test_two_processes_may_prepare_at_once(store: WebhookEventStore, database_url: str) -> None:
    other = WebhookEventStore(database_url)
    made = await asyncio.gather(store.prepare_partitions(), other.prepare_partitions())
    await other.aclose()
    assert sum(made) == 2


async def test_preparing_blocks_no_reader_and_no_writer_of_the_log(store: WebhookEventStore, database_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database_url) as reader,
        await psycopg.AsyncConnection.connect(database_url) as writer,
    ):
        await reader.execute("SELECT count(*) FROM webhook_events")
        await writer.execute(
            "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at)"
            " VALUES (gen_random_uuid(), 1, 'delivered', 1, now())"
        )
        assert await store.prepare_partitions() == 2


async def test_sequencing_makes_the_partitions_that_no_process_has_made(
    store: WebhookEventStore, database_url: str
) -> None:
    await stand_at(database_url, 2 * POSITIONS - 2)  # the schema has two
    for _ in range(3):
        await execute(database_url, WRITE, [uuid4()])
    sequenced = await store.sequence()
    assert sequenced is not None
    assert (sequenced.last, sequenced.count) == (2 * POSITIONS + 1, 3)
    assert [row.event.position for row in await store.read(0, 10)] == [2 * POSITIONS + n for n in (-1, 0, 1)]


async def test_changes_wait_in_the_outbox_while_another_process_makes_the_partition(
    store: WebhookEventStore, database_url: str
) -> None:
    await stand_at(database_url, 2 * POSITIONS - 1)
    await execute(database_url, WRITE, [uuid4()])
    async with await psycopg.AsyncConnection.connect(database_url) as maker:
        await maker.execute("SELECT pg_advisory_xact_lock(hashtext('okane.webhook_partitions'))")
        with pytest.raises(StoreUnavailable, match="no table partition"):
            await store.sequence()
    sequenced = await store.sequence()
    assert sequenced is not None
    assert sequenced.last == 2 * POSITIONS


async def test_an_old_partition_is_dropped_from_both_tables(store: WebhookEventStore, database_url: str) -> None:
    await full_first_partition(database_url, days=31)
    assert (await store.drop_partitions(32 * DAY, None)).partitions == []
    dropped = await store.drop_partitions(30 * DAY, None)
    assert (dropped.partitions, dropped.given_up, dropped.kept_for) == ([0], 0, ())
    assert dropped.size_bytes > 0
    assert await parts(database_url) == ["webhook_deliveries_1", "webhook_events_1"]
    assert [row.event.position for row in await store.read(0, 10)] == [POSITIONS]


async def test_the_partition_in_use_is_never_dropped(store: WebhookEventStore, database_url: str) -> None:
    await event_at(database_url, POSITIONS - 2, days=400)
    await stand_at(database_url, POSITIONS - 2)
    assert (await store.drop_partitions(DAY, 1)).partitions == []


class Behind:
    """An endpoint that has not passed the first partition."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def create(self, *, days: int, types: tuple[str, ...] = ("payment.*",)) -> UUID:
        endpoints = WebhookEndpointStore(self.url)
        endpoint = await created(endpoints, types=types)
        await endpoints.aclose()
        await full_first_partition(self.url, days=days)
        await event_at(self.url, POSITIONS - 2, days=days)
        return endpoint.id

    async def queue(self) -> tuple[int, int]:
        [(done_to, epoch)] = await fetch(self.url, "SELECT done_to, epoch FROM webhook_queues")
        return done_to, epoch


@pytest.fixture
def behind(database_url: str) -> Behind:
    return Behind(database_url)


async def test_a_partition_that_an_endpoint_needs_is_kept_for_a_week_longer(
    store: WebhookEventStore, behind: Behind
) -> None:
    endpoint_id = await behind.create(days=36)
    dropped = await store.drop_partitions(30 * DAY, None)
    assert (dropped.partitions, dropped.kept_for) == ([], [endpoint_id])
    assert (await behind.queue())[0] == 0


async def test_after_that_its_deliveries_are_given_up_and_its_owner_is_fenced(
    store: WebhookEventStore, behind: Behind
) -> None:
    endpoint_id = await behind.create(days=38)
    await execute(
        behind.url,
        "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at, next_at)"
        " VALUES (%s, %s, 'waiting', 3, now(), now())",
        [endpoint_id, POSITIONS - 1],
    )
    await lease(behind.url, endpoint_id)
    dropped = await store.drop_partitions(30 * DAY, None)
    assert (dropped.partitions, dropped.given_up) == ([0], 2)  # one waits for a retry, one was never tried
    assert await behind.queue() == (POSITIONS - 1, 2)
    # The lease that it had stays: until then its owner may begin requests.
    assert await fetch(behind.url, "SELECT owner, lease_until > now() FROM webhook_queues") == [(None, True)]
    assert (await store.drop_partitions(30 * DAY, None)).given_up == 0


async def test_a_drop_waits_for_no_queue_that_has_passed_the_partition(
    store: WebhookEventStore, behind: Behind
) -> None:
    """The writes of results lock those, many times a second."""
    await behind.create(days=38)
    endpoints = WebhookEndpointStore(behind.url)
    other = await created(endpoints, "other")
    await endpoints.aclose()
    async with await psycopg.AsyncConnection.connect(behind.url) as writing:
        await writing.execute("UPDATE webhook_queues SET failures = 0 WHERE endpoint_id = %s", [other.id])
        assert other.starts_after >= POSITIONS
        assert (await store.drop_partitions(30 * DAY, None)).partitions == [0]


async def test_events_that_an_endpoint_does_not_subscribe_to_keep_nothing(
    store: WebhookEventStore, behind: Behind
) -> None:
    await behind.create(days=31, types=("payment.failed", "webhook_endpoint.*"))
    dropped = await store.drop_partitions(30 * DAY, None)
    assert (dropped.partitions, dropped.given_up) == ([0], 0)


async def test_the_size_limit_spares_no_endpoint(store: WebhookEventStore, behind: Behind) -> None:
    await behind.create(days=1)
    size_bytes = (await store.drop_partitions(30 * DAY, None)).size_bytes
    assert (await store.drop_partitions(30 * DAY, size_bytes)).partitions == []
    dropped = await store.drop_partitions(30 * DAY, size_bytes - 1)
    assert (dropped.partitions, dropped.given_up) == ([0], 2)
    assert dropped.size_bytes < size_bytes


async def test_a_long_read_of_the_log_puts_the_drop_off(store: WebhookEventStore, database_url: str) -> None:
    await full_first_partition(database_url, days=31)
    async with await psycopg.AsyncConnection.connect(database_url) as dump:
        await dump.execute("SELECT count(*) FROM webhook_events")
        with pytest.raises(StoreBusy):
            await store.drop_partitions(30 * DAY, None)
    assert (await store.drop_partitions(30 * DAY, None)).partitions == [0]
