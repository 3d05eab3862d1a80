"""The log of events: positions for what the outbox holds, whatever transactions are open meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.errors import StoreUnavailable
from okane.store.webhook_events import FARTHEST, Sequenced, WebhookEventStore
from tests.okane.stored_payments import execute

WRITE = (
    "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
    " VALUES (ARRAY[%s::uuid], ARRAY[%s::integer], %s, 'payment.succeeded')"
)
LOG = "SELECT position, payment_id, version, account_id, type FROM webhook_events ORDER BY position"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[WebhookEventStore]:
    store = WebhookEventStore(database_url)
    yield store
    await store.aclose()


async def rows(url: str, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await (await connection.execute(query.encode(), parameters or None)).fetchall()


async def changed(url: str, payment_id: UUID, *versions: int, account_id: str = "default") -> None:
    for version in versions:
        await execute(url, WRITE, [payment_id, version, account_id])


async def positions(url: str) -> list[tuple[Any, ...]]:
    return [row[:3] for row in await rows(url, LOG)]


async def test_what_was_committed_gets_dense_positions_and_leaves_the_outbox(
    store: WebhookEventStore, database_url: str
) -> None:
    one, other = uuid4(), uuid4()
    await changed(database_url, one, 2)
    assert (await sequenced(store)).by_type == {"payment.succeeded": 1}
    await changed(database_url, other, 2)
    await changed(database_url, one, 3)
    found = await sequenced(store)
    assert (found.last, found.count) == (3, 2)
    assert 0 < found.oldest_s < 60
    assert await positions(database_url) == [(1, one, 2), (2, other, 2), (3, one, 3)]
    assert await rows(database_url, "SELECT FROM webhook_outbox") == []
    assert await sequenced(store) == Sequenced(3, {})


async def sequenced(store: WebhookEventStore) -> Sequenced:
    found = await store.sequence()
    assert found is not None
    return found


async def test_an_empty_outbox_costs_no_transaction_id(store: WebhookEventStore, database_url: str) -> None:
    await sequenced(store)
    before = await rows(database_url, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    for _ in range(20):
        assert await sequenced(store) == Sequenced(0, {})
    assert await rows(database_url, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text") == before


async def test_an_open_transaction_delays_no_other_event_and_its_own_come_later(
    store: WebhookEventStore, database_url: str
) -> None:
    held, other, later = uuid4(), uuid4(), uuid4()
    async with await psycopg.AsyncConnection.connect(database_url) as open_one:
        await open_one.execute(WRITE, [held, 2, "default"])
        await changed(database_url, other, 2)
        assert (await sequenced(store)).last == 1
        assert (await sequenced(store)).count == 0
        await changed(database_url, later, 2)
        assert (await sequenced(store)).last == 2
        await open_one.commit()
    assert (await sequenced(store)).last == 3
    assert await positions(database_url) == [(1, other, 2), (2, later, 2), (3, held, 2)]


async def test_a_transaction_that_is_rolled_back_leaves_no_gap(store: WebhookEventStore, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as lost:
        await lost.execute(WRITE, [uuid4(), 2, "default"])
        await changed(database_url, uuid4(), 2)
        assert (await sequenced(store)).last == 1
        await lost.rollback()
    await changed(database_url, uuid4(), 2)
    assert (await sequenced(store)).last == 2
    assert [row[0] for row in await positions(database_url)] == [1, 2]


async def test_a_lower_transaction_id_may_carry_the_higher_version(store: WebhookEventStore, database_url: str) -> None:
    """The first transaction has its id before it waits for the row; the second writes the row before it."""
    payment_id, other = uuid4(), uuid4()
    await execute(database_url, "CREATE TABLE hot (id uuid PRIMARY KEY, version integer)", [])
    await execute(database_url, "INSERT INTO hot VALUES (%s, 1)", [payment_id])
    bump = "UPDATE hot SET version = version + 1 WHERE id = %s RETURNING version"
    async with (
        await psycopg.AsyncConnection.connect(database_url) as first,
        await psycopg.AsyncConnection.connect(database_url) as second,
    ):
        await first.execute(WRITE, [other, 2, "default"])
        await second.execute(bump, [payment_id])
        await second.execute(WRITE, [payment_id, 2, "default"])
        waiting = asyncio.create_task(first.execute(bump, [payment_id]))
        await until_waiting(database_url)
        await second.commit()
        await waiting
        assert (await sequenced(store)).last == 1
        await first.execute(WRITE, [payment_id, 3, "default"])
        await first.commit()
    await sequenced(store)
    of_it = [row for row in await positions(database_url) if row[1] == payment_id]
    assert of_it == [(1, payment_id, 2), (3, payment_id, 3)]


async def until_waiting(url: str) -> None:
    """Wait until a session of this database waits for a lock."""
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(60):
        while not await rows(url, waits):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("count", [2, 256, 3_000])
async def test_the_changes_of_one_outbox_row_get_a_place_each_in_the_order_of_versions(
    store: WebhookEventStore, database_url: str, count: int
) -> None:
    payments = [uuid4() for _ in range(count // 2)]
    row = "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type) VALUES (%s, %s, 'a', 'payment.failed')"
    await execute(database_url, row, [[*payments, *payments], [3] * len(payments) + [2] * len(payments)])
    assert (await sequenced(store)).by_type == {"payment.failed": count}
    found = await positions(database_url)
    assert [position for position, _, _ in found] == list(range(1, count + 1))
    assert [version for _, _, version in found] == [2] * len(payments) + [3] * len(payments)
    assert [one for _, one, _ in found] == sorted(payments) * 2


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_transactions_are_listed_once_densely_and_in_order(
    store: WebhookEventStore, database_url: str, seed: int
) -> None:
    """Writers take versions of hot payments under their row locks; some hold their transactions open, some roll back."""
    dice = random.Random(seed)
    payments = [uuid4() for _ in range(6)]
    await execute(database_url, "CREATE TABLE hot (id uuid PRIMARY KEY, version integer)", [])
    for payment_id in payments:
        await execute(database_url, "INSERT INTO hot VALUES (%s, 1)", [payment_id])
    written: list[tuple[UUID, int]] = []

    async def write(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            for _ in range(25):
                done: list[tuple[UUID, int]] = []
                await connection.execute("SELECT pg_current_xact_id()")  # before it waits for any row
                for payment_id in sorted(dice.sample(payments, dice.randint(1, 3))):
                    cursor = await connection.execute(
                        "UPDATE hot SET version = version + 1 WHERE id = %s RETURNING version", [payment_id]
                    )
                    row = await cursor.fetchone()
                    assert row is not None
                    await connection.execute(WRITE, [payment_id, row[0], f"account-{number % 2}"])
                    done.append((payment_id, row[0]))
                    await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01)))
                if dice.random() < 0.1:
                    await connection.rollback()
                else:
                    await connection.commit()
                    written.extend(done)

    writing = asyncio.gather(*(write(number) for number in range(8)))
    others = [WebhookEventStore(database_url) for _ in range(2)]
    try:
        while not writing.done():
            await asyncio.gather(*(one.sequence() for one in (store, *others)))
            await asyncio.sleep(0.001)
        await writing
        await store.sequence()
    finally:
        for one in others:
            await one.aclose()
    log = await positions(database_url)
    assert [row[0] for row in log] == list(range(1, len(written) + 1))
    assert sorted((row[1], row[2]) for row in log) == sorted(written)
    for payment_id in payments:
        versions = [row[2] for row in log if row[1] == payment_id]
        assert versions == sorted(versions)
    assert await rows(database_url, "SELECT FROM webhook_outbox") == []


async def test_one_process_sequences_at_a_time(store: WebhookEventStore, database_url: str) -> None:
    await changed(database_url, uuid4(), 2)
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('okane.webhook_sequencer'))")
        assert await store.sequence() is None
    assert (await sequenced(store)).last == 1


async def test_a_dump_loaded_into_another_server_loses_and_repeats_nothing(
    store: WebhookEventStore, database_url: str
) -> None:
    """Its outbox and its snapshot have transaction ids of the future, or of the past; this server's rows come between."""
    listed, waiting, new = uuid4(), uuid4(), uuid4()
    await changed(database_url, listed, 2)
    await sequenced(store)
    await execute(
        database_url,
        "INSERT INTO webhook_outbox (xid, payment_ids, versions, account_id, type) VALUES"
        " ('9000000', ARRAY[%s::uuid], '{2}', 'default', 'payment.succeeded'),"
        " ('3', ARRAY[%s::uuid], '{3}', 'default', 'payment.failed')",
        [waiting, waiting],
    )
    await execute(database_url, "UPDATE webhook_sequencer SET seen = '8000000:9000001:8000500', server = 7", [])
    await changed(database_url, new, 2)
    assert (await sequenced(store)).last == 4
    assert {(row[1], row[2]) for row in await positions(database_url)} == {
        (listed, 2),
        (waiting, 2),
        (waiting, 3),
        (new, 2),
    }
    assert await rows(database_url, "SELECT FROM webhook_outbox") == []
    await changed(database_url, new, 3)
    assert (await sequenced(store)).last == 5
    assert (await positions(database_url))[-1] == (5, new, 3)


