"""A Redis that answers, and refuses: real processes settle without it, say so once, and are back when it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from okane.lanes import payments_stream
from streams import connect
from tests.flow.system import System, running
from tests.streams.servers import Server, cluster_options

ALWAYS = ("--unavailable", "0", "--decline", "0", "--latency-ms", "5")
USER = ["reset", "on", ">secret", "~*", "&*", "+@all"]


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[Server]:
    folder.mkdir()
    server = Server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def refusing(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[System, Redis]]:
    """A system whose processes log in as a user of their own, and the administrator's client."""
    with started(tmp_path / "redis") as server:
        async with connect(server.url) as admin:
            await admin.execute_command("ACL", "SETUSER", "okane", *USER)  # type: ignore[no-untyped-call]
            async with running(tmp_path / "system", database_url, server.as_user("okane", "secret")) as system:
                yield system, admin


def said(system: System) -> list[str]:
    """Return the error lines of the worker about Redis and the payments: one when the outage begins, one when it ends."""
    lines = [line for line in system.log("w1") if line["level"] == "error"]
    return [line["event"] for line in lines if line.get("stream", system.stream) == system.stream]


async def _no_keys(admin: Redis, stream: str) -> None:
    await admin.execute_command("ACL", "SETUSER", "okane", "resetkeys")  # type: ignore[no-untyped-call]


async def _no_reading(admin: Redis, stream: str) -> None:
    await admin.execute_command("ACL", "SETUSER", "okane", "-xreadgroup")  # type: ignore[no-untyped-call]


async def _no_acknowledging(admin: Redis, stream: str) -> None:
    await admin.execute_command("ACL", "SETUSER", "okane", "-xack")  # type: ignore[no-untyped-call]


async def _no_scripts(admin: Redis, stream: str) -> None:
    await admin.execute_command("ACL", "SETUSER", "okane", "-@scripting")  # type: ignore[no-untyped-call]


async def _no_stream(admin: Redis, stream: str) -> None:
    for key in payments_stream(stream).lane_keys:
        await admin.delete(key)
        await admin.set(key, "no stream")


async def _no_delayed_set(admin: Redis, stream: str) -> None:
    await admin.delete(payments_stream(stream).delayed_key)
    await admin.set(payments_stream(stream).delayed_key, "no sorted set")


async def _mend(admin: Redis, stream: str) -> None:
    await admin.execute_command("ACL", "SETUSER", "okane", *USER)  # type: ignore[no-untyped-call]
    family = payments_stream(stream)
    for key in (*family.lane_keys, family.delayed_key):
        if await admin.type(key) == b"string":
            await admin.delete(key)


@pytest.mark.parametrize("refuse", [_no_keys, _no_reading, _no_acknowledging, _no_scripts, _no_stream, _no_delayed_set])
async def test_payments_settle_while_redis_refuses_and_after_it(
    refuse: Callable[[Redis, str], Awaitable[None]], refusing: tuple[System, Redis]
) -> None:
    system, admin = refusing
    system.env["OKANE_REDIS_PATIENCE"] = "500ms"
    await system.start("w1", provider=ALWAYS)
    before = await system.pay(20, prefix="before")
    await refuse(admin, system.stream)
    during = await system.pay(60, prefix="during", pause_s=0.01)
    assert await system.settled([*before, *during], within_s=30) == Counter(success=80)
    async with asyncio.timeout(30):
        while not said(system):  # payments settle at once where Redis refuses no more than to ack them
            await asyncio.sleep(0.1)
    assert said(system) == ["running_without_redis"]
    await _mend(admin, system.stream)
    async with asyncio.timeout(30):
        while "redis_back" not in said(system):
            await asyncio.sleep(0.1)
    after = await system.pay(20, prefix="after")
    assert await system.settled(after, within_s=30) == Counter(success=20)
    await system.check([*before, *during, *after])
    assert said(system) == ["running_without_redis", "redis_back"]


async def is_whole(node: Redis) -> bool:
    """Return whether this node knows an owner for each slot, and answers MOVED rather than CLUSTERDOWN."""
    state = await node.cluster("INFO")
    return bool(state["cluster_slots_ok"] == "16384" and state["cluster_state"] == "ok")


async def test_a_cluster_node_that_does_not_own_the_slot_settles_nothing_and_holds_up_nothing(
    tmp_path: Path, database_url: str
) -> None:
    with (
        started(tmp_path / "here", *cluster_options()) as here,
        started(tmp_path / "owner", *cluster_options()) as owner,
    ):
        async with connect(here.url) as node, connect(owner.url) as other:
            await other.cluster("ADDSLOTSRANGE", 0, 16383)
            await node.cluster("MEET", "127.0.0.1", owner.port, owner.options[-1])
            async with asyncio.timeout(30):
                while not all([await is_whole(one) for one in (node, other)]):
                    await asyncio.sleep(0.1)
        async with running(tmp_path / "system", database_url, here.url) as system:
            await system.start("w1", provider=ALWAYS)
            ids = await system.pay(50)
            assert await system.settled(ids) == Counter(success=50)
            assert said(system) == ["running_without_redis"]
            assert "MOVED" in str(system.log("w1"))


@pytest.mark.parametrize(
    ("rules", "env", "message"),
    [
        (["-xreadgroup"], {}, "no right to XREADGROUP"),
        (["resetkeys"], {}, "no right to the keys"),
        (["-info"], {}, "+info, or set OKANE_CHECK_EVICTION=false"),
        (["-info"], {"OKANE_CHECK_EVICTION": "false"}, None),
        (["resetpass", ">other"], {}, "WRONGPASS"),
    ],
)
async def test_what_does_not_heal_by_itself_ends_a_worker_at_its_start(
    rules: list[str], env: dict[str, str], message: str | None, refusing: tuple[System, Redis], tmp_path: Path
) -> None:
    system, admin = refusing
    await admin.execute_command("ACL", "SETUSER", "okane", *rules)  # type: ignore[no-untyped-call]
    if message is None:
        system.env |= env
        await system.start("w1", provider=ALWAYS)
        assert await system.settled(await system.pay(3)) == Counter(success=3)
        return
    system.launch_worker("w1")
    async with asyncio.timeout(60):
        while system.exit_code("w1") is None:
            await asyncio.sleep(0.05)
    text = (tmp_path / "system" / "w1.log").read_text()
    assert (system.exit_code("w1"), message in text) == (2, True), text
    assert "Traceback" not in text
    assert "secret" not in text
