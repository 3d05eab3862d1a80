"""The gates of a worker process, with the rate limits of the providers file, and the watch that keeps them up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from okane.app.resources import Resources, needed
from okane.config import Settings
from okane.rate import Rate
from okane.redis.buckets import TokenBuckets
from okane.redis.presence import Presence
from okane.redis.provider_limit import ProviderLimit
from okane.store.providers import ProviderStore
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_watch import ProviderWatch, WorkerCount


class ProviderLimits:
    """The rate limits of the gates of one worker, by the providers file."""

    def __init__(self, gates: ProviderGates, *, buckets: TokenBuckets, workers: Callable[[], int]) -> None:
        self._gates = gates
        self._buckets = buckets
        self._workers = workers
        self._limits: dict[str, ProviderLimit] = {}

    def set(self, rates: Mapping[str, Rate]) -> None:
        """Limit these providers, and no other, from the next permits on."""
        for name, gate in self._gates.by_name.items():
            rate, limit = rates.get(name), self._limits.get(name)
            if rate is not None and limit is not None:
                limit.set_rate(rate)
            elif rate is not None:
                limit = ProviderLimit(name, rate, buckets=self._buckets, workers=self._workers)
                self._limits[name] = limit
            gate.set_limiter(limit if rate is not None else None)

    async def aclose(self) -> None:
        """End the wait of all callers, then refuse further ones."""
        for limit in self._limits.values():
            await limit.aclose()
        await self._buckets.aclose()


def build_gates(
    settings: Settings,
    resources: Resources,
    names: Sequence[str],
    *,
    name: str,
    closing: contextlib.AsyncExitStack,
) -> tuple[ProviderGates, ProviderWatch, ProviderLimits]:
    """Return the gates of the worker `name` in front of these providers, without a limit, their watch and their limits."""
    count = WorkerCount(partial(_count_workers, resources.presence))
    gates = ProviderGates(names, metrics=resources.metrics)
    buckets = TokenBuckets(resources.redis, resources.stream)
    limits = ProviderLimits(gates, buckets=buckets, workers=lambda: count.workers)
    closing.push_async_callback(limits.aclose)
    store = ProviderStore(needed(settings.database_url, "DATABASE_URL"))
    closing.push_async_callback(store.aclose)
    return gates, ProviderWatch(gates, store=store, name=name, count=count), limits


async def _count_workers(presence: Presence) -> int:
    return sum(one.alive and one.role == "worker" for one in await presence.processes())