async def test_the_newest_position_is_found_at_once_behind_dead_rows(
    store: WebhookEventStore, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as old_snapshot:
        await old_snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await old_snapshot.execute("SELECT count(*) FROM webhook_sequencer")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as writer:
            for _ in range(200):
                await writer.execute(WRITE, [uuid4(), 2, "default"])
                await sequenced(store)
        [(plan,)] = await rows(
            database_url,
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT last FROM webhook_sequencer ORDER BY last DESC LIMIT 1",
        )
    assert plan[0]["Plan"]["Shared Hit Blocks"] <= 4
    assert await store.last_position() == 200


async def test_reads_are_of_one_account_and_stop_at_what_is_visible(
    store: WebhookEventStore, database_url: str
) -> None:
    ids = [uuid4() for _ in range(6)]
    for number, payment_id in enumerate(ids):
        await changed(database_url, payment_id, 2, account_id=f"account-{number % 2}")
    await sequenced(store)
    page = await store.read_account("account-0", 0, 2)
    assert [row.event.payment_id for row in page.rows] == [ids[0], ids[2]]
    assert page.reached == 3
    page = await store.read_account("account-0", page.reached, 2)
    assert [row.event.payment_id for row in page.rows] == [ids[4]]
    assert page.reached == 6
    assert await store.read_account("account-0", 6, 2, up_to=FARTHEST) == type(page)([], 6)
    assert [row.event.position for row in await store.read(2, 3)] == [3, 4, 5]
    assert [row.event.position for row in await store.get_many([5, 1, 99])] == [1, 5]


async def test_a_role_with_rights_on_rows_alone_sequences_and_reads(
    database_url: str,
) -> None:
    """Making and dropping table partitions takes their owner."""
    grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain"
    await execute(database_url, "CREATE ROLE plain LOGIN PASSWORD 'plain'", [])
    store = WebhookEventStore(re.sub(r"//[^@]*@", "//plain:plain@", database_url))
    try:
        await execute(database_url, grants, [])
        await changed(database_url, uuid4(), 2)
        assert (await sequenced(store)).last == 1
        assert len(await store.read(0, 10)) == 1
        with pytest.raises(StoreUnavailable, match="permission denied"):
            await store.prepare_partitions()
    finally:
        await store.aclose()
        await execute(database_url, "DROP OWNED BY plain", [])
        await execute(database_url, "DROP ROLE plain", [])


async def test_an_outbox_that_takes_longer_than_the_deadline_is_emptied_all_the_same(database_url: str) -> None:
    fill = (
        "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
        " SELECT ARRAY[gen_random_uuid()], '{2}', 'default', 'x'"
    )
    await execute(database_url, f"{fill} FROM generate_series(1, 100000)", [])
    store = WebhookEventStore(database_url, timeout=timedelta(milliseconds=250))
    try:
        assert (await sequenced(store)).last == 100_000
    finally:
        await store.aclose()
    assert await rows(database_url, "SELECT FROM webhook_outbox") == []
