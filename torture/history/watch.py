"""Sample the system during a run: memory, descriptors, slow commands, the provider's counts.

The counts of a process are lost when it dies, so the last ones are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from okane.load.client import HttpClient
from streams import connect
from torture.history.journals import ProviderCounts
from torture.system.cluster import Cluster
from torture.system.program import Program
from torture.system.tally import Stall, Tally

_EVERY_S = 1.0
_PATIENCE_S = 0.5
_STALL_EVERY_S = 0.05
_STALL_S = 0.3
_WARM_S = 3.0  # before this a process has not yet the size that it will keep


@dataclass(frozen=True, slots=True)
class Size:
    """Memory and descriptors of a process and its children at one moment."""

    rss_mb: float
    descriptors: int  # open files and connections


class Watch:
    """`first` and `last` hold the size of each program at its first and last look (at any of its lives)."""

    def __init__(self, cluster: Cluster, http: HttpClient) -> None:
        self.first: dict[str, Size] = {}
        self.last: dict[str, Size] = {}
        self.charged = 0
        self._cluster = cluster
        self._http = http
        self._provider: dict[int, ProviderCounts] = {}  # by pid
        self._slow: dict[tuple[str, int], int] = {}  # by server and pid

    @property
    def provider(self) -> ProviderCounts:
        """Over all lives of the provider."""
        return sum(self._provider.values(), ProviderCounts())

    @property
    def slow_commands(self) -> int:
        """Commands that took Redis longer than 10 ms (its own default), over all lives of both servers."""
        return sum(self._slow.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set, and once more."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await stop.wait()
            await self.look()

    async def look(self) -> None:
        """Take one sample; programs that do not answer at once are skipped."""
        await asyncio.gather(self._ask_provider(), self._ask_redis(), self._ask_sizes())

    async def _ask_provider(self) -> None:
        provider = self._cluster.programs["provider"]
        pid = provider.pid
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                reply = await self._http.get(f"{self._cluster.factory.provider_url}/journal/summary")
                if reply.body is not None:
                    self._provider[pid] = ProviderCounts.from_summary(reply.body)
                    charged = reply.body.get("charged")
                    self.charged = charged if isinstance(charged, int) else self.charged

    async def _ask_redis(self) -> None:
        server = self._cluster.redis
        pid = server.pid
        # Whatever Redis says or does under torture is no news here.
        with contextlib.suppress(Exception):
            # The patience ends before the client is closed: a close that is cut short leaves its connection open.
            async with connect(self._cluster.redis_url) as redis, asyncio.timeout(_PATIENCE_S):
                found = await redis.slowlog_get(1)
                if found:
                    self._slow[server.name, pid] = int(found[0]["id"]) + 1

    async def _ask_sizes(self) -> None:
        self.last |= await asyncio.to_thread(_sizes, list(self._cluster.programs.values()))
        for name, size in self.last.items():
            self.first.setdefault(name, size)


async def note_stalls(tally: Tally, stop: asyncio.Event) -> None:
    """Note the times in which the machine did not let this program run, until `stop` is set."""
    while not stop.is_set():
        since_s = time.time()
        await asyncio.sleep(_STALL_EVERY_S)
        until_s = time.time()
        if until_s - since_s > _STALL_S:
            tally.stalls.append(Stall(since_s, until_s))


def _sizes(programs: list[Program]) -> Mapping[str, Size]:
    found = {}
    for program in programs:
        if program.age_s > _WARM_S:
            with contextlib.suppress(psutil.Error):
                found[program.name] = _size(psutil.Process(program.pid))
    found["torture"] = _size(psutil.Process())
    return found


def _size(process: psutil.Process) -> Size:
    # Private memory where the system tells it: Postgres' sessions share most of theirs.
    family = [process, *process.children()] if process.name() == "postgres" else [process]
    return Size(
        rss_mb=round(sum(one.memory_info().rss - getattr(one.memory_info(), "shared", 0) for one in family) / 2**20, 1),
        descriptors=sum(one.num_fds() for one in family),
    )
