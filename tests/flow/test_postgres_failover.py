"""A primary that is killed, a standby that takes its place, and the old primary that comes back unfenced."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from okane.monitoring.host_checks import host_checks
from okane.store import schema
from okane.store.server_facts import read_host_roles
from tests.flow.system import running
from tests.okane.standbys import ReplicatedPostgres, replicated_postgres
from torture.system.standbys import furthest

ALWAYS = ("--unavailable", "0", "--decline", "0")


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[ReplicatedPostgres]:
    with replicated_postgres(tmp_path / "servers") as one:
        yield one


async def states(url: str) -> list[tuple[str, str]]:
    return [(check.name, check.state) for check in host_checks(await read_host_roles(url))]


async def test_a_promoted_standby_takes_over_and_the_old_primary_acknowledges_nothing(
    replicated: ReplicatedPostgres, tmp_path: Path, redis_url: str
) -> None:
    old, *standbys = replicated.servers
    await schema.migrate(replicated.url)
    assert await states(replicated.url) == [("postgres hosts", "ok"), ("postgres standbys", "ok")]
    async with running(tmp_path / "system", replicated.url, redis_url) as system:
        await system.start("w1", "w2", provider=(*ALWAYS, "--latency-ms", "20"))
        ids = await system.pay(20, prefix="before")
        assert await system.settled(ids) == Counter(success=20)
        paying = asyncio.ensure_future(system.pay(150, prefix="meanwhile", pause_s=0.02))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(old.kill)
        new = furthest(standbys)
        await asyncio.to_thread(replicated.promote, new)
        ids += await paying
        assert await system.settled(ids, within_s=60) == Counter(success=170)
        await system.check(ids)

        # The old one comes back, and takes itself for the primary: the doctor says so, and no commit there is acknowledged.
        await asyncio.to_thread(old.start)
        assert ("postgres hosts", "fail") in await states(replicated.url)
        async with await psycopg.AsyncConnection.connect(old.url, autocommit=True) as connection:
            committing = asyncio.ensure_future(connection.execute("CREATE TABLE lost ()"))
            more = await system.pay(20, prefix="after")
            assert await system.settled(more) == Counter(success=20)
            assert not committing.done()
            await asyncio.to_thread(old.kill)
            with pytest.raises(psycopg.OperationalError):
                await committing
        assert await states(replicated.url) == [("postgres hosts", "warn"), ("postgres standbys", "ok")]
        await system.check([*ids, *more])


async def test_without_a_standby_nothing_is_acknowledged_and_nothing_is_lost(
    replicated: ReplicatedPostgres, tmp_path: Path, redis_url: str
) -> None:
    _, *standbys = replicated.servers
    await schema.migrate(replicated.url)
    async with running(tmp_path / "system", replicated.url, redis_url) as system:
        await system.start("w1", provider=ALWAYS)
        for standby in standbys:
            await asyncio.to_thread(standby.kill)
        assert ("postgres standbys", "fail") in await states(replicated.url)
        waiting = asyncio.ensure_future(system.post("waits"))
        done, _ = await asyncio.wait([waiting], timeout=3)
        assert not done or waiting.result()[0] == 503
        await asyncio.to_thread(standbys[0].start)
        paid = await system.accepted("waits")
        assert await system.settled([paid], within_s=60) == Counter(success=1)
        await system.check([paid])
        await waiting
