"""Measure the CPU time that bypassing a library saves: `python -m bench.shortcuts`. Alternating, medians of ratios."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from uvloop import run

from bench.system import running
from okane.api import create_request, strict_json
from okane.api.http import plain_request
from streams import connect
from streams.connection import replies

ROUNDS = 9
TURNS = 2_000

BODY = b'{"amount": 440, "currency": "USD", "idempotency_key": "order-0000000001"}'
REQUEST = (
    b"POST /v1/payments HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    b"Authorization: Bearer sk_test_0123456789ab_0123456789abcdef\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)

# The same with the key in its head, which no other request has then.
REQUESTS = [REQUEST.replace(b"Accept:", b"Idempotency-Key: order-%010d\r\nAccept:" % number) for number in range(TURNS)]

Way = Callable[[], Awaitable[object]]


async def compare(title: str, library: Way, ours: Way) -> None:
    """Print what both ways take, and what part of the first the second is."""
    pairs = [(await _us(library), await _us(ours)) for _ in range(ROUNDS)]
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    theirs, mine = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    print(f"{title:<44} {theirs:>8.1f} us {mine:>8.1f} us {ratio:>8.2f} x", flush=True)


async def _us(way: Way) -> float:
    started_s = time.process_time()
    for _ in range(TURNS):
        await way()
    return (time.process_time() - started_s) / TURNS * 1e6


async def _all(redis_url: str) -> None:
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, limit=2**16)

    async def parsed() -> object:
        [(message, payload)], _, _ = parser.feed_data(REQUEST)
        parser.message_consumed()
        return message, payload.read_nowait()

    async def read_plainly() -> object:
        return plain_request.parse_plain_request(REQUEST)

    requests = itertools.cycle(REQUESTS)

    async def read_another_plainly() -> object:
        return plain_request.parse_plain_request(next(requests))

    async def read_with_care() -> object:
        return create_request.validate_create_request(strict_json.loads(BODY), create_request.CreatePayment)

    async def read_quickly() -> object:
        return create_request.parse_fast(BODY, create_request.CreatePayment)

    client = connect(redis_url, timeout=timedelta(seconds=5))

    async def by_redis_py() -> object:
        return await client.eval("return KEYS[1]", 1, "key")

    async def by_ours() -> object:
        return await replies(client, [("EVAL", "return KEYS[1]", 1, "key")])

    print(f"{'':<44} {'library':>11} {'ours':>11}")
    await compare("a request: aiohttp's parser, parse_plain_request", parsed, read_plainly)
    await compare("the same, its key in its head", parsed, read_another_plainly)
    await compare("a body: json and pydantic, read_quickly", read_with_care, read_quickly)
    await compare("a script's round trip: redis-py, replies", by_redis_py, by_ours)
    await client.aclose()


def main() -> None:
    with running() as system:
        run(_all(system.redis.url))


if __name__ == "__main__":
    main()
