"""Systems for the flow tests: over the shared servers, or over private ones that a test may kill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from tests.flow.system import System, running


@pytest.fixture
async def system(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[System]:
    async with running(tmp_path / "system", database_url, redis_url) as one:
        yield one


@pytest.fixture
async def system_own_redis(
    tmp_path: Path, database_url: str, private_redis: RedisServer
) -> AsyncIterator[tuple[System, RedisServer]]:
    async with running(tmp_path / "system", database_url, private_redis.url) as one:
        yield one, private_redis


@pytest.fixture
async def system_own_postgres(
    tmp_path: Path, private_postgres: PostgresServer, redis_url: str
) -> AsyncIterator[tuple[System, PostgresServer]]:
    async with running(tmp_path / "system", private_postgres.url, redis_url) as one:
        yield one, private_postgres
