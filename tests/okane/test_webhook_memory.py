"""The memory of a dispatcher: long metadata is in no queue, and the others have a limit by bytes, each and in all."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from okane.errors import StoreUnavailable
from okane.store.webhook_events import EventRow, WebhookEventStore
from okane.webhooks.long_metadata import AT_ONCE, LongMetadata
from okane.webhooks.memory import FEW, MAX_EVENT_BYTES, Memory, QueueMemory, event_bytes
from okane.webhooks.queue import BUFFER
from tests.okane.dispatching import DispatchDesk, change, dispatch_desk, fetch_named, payments, serves, until
from tests.okane.test_webhook_payload import ROW
from tests.okane.webhook_queues import OK, begin_all, event, offer, queue
from tests.okane.webhook_receiver import receiving

# By jsonb, the second one is small: compressed.
LONG = (
    {f"key {n}": random.Random(n).randbytes(500).hex()[:500] for n in range(50)},
    {"order": "x" * 500, "b": "y" * 9000},
)
SMALL = {"order": "7"}


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[DispatchDesk]:
    async with receiving() as receiver, dispatch_desk(database_url, receiver) as desk:
        yield desk


async def give(desk: DispatchDesk, id_: object, metadata: dict[str, str]) -> None:
    statement = "UPDATE payments SET metadata = %(metadata)s::jsonb WHERE id = %(id)s"
    await fetch_named(desk.url, statement, {"id": id_, "metadata": json.dumps(metadata)})


async def test_reads_of_a_dispatcher_leave_long_metadata_out(desk: DispatchDesk) -> None:
    await desk.endpoint()
    ids = payments(3)
    for id_, metadata in zip(ids, (*LONG, SMALL), strict=True):
        await change(desk.url, [id_])
        await give(desk, id_, metadata)
    events = WebhookEventStore(desk.url)
    await events.sequence()
    short, whole = [None, None, SMALL], [*LONG, SMALL]
    assert [row.metadata for row in await events.read(0, 10)] == short
    assert [row.metadata for row in (await events.read_account("default", 0, 10)).rows] == short
    assert [row.metadata for row in await events.get_many([1, 2, 3])] == short
    assert [row.metadata for row in await events.get_whole([1, 2, 3])] == whole
    assert [row.metadata for row in (await events.page("default", 0, 10)).rows] == whole
    assert [row.metadata for row in (await events.page("default", 0, 10, None, ids[0])).rows] == whole[:1]
    row = await events.get("default", f"evt_{ids[0].hex}_2")
    assert row is not None
    assert row.metadata == LONG[0]
    await events.aclose()


async def test_long_metadata_is_delivered_and_waits_in_no_queue(desk: DispatchDesk) -> None:
    desk.receiver.answers = 500
    endpoint = await desk.endpoint(max_in_flight=1)
    running = await desk.dispatch()
    await until(lambda: serves(running, 1))
    ids = payments(4)
    for id_ in ids:  # before its event
        await change(desk.url, [id_], account_id="another")
        await give(desk, id_, LONG[0])
        await fetch_named(desk.url, "UPDATE payments SET account_id = 'default' WHERE id = %(id)s", {"id": id_})
    await change(desk.url, ids, version=3)
    await desk.receiver.until(1)
    served = running.dispatcher.queues.get(endpoint.id)
    assert served is not None
    assert served.queue.memory.used_bytes == 4 * event_bytes(None)
    desk.receiver.answers = 200
    await until(lambda: desk.has_rows(4))
    await fetch_named(desk.url, "UPDATE webhook_deliveries SET next_at = now() WHERE next_at IS NOT NULL", {})
    await desk.wake(endpoint)
    await desk.at_rest()
    sent = [json.loads(one.body)["data"]["payment"]["metadata"] for one in desk.receiver.received]
    assert sent == [LONG[0]] * len(sent)
    assert served.queue.memory.used_bytes == running.dispatcher.queues.memory.used_bytes == 0


class Whole:
    """A store that has every event, and notes its reads."""

    def __init__(self) -> None:
        self.reads: list[Sequence[int]] = []
        self.is_away = False

    async def get_whole(self, positions: Sequence[int]) -> Sequence[EventRow]:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        self.reads.append(positions)
        return [ROW] if ROW.event.position in positions else []


async def test_events_that_begin_together_share_a_bounded_read() -> None:
    store = Whole()
    long = LongMetadata(store)
    assert await asyncio.gather(*[long.whole(ROW) for _ in range(2 * AT_ONCE)]) == [ROW] * (2 * AT_ONCE)
    assert store.reads == [[ROW.event.position]] * 2


async def test_an_event_that_cannot_be_read_stays_and_is_not_asked_for_in_a_loop() -> None:
    store = Whole()
    long = LongMetadata(store, away_s=0.2)
    store.is_away = True
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await long.whole(ROW)
    assert time.monotonic() - began_s > 0.1  # the loop's timers are exact to a millisecond
    store.is_away = False
    assert await long.whole(ROW) is ROW
    with pytest.raises(LookupError):
        await long.whole(replace(ROW, event=replace(ROW.event, position=ROW.event.position + 1)))


def test_the_memory_of_an_event_counts_its_strings() -> None:
    widest = {f"{n:02}" + "k" * 10: "\U0001f600" + "v" * 28 for n in range(50)}  # 2 kB, and four bytes a letter
    assert event_bytes(None) < event_bytes(SMALL) < event_bytes(widest) <= MAX_EVENT_BYTES
    assert event_bytes({"k": "\U0001f600" + "v" * 2040}) <= MAX_EVENT_BYTES


def test_a_queue_of_large_events_reads_fewer_of_them() -> None:
    one = queue(memory=QueueMemory(Memory(), 10 * MAX_EVENT_BYTES))
    assert one.room == 10
    offer(one, *(event(position, size=MAX_EVENT_BYTES) for position in range(1, 11)))
    assert (one.room, one.retry_room) == (0, FEW)
    for begun in begin_all(one):
        one.finish(begun, OK, 0.0)
    assert one.room == 8
    assert queue().room == BUFFER


def test_full_queues_leave_a_few_places_to_every_other_one() -> None:
    whole = Memory(20 * MAX_EVENT_BYTES)
    full, other = (queue(memory=QueueMemory(whole)) for _ in range(2))
    offer(full, *(event(position, size=MAX_EVENT_BYTES) for position in range(1, 21)))
    assert (full.room, other.room, other.retry_room) == (0, FEW, FEW)
    offer(other, event(1, size=MAX_EVENT_BYTES))
    assert other.room == 0
    assert other.memory.is_short
    full.memory.close()
    for begun in begin_all(full):  # what was in flight when the queue was left counts no more
        full.finish(begun, OK, 0.0)
    assert whole.used_bytes == MAX_EVENT_BYTES
    assert other.room == 19
