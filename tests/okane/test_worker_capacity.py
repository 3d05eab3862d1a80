"""A worker that can use no provider: no wake-up is sent, nothing is run directly, and all of it goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.app.system_metrics import SystemMetrics
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.store import PaymentStore, SweepStore, WakeUp
from okane.worker.direct_run import DirectRuns
from okane.worker.sweep import LaneState, Sweep
from streams import Done, Inspector, Message, Outcome, Producer, Stream, StreamUnavailable, connect
from tests.okane.lane_states import EMPTY
from tests.okane.stored_payments import GRACE, LEASE, accept_one, execute, new

GROUP = "workers"


class Worker:
    """The sweep and the direct runs of a worker, whose handler only notes the payments, and whose capacity a test sets."""

    def __init__(self, database_url: str, producer: Producer, stream_is_there: bool) -> None:
        self.capacity = 0
        self.ran: list[UUID] = []
        self.let_go = asyncio.Event()
        metrics = OkaneMetrics(CollectorRegistry())
        self.direct = DirectRuns(self._handle, concurrency=8, metrics=metrics, capacity=lambda: self.capacity)
        self.store = SweepStore(database_url, grace=GRACE)
        self._stream_is_there = stream_is_there
        self.sweep = Sweep(
            store=self.store,
            producer=producer,
            direct=self.direct,
            lanes=self._lanes,
            interval=timedelta(seconds=1),
            metrics=metrics,
        )

    async def _handle(self, message: Message) -> Outcome:
        self.ran.append(UUID(bytes=message.body))
        await self.let_go.wait()
        return Done()

    async def _lanes(self) -> Mapping[str, LaneState]:
        if not self._stream_is_there:
            raise StreamUnavailable("away")
        return {name: LaneState(oldest_entry=None, room=100) for name in EMPTY}


@pytest.fixture
async def due(database_url: str) -> list[UUID]:
    """Payments that are due for the sweep."""
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    ids = [(await accept_one(store, new(f"k-{number}"))).payment.id for number in range(3)]
    await execute(database_url, "UPDATE payments SET sweep_at = now()", [])
    await store.aclose()
    return ids


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[tuple[Producer, Stream, Inspector]]:
    stream = payments_stream(f"test-{uuid4()}")
    async with connect(redis_url) as redis:
        one = Producer(redis, stream)
        yield one, stream, Inspector(redis, stream, group=GROUP)
        await one.aclose()


async def entries(inspector: Inspector) -> int:
    return sum(lane.length for lane in (await inspector.stats()).lanes)


async def test_no_wake_up_is_sent_that_nothing_can_be_done_for(
    database_url: str, due: list[UUID], producer: tuple[Producer, Stream, Inspector]
) -> None:
    worker = Worker(database_url, producer[0], stream_is_there=True)
    for _ in range(3):
        assert await worker.sweep.run_once() == 0
    assert await entries(producer[2]) == 0
    worker.capacity = 1
    assert await worker.sweep.run_once() == 3
    assert await entries(producer[2]) == 3
    await worker.store.aclose()


async def test_nothing_is_run_directly_either_while_redis_is_away(
    database_url: str, due: list[UUID], producer: tuple[Producer, Stream, Inspector]
) -> None:
    worker = Worker(database_url, producer[0], stream_is_there=False)
    assert await worker.sweep.run_once() == 0
    assert worker.ran == []
    worker.capacity = 2
    worker.let_go.set()
    async with asyncio.timeout(20):
        while len(worker.ran) < 3:
            await worker.sweep.run_once()
            await asyncio.sleep(0)
    assert sorted(worker.ran) == sorted(due)
    await worker.direct.drain(timedelta(seconds=5))
    await worker.store.aclose()


async def test_no_more_run_directly_than_the_capacity(
    database_url: str, producer: tuple[Producer, Stream, Inspector]
) -> None:
    worker = Worker(database_url, producer[0], stream_is_there=False)
    some = [WakeUp(uuid4(), "low") for _ in range(5)]
    worker.direct.start(some)
    assert (worker.direct.free, worker.direct.may_run, worker.ran) == (0, False, [])
    await worker.direct.wait_for_room()  # nothing runs: there is nothing to wait for
    worker.capacity = 2
    worker.direct.start(some)
    await asyncio.sleep(0)
    assert (worker.direct.free, worker.direct.may_run, len(worker.ran)) == (0, True, 2)
    worker.let_go.set()
    await worker.direct.drain(timedelta(seconds=5))


def test_the_switch_of_every_provider_is_shown_and_forgotten_while_postgres_is_away() -> None:
    registry = CollectorRegistry()
    system = SystemMetrics(registry)
    system.set_providers([("p", "drain", False), ("q", "on", True)])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert [value("okane_provider_mode", provider="p", mode=mode) for mode in ("on", "drain", "off")] == [0, 1, 0]
    assert value("okane_provider_mode", provider="q", mode="on") == 1
    assert value("okane_provider_circuit_open", provider="q", level="shared") == 1
    assert value("okane_provider_circuit_open", provider="p", level="shared") == 0
    system.forget_waiting()
    assert value("okane_provider_mode", provider="q", mode="on") is None
