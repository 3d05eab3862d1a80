"""Clients that the library refuses, and words of the error for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.asyncio import Redis, RedisCluster

URL = "redis://127.0.0.1:1"

WRONG_CLIENTS: Sequence[tuple[Callable[[], Any], str]] = (
    (lambda: Redis.from_url(URL, decode_responses=True), "decode_responses=True"),
    (lambda: Redis.from_url(f"{URL}?decode_responses=yes"), "decode_responses=True"),
    (lambda: Redis.from_url(URL, protocol=3), "protocol=3"),
    (lambda: Redis.from_url(f"{URL}?protocol=3"), "protocol=3"),
    (lambda: redis.Redis.from_url(URL), "synchronous"),
    (lambda: RedisCluster("127.0.0.1", 1), "cluster"),
    (lambda: Redis.from_url(URL).pipeline(), "pipeline"),
    (lambda: URL, "redis.asyncio is needed"),
    (lambda: None, "redis.asyncio is needed"),
)
WRONG_NAMES = ("decoding", "decoding url", "resp3", "resp3 url", "sync", "cluster", "pipeline", "text", "none")
