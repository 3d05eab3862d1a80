"""The tracer surrounds every handler, with the published context, through retries, take-overs and replays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from redis.asyncio import Redis

from streams import Dead, DeadLetters, Delayed, Done, Draft, Message, Outcome, Producer, Retry, Stream
from tests.streams.abandoned import abandon
from tests.streams.conftest import until
from tests.streams.running import batch_consumer, consumer, done

CONTEXT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class Watching:
    """A tracer that records its calls."""

    def __init__(self) -> None:
        self.around: list[tuple[Sequence[bytes], Sequence[Mapping[str, str]]]] = []
        self.inside = False

    @contextmanager
    def processing(self, messages: Sequence[Message]) -> Iterator[None]:
        self.around.append(([message.body for message in messages], [message.headers for message in messages]))
        self.inside = True
        yield
        self.inside = False


async def test_it_stands_around_the_handler(client: Redis, stream: Stream) -> None:
    watching, inside = Watching(), []

    async def handler(message: Message) -> Outcome:
        inside.append(watching.inside)
        return Done()

    await Producer(client, stream).publish(b"one", headers=CONTEXT)
    await consumer(client, stream, handler, tracer=watching).run_once()
    assert watching.around == [([b"one"], [CONTEXT])]
    assert inside == [True]
    assert not watching.inside


async def test_a_batch_is_one_piece_of_work(client: Redis, stream: Stream) -> None:
    watching = Watching()

    async def all_done(messages: Sequence[Message]) -> Sequence[Outcome]:
        return [Done()] * len(messages)

    await Producer(client, stream).publish_many([Draft(b"one", headers=CONTEXT), Draft(b"two")])
    await batch_consumer(client, stream, all_done, tracer=watching).run_once()
    assert watching.around == [([b"one", b"two"], [CONTEXT, {}])]


async def test_a_retry_keeps_the_context(client: Redis, stream: Stream) -> None:
    watching = Watching()

    async def handler(message: Message) -> Outcome:
        return Done() if message.attempt == 3 else Retry("again", after=timedelta(milliseconds=1))

    await Producer(client, stream).publish(b"one", headers=CONTEXT)
    worker, delayed = consumer(client, stream, handler, tracer=watching), Delayed(client, stream)

    async def handled_three_times() -> bool:
        await worker.run_once()
        await delayed.run_once()
        return len(watching.around) == 3

    await until(handled_three_times)
    assert watching.around == [([b"one"], [CONTEXT])] * 3


async def test_who_takes_over_gets_the_context(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"one", headers=CONTEXT)])
    watching = Watching()
    await consumer(client, stream, done, tracer=watching).run_once()
    assert watching.around == [([b"one"], [CONTEXT])]


async def test_poison_is_traced_too(client: Redis, stream: Stream) -> None:
    await abandon(client, stream, [Draft(b"kills its worker", headers=CONTEXT)], deliveries=5)
    watching = Watching()
    await consumer(client, stream, done, tracer=watching).run_once()
    assert watching.around == [([b"kills its worker"], [CONTEXT])]


async def test_a_replay_keeps_the_context(client: Redis, stream: Stream) -> None:
    async def bury(message: Message) -> Outcome:
        return Dead("enough")

    await Producer(client, stream).publish(b"one", headers=CONTEXT)
    await consumer(client, stream, bury).run_once()
    assert await DeadLetters(client, stream).replay() == 1
    watching = Watching()
    await consumer(client, stream, done, tracer=watching).run_once()
    assert watching.around == [([b"one"], [CONTEXT])]
