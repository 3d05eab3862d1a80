"""Publishing to partitions: each message in its own, one round trip for each node, and no node that holds up the others."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import Draft, Stream, StreamFull, StreamUnavailable
from streams.errors import PartlyPublished
from streams.partitioned_producer import PartitionedProducer
from streams.partitions import Partitions
from streams.slots import slot_of
from streams.testing import FakeClock
from tests.streams.scripted_node import HANG_UP, ScriptedNode, Words
from tests.streams.test_producer import Batches
from tests.streams.two_nodes import HALF, TwoNodes, reached

BODIES = [b"%d" % number + bytes([number % 256]) for number in range(40)]
LOW, HIGH = b"\x00", b"\x03"  # bodies of partitions 0 and 3 of four: in the lower and in the upper half of the slots


async def _bodies(client: Redis, stream: Stream, lane: str = "critical") -> list[bytes]:
    entries: Any = await client.xrange(stream.lane_key(lane))
    return [fields[b"b"] for _, fields in entries]


async def _adds(words: Words) -> str:
    """Answer the script that publishes: an id for each message."""
    arguments = words[3 + int(words[2]) + 1 :]
    at = added = 0
    while at < len(arguments):
        at += 2 + int(arguments[at + 1])
        added += 1
    return "\r\n".join([f"*{added}", *["$3\r\n1-0"] * added])


async def _hangs_up(_: Words) -> str:
    return HANG_UP


async def _says_nothing(_: Words) -> None:
    return None


def _half(nodes: TwoNodes, body: bytes, partitions: Partitions) -> ScriptedNode:
    """Return the node of the message's partition."""
    lower = slot_of(partitions.streams[partitions.of(body)].dead_key) < HALF
    owner_is_lower = slot_of("{s}:lane") < HALF
    return nodes.owner if lower == owner_is_lower else nodes.other


async def test_each_message_is_in_the_partition_of_its_last_byte_in_order(client: Redis, stream: Stream) -> None:
    partitions, batches = Partitions(stream, 4), Batches()
    producer = PartitionedProducer(client, partitions, metrics=batches)
    ids = await producer.publish_many([Draft(body) for body in BODIES])
    await producer.check()
    assert batches.sizes == [len(BODIES)], "one server, one round trip"
    assert batches.lanes == {"critical": len(BODIES)}
    for number, one in enumerate(partitions.streams):
        assert await _bodies(client, one) == [body for body in BODIES if body[-1] % 4 == number]
    entry: Any = await client.xrange(partitions.streams[3].lane_keys[0], min=ids[3], max=ids[3])
    assert entry[0][1][b"b"] == BODIES[3]
    assert await client.exists(*stream.lane_keys) == 0


async def test_callers_at_the_same_time_share_a_round_trip(client: Redis, stream: Stream) -> None:
    batches = Batches()
    producer = PartitionedProducer(client, Partitions(stream, 4), metrics=batches)
    await asyncio.gather(*(producer.publish(body) for body in BODIES))
    assert len(batches.sizes) < len(BODIES)
    assert sum(batches.sizes) == len(BODIES)
    await producer.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await producer.publish(b"x")


async def test_a_full_lane_of_one_partition_names_its_messages_alone(client: Redis, stream: Stream) -> None:
    producer = PartitionedProducer(client, Partitions(stream, 2), max_length=1)
    with pytest.raises(StreamFull, match="1 of 4") as full:
        await producer.publish_many([Draft(b"\x00"), Draft(b"\x01"), Draft(b"\x02"), Draft(b"\x03", "low")])
    assert [entry_id is None for entry_id in full.value.published] == [False, False, True, False]


async def test_a_damaged_partition_keeps_no_message_from_the_others_of_its_node(client: Redis, stream: Stream) -> None:
    partitions = Partitions(stream, 2)
    await client.set(partitions.streams[1].lane_keys[0], "not a stream")
    producer = PartitionedProducer(client, partitions)
    with pytest.raises(PartlyPublished, match="2 of 4 messages not published: WRONGTYPE") as partly:
        await producer.publish_many([Draft(bytes([number])) for number in range(4)])
    assert [entry_id is None for entry_id in partly.value.published] == [False, True, False, True]
    await producer.publish(b"\x00")
    assert await _bodies(client, partitions.streams[0]) == [b"\x00", b"\x02", b"\x00"]


