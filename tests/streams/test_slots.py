"""Errors of handlers, hooks and tracers: the message follows the policy, its slot is freed, and the others continue."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import Done, Draft, Inspector, Message, Metrics, Outcome, Producer, RetryPolicy, Stream
from tests.streams.conftest import until
from tests.streams.running import GROUP, Running, batch_consumer, consumer

FAR = RetryPolicy(base=timedelta(hours=1), cap=timedelta(hours=1))


class Panic(BaseException):
    """Like pyo3's PanicException: not an Exception, and not an exit of the process."""


async def _panics() -> object:
    raise Panic("a Rust extension panicked")


async def _closes_itself() -> object:
    raise GeneratorExit


async def _stops_iterating() -> object:
    return next(iter(()))


async def _leaks_an_inner_cancellation() -> object:
    inner = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(inner.cancel)
    return await inner


async def _raises_cancelled() -> object:
    raise asyncio.CancelledError


async def _cancels_its_own_task() -> object:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return Done()


async def _times_out() -> object:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    return Done()


async def _panics_in_a_task_group() -> object:
    async with asyncio.TaskGroup() as group:
        group.create_task(_panics())
    return Done()


async def _answers_junk() -> object:
    return object()


BAD = (
    _panics,
    _closes_itself,
    _stops_iterating,
    _leaks_an_inner_cancellation,
    _raises_cancelled,
    _cancels_its_own_task,
    _times_out,
    _panics_in_a_task_group,
    _answers_junk,
)


@pytest.mark.parametrize("misbehave", BAD, ids=lambda one: one.__name__)
async def test_a_handler_that_goes_wrong_in_any_way_is_retried_and_the_messages_behind_it_are_handled(
    client: Redis, stream: Stream, misbehave: Callable[[], Any]
) -> None:
    await Producer(client, stream).publish_many([Draft(b"bad")] * 4 + [Draft(b"good")] * 20)
    good, all_good = 0, asyncio.Event()

    async def handler(message: Message) -> Any:
        nonlocal good
        if message.body == b"bad":
            return await misbehave()
        good += 1
        if good == 20:
            all_good.set()
        return Done()

    worker = consumer(client, stream, handler, concurrency=4, policy=FAR)
    async with Running(worker), asyncio.timeout(20):
        await all_good.wait()
        await until(lambda: _acked(client, stream))
    assert worker.in_flight == 0
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (stats.delayed, stats.pending, stats.depth) == (4, 0, 0)


async def _acked(client: Redis, stream: Stream) -> bool:
    return sum([await client.xlen(key) for key in stream.lane_keys]) == 0


async def _endless(messages: list[Message]) -> object:
    return itertools.repeat(Done())


async def _takes_from_its_list(messages: list[Message]) -> object:
    messages.pop()
    return [Done()] * len(messages)


async def _is_none(messages: list[Message]) -> object:
    return None


BAD_BATCHES = (_endless, _takes_from_its_list, _is_none, *BAD)


@pytest.mark.parametrize("misbehave", BAD_BATCHES, ids=lambda one: one.__name__)
async def test_a_batch_handler_that_goes_wrong_in_any_way_is_retried(
    client: Redis, stream: Stream, misbehave: Callable[..., Any]
) -> None:
    await Producer(client, stream).publish_many([Draft(b"bad")] * 3)

    async def handler(messages: Sequence[Message]) -> Any:
        return await (misbehave(messages) if misbehave in BAD_BATCHES[:3] else misbehave())

    worker = batch_consumer(client, stream, handler, policy=FAR)
    async with asyncio.timeout(20):
        assert await worker.run_once() == 3
    stats = await Inspector(client, stream, group=GROUP).stats()
    assert (worker.in_flight, stats.delayed, stats.pending) == (0, 3, 0)


@pytest.mark.parametrize("error", [ValueError("no"), Panic("no"), asyncio.CancelledError()], ids=repr)
async def test_metrics_that_raise_hold_up_no_message_and_are_logged_once(
    client: Redis, stream: Stream, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Metrics):
        def __getattribute__(self, name: str) -> Any:
            def hook(*_arguments: object) -> None:
                raise error

            return hook if not name.startswith("_") else super().__getattribute__(name)

    metrics = Broken()
    await Producer(client, stream, metrics=metrics).publish_many([Draft(b"x")] * 20)
    seen = 0

    async def handler(message: Message) -> Outcome:
        nonlocal seen
        seen += 1
        return Done()

    worker = consumer(client, stream, handler, metrics=metrics)
    async with asyncio.timeout(20):
        assert await worker.run_once() == 20
    assert (seen, worker.in_flight) == (20, 0)
    assert caplog.text.count("a bug: metrics.started raised") == 1


@pytest.mark.parametrize("at", ["call", "enter", "exit"])
async def test_a_tracer_that_raises_holds_up_no_message(client: Redis, stream: Stream, at: str) -> None:
    class Broken:
        def processing(self, messages: Sequence[Message]) -> AbstractContextManager[object]:
            if at == "call":
                raise Panic("call")
            return self._span()

        @contextmanager
        def _span(self) -> Any:
            if at == "enter":
                raise Panic("enter")
            yield
            raise Panic("exit")

    await Producer(client, stream).publish_many([Draft(b"x")] * 20)
    worker = consumer(client, stream, _done, tracer=Broken())
    async with asyncio.timeout(20):
        assert await worker.run_once() == 20
    assert worker.in_flight == 0


async def _done(message: Message) -> Outcome:
    return Done()


async def test_a_handler_that_changes_its_message_frees_its_slot(client: Redis, stream: Stream) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 8)

    async def handler(message: Any) -> Outcome:
        message.id, message.lane = "0-9", "low"
        return Done()

    worker = consumer(client, stream, handler, concurrency=8)
    async with asyncio.timeout(20):
        await worker.run_once()
    assert worker.in_flight == 0


async def test_an_exit_of_a_handler_ends_the_process_and_leaves_its_message_pending(redis_url: str) -> None:
    """sys.exit() in a handler ends the process. The message counts as delivered: if it ends workers, it is poison."""
    program = f"""
import asyncio, sys
from streams import Consumer, Producer, Stream, connect

async def main():
    client, stream = connect({redis_url!r}), Stream("exits")
    async def handler(message):
        sys.exit(7)
    await Producer(client, stream).publish(b"x")
    await Consumer(client, stream, group="g", name="c", handler=handler).run(asyncio.Event())

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(30):
        assert await child.wait() == 7
