"""A stop releases unfinished messages: others get them at once, and the delivery does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import Consumer, DeadLetters, Done, Draft, Inspector, Message, Outcome, Producer, Stream
from tests.streams.conftest import Connected, until
from tests.streams.running import GROUP, Running, batch_consumer, consumer, done
from tests.streams.servers import Proxy, Server
from torture.network.link_faults import LoseReplies

SHORT = timedelta(milliseconds=10)


class Long:
    """A job without end, which records its cancellation."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, message: Message) -> Outcome:
        self.seen.append(message)
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Done()


async def deploy(client: Redis, stream: Stream, job: Long, **options: Any) -> None:
    """Run a worker until it has started the job, and stop it before the job ends."""
    job.entered.clear()
    async with Running(consumer(client, stream, job, drain=SHORT, **options)), asyncio.timeout(20):
        await job.entered.wait()


async def test_handlers_that_outlast_the_drain_are_cancelled_and_another_worker_has_their_messages_at_once(
    client: Redis, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    await Producer(client, stream).publish(b"x")
    job, seen = Long(), []
    await deploy(client, stream, job)
    assert job.cancelled.is_set()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 1
    assert "1 messages in hand were not finished in time" in caplog.text

    async def handler(message: Message) -> Outcome:
        seen.append(message.deliveries)
        return Done()

    assert await consumer(client, stream, handler, name="other").run_once() == 1
    assert seen == [1]


@pytest.mark.parametrize("max_deliveries", [1, 2, 5])
async def test_however_many_deploys_there_are_during_one_long_job_it_is_not_buried(
    client: Redis, stream: Stream, max_deliveries: int
) -> None:
    await Producer(client, stream).publish(b"x")
    job = Long()
    for number in range(7):
        await deploy(client, stream, job, name=f"worker-{number}", max_deliveries=max_deliveries)
    assert [message.deliveries for message in job.seen] == [1] * 7
    assert await consumer(client, stream, done, max_deliveries=max_deliveries).run_once() == 1
    assert await DeadLetters(client, stream).count() == 0


async def test_deliveries_that_ended_in_a_crash_still_count_after_a_deploy(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")
    job = Long()
    await deploy(client, stream, job)
    [entry] = await client.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 10)
    await client.xclaim(
        stream.lane_key("critical"), GROUP, "crashed", 0, [entry["message_id"]], retrycount=3, idle=10**9
    )
    await deploy(client, stream, job)
    await deploy(client, stream, job)
    assert [message.deliveries for message in job.seen] == [1, 4, 4]


async def test_cancelling_a_consumer_hands_back_too(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)
    job = Long()
    worker = consumer(client, stream, job)
    task = asyncio.create_task(worker.run(asyncio.Event()))
    await job.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.in_flight == 0
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 3
    assert await consumer(client, stream, done, name="other").run_once() == 3


async def test_the_end_of_the_loop_hands_back_too(client: Redis, stream: Stream) -> None:
    """It cancels all tasks at once: those of handlers end before the consumer can list their messages."""
    await Producer(client, stream).publish_many([Draft(b"x")] * 3)
    job = Long()
    others = asyncio.all_tasks()
    task = asyncio.create_task(consumer(client, stream, job).run(asyncio.Event()))
    await job.entered.wait()
    for each in asyncio.all_tasks() - others:
        each.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    entries = await client.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 10)
    assert [entry["times_delivered"] for entry in entries] == [0, 0, 0]
    assert await consumer(client, stream, done, name="other").run_once() == 3


async def test_a_batch_that_is_not_finished_is_handed_back_whole(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 30)
    entered = asyncio.Event()

    async def handler(messages: object) -> Any:
        entered.set()
        await asyncio.Event().wait()

    async with Running(batch_consumer(client, stream, handler, max_batch=7, drain=SHORT)):
        await entered.wait()
    assert await consumer(client, stream, done, name="other").run_once() == 30


async def test_what_another_worker_has_taken_over_is_not_handed_back(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")
    job = Long()
    async with Running(consumer(client, stream, job, drain=SHORT)):
        await job.entered.wait()
        await client.xclaim(stream.lane_key("critical"), GROUP, "thief", 0, [job.seen[0].id])
    [entry] = await client.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 10)
    assert (entry["consumer"], entry["times_delivered"]) == (b"thief", 2)
    assert int(entry["time_since_delivered"]) < 60_000


async def test_a_handler_that_swallows_its_cancellation_keeps_no_consumer_from_stopping(
    client: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left behind. Its message is not released, since the handler still runs, and its outcome is dropped."""
    monkeypatch.setattr("streams.flights._CANCEL_GRACE_S", 0.01)
    await Producer(client, stream).publish(b"x")
    entered, release, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(message: Message) -> Outcome:
        entered.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        answered.set()
        return Done()

    worker = consumer(client, stream, handler, drain=SHORT)
    async with asyncio.timeout(20):
        async with Running(worker):
            await entered.wait()
        assert worker.in_flight == 0
        assert await consumer(client, stream, done, name="other").run_once() == 0
        release.set()
        await answered.wait()

        async def dropped() -> bool:
            return "it came too late" in caplog.text

        await until(dropped)
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 1


async def test_a_handler_that_answers_when_it_is_cancelled_is_settled(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish(b"x")
    entered = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Done()
        raise AssertionError

    async with Running(consumer(client, stream, handler, drain=SHORT)):
        await entered.wait()
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0


async def test_where_nothing_can_be_handed_back_the_consumer_stops_all_the_same(
    own_server: Callable[..., Server], connected: Connected, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    client = connected(server)
    await Producer(client, stream).publish(b"x")
    job = Long()
    worker: Consumer = consumer(client, stream, job, drain=SHORT)
    async with asyncio.timeout(20):
        async with Running(worker):
            await job.entered.wait()
            server.kill()
    assert worker.in_flight == 0
    assert "1 messages could not be handed back" in caplog.text


async def test_cancelling_a_consumer_hands_back_what_was_on_its_way(
    own_server: Callable[..., Server], connected: Connected, stream: Stream
) -> None:
    """The server has delivered it, and the reply has not arrived when the consumer is cancelled."""
    server = own_server()
    async with Proxy(server) as proxy:
        direct, client = connected(server), connected(proxy)
        worker = consumer(client, stream, done)
        await worker.run_once()
        await Producer(direct, stream).publish(b"x")
        proxy.strike(LoseReplies(after_bytes=1 << 20))
        task = asyncio.create_task(worker.run(asyncio.Event()))
        await proxy.lost()
        proxy.heal()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    [entry] = await direct.xpending_range(stream.lane_key("critical"), GROUP, "-", "+", 10)
    assert entry["times_delivered"] == 0
    assert await consumer(direct, stream, done, name="other").run_once() == 1
