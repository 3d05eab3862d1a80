"""The model of Redis, called without a network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

from tests.simulation.loop import SimulationLoop
from tests.simulation.network import Link, Network
from tests.simulation.redis import Server
from tests.simulation.redis_client import Broker, MemoryRedis


class DirectRedis(MemoryRedis):
    """The simulated client without a network."""

    def __init__(self, server: Server) -> None:
        loop = SimulationLoop(Random(0))  # type: ignore[abstract] # the loop implements what asyncio calls
        super().__init__(Broker(server, Network(loop, Random(0)), Link("redis")), timeout=timedelta(seconds=5))
        self._server = server

    async def _attempt(self, what: str, effect: Any, block_s: float) -> Sequence[Any]:
        replies: Sequence[Any] = effect(None)
        return replies
