"""A consumer group of a stream, and the client that reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.keys import Stream

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, slots=True)
class Group:
    """The consumer group `name` of `stream`. `consumer` is the name under which this process reads; parts that do not read
    leave it empty."""

    client: Redis
    stream: Stream
    name: str
    consumer: str = ""
