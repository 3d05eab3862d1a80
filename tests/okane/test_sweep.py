"""The sweep against real servers: what it finds, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
import uuid_utils.compat as uuid7s
from prometheus_client import CollectorRegistry

from okane.metrics import OkaneMetrics
from okane.payment import Status
from okane.pipeline.lanes import payments_stream
from okane.pipeline.sweep import Queue, Sweep
from okane.store import PaymentStore, SweepStore
from okane.store import sweep as sweep_module
from streams import Inspector, Producer, StreamError, StreamUnavailable, connect
from tests.okane.test_store import GRACE, LEASE, claimed, new, settlement

EMPTY = {"critical": None, "default": None, "low": None}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
async def sweeps(database_url: str) -> AsyncIterator[SweepStore]:
    sweeps = SweepStore(database_url, grace=GRACE)
    yield sweeps
    await sweeps.aclose()


async def accept_aged(store: PaymentStore, url: str, key: str, *, age_s: float) -> UUID:
    """A payment accepted so long ago: its id and its times say so."""
    payment_id = (await store.accept(new(key))).payment.id
    # The 48 bits of milliseconds at the front of a uuid v7 are its time (RFC 9562).
    aged = UUID(int=payment_id.int - (int(age_s * 1000) << 80))
    await execute(
        url,
        "UPDATE payments SET id = %s, created_at = created_at - %s * interval '1 second' WHERE id = %s",
        [aged, age_s, payment_id],
    )
    return aged


async def execute(url: str, statement: str, parameters: list[object]) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, parameters)


async def due(sweeps: SweepStore) -> set[UUID]:
    return {one.payment_id for one in await sweeps.take_due(limit=100)}


async def test_a_lost_wake_up_is_found_after_the_grace(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    old = await accept_aged(store, database_url, "old", age_s=11)
    await accept_aged(store, database_url, "young", age_s=5)
    assert (await sweeps.mark_lost(EMPTY)).lost == 1
    assert await due(sweeps) == {old}
    assert await due(sweeps) == set()  # pushed back


async def test_what_may_still_be_in_its_lane_is_left_alone(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    await accept_aged(store, database_url, "queued", age_s=60)
    lost = await accept_aged(store, database_url, "lost", age_s=120)
    ages = EMPTY | {"low": timedelta(seconds=70)}  # the lane's oldest entry is younger than the lost one
    assert (await sweeps.mark_lost(ages)).lost == 1
    assert await due(sweeps) == {lost}
    other_lane = EMPTY | {"critical": timedelta(seconds=500)}
    assert (await sweeps.mark_lost(other_lane)).lost == 1


async def test_a_claimed_payment_is_swept_after_its_lease(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    await claimed(store, payment_id)
    assert (await sweeps.mark_lost(EMPTY)).lost == 1
    assert await due(sweeps) == set()
    await execute(database_url, "UPDATE payments SET sweep_at = now(), lease_until = now() WHERE id = %s", [payment_id])
    assert await due(sweeps) == {payment_id}


async def test_settled_payments_are_passed_for_good(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment))
    assert (await sweeps.mark_lost(EMPTY)).lost == 0
    assert await due(sweeps) == set()


async def test_nothing_is_ever_behind_the_cursor_and_unmarked(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    """A payment whose id is older than the cursor (a skewed clock, a batch that waited) is marked when it is written."""
    await accept_aged(store, database_url, "first", age_s=20)
    await sweeps.mark_lost(EMPTY)
    real = uuid7s.uuid7
    skewed = UUID(int=real().int - (300_000 << 80))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid7s, "uuid7", lambda: skewed)
        patch.setattr("time.time", lambda: 0.0)
        await store.accept(new("late"))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT sweep_at IS NOT NULL FROM payments WHERE id = %s", [skewed])
        assert await cursor.fetchone() == (True,)


async def test_an_open_transaction_holds_the_cursor_back(
    store: PaymentStore, sweeps: SweepStore, database_url: str
) -> None:
    """Its payment is not visible yet, and must not be passed."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("CREATE TEMP TABLE writing (x int)")  # takes a transaction id
        await accept_aged(store, database_url, "k", age_s=5)
        patient = SweepStore(database_url, grace=timedelta(seconds=1))
        assert (await patient.mark_lost(EMPTY)).lost == 1  # five seconds are before the transaction began
        await patient.aclose()
        late = SweepStore(database_url, grace=timedelta(0))
        young = await store.accept(new("young"))
        await asyncio.sleep(0.01)
        assert (await late.mark_lost(EMPTY)).lost == 0
        await connection.rollback()
        assert (await late.mark_lost(EMPTY)).lost == 1
        assert young.payment.id in await due(late)
        await late.aclose()


