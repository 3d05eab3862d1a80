"""The rights of a user: the documented ones suffice, and the absence of each is found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from okane.redis.buckets import Allowance, TokenBuckets
from okane.redis.presence import Presence
from okane.redis.rights import missing_rights
from streams import (
    DeadLetters,
    Delayed,
    Done,
    Inspector,
    Janitor,
    Lane,
    Message,
    Outcome,
    Producer,
    Retry,
    Stream,
    StreamForbidden,
    connect,
    require_noeviction,
)
from tests.streams.cluster_nodes import ClusterNodes
from tests.streams.running import GROUP, consumer, read_and_die
from tests.streams.servers import Server

STREAM = Stream("okane:payments", lanes=(Lane("critical", 6), Lane("low", 1)))
_PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
RULES = dict(re.findall(r"^ACL SETUSER okane-(worker|api|console) on >PASSWORD (.*)$", _PAGE.read_text(), re.MULTILINE))
CLUSTER_RULES = re.findall(r"with a cluster `(\+[^`]+)`", _PAGE.read_text())
COMMANDS = {role: re.findall(r"\+([a-z|]+)", rule) for role, rule in RULES.items()}
NEEDS = {
    "worker": {"consumes": True, "limits_rates": False},
    "api": {"consumes": False, "limits_rates": True},
    "console": {"consumes": False, "limits_rates": True, "inspects": True},
}
SERVERS = [None, *([redis] if (redis := shutil.which("redis-server")) else [])]


@pytest.fixture(params=SERVERS, ids=["bundled", "redis"][: len(SERVERS)])
def server(
    request: pytest.FixtureRequest, own_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> Server:
    """The bundled server, and the Redis of this machine if there is one."""
    if request.param is not None:
        monkeypatch.setenv("TEST_REDIS_SERVER", request.param)
    return own_server()


async def allow(server: Server, role: str, *more: str) -> str:
    """Create the documented user, with more rules; return the URL to log in at."""
    async with connect(server.url) as admin:
        await admin.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", role, "reset", "on", ">secret", *RULES[role].split(), *more
        )
    return server.as_user(role, "secret")


async def test_a_worker_does_all_of_its_work_with_the_documented_rights(server: Server) -> None:
    answers: list[Outcome] = [Retry("later", after=timedelta(0)), Done()]

    async def handler(message: Message) -> Outcome:
        return answers.pop(0)

    async with connect(await allow(server, "worker")) as client:
        assert await missing_rights(client, STREAM, group=GROUP, consumes=True, limits_rates=False) is None
        worker = consumer(client, STREAM, handler)
        delayed = Delayed(client, STREAM)
        producer = Producer(client, STREAM, max_length=10)
        await producer.check()
        await producer.publish(b"x")
        assert await worker.run_once() == 1
        assert await delayed.run_once() == 1
        assert await worker.run_once() == 1
        await Janitor(client, STREAM, group=GROUP, idle=timedelta(0)).run_once()
        await Presence(client, STREAM).announce("here", role="worker", name="w1")
        await Presence(client, STREAM).leave("here")
        assert (await Inspector(client, STREAM, group=GROUP).stats()).depth == 0
        await require_noeviction(client)
    assert answers == []


async def test_an_api_does_all_of_its_work_with_the_documented_rights(server: Server) -> None:
    async with connect(await allow(server, "api")) as client:
        assert await missing_rights(client, STREAM, group=GROUP, consumes=False, limits_rates=True) is None
        await Producer(client, STREAM, max_length=10).publish(b"x")
        buckets = TokenBuckets(client, STREAM)
        assert (await buckets.take("key", Allowance(1, 1))).granted
        await buckets.aclose()
        await Presence(client, STREAM).announce("here", role="api", name="api")
        assert len(await Presence(client, STREAM).processes()) == 1
        assert (await Inspector(client, STREAM, group=GROUP).stats()).depth == 1
        await require_noeviction(client)


async def test_the_documented_rights_suffice_on_a_cluster(redis_cluster: ClusterNodes) -> None:
    [more] = CLUSTER_RULES
    for node in redis_cluster.nodes:
        await node.run("ACL", "SETUSER", "worker", "reset", "on", ">secret", *RULES["worker"].split(), *more.split())
    url = redis_cluster.url.replace("://", "://worker:secret@")
    async with connect(url) as client:
        assert await missing_rights(client, STREAM, group=GROUP, consumes=True, limits_rates=False) is None
        await require_noeviction(client)
        async with redis_cluster.slot_moving(STREAM.dead_key):
            assert await DeadLetters(client, STREAM).count() == 0  # by ASK, since the key does not exist
        for node in redis_cluster.nodes:
            await node.run("ACL", "SETUSER", "worker", "-asking")
        async with redis_cluster.slot_moving(STREAM.dead_key):
            with pytest.raises(StreamForbidden, match="asking"):
                await DeadLetters(client, STREAM).count()


async def put_off(_message: Message) -> Outcome:
    return Retry("later", after=timedelta(minutes=1))


async def test_a_console_does_all_of_its_work_with_the_documented_rights(server: Server) -> None:
    async with connect(await allow(server, "console")) as client, connect(server.url) as admin:
        assert await missing_rights(client, STREAM, group=GROUP, **NEEDS["console"]) is None
        inspector, producer = Inspector(client, STREAM, group=GROUP), Producer(client, STREAM, max_length=10)
        await producer.publish(b"later", lane="low")
        assert await consumer(admin, STREAM, put_off).run_once() == 1
        assert [one.body for one in (await inspector.delayed()).messages] == [b"later"]
        await producer.publish(b"held", lane="low")
        await read_and_die(admin, STREAM, name="c1")
        assert [one.body for one in await inspector.pending("low")] == [b"held"]
        found = (await inspector.entry_of(b"held", "low", since_ms=0, until_ms=2**45)).found
        assert found is not None
        assert found.pending is not None
        assert (await inspector.stats()).pending == 1
        letters = DeadLetters(client, STREAM)
        assert not (await letters.list(10)).letters
        assert await letters.purge(ids=["1-1"]) == 0
        buckets = TokenBuckets(client, STREAM)
        assert (await buckets.take("login", Allowance(1, 1))).granted
        await buckets.aclose()
        await Presence(client, STREAM).announce("here", role="console", name="console")
        assert len(await Presence(client, STREAM).processes()) == 1
        await require_noeviction(client)


@pytest.mark.parametrize("role", NEEDS)
async def test_every_documented_right_is_missed_by_its_name(role: str, server: Server) -> None:
    url = await allow(server, role)
    async with connect(server.url) as admin, connect(url) as client:
        for command in COMMANDS[role]:
            if command == "info":
                continue
            await allow(server, role, f"-{command}")
            missing = await missing_rights(client, STREAM, group=GROUP, **NEEDS[role])
            assert missing is not None, command
            assert all(one == command or one.startswith(f"{command}|") for one in missing.commands)
            assert missing.grant.startswith(f"ACL SETUSER {role} +")
            await admin.execute_command(*missing.grant.split())  # type: ignore[no-untyped-call]
            assert await missing_rights(client, STREAM, group=GROUP, **NEEDS[role]) is None, command
        await allow(server, role, "-info")
        with pytest.raises(StreamForbidden):
            await require_noeviction(client)


async def test_keys_out_of_reach_are_named_and_asking_leaves_nothing_behind(server: Server) -> None:
    url = await allow(server, "worker", "resetkeys", "~other:*")
    async with connect(server.url) as admin, connect(url) as client:
        await Producer(admin, STREAM).publish(b"x")
        missing = await missing_rights(client, STREAM, group=GROUP, consumes=True, limits_rates=False)
        assert missing is not None
        assert missing.keys == "{okane:payments}:*"
        assert "no right to the keys {okane:payments}:*" in str(missing)
        await admin.execute_command(*missing.grant.split())  # type: ignore[no-untyped-call]
        assert await missing_rights(client, STREAM, group=GROUP, consumes=True, limits_rates=False) is None
        stats = await Inspector(admin, STREAM, group=GROUP).stats()
        assert (stats.depth, stats.pending, stats.consumers, stats.delayed, stats.dead) == (1, 0, (), 0, 0)
        assert await admin.keys() == [STREAM.lane_key("critical").encode()]


async def test_a_command_that_the_server_does_not_have_is_missed_too(own_server: Callable[..., Server]) -> None:
    async with connect(own_server("--rename-command", "XAUTOCLAIM", "").url) as client:
        missing = await missing_rights(client, STREAM, group=GROUP, consumes=True, limits_rates=False)
        assert missing is not None
        assert missing.commands == ("xautoclaim",)
        assert "unknown command" in str(missing)
