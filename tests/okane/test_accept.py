"""PaymentIntake against a real database and a queue that is taken away: no request waits for Redis, no row is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from okane.intake import wake_sending
from okane.intake.accept import IntakeReceipt, PaymentIntake
from okane.lanes import payments_stream
from okane.store import NewPayment, PaymentStore, SweepStore
from streams.testing import MemoryQueue
from tests.okane.stored_payments import GRACE, LEASE, new


class Silent(MemoryQueue):
    """A queue that takes requests and never answers."""

    asked = 0

    async def publish_many(self, *_: object, **__: object) -> list[str]:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(payments_stream("test"))


async def accepted(intake: PaymentIntake, new: NewPayment) -> IntakeReceipt:
    [receipt] = await intake.wake(await intake.write([new]))
    assert isinstance(receipt, IntakeReceipt)
    return receipt


async def due(database_url: str) -> set[UUID]:
    sweeps = SweepStore(database_url, grace=GRACE)
    try:
        return {
            one.payment_id for one in await sweeps.take_due(dict.fromkeys(("critical", "default", "low")), limit=10)
        }
    finally:
        await sweeps.aclose()


async def test_after_a_failed_wake_up_redis_is_left_alone_and_the_sweep_told_at_once(
    store: PaymentStore, queue: MemoryQueue, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_sending, "AWAY_S", 3600)
    intake = PaymentIntake(store=store, producer=queue)
    queue.down = True
    first = await accepted(intake, new("first"))
    queue.down = False  # it is back, but no request has tried it yet
    second = await accepted(intake, new("second"))
    assert (first.created, first.enqueued) == (True, False)
    assert (second.created, second.enqueued) == (True, False)
    assert queue.published == []
    assert await due(database_url) == {second.payment.id}  # the first waits for the sweep's cursor


async def test_redis_is_asked_again_and_used_when_it_answers(
    store: PaymentStore, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_sending, "AWAY_S", 0)
    intake = PaymentIntake(store=store, producer=queue)
    queue.down = True
    assert not (await accepted(intake, new("first"))).enqueued
    queue.down = False
    assert (await accepted(intake, new("second"))).enqueued
    monkeypatch.setattr(wake_sending, "AWAY_S", 3600)
    assert (await accepted(intake, new("third"))).enqueued


async def test_an_outage_of_redis_is_two_lines_in_the_log(
    store: PaymentStore, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_sending, "AWAY_S", 0)
    intake = PaymentIntake(store=store, producer=queue)
    with capture_logs() as lines:
        for number, down in enumerate([False, True, True, False, False]):
            queue.down = down
            await accepted(intake, new(str(number)))
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["redis_lost", "redis_back"]


async def test_a_full_lane_is_no_outage(store: PaymentStore) -> None:
    queue = MemoryQueue(payments_stream("test"), max_length=1)
    intake = PaymentIntake(store=store, producer=queue)
    lanes = ["low", "low", "critical"]
    receipts = [await accepted(intake, replace(new(str(number)), lane=lane)) for number, lane in enumerate(lanes)]
    assert [receipt.enqueued for receipt in receipts] == [True, False, True]


async def test_while_redis_is_silent_one_request_at_a_time_asks(
    store: PaymentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_sending, "WAKE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(wake_sending, "AWAY_S", 0)
    queue = Silent(payments_stream("test"))
    intake = PaymentIntake(store=store, producer=queue)
    await accepted(intake, new("finds out"))
    monkeypatch.setattr(wake_sending, "WAKE_TIMEOUT_S", 10)
    asks = asyncio.ensure_future(accepted(intake, new("asks")))
    async with asyncio.timeout(10):
        while queue.asked < 2:
            await asyncio.sleep(0.01)
    receipts = await asyncio.gather(*(accepted(intake, new(f"passes by {number}")) for number in range(5)))
    assert not any(receipt.enqueued for receipt in receipts)
    assert queue.asked == 2
    asks.cancel()
    await asyncio.wait([asks])