async def test_a_long_backlog_is_passed_in_windows(
    store: PaymentStore, sweeps: SweepStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "WINDOW", 7)
    ids = {await accept_aged(store, database_url, f"k{number}", age_s=20 + number) for number in range(30)}
    marked, rounds = 0, 0
    while True:
        found = await sweeps.mark_lost(EMPTY)
        marked, rounds = marked + found.lost, rounds + 1
        if not found.more:
            break
    assert (marked, rounds > 4) == (30, True)
    assert await due(sweeps) == ids


async def test_only_one_process_marks_at_a_time(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    await accept_aged(store, database_url, "k", age_s=20)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('okane.sweep'))")
        assert await sweeps.mark_lost(EMPTY) == sweep_module.Marked(lost=0, more=False)
        await connection.rollback()
    assert (await sweeps.mark_lost(EMPTY)).lost == 1


async def test_each_look_comes_later_than_the_last(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    await sweeps.mark_lost(EMPTY)
    waits = []
    for _ in range(7):
        await execute(database_url, "UPDATE payments SET sweep_at = now() WHERE id = %s", [payment_id])
        assert await due(sweeps) == {payment_id}
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            cursor = await connection.execute("SELECT extract(epoch FROM sweep_at - now())::float8 FROM payments")
            row = await cursor.fetchone()
            assert row is not None
            waits.append(round(row[0]))
    assert waits == [10, 20, 40, 80, 160, 300, 300]


async def test_the_oldest_due_payment_is_known(store: PaymentStore, sweeps: SweepStore, database_url: str) -> None:
    assert await sweeps.oldest_due() == timedelta(0)
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    assert timedelta(seconds=20) <= await sweeps.oldest_due() < timedelta(seconds=25)
    claim = await claimed(store, payment_id)
    assert await sweeps.oldest_due() == timedelta(0)
    await store.settle(settlement(claim.payment, Status.UNKNOWN, delay=timedelta(0)))
    await execute(
        database_url, "UPDATE payments SET retry_at = now() - interval '7 seconds' WHERE id = %s", [payment_id]
    )
    assert timedelta(seconds=7) <= await sweeps.oldest_due() < timedelta(seconds=12)
    assert (await sweeps.off_path())[Status.UNKNOWN] == 1
    assert await sweeps.counts() == {Status.UNKNOWN: 1}


async def test_a_sweep_puts_lost_payments_back_on_their_lane(
    store: PaymentStore, sweeps: SweepStore, database_url: str, redis_url: str
) -> None:
    await accept_aged(store, database_url, "k", age_s=20)
    stream = payments_stream(f"test-{uuid4()}")
    metrics = OkaneMetrics(CollectorRegistry())
    async with connect(redis_url) as redis:
        producer = Producer(redis, stream)
        room = 10

        async def queue() -> Queue:
            return Queue(EMPTY, room)

        sweep = Sweep(store=sweeps, producer=producer, queue=queue, interval=timedelta(seconds=1), metrics=metrics)
        room = 0
        assert await sweep.run_once() == 0  # a full queue: nothing is pushed back either
        room = 10
        assert await sweep.run_once() == 1
        stats = await Inspector(redis, stream, group="workers").stats()
        assert {lane.lane: lane.length for lane in stats.lanes} == {"critical": 0, "default": 0, "low": 1}
        await producer.aclose()
    assert metrics.registry.get_sample_value("okane_sweep_repairs_total", {"lane": "low"}) == 1


async def test_while_redis_is_away_nothing_is_pushed_back(
    store: PaymentStore, sweeps: SweepStore, database_url: str, redis_url: str
) -> None:
    payment_id = await accept_aged(store, database_url, "k", age_s=20)
    await sweeps.mark_lost(EMPTY)

    async def queue() -> Queue:
        raise StreamUnavailable("away")

    async with connect(redis_url) as redis:
        producer = Producer(redis, payments_stream(f"test-{uuid4()}"))
        metrics = OkaneMetrics(CollectorRegistry())
        sweep = Sweep(store=sweeps, producer=producer, queue=queue, interval=timedelta(seconds=1), metrics=metrics)
        with pytest.raises(StreamError):
            await sweep.run_once()
        await producer.aclose()
    assert await due(sweeps) == {payment_id}
