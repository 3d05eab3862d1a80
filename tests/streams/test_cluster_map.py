"""The map of a cluster's slots: its addresses, when it is asked for, and the facts about its nodes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams import StreamForbidden, StreamUnavailable, cluster, cluster_facts, connect, require_noeviction
from streams.slots import SLOTS, SlotRange, parse_slots
from tests.streams.scripted_node import HANG_UP, Reply, ScriptedNode, Words, says, slots
from tests.streams.servers import HOST
from tests.streams.two_nodes import SET, TwoNodes, reached

ASKED = ("10.0.0.1", 6379)
IP = [b"ip", b"10.0.0.2"]
INFO = (
    "redis_version:7.2.0\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nused_memory:1\r\naof_enabled:1"
)
NO_INFO = "-NOPERM User worker has no permissions to run the 'info' command"


@pytest.mark.parametrize(
    ("node", "host"),
    [
        ([b"10.0.0.9", 7, b"id", []], "10.0.0.9"),
        ([b"redis.example", 7, b"id", IP], "redis.example"),
        ([None, 7, b"id", IP], "10.0.0.1"),
        ([b"", 7, b"id"], "10.0.0.1"),
        ([b"?", 7, b"id", IP], "10.0.0.2"),
        ([b"?", 7, b"id", [b"ip", b""]], "10.0.0.1"),  # it does not know its own address, so it is the asked node
    ],
)
def test_the_address_of_a_node_is_the_one_that_the_cluster_prefers(node: list[Any], host: str) -> None:
    assert parse_slots([[0, 9, node, node]], asked=ASKED) == (SlotRange(0, 9, (host, 7), ((host, 7),)),)


def test_a_node_without_an_address_is_left_out() -> None:
    nameless, good = [b"?", 7, b"id", []], [b"a", 1, b"id", []]
    assert parse_slots([[0, 9, nameless, good], [10, 19, good, nameless]], asked=ASKED) == (
        SlotRange(10, 19, ("a", 1), ()),
    )
    with pytest.raises(ValueError, match="no node has a hostname"):
        parse_slots([[0, 9, [b"?", 7, b"id"]]], asked=ASKED)


async def test_what_goes_wrong_during_a_request_for_the_map_is_followed_by_another(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    release, old = asyncio.Event(), nodes.owner.map

    async def late(words: Words) -> str | None:
        nodes.owner.map = nodes.other.map = slots((0, SLOTS - 1, nodes.other))
        await release.wait()
        return await old(words)

    nodes.owner.map = nodes.other.map = late
    nodes.pool.renew_map()
    await reached(lambda: nodes.maps == 2)
    nodes.owner.reply = nodes.redirected("MOVED", nodes.other)
    assert await nodes.send(SET) == [b"OK"]
    release.set()
    await reached(lambda: {one.primary[1] for one in nodes.pool.ranges} == {nodes.other.port})
    assert nodes.maps == 3


async def test_a_node_that_left_is_not_waited_for(nodes: TwoNodes) -> None:
    await nodes.send(SET)
    waited = []

    async def silent(*, nowait: bool = False) -> None:
        waited.append(not nowait)
        raise RedisTimeoutError("Timed out closing connection after 5")

    node: Any = nodes.pool.node((HOST, nodes.owner.port))
    [idle] = node._available_connections
    close, idle.disconnect = idle.disconnect, silent
    nodes.moved()
    [one] = await nodes.pool.renewed_map()
    assert one.primary == (HOST, nodes.other.port)
    assert waited == [False]
    await close()


async def test_a_client_that_is_closed_asks_for_no_map_and_tells_those_that_wait_for_one() -> None:
    async with ScriptedNode() as node:
        node.map = says(None)
        client = connect(f"redis+cluster://{HOST}:{node.port}")
        nodes = TwoNodes(client, node, node)
        waiting = asyncio.ensure_future(nodes.send(SET))
        await reached(lambda: node.maps == 1)
        await client.aclose()
        with pytest.raises(StreamUnavailable, match="closed"):
            await waiting
        with pytest.raises(StreamUnavailable, match="closed"):
            await nodes.send(SET)
        tasks = asyncio.all_tasks()
        nodes.pool.renew_map()
        assert asyncio.all_tasks() == tasks


async def test_the_first_map_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.01)
    async with ScriptedNode() as node:
        answer = slots((0, SLOTS - 1, node))

        async def far_away(words: Words) -> str | None:
            await asyncio.sleep(0.1)
            return await answer(words)

        node.map = far_away
        async with connect(f"redis+cluster://{HOST}:{node.port}", timeout=timedelta(seconds=20)) as client:
            assert await client.set("key", "value")


def shard(primary: ScriptedNode, replica: ScriptedNode) -> Reply:
    """Return a map of one primary and its replica."""
    parts = ["*1", "*4", ":0", f":{SLOTS - 1}"]
    for node in (primary, replica):
        parts += ["*3", f"${len(HOST)}", HOST, f":{node.port}", "$2", "id"]
    return says("\r\n".join(parts))


async def tells(words: Words) -> str:
    return f"${len(INFO)}\r\n{INFO}" if words[0] == b"INFO" else "*2\r\n$1\r\n1\r\n$1\r\n2"


async def test_a_replica_that_refuses_ends_no_process_and_a_primary_is_named() -> None:
    async with ScriptedNode(tells) as primary, ScriptedNode(says(NO_INFO)) as replica:
        primary.map = replica.map = shard(primary, replica)
        async with connect(f"redis+cluster://{HOST}:{primary.port}") as client:
            assert (await require_noeviction(client)).noeviction
            facts = await cluster_facts(client)
            assert facts is not None
            assert [(one.slots, one.refused) for one in facts.nodes] == [(SLOTS, False), (0, True)]
            assert "NOPERM" in facts.nodes[1].error
            primary.reply = says(HANG_UP)  # it is only away
            with pytest.raises(StreamUnavailable) as error:
                await require_noeviction(client)
            assert type(error.value) is StreamUnavailable
            primary.reply, replica.reply = replica.reply, tells
            with pytest.raises(StreamForbidden, match=f"{HOST}:{primary.port}: NOPERM"):
                await require_noeviction(client)


async def test_the_clocks_are_compared_without_the_wait_for_the_map() -> None:
    async with ScriptedNode(tells) as node:
        answer, answered_at = slots((0, SLOTS - 1, node)), list[datetime]()

        async def late(words: Words) -> str | None:
            await asyncio.sleep(0.01)
            answered_at.append(datetime.now(UTC))
            return await answer(words)

        node.map = late
        async with connect(f"redis+cluster://{HOST}:{node.port}") as client:
            facts = await cluster_facts(client)
        assert facts is not None
        server = facts.nodes[0].server
        assert server is not None
        assert answered_at[0] <= server.sent_at <= datetime.now(UTC)
