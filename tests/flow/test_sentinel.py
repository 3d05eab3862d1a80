"""The whole pipeline on the primary that sentinels name: killed, swapped, and with the sentinels away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.flow.system import running
from tests.streams.sentinels import WatchedServers
from tests.streams.servers import Server

ALWAYS = ("--unavailable", "0", "--decline", "0")


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedServers]:
    one = WatchedServers(tmp_path / "servers")
    try:
        await one.start()
        yield one
    finally:
        one.end()


async def test_a_promoted_server_is_used_at_once_and_nothing_is_lost_meanwhile(
    watched: WatchedServers, tmp_path: Path, database_url: str
) -> None:
    first, second = watched.servers
    async with running(tmp_path / "system", database_url, watched.url()) as system:
        await system.start("w1", "w2", provider=ALWAYS)
        assert await system.settled(await system.pay(20, prefix="before")) == Counter(success=20)
        paying = asyncio.ensure_future(system.pay(200, prefix="meanwhile", pause_s=0.02))
        await asyncio.sleep(0.5)
        watched.sentinels[0].kill()
        first.kill()
        await watched.primary_is(second)
        promoted_s = time.monotonic()
        await workers_read_from(second, count=2)
        assert time.monotonic() - promoted_s < 10  # a second on a machine that does nothing else
        ids = await paying
        assert await system.settled(ids) == Counter(success=200)
        await system.check(ids)


async def test_roles_are_swapped_and_the_sentinels_go_away(
    watched: WatchedServers, tmp_path: Path, database_url: str
) -> None:
    _, second = watched.servers
    async with running(tmp_path / "system", database_url, watched.url()) as system:
        await system.start("w1", provider=ALWAYS)
        paying = asyncio.ensure_future(system.pay(100, pause_s=0.02))
        await asyncio.sleep(0.5)
        await watched.fail_over()
        await watched.primary_is(second)
        await workers_read_from(second, count=1)
        for sentinel in watched.sentinels:
            sentinel.kill()
        ids = await paying
        # A worker that starts now finds no primary: the sweeps pay directly.
        await system.kill("w1")
        system.launch_worker("w1")
        ids += await system.pay(10, prefix="no-sentinel")
        assert await system.settled(ids) == Counter(success=110)
        await system.check_books(ids)


async def workers_read_from(server: Server, *, count: int) -> None:
    """Wait until so many workers wait for entries on this server."""
    async with asyncio.timeout(30), Redis(port=server.port) as client:
        while True:
            with contextlib.suppress(RedisError):
                reading = {
                    one["name"] or one["addr"] for one in await client.client_list() if one["cmd"] == "xreadgroup"
                }
                if len(reading) >= count:
                    return
            await asyncio.sleep(0.02)
