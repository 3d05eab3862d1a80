"""The processes of the simulation: the product's Worker and PaymentIntake, over simulated servers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from prometheus_client import CollectorRegistry

from okane.intake.accept import PaymentIntake
from okane.intake.operations import OperationIntake
from okane.intake.provider_notices import NoticeIntake
from okane.metrics import OkaneMetrics
from okane.providers.base import Provider, Traits
from okane.providers.breaker import BreakerRules
from okane.worker.notice_follow_up import NoticeFollowUp
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_gate import ProviderGates
from okane.worker.provider_watch import ProviderWatch, WorkerCount
from okane.worker.worker import Duty, Worker, WorkerOptions
from streams import Metrics, Producer, RetryPolicy, Stream, StreamUnavailable, require_noeviction
from tests.simulation.audit import Audit
from tests.simulation.network import Link, Network
from tests.simulation.notices import RemoteProviderEventStore, as_event_store
from tests.simulation.operations.bank import CAPABILITIES, OperatingBank, OperatingProvider
from tests.simulation.operations.parts import OPERATIONS_STREAM, OperationParts
from tests.simulation.operations.tables import OperationTables
from tests.simulation.postgres import Remote, RemotePaymentStore, RemoteSweepStore, as_payment_store, as_sweep_store
from tests.simulation.provider import Bank, ProviderSide, SimulatedProvider
from tests.simulation.provider_store import RemoteProviderStore, as_provider_store
from tests.simulation.redis_client import Broker, MemoryRedis, as_redis
from tests.simulation.scenario import Scenario
from tests.simulation.store import MemoryDatabase
from tests.simulation.stripe_adapter import SimulatedStripe
from tests.simulation.stripe_gateway import StripeGateway

GROUP = "workers"
API_REDIS_TIMEOUT = timedelta(seconds=1)
POISONED = "key-0"  # the payment that is poison, in a world that has one
WORKER_REDIS_TIMEOUT = timedelta(seconds=5)
# One for all: what it counts is not looked at, and making one takes longer than many a run.
_metrics = OkaneMetrics(CollectorRegistry())


@dataclass(frozen=True, slots=True)
class Outside:
    """The servers, and the links to them, which all processes share. `operations` is None where there are none."""

    scenario: Scenario
    stream: Stream
    network: Network
    postgres: Link
    provider_links: Mapping[str, Link]
    database: MemoryDatabase
    broker: Broker
    banks: Mapping[str, ProviderSide]
    audit: Audit
    operations: OperationTables | None = None


class Tally(Metrics):
    """A count of repairs."""

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


class Resources:
    """The clients and stores of one process."""

    def __init__(self, outside: Outside, *, actor: str, redis_timeout: timedelta) -> None:
        scenario = outside.scenario
        self._audit = outside.audit
        self.metrics = Tally(outside.audit)
        self.redis = as_redis(MemoryRedis(outside.broker, timeout=redis_timeout))
        self.producer = Producer(self.redis, outside.stream, max_length=scenario.max_length, metrics=self.metrics)
        remote = Remote(outside.network, outside.postgres)
        store = RemotePaymentStore(
            remote,
            outside.database,
            actor=actor,
            lease=scenario.lease,
            grace=scenario.grace,
            late_look_ups=scenario.late_look_ups,
            dies_of=POISONED if scenario.poison == "handler" else None,
        )
        self.store = as_payment_store(store)
        self.provider_store = RemoteProviderStore(remote, outside.database)
        self.events = as_event_store(RemoteProviderEventStore(remote, outside.database, grace=scenario.grace))
        self.sweep_store = as_sweep_store(RemoteSweepStore(remote, outside.database, grace=scenario.grace))
        self.operations: OperationParts | None = None
        if outside.operations is not None:
            producer = Producer(self.redis, OPERATIONS_STREAM, max_length=scenario.max_length, metrics=self.metrics)
            self.operations = OperationParts(outside.operations, remote, producer, scenario=scenario, actor=actor)

    async def aclose(self) -> None:
        """Close the producers."""
        await self.producer.aclose()
        if self.operations is not None:
            await self.operations.producer.aclose()

    async def check_redis(self) -> None:
        """Refuse a server that evicts keys; one that is away is waited for."""
        try:
            await require_noeviction(self.redis)
        except StreamUnavailable:
            self._audit.repairs["started without Redis"] += 1


class ApiProcess:
    """One API process: takes requests until it is stopped, then finishes those it has."""

    def __init__(self, outside: Outside, *, name: str) -> None:
        self._outside = outside
        self._name = name
        self.intake: PaymentIntake | None = None
        self.notices: NoticeIntake | None = None
        self.operations: OperationIntake | None = None
        self.requests: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        resources = Resources(self._outside, actor=self._name, redis_timeout=API_REDIS_TIMEOUT)
        await resources.check_redis()
        self.intake = PaymentIntake(store=resources.store, producer=resources.producer)
        self.notices = NoticeIntake(events=resources.events, payments=self.intake)
        if resources.operations is not None:
            self.operations = resources.operations.intake(self.intake)
        await stop.wait()
        self.intake = self.notices = self.operations = None
        while self.requests:
            await asyncio.wait(list(self.requests))
        await resources.aclose()


class WorkerProcess:
    """One worker process: the product's `Worker` over the servers of the simulation."""

    def __init__(self, outside: Outside, *, name: str) -> None:
        self._outside = outside
        self._name = name

    async def run(self, stop: asyncio.Event) -> None:
        outside = self._outside
        resources = Resources(outside, actor=self._name, redis_timeout=WORKER_REDIS_TIMEOUT)
        await resources.check_redis()
        gates, watch = _gates(outside, resources, name=self._name) if outside.scenario.breakers else (None, None)
        worker = Worker(
            _options(outside.scenario, name=self._name),
            redis=resources.redis,
            stream=outside.stream,
            producer=resources.producer,
            store=resources.store,
            sweep_store=resources.sweep_store,
            providers=_providers(outside),
            metrics=_metrics,
            stream_metrics=resources.metrics,
            gates=gates,
            duties=_duties(outside, resources, watch),
            operations=None
            if resources.operations is None
            else resources.operations.of_worker(outside.scenario.concurrency, resources.metrics),
        )
        await worker.run(stop)
        await resources.aclose()


