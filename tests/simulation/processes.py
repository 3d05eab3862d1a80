"""The processes of the simulation: an API and a worker, composed of the product's own parts as `okane.app` composes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prometheus_client import CollectorRegistry

from okane.intake.accept import Accept
from okane.metrics import OkaneMetrics
from okane.worker.charge import Charge
from okane.worker.direct import Direct
from okane.worker.lease import Leases
from okane.worker.sweep import LaneState, Sweep
from okane.worker.verdict import Rules
from streams import (
    Consumer,
    Delayed,
    Handler,
    Inspector,
    Janitor,
    Message,
    Metrics,
    Outcome,
    Producer,
    RetryPolicy,
    Stream,
    StreamUnavailable,
    require_noeviction,
)
from tests.simulation.audit import Audit
from tests.simulation.network import Link, Network
from tests.simulation.postgres import Remote, RemotePaymentStore, RemoteSweepStore, as_payment_store, as_sweep_store
from tests.simulation.provider import Bank, SimulatedProvider
from tests.simulation.redis_client import Broker, MemoryRedis, as_redis
from tests.simulation.scenario import Scenario
from tests.simulation.store import MemoryDatabase

GROUP = "workers"
API_REDIS_TIMEOUT = timedelta(seconds=1)
POISONED = "key-0"  # the payment that is poison, in a world that has one
WORKER_REDIS_TIMEOUT = timedelta(seconds=5)
# One for all: what it counts is not looked at, and making one takes longer than many a run.
_metrics = OkaneMetrics(CollectorRegistry())


@dataclass(frozen=True, slots=True)
class Outside:
    """What all processes share: the servers, and the ways to them."""

    scenario: Scenario
    stream: Stream
    network: Network
    postgres: Link
    provider: Link
    database: MemoryDatabase
    broker: Broker
    bank: Bank
    audit: Audit


class Tally(Metrics):
    """Counts what was repaired."""

    def __init__(self, audit: Audit) -> None:
        self._repairs = audit.repairs

    def reclaimed(self, lane: str, count: int) -> None:
        self._repairs["reclaimed"] += count

    def promoted(self, count: int) -> None:
        self._repairs["promoted"] += count

    def lost(self, count: int) -> None:
        self._repairs["leases lost"] += count

    def stale(self, lane: str, count: int) -> None:
        self._repairs["stale outcomes"] += count

    def group_recreated(self) -> None:
        self._repairs["groups recreated"] += 1


class Parts:
    """What both kinds of process are made of."""

    def __init__(self, outside: Outside, *, actor: str, redis_timeout: timedelta) -> None:
        scenario = outside.scenario
        self.outside = outside
        self.metrics = Tally(outside.audit)
        self.redis = as_redis(MemoryRedis(outside.broker, timeout=redis_timeout))
        self.producer = Producer(self.redis, outside.stream, max_length=scenario.max_length, metrics=self.metrics)
        self.inspector = Inspector(self.redis, outside.stream, group=GROUP)
        self.remote = Remote(outside.network, outside.postgres)
        store = RemotePaymentStore(
            self.remote,
            outside.database,
            actor=actor,
            lease=scenario.lease,
            grace=scenario.grace,
            late_look_ups=scenario.late_look_ups,
        )
        self.store = as_payment_store(store)
        self.sweep_store = as_sweep_store(RemoteSweepStore(self.remote, outside.database, grace=scenario.grace))

    async def lanes(self) -> Mapping[str, LaneState]:
        """The state of the streams that the sweep goes by."""
        stats = await self.inspector.stats()
        await self.producer.check()
        return {
            lane.lane: LaneState(
                oldest_entry=_age(lane.oldest_ms, stats.now_ms),
                room=self.outside.scenario.max_length - lane.length,
            )
            for lane in stats.lanes
        }

    async def check_redis(self) -> None:
        """Refuse a server that throws things away; one that is away is waited for."""
        try:
            await require_noeviction(self.redis)
        except StreamUnavailable:
            self.outside.audit.repairs["started without Redis"] += 1


class Api:
    """One API process: takes requests from `start` until it is told to stop, then finishes what it has."""

    def __init__(self, outside: Outside, *, name: str) -> None:
        self._outside = outside
        self._name = name
        self.accept: Accept | None = None
        self.requests: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        parts = Parts(self._outside, actor=self._name, redis_timeout=API_REDIS_TIMEOUT)
        await parts.check_redis()
        self.accept = Accept(store=parts.store, producer=parts.producer)
        await stop.wait()
        self.accept = None
        while self.requests:
            await asyncio.wait(list(self.requests))
        await parts.producer.aclose()


class Worker:
    """One worker process, as `okane.app.worker.run_worker` runs it. `sweeps` is False in a world without a sweep."""

    sweeps = True

    def __init__(self, outside: Outside, *, name: str) -> None:
        self._outside = outside
        self._name = name

    async def run(self, stop: asyncio.Event) -> None:
        scenario, outside = self._outside.scenario, self._outside
        drained = asyncio.Event()
        parts = Parts(outside, actor=self._name, redis_timeout=WORKER_REDIS_TIMEOUT)
        await parts.check_redis()
        leases = Leases(store=parts.store, lease=scenario.lease)
        policy = RetryPolicy(base=scenario.retry_base, cap=scenario.retry_cap, max_attempts=scenario.max_retries + 1)
        charge = self._charge(parts, leases, policy)
        handler = self._poisoned(charge) if scenario.poison == "handler" else charge
        consumer = Consumer(
            parts.redis,
            outside.stream,
            group=GROUP,
            name=self._name,
            handler=handler,
            on_poison=charge.poison,
            concurrency=scenario.concurrency,
            lease=scenario.lease,
            policy=policy,
            max_deliveries=scenario.max_deliveries,
            block=scenario.block,
            drain=scenario.drain,
            metrics=parts.metrics,
        )
        direct = Direct(handler, concurrency=scenario.concurrency, metrics=_metrics)
        delayed = Delayed(parts.redis, outside.stream, poll=scenario.poll, metrics=parts.metrics)
        sweep = Sweep(
            store=parts.sweep_store,
            producer=parts.producer,
            direct=direct,
            lanes=parts.lanes,
            interval=scenario.sweep_interval,
            metrics=_metrics,
            unable_for=lambda: max(consumer.unable_for, delayed.unable_for),
        )
        janitor = Janitor(parts.redis, outside.stream, group=GROUP, idle=scenario.lease * 2, every=timedelta(seconds=5))
        async with asyncio.TaskGroup() as running:
            running.create_task(leases.run(drained))
            for duty in (delayed, sweep, janitor) if self.sweeps else (delayed, janitor):
                running.create_task(duty.run(stop))
            consuming = running.create_task(consumer.run(stop))
            await stop.wait()
            await direct.drain(scenario.drain)
            await consuming
            drained.set()
        await parts.producer.aclose()

    def _poisoned(self, charge: Charge) -> Handler:
        """A handler that dies of one payment before it has done anything about it."""

        async def handle(message: Message) -> Outcome:
            row = self._outside.database.payments.get(UUID(bytes=message.body))
            if row is not None and row.idempotency_key == POISONED:
                await self._outside.network.die("poison")
            return await charge(message)

        return handle

    def _charge(self, parts: Parts, leases: Leases, policy: RetryPolicy) -> Charge:
        scenario, outside = self._outside.scenario, self._outside
        provider = SimulatedProvider(
            outside.bank,
            outside.network,
            outside.provider,
            patience_s=scenario.provider_timeout.total_seconds(),
            dies_of=POISONED if scenario.poison == "provider" else None,
        )
        rules = Rules(
            policy=policy,
            max_deliveries=scenario.max_deliveries,
            consistency_lag=scenario.consistency_lag,
            unknown_deadline=scenario.unknown_deadline,
            look_up_delays=scenario.look_up_delays,
        )
        return Charge(store=parts.store, provider=provider, leases=leases, rules=rules, metrics=_metrics)


def _age(since_ms: int | None, now_ms: int) -> timedelta | None:
    return None if since_ms is None else timedelta(milliseconds=max(0, now_ms - since_ms))
