"""The shared parts of the textbook's API and worker: addresses and pools."""

from __future__ import annotations

import os
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

POOL_SIZE = 16  # connections: 8 to 64 of them made no difference beyond the noise
GROUP = "workers"
PROVIDER_URL = os.environ.get("OKANE_PROVIDER_BASE_URL", "")
STREAM = os.environ.get("OKANE_STREAM", "")

Pool = AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]


def new_pool() -> Pool:
    """To be opened on the running loop."""
    return AsyncConnectionPool(os.environ["OKANE_DATABASE_URL"], min_size=POOL_SIZE, max_size=POOL_SIZE, open=False)


def new_redis() -> Redis:
    client: Any = Redis.from_url(os.environ["OKANE_REDIS_URL"])
    assert isinstance(client, Redis)
    return client
