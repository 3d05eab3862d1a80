"""The gates of a worker process, with the rate limits of the providers file, and the watch that keeps them up to date."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
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


def build_gates(
    settings: Settings,
    resources: Resources,
    names: Sequence[str],
    *,
    name: str,
    closing: contextlib.AsyncExitStack,
    rates: Mapping[str, Rate] | None = None,
) -> tuple[ProviderGates, ProviderWatch]:
    """Return the gates of the worker `name` in front of these providers, and their watch. `rates` are those of all workers
    together."""
    count = WorkerCount(partial(_count_workers, resources.presence))
    limiters: dict[str, ProviderLimit] = {}
    if rates:
        buckets = TokenBuckets(resources.redis, resources.stream)
        closing.push_async_callback(buckets.aclose)
        for provider, rate in rates.items():
            limiters[provider] = limit = ProviderLimit(provider, rate, buckets=buckets, workers=lambda: count.workers)
            closing.push_async_callback(limit.aclose)
    store = ProviderStore(needed(settings.database_url, "DATABASE_URL"))
    closing.push_async_callback(store.aclose)
    gates = ProviderGates(names, metrics=resources.metrics, limiters=limiters)
    return gates, ProviderWatch(gates, store=store, name=name, count=count)


async def _count_workers(presence: Presence) -> int:
    return sum(one.alive and one.role == "worker" for one in await presence.processes())
