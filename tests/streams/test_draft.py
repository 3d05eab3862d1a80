"""An invalid message fails its caller alone, and the test double raises the same error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from streams import DeadLetters, Draft, Producer, Publisher, Stream
from streams.draft import MAX_BYTES, MAX_HEADERS
from streams.testing import MemoryQueue

UNFIT: dict[str, dict[str, Any]] = {
    "a str": {"body": "text"},
    "no body": {"body": None},
    "a number": {"body": 7},
    "bytes that may change": {"body": bytearray(b"x")},
    "a view": {"body": memoryview(b"x")},
    "too large": {"body": bytes(MAX_BYTES + 1)},
    "too large with its headers": {"body": bytes(MAX_BYTES), "headers": {"h": "v"}},
    "a header too large": {"body": b"x", "headers": {"h": "v" * MAX_BYTES}},
    "too many headers": {"body": b"x", "headers": {str(number): "v" for number in range(4_100)}},
    "one header too many": {"body": b"x", "headers": {str(number): "v" for number in range(MAX_HEADERS + 1)}},
    "a header's name that is no str": {"body": b"x", "headers": {1: "v"}},
    "a header's name in bytes": {"body": b"x", "headers": {b"h": "v"}},
    "a header's value that is no str": {"body": b"x", "headers": {"h": 1}},
    "a header without a value": {"body": b"x", "headers": {"h": None}},
    "a header without a name": {"body": b"x", "headers": {"": "v"}},
    "a header's name that cannot be written": {"body": b"x", "headers": {"\ud800": "v"}},
    "a header's value that cannot be written": {"body": b"x", "headers": {"h": "\ud800"}},
    "headers in a list": {"body": b"x", "headers": [("h", "v")]},
    "headers in an empty list": {"body": b"x", "headers": []},
    "headers in a str": {"body": b"x", "headers": "h"},
    "an unknown lane": {"body": b"x", "lane": "nope"},
    "an empty lane": {"body": b"x", "lane": ""},
    "a lane that is no name": {"body": b"x", "lane": ["low"]},
}


async def _alone(publisher: Publisher, message: dict[str, Any]) -> BaseException:
    """Return the error of this message, published between two valid ones, which must be accepted."""
    before, error, after = await asyncio.gather(
        publisher.publish(b"before"),
        publisher.publish(**cast(Any, message)),
        publisher.publish(b"after"),
        return_exceptions=True,
    )
    assert isinstance(before, str)
    assert isinstance(after, str)
    assert isinstance(error, TypeError | ValueError)
    return error


@pytest.mark.parametrize("what", UNFIT)
async def test_what_is_no_message_fails_its_caller_alone_and_the_double_agrees(
    client: Redis, stream: Stream, what: str
) -> None:
    real = await _alone(Producer(client, stream), UNFIT[what])
    double = await _alone(MemoryQueue(stream), UNFIT[what])
    assert (type(real), str(real)) == (type(double), str(double))
    assert await client.xlen(stream.lane_key("critical")) == 2


async def test_of_several_drafts_none_is_sent_when_one_is_no_message(client: Redis, stream: Stream) -> None:
    queue = MemoryQueue(stream)
    for publisher in (Producer(client, stream), queue):
        with pytest.raises(TypeError, match="encode it"):
            await publisher.publish_many([Draft(b"1"), Draft("2")])  # type: ignore[arg-type] # on purpose
    assert await client.exists(*stream.lane_keys) == 0
    assert queue.published == []


async def test_the_largest_message_is_taken_and_comes_back_the_same_from_both(client: Redis, stream: Stream) -> None:
    class Name(str, Enum):  # noqa: UP042 # in an f-string it is not its value
        TRACE = "trace"

    headers = {str(number): "v" for number in range(MAX_HEADERS - 1)} | {Name.TRACE: "ü"}
    spent = sum(len(f"h:{name}".encode()) + len(value.encode()) for name, value in headers.items() if name != "trace")
    body = bytes(MAX_BYTES - spent - len(b"bh:trace") - len("ü".encode()))
    queue = MemoryQueue(stream)
    await queue.publish(body, headers=headers)
    assert queue.published[0].headers == {str(name): value for name, value in headers.items() if name != "trace"} | {
        "trace": "ü"
    }
    await Producer(client, stream).publish(body, headers=headers)
    [(_, fields)] = cast(Any, await client.xrange(stream.lane_key("critical")))
    assert (len(fields), fields[b"b"], fields[b"h:trace"]) == (MAX_HEADERS + 1, body, "ü".encode())


@pytest.mark.parametrize("wrong", ["-", "+", "(1-0", "1", "1-0 ", "x", "", f"{1 << 64}-0", "1-٣", b"1-0", None])
async def test_an_id_that_is_none_changes_nothing(client: Redis, stream: Stream, wrong: Any) -> None:
    await client.xadd(stream.dead_key, {"b": "letter"}, id="1-0")
    letters = DeadLetters(client, stream)
    tries: list[Callable[[], Awaitable[object]]] = [
        lambda: letters.get(wrong),
        lambda: letters.replay(ids=["1-0", wrong]),
        lambda: letters.purge(ids=["1-0", wrong]),
    ]
    if wrong is not None:
        tries += [lambda: letters.list(before=wrong), lambda: letters.list(after=wrong)]
    for attempt in tries:
        with pytest.raises((TypeError, ValueError), match=r"entry's id"):
            await attempt()
    assert await letters.count() == 1