async def test_each_node_gets_one_trip_and_both_at_once(nodes: TwoNodes, stream: Stream) -> None:
    partitions = Partitions(stream, 4)
    together = asyncio.Barrier(2)

    async def adds_together(words: Words) -> str:
        if together.n_waiting < 2 and words[3].startswith(b"{"):
            async with asyncio.timeout(20):
                await together.wait()  # of both nodes, or never
        return await _adds(words)

    nodes.owner.reply = nodes.other.reply = adds_together
    producer = PartitionedProducer(nodes.client, partitions, patience=timedelta(seconds=20))
    assert await producer.publish_many([Draft(LOW), Draft(HIGH)]) == ["1-0", "1-0"]
    nodes.owner.reply = nodes.other.reply = _adds
    await producer.publish_many([Draft(body) for body in BODIES])
    assert [len(node.commands) for node in (nodes.owner, nodes.other)] == [3, 3]  # a call for each partition
    assert [node.made for node in (nodes.owner, nodes.other)] in ([1, 1], [2, 1], [1, 2])  # one more asked for the map


async def test_a_node_that_hangs_up_keeps_its_own_messages_alone(nodes: TwoNodes, stream: Stream) -> None:
    partitions, clock = Partitions(stream, 4), FakeClock()
    sick, sound = _half(nodes, HIGH, partitions), _half(nodes, LOW, partitions)
    sick.reply, sound.reply = _hangs_up, _adds
    producer = PartitionedProducer(nodes.client, partitions, pause=timedelta(seconds=1), clock=clock)
    with pytest.raises(PartlyPublished) as partly:
        await producer.publish_many([Draft(HIGH), Draft(LOW)])
    assert partly.value.published == (None, "1-0")
    tried = len(sick.commands)
    for _ in range(2):
        with pytest.raises(StreamUnavailable):
            await producer.publish(HIGH)
    assert len(sick.commands) == tried, "it was not left alone"
    assert await producer.publish(LOW) == "1-0"
    sick.reply = _adds
    await clock.advance(timedelta(seconds=1.1))
    assert await producer.publish(HIGH) == "1-0"
    assert await producer.publish_many([Draft(HIGH), Draft(LOW)]) == ["1-0", "1-0"]


async def test_a_silent_node_is_waited_for_once_and_by_one_caller(nodes: TwoNodes, stream: Stream) -> None:
    partitions, clock = Partitions(stream, 4), FakeClock()
    sick, sound = _half(nodes, HIGH, partitions), _half(nodes, LOW, partitions)
    sick.reply, sound.reply = _says_nothing, _adds
    patience = timedelta(seconds=0.9)  # the other node answers by then, on any machine
    producer = PartitionedProducer(nodes.client, partitions, patience=patience, clock=clock)
    waiting = asyncio.ensure_future(producer.publish_many([Draft(HIGH), Draft(LOW)]))
    await reached(lambda: bool(sick.commands))
    assert await producer.publish(LOW) == "1-0"  # does not queue behind the silent node
    with pytest.raises(PartlyPublished, match=r"no answer in 0\.9 s"):
        await waiting
    tried = len(sick.commands)
    await clock.advance(timedelta(seconds=1.1))
    trying = asyncio.ensure_future(producer.publish(HIGH))
    await reached(lambda: len(sick.commands) > tried)
    with pytest.raises(StreamUnavailable):
        await producer.publish(HIGH)  # the other one tries it
    assert not trying.done()
    trying.cancel()


async def test_an_error_of_all_is_the_error_itself(nodes: TwoNodes, stream: Stream) -> None:
    nodes.owner.reply = nodes.other.reply = _hangs_up
    producer = PartitionedProducer(nodes.client, Partitions(stream, 4))
    with pytest.raises(StreamUnavailable) as raised:
        await producer.publish_many([Draft(HIGH), Draft(LOW)])
    assert not isinstance(raised.value, PartlyPublished)
    with pytest.raises(StreamUnavailable):
        await producer.check()


async def test_a_partition_that_moves_is_followed(nodes: TwoNodes, stream: Stream) -> None:
    partitions = Partitions(stream, 4)
    old, new = _half(nodes, HIGH, partitions), _half(nodes, LOW, partitions)
    old.reply = new.reply = _adds
    producer = PartitionedProducer(nodes.client, partitions)
    await producer.publish_many([Draft(HIGH), Draft(LOW)])

    async def moved(words: Words) -> str:
        return f"-MOVED {slot_of(words[3])} 127.0.0.1:{new.port}"

    old.reply = moved
    assert await producer.publish(HIGH) == "1-0"
    tried = len(old.commands)
    assert await producer.publish_many([Draft(HIGH), Draft(LOW)]) == ["1-0", "1-0"]
    assert len(old.commands) == tried
