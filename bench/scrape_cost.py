"""Measure the cost of a scrape: `python -m bench.scrape_cost [--workers 50]`.

/metrics is that of a process with every kind of label; /metrics/system and /http_sd cover a group with that many consumers on
each lane. CPU is that of this process; that of Redis comes from INFO.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest

from bench.machine import describe
from bench.system import System, running
from okane.api.metrics_endpoint import targets
from okane.app.system_metrics import SystemMetrics
from okane.lanes import payments_stream
from okane.metrics import OkaneMetrics
from okane.payment import Status
from okane.redis.presence import Presence
from okane.store import Overview
from streams import Inspector, Stream, connect
from streams.prometheus import PrometheusMetrics

ROUNDS = 30
INTERVAL_S = 15  # Prometheus' usual scrape interval
STREAM = payments_stream("scrape-cost")
GROUP = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One scrape, on average."""

    cpu_ms: float
    redis_ms: float
    series: int
    size_bytes: int

    def __str__(self) -> str:
        cost = f"{self.cpu_ms:7.2f} ms CPU  {self.redis_ms:6.2f} ms Redis"
        return f"{cost}  {self.series:6,} series  {self.size_bytes:9,} bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50)
    workers = parser.parse_args().workers
    print(describe())
    with running() as system:
        own, whole, found = asyncio.run(_measure(system, system.new_database(), workers))
    print(f"/metrics, one worker          {own}")
    print(f"/metrics/system               {whole}")
    print(f"/http_sd                      {found}")
    cpu_ms = workers * own.cpu_ms + whole.cpu_ms + found.cpu_ms
    series = workers * own.series + whole.series
    print(
        f"{workers} workers, every {INTERVAL_S} s: {series:,} series, {cpu_ms / INTERVAL_S:.2f} ms of CPU and "
        f"{(whole.redis_ms + found.redis_ms) / INTERVAL_S:.3f} ms of Redis a second"
    )
    print(f"if each worker exported the whole system, it would be {workers * (own.series + whole.series):,} series")


async def _measure(system: System, url: str, workers: int) -> tuple[Cost, Cost, Cost]:
    async with connect(system.redis.url) as redis:
        presence = Presence(redis, STREAM)
        for number in range(workers):
            await presence.announce(f"127.0.0.1:{9101 + number}", role="worker", name=f"worker-{number}")
        for key in STREAM.lane_keys:
            await redis.xgroup_create(key, GROUP, "0", mkstream=True)
            for number in range(workers):
                await redis.xgroup_createconsumer(key, GROUP, f"worker-{number}")
        process, shared = OkaneMetrics(CollectorRegistry()), SystemMetrics(CollectorRegistry())
        library = PrometheusMetrics(prefix="okane", registry=process.registry, shared=shared.registry)
        _see_everything(process, library, STREAM)
        inspector, overview = Inspector(redis, STREAM, group=GROUP), Overview(url)

        async def own() -> bytes:
            return generate_latest(process.registry)

        async def whole() -> bytes:
            library.show(await inspector.stats())
            shared.set_waiting(
                oldest_due=await overview.oldest_due(),
                dead=await overview.count_dead(),
                waiting=await overview.count_waiting(),
            )
            return generate_latest(shared.registry)

        async def found() -> bytes:
            return repr(targets(await presence.processes(), system=STREAM.name)).encode()

        costs = [await _cost(system, scrape) for scrape in (own, whole, found)]
        await overview.aclose()
    return costs[0], costs[1], costs[2]


async def _cost(system: System, scrape: Callable[[], Awaitable[bytes]]) -> Cost:
    body = await scrape()  # connections are made, statements prepared
    with system.redis_client() as redis:
        redis_s, cpu_s = _redis_s(redis.info("cpu")), time.process_time()
        for _ in range(ROUNDS):
            await scrape()
        cpu_s, redis_s = time.process_time() - cpu_s, _redis_s(redis.info("cpu")) - redis_s
    lines = [line for line in body.splitlines() if not line.startswith(b"#")]
    return Cost(
        cpu_ms=cpu_s / ROUNDS * 1000,
        redis_ms=redis_s / ROUNDS * 1000,
        series=0 if body.startswith(b"[") else len(lines),
        size_bytes=len(body),
    )


def _redis_s(info: dict[str, float]) -> float:
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _see_everything(process: OkaneMetrics, library: PrometheusMetrics, stream: Stream) -> None:
    """As many series as a busy worker has."""
    metrics = library.for_stream(stream.name, stream.lane_names)
    for lane in stream.lane_names:
        metrics.published(lane, 1)
        metrics.started(lane, 0.01)
        metrics.handled(lane, 0.01)
        for outcome in ("done", "retry", "dead"):
            metrics.settled(lane, outcome, 1)
    metrics.batch("publish", 1)
    metrics.batch("read", 1)
    metrics.batch("settle", 1)
    metrics.round_trip("publish", 0.001)
    metrics.round_trip("settle", 0.001)
    for status in (Status.SUCCESS, Status.FAILED_FINAL):
        process.settle_seconds.labels(status.value).observe(0.1)
    for call in ("charge", "look_up"):
        process.provider_seconds.labels("provider", call).observe(0.1)
        for outcome in ("approved", "declined", "unavailable", "unknown", "not_found"):
            process.attempts.labels("provider", call, outcome).inc()
    for statement in ("claim", "settle", "renew"):
        process.observe_batch(statement, 8)
        process.observe_round_trip(statement, 0.001)
    for result in ("granted", *Status):
        process.claims.labels(str(result)).inc()
    for code in range(10):
        process.count_decline("provider", f"code_{code}")


if __name__ == "__main__":
    main()
