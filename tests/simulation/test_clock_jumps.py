"""Jumps of the server's clock have the effects of the table in docs/streams.md."""

from __future__ import annotations

from typing import Any

from streams import Stream, scripts
from streams.group import Group
from tests.simulation.direct_redis import DirectRedis
from tests.simulation.redis import Server
from tests.simulation.redis_client import as_redis

STREAM = Stream("jumps")
[KEY] = STREAM.lane_keys
HOUR_S = 3_600
LEASE_MS = 30_000


class Jumping:
    """A simulated server and its clock."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.client = as_redis(DirectRedis(Server(lambda: self.now_s)))

    def group(self, consumer: str) -> Group:
        return Group(self.client, STREAM, "g", consumer)

    async def publish(self) -> str:
        [entry_id] = await scripts.publish(self.client, STREAM, max_length=None, drafts=[("default", ["b", b"x"])])
        assert entry_id is not None
        return entry_id

    async def read(self) -> Any:
        await scripts.create_group(self.group("c"))
        _, [entries], _, _ = await scripts.read(
            self.group("c"), [KEY], limit=9, max_bytes=999, entry_bytes=9, shares=[9]
        )
        return entries

    async def taken_over(self) -> int:
        found = await scripts.reclaim(
            self.group("other"),
            "default",
            min_idle_ms=LEASE_MS,
            cursor=b"0-0",
            count=9,
            before_last=0,
            last=False,
            max_bytes=999,
        )
        return len(found.taken)


async def test_ids_never_go_back() -> None:
    server = Jumping()
    ids = [await server.publish()]
    for jump_s in (HOUR_S, -2 * HOUR_S, -HOUR_S, 5 * HOUR_S):
        server.now_s += jump_s
        ids.append(await server.publish())
    numbers = [tuple(map(int, entry_id.split("-"))) for entry_id in ids]
    assert numbers == sorted(set(numbers))
    assert [entry_id.decode() for entry_id, _ in await server.read()] == ids


async def test_delayed_messages_come_early_after_a_jump_forwards_and_late_after_one_backwards() -> None:
    server = Jumping()
    await server.publish()
    [(entry_id, fields)] = await server.read()
    request = scripts.AckRequest({"default": [entry_id.decode()]})
    request.retries.append(("default", entry_id.decode(), 60_000, list(fields)))
    await scripts.ack(server.group("c"), [request])
    moved = []
    for jump_s in (-HOUR_S, HOUR_S, 59, HOUR_S):
        server.now_s += jump_s
        moved.append((await scripts.promote(server.client, STREAM, limit=9))[0])
    assert moved == [0, 0, 0, 1]


async def test_leases_end_early_after_a_jump_forwards() -> None:
    server = Jumping()
    await server.publish()
    await server.read()
    server.now_s += 29
    assert await server.taken_over() == 0
    server.now_s += HOUR_S
    assert await server.taken_over() == 1


async def test_leases_end_late_after_a_jump_backwards_and_are_right_again_when_they_are_renewed() -> None:
    server = Jumping()
    await server.publish()
    [(entry_id, _)] = await server.read()
    server.now_s -= HOUR_S
    server.now_s += 60
    assert await server.taken_over() == 0
    held = {"default": [entry_id.decode()]}
    assert await scripts.renew(server.group("c"), held) == []
    server.now_s += 31
    assert await server.taken_over() == 1
