from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from redis.asyncio import Redis

from streams import (
    Consumer,
    DeadLetters,
    Delayed,
    Done,
    Inspector,
    Janitor,
    Message,
    Outcome,
    Producer,
    Stream,
    connect,
)
from streams.testing import MemoryQueue
from tests.streams.clients import URL, WRONG_CLIENTS, WRONG_NAMES
from tests.streams.running import done

STREAM = Stream("never-used")

MADE: Sequence[Callable[[Any], object]] = (
    lambda client: Producer(client, STREAM),
    lambda client: Consumer(client, STREAM, group="g", name="c", handler=done),
    lambda client: Delayed(client, STREAM),
    lambda client: DeadLetters(client, STREAM),
    lambda client: Inspector(client, STREAM, group="g"),
    lambda client: Janitor(client, STREAM, group="g"),
)
NAMES = ("Producer", "Consumer", "Delayed", "DeadLetters", "Inspector", "Janitor")


@pytest.mark.parametrize("make", MADE, ids=NAMES)
@pytest.mark.parametrize(("client", "said"), WRONG_CLIENTS, ids=WRONG_NAMES)
def test_a_client_that_could_not_work_is_refused_at_construction(
    make: Callable[[Any], object], client: Callable[[], Any], said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make(client())


@pytest.mark.parametrize("make", MADE, ids=NAMES)
def test_redis_pys_own_client_is_taken(make: Callable[[Any], object]) -> None:
    make(Redis.from_url(URL))
    make(connect(URL))


def plain(message: Message) -> Outcome:
    return Done()


async def generates(message: Message) -> Any:
    yield Done()


class Plain:
    def __call__(self, message: Message) -> Outcome:
        return Done()

    def method(self, message: Message) -> Outcome:
        return Done()


class Async:
    async def __call__(self, message: Message) -> Outcome:
        return Done()

    async def method(self, message: Message, *_more: object) -> Outcome:
        return Done()

    def declared(self, message: Message) -> Awaitable[Outcome]:
        return self(message)


def declared(message: Message) -> Awaitable[Outcome]:
    return done(message)


@wraps(done)
def wrapped(message: Message) -> Any:
    return done(message)


REFUSED = {
    "plain": plain,
    "partial": partial(partial(plain)),
    "object": Plain(),
    "method": Plain().method,
    "class": Async,
    "generator": generates,
    "text": "handler",
}
TAKEN = {
    "async": done,
    "partial": partial(partial(done)),
    "object": Async(),
    "partial of an object": partial(Async()),
    "method": Async().method,
    "partial of a method": partial(Async().method),
    "lambda": lambda message, *_more: done(message),
    "declared": declared,
    "declared method": Async().declared,
    "wrapped": wrapped,
    "mock": AsyncMock(return_value=Done()),
}


@pytest.mark.parametrize("handler", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("role", ["handler", "batch_handler", "on_poison"])
def test_what_is_no_async_handler_is_refused_at_construction(handler: Any, role: str) -> None:
    usual = {"handler": done} if role == "on_poison" else {}
    with pytest.raises(TypeError, match=rf"{role} .*async"):
        Consumer(connect(URL), STREAM, group="g", name="c", **cast(Any, usual | {role: handler}))


@pytest.mark.parametrize("handler", TAKEN.values(), ids=TAKEN)
async def test_what_answers_an_awaitable_is_a_handler(handler: Any) -> None:
    Consumer(connect(URL), STREAM, group="g", name="c", handler=handler)
    queue = MemoryQueue(STREAM)
    await queue.publish(b"x")
    assert await queue.run_once(handler) == 1
    assert len(queue.done) == 1


@pytest.mark.parametrize("handler", REFUSED.values(), ids=REFUSED)
async def test_the_test_double_refuses_the_same_handlers(handler: Any) -> None:
    with pytest.raises(TypeError, match=r"handler .*async"):
        await MemoryQueue(STREAM).run_once(handler)
