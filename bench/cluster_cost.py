"""Measure the CPU time of a publish by the client of a cluster: `python -m bench.cluster_cost`. Alternating, medians of
ratios to the client of one server. One node has all slots, so both clients reach the same server."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from redis.asyncio import Redis
from uvloop import run

from bench.shortcuts import Way, compare
from okane.local.ports import free_port
from okane.local.redis_server import RedisServer
from streams import Lane, Stream, connect, scripts
from streams.slots import SLOTS

BODY = b"x" * 16
STREAM = Stream("bench", lanes=(Lane("critical", 6), Lane("default", 3), Lane("low", 1)))
LONGEST = 1_000  # entries: a lane that is full takes none, and the server's memory stays as it is


class ClusterNode(RedisServer):
    """A server that is a node of a cluster."""

    def prepare(self) -> None:
        super().prepare()
        with (self._folder / "redis.conf").open("a") as config:
            config.write(f"cluster-enabled yes\ncluster-port {free_port()}\n")


def publishing(client: Redis, entries: int) -> Way:
    """Return a way to publish so many entries in one call of the script."""
    drafts = [("default", ("b", BODY))] * entries

    async def publish() -> object:
        return await scripts.publish(client, STREAM, max_length=LONGEST, drafts=drafts)

    return publish


def at_once(way: Way, calls: int) -> Way:
    """Return a way to make so many calls at the same time."""

    async def together() -> object:
        return await asyncio.gather(*(way() for _ in range(calls)))

    return together


async def _measure(url: str) -> None:
    cluster_url = url.replace("redis://", "redis+cluster://")
    async with connect(url) as one, connect(cluster_url) as cluster:
        await one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)  # type: ignore[no-untyped-call]
        while (await one.cluster("INFO"))["cluster_state"] != "ok":  # noqa: ASYNC110 - a node sends no event
            await asyncio.sleep(0.1)
        print(f"{'':<44} {'one server':>11} {'cluster':>11}")
        for entries in (1, 50):
            await compare(f"{entries} entries", publishing(one, entries), publishing(cluster, entries))
        await compare("16 calls at once", at_once(publishing(one, 1), 16), at_once(publishing(cluster, 1), 16))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = ClusterNode(folder=Path(folder) / "node", log=Path(folder) / "node.log", port=free_port())
        server.prepare()
        server.start()
        try:
            run(_measure(server.url))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
