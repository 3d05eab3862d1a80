"""Token buckets on a real server, and the share of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from okane.redis.buckets import Allowance, LocalTokenBuckets, TokenBuckets, bucket_key
from streams import Stream
from streams.errors import StreamUnavailable
from tests.streams.conftest import Connected
from tests.streams.servers import Server

SLOW = Allowance(per_s=1 / 3600, burst=5)  # what is taken does not come back while a test runs


async def granted(buckets: TokenBuckets, name: str, allowance: Allowance, count: int) -> list[bool]:
    return [taken.granted for taken in await asyncio.gather(*(buckets.take(name, allowance) for _ in range(count)))]


async def test_so_many_are_granted_at_once_and_the_first_to_come_are_served(client: Redis, stream: Stream) -> None:
    buckets = TokenBuckets(client, stream)
    assert await granted(buckets, "a", SLOW, 8) == [True] * 5 + [False] * 3
    assert await granted(buckets, "b", SLOW, 2) == [True, True]  # a bucket of its own
    assert await granted(buckets, "a", SLOW, 1) == [False]
    await buckets.aclose()


async def test_processes_take_out_of_one_bucket(client: Redis, stream: Stream) -> None:
    several = [TokenBuckets(client, stream) for _ in range(4)]
    found = await asyncio.gather(*(granted(buckets, "a", SLOW, 3) for buckets in several))
    assert sum(sum(one) for one in found) == 5
    for buckets in several:
        await buckets.aclose()


async def test_the_result_has_the_tokens_left(client: Redis, stream: Stream) -> None:
    buckets = TokenBuckets(client, stream)
    taken = [await buckets.take("a", SLOW) for _ in range(6)]
    assert [one.left for one in taken] == [4, 3, 2, 1, 0, 0]
    assert [one.next_s > 0 for one in taken] == [False] * 4 + [True, True]
    assert 3500 < taken[-1].next_s <= 3600
    assert 5 * 3600 - 60 < taken[-1].full_s <= 5 * 3600
    await buckets.aclose()


async def test_a_bucket_fills_again_and_takes_no_memory_when_it_is_full(client: Redis, stream: Stream) -> None:
    buckets, quick = TokenBuckets(client, stream), Allowance(per_s=50, burst=2)
    assert await granted(buckets, "a", quick, 3) == [True, True, False]
    assert await client.exists(bucket_key(stream, "a"))
    async with asyncio.timeout(10):
        while await client.exists(bucket_key(stream, "a")):
            await asyncio.sleep(0.01)
    assert await granted(buckets, "a", quick, 3) == [True, True, False]
    await buckets.aclose()


async def test_the_average_is_kept(client: Redis, stream: Stream) -> None:
    """Independent of the number of tries: the burst, and the tokens added since."""
    buckets, allowance = TokenBuckets(client, stream), Allowance(per_s=100, burst=10)
    seconds, microseconds = await client.time()
    total = 0
    for _ in range(200):
        total += sum(await granted(buckets, "a", allowance, 3))
    now_seconds, now_microseconds = await client.time()
    passed_s = now_seconds - seconds + (now_microseconds - microseconds) / 1e6
    assert 10 <= total <= 10 + 100 * passed_s + 1
    await buckets.aclose()


async def test_a_limit_that_changes_holds_at_once(client: Redis, stream: Stream) -> None:
    buckets = TokenBuckets(client, stream)
    await granted(buckets, "a", Allowance(per_s=1 / 3600, burst=1000), 1000)
    assert 0 < (await buckets.take("a", Allowance(per_s=1, burst=2))).full_s <= 2  # no more empty than one can be
    await buckets.aclose()


async def test_an_absent_redis_is_unavailable(
    own_server: Callable[[], Server], connected: Connected, stream: Stream
) -> None:
    server = own_server()
    client = connected(server)
    buckets = TokenBuckets(client, stream)
    await buckets.take("a", SLOW)
    server.kill()
    with pytest.raises(StreamUnavailable):
        await buckets.take("a", SLOW)
    await buckets.aclose()


def test_a_process_has_its_share() -> None:
    now_s = 100.0
    buckets = LocalTokenBuckets(lambda: now_s)
    allowance = Allowance(per_s=8, burst=8)
    assert [buckets.take("a", allowance, sharers=4).granted for _ in range(3)] == [True, True, False]
    assert buckets.take("a", allowance, sharers=4).next_s == pytest.approx(0.5)
    now_s += 0.5
    assert [buckets.take("a", allowance, sharers=4).granted for _ in range(2)] == [True, False]
    now_s += 3600
    assert [buckets.take("a", allowance).left for _ in range(3)] == [7, 6, 5]


def test_one_process_keeps_so_many_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.redis.buckets.MAX_LOCAL", 3)
    buckets = LocalTokenBuckets(lambda: 0.0)
    for number in range(10):
        assert buckets.take(str(number), Allowance(1, 1)).granted
    assert len(buckets._full_s) == 3


async def test_a_bucket_that_is_none_fails_its_caller_alone(client: Redis, stream: Stream) -> None:
    buckets, sound = TokenBuckets(client, stream), Allowance(per_s=1, burst=5)
    taken = await asyncio.gather(
        buckets.take("a", sound),
        buckets.take("\ud800", sound),
        buckets.take(cast(Any, None), sound),
        buckets.take("b", cast(Any, None)),
        buckets.take("c", sound),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in taken] == [
        "TakeResult",
        "UnicodeEncodeError",
        "TypeError",
        "TypeError",
        "TakeResult",
    ]
    await buckets.aclose()


@pytest.mark.parametrize(
    ("per_s", "burst"), [(0, 1), (-1, 1), (float("inf"), 1), (float("nan"), 1), (1, 0), (1e-300, 1)]
)
def test_an_allowance_that_never_fills_is_refused(per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="allowance"):
        Allowance(per_s, burst)
