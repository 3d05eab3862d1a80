"""The follow-up of notices: wake-ups for what came during a claim, outages, and old notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from okane.errors import StoreUnavailable
from okane.lanes import payments_stream
from okane.payment import Status
from okane.store import ProviderEventStore, WakeUp
from okane.worker import notice_follow_up
from okane.worker.notice_follow_up import NoticeFollowUp
from streams.testing import MemoryQueue
from tests.okane.notice_books import STRIPE, Books, books, event, take_one
from tests.okane.stored_payments import execute, settlement

__all__ = ["books"]


def memory_queue() -> MemoryQueue:
    return MemoryQueue(payments_stream("test"))


def follow_up(events: object, queue: MemoryQueue) -> NoticeFollowUp:
    return NoticeFollowUp(events=cast("ProviderEventStore", events), producer=queue, interval=timedelta(milliseconds=1))


async def noticed_before_its_settle(books: Books) -> UUID:
    """Make a payment that waits for the provider, whose notice came while it was in work."""
    payment = await books.payment(Status.PROCESSING)
    await take_one(books, event(payment.id))
    await books.payments.settle(settlement(payment, Status.SUBMITTED, provider=STRIPE, delay=timedelta(hours=1)))
    return payment.id


async def test_a_payment_that_was_noticed_before_its_settle_gets_one_wake_up(books: Books) -> None:
    payment_id, queue = await noticed_before_its_settle(books), memory_queue()
    duty = follow_up(books.events, queue)
    assert [await duty.run_once() for _ in range(2)] == [1, 0]
    assert [(message.body, message.lane) for message in queue.published] == [(payment_id.bytes, "low")]


async def test_while_redis_is_away_the_sweep_sends_the_wake_up(books: Books) -> None:
    payment_id, queue = await noticed_before_its_settle(books), memory_queue()
    queue.down = True
    assert await follow_up(books.events, queue).run_once() == 1
    assert queue.published == []
    await execute(books.url, "UPDATE payments SET sweep_at = sweep_at - interval '10 s'", [])
    assert await books.due() == {payment_id}


async def test_two_workers_wake_a_payment_once(books: Books) -> None:
    await noticed_before_its_settle(books)
    other = ProviderEventStore(books.url, grace=timedelta(seconds=10))
    queue = memory_queue()
    woken = await asyncio.gather(follow_up(books.events, queue).run_once(), follow_up(other, queue).run_once())
    await other.aclose()
    assert sum(woken) >= 1  # twice at worst: the claim refuses the second
    assert await books.open_events() == set()


async def test_notices_of_a_month_ago_are_deleted_and_younger_ones_kept(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice_follow_up, "DELETED_AT_ONCE", 2)
    await books.events.take(STRIPE, [event(None, f"evt_{number}") for number in range(8)])
    old = "UPDATE provider_events SET received_at = now() - interval '30 d 1 s' WHERE event_id < 'evt_5'"
    await execute(books.url, old, [])
    duty = follow_up(books.events, memory_queue())
    assert [await duty.delete_old() for _ in range(2)] == [5, 0]
    assert len(await books.rows("SELECT 1 FROM provider_events")) == 3


async def test_a_round_of_deletions_is_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_follow_up, "DELETED_AT_ONCE", 2)
    monkeypatch.setattr(notice_follow_up, "MOST_DELETED", 4)
    await books.events.take(STRIPE, [event(None, f"evt_{number}") for number in range(8)])
    await execute(books.url, "UPDATE provider_events SET received_at = now() - interval '31 d'", [])
    assert await follow_up(books.events, memory_queue()).delete_old() == 4


@dataclass
class Failing:
    """A store that fails at first, and then has one wake-up."""

    errors: list[Exception]
    stop: asyncio.Event
    passes: int = 0
    deletions: list[timedelta] = field(default_factory=list)

    async def wake_noticed(self) -> list[WakeUp]:
        self.passes += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.passes > 4:
            self.stop.set()
        return [WakeUp(uuid4(), "low")]

    async def delete_old(self, older_than: timedelta, *, limit: int) -> int:
        self.deletions.append(older_than)
        return 0


@pytest.mark.parametrize(
    ("error", "logged"), [(lambda: StoreUnavailable("away"), []), (lambda: KeyError("bug"), ["notices_failed"])]
)
async def test_it_goes_on_after_an_outage_and_after_a_bug(error: Callable[[], Exception], logged: list[str]) -> None:
    stop, queue = asyncio.Event(), memory_queue()
    events = Failing([error(), error()], stop)
    with capture_logs() as lines:
        async with asyncio.timeout(20):
            await follow_up(events, queue).run(stop)
    assert len(queue.published) == events.passes - 2
    assert [line["event"] for line in lines if line["log_level"] == "error"] == logged * 2
    assert events.deletions == [timedelta(days=30)]  # once an hour
