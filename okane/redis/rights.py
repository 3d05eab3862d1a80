"""The rights that a process of okane needs in Redis: those of the streams, of presence, and of rate limits."""

from __future__ import annotations

from collections.abc import Iterator

from redis.asyncio import Redis

from okane.redis.buckets import bucket_key
from okane.redis.presence import presence_key
from streams import MissingRights, Stream
from streams import missing_rights as missing_stream_rights
from streams.pool import Command


async def missing_rights(
    client: Redis, stream: Stream, *, group: str, consumes: bool, limits_rates: bool, inspects: bool = False
) -> MissingRights | None:
    """Return the rights that the client's user lacks, None if it has them all. `inspects`: it lists pending entries and
    delayed messages. Raises as `streams.missing_rights`."""
    probes = [*_of_presence(stream)]
    if limits_rates:
        probes += _of_buckets(stream)
    if inspects:
        probes += _of_inspection(stream, group)
    return await missing_stream_rights(client, stream, group=group, consumes=consumes, also=probes)


def _of_presence(stream: Stream) -> Iterator[Command]:
    scratch = stream.key("rights")
    yield ("HSET", scratch, "a", "")
    yield ("PEXPIRE", scratch, 1000)
    yield ("HDEL", scratch, "a")
    yield ("HGETALL", presence_key(stream))
    yield ("HLEN", presence_key(stream))
    yield ("HDEL", presence_key(stream), "")


def _of_inspection(stream: Stream, group: str) -> Iterator[Command]:
    for key in stream.lane_keys:
        yield ("XPENDING", key, group)
        yield ("XREVRANGE", key, "+", "-", "COUNT", 1)
    yield ("ZRANGEBYSCORE", stream.delayed_key, "-inf", "(0", "LIMIT", 0, 1)


def _of_buckets(stream: Stream) -> Iterator[Command]:
    yield ("GET", bucket_key(stream, ""))
    yield ("SET", bucket_key(stream, ""), "0", "PX", 1)