def _providers(outside: Outside) -> Sequence[Provider]:
    """Return the adapters of one worker."""
    scenario = outside.scenario
    dies_of = POISONED if scenario.poison == "provider" else None
    traits = Traits(
        timeout=scenario.provider_timeout,
        consistency_lag=scenario.consistency_lag,
        unknown_deadline=scenario.unknown_deadline,
    )
    of_gateway = replace(
        traits,
        unknown_deadline=scenario.gateway_deadline,
        key_lifetime=scenario.key_lifetime,
        pending_deadline=scenario.pending_deadline,
        poll_delays=scenario.poll_delays,
    )
    adapters: list[Provider] = []
    for name, bank in outside.banks.items():
        link = outside.provider_links[name]
        match bank:
            case OperatingBank():
                can = replace(traits, capabilities=CAPABILITIES, poll_delays=scenario.poll_delays)
                adapters.append(OperatingProvider(bank, outside.network, link, traits=can))
            case Bank():
                adapters.append(SimulatedProvider(bank, outside.network, link, traits=traits, dies_of=dies_of))
            case StripeGateway():
                adapters.append(SimulatedStripe(bank, outside.network, link, traits=of_gateway, dies_of=dies_of))
    return adapters


def _duties(outside: Outside, resources: Resources, watch: ProviderWatch | None) -> Sequence[Duty]:
    """Return the tasks of a worker beside its own, as `okane worker` has them."""
    duties: list[Duty] = [] if watch is None else [watch]
    if StripeGateway.name in outside.banks:
        interval = outside.scenario.sweep_interval
        duties.append(NoticeFollowUp(events=resources.events, producer=resources.producer, interval=interval))
    return duties


def _gates(outside: Outside, resources: Resources, *, name: str) -> tuple[ProviderGates, ProviderWatch]:
    """Return the circuit breakers of one worker, which open sooner than the product's, and their watch."""
    rules = BreakerRules(least_calls=4, longest_open_s=8)
    gates = ProviderGates(list(outside.banks), metrics=_metrics, rules=rules)
    store = as_provider_store(resources.provider_store)
    return gates, ProviderWatch(gates, store=store, name=name, count=WorkerCount(workers=outside.scenario.workers))


def _options(scenario: Scenario, *, name: str) -> WorkerOptions:
    policy = RetryPolicy(base=scenario.retry_base, cap=scenario.retry_cap, max_attempts=scenario.max_retries + 1)
    rules = OutcomeRules(
        policy=policy,
        max_deliveries=scenario.max_deliveries,
        look_up_delays=scenario.look_up_delays,
    )
    return WorkerOptions(
        name=name,
        group=GROUP,
        concurrency=scenario.concurrency,
        lease=scenario.lease,
        drain=scenario.drain,
        rules=rules,
        sweep_interval=scenario.sweep_interval,
        redis_patience=timedelta(seconds=2),
        max_stream_length=scenario.max_length,
        default_providers=scenario.providers,
        poll=scenario.poll,
        janitor_idle=scenario.lease * 2,
        janitor_interval=timedelta(seconds=5),
    )
