"""The work of one stream family in one worker: its consumer, delayed retries, sweep, janitor, lease renewal and direct runs,
and the order in which they drain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol

from okane import tracing
from okane.metrics import OkaneMetrics
from okane.worker.direct_run import DirectRuns
from okane.worker.lease_renewal import LeaseRenewal
from okane.worker.outcome_rules import OutcomeRules
from okane.worker.provider_gate import ProviderGates
from okane.worker.sweep import LaneState, Sweep, SweptStore
from streams import Consumer, ConsumerOptions, Delayed, Inspector, Janitor, Message, Metrics, Outcome, Producer, Stream
from streams.connection import RedisClient


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of one worker. Those with a default are not settings of okane; the simulation shortens them.

    `default_providers` charge the payments that name none, in this order (None: all).
    """

    name: str
    group: str
    concurrency: int
    lease: timedelta
    drain: timedelta
    rules: OutcomeRules
    sweep_interval: timedelta
    redis_patience: timedelta
    max_stream_length: int
    default_providers: Sequence[str] | None = None
    mark_interval: timedelta = timedelta(0)
    poll: timedelta = timedelta(milliseconds=250)
    janitor_idle: timedelta = timedelta(minutes=10)
    janitor_interval: timedelta = timedelta(minutes=1)


class Duty(Protocol):
    """A task of a worker beside its consumers."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`."""
        ...


class MessageHandler(Protocol):
    """The handler of a stream's messages, and of the poison among them."""

    async def __call__(self, message: Message) -> Outcome: ...

    async def poison(self, message: Message) -> Outcome: ...


class StreamWork:
    """The work of one stream family in one worker, with `concurrency` slots of its own."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        redis: RedisClient,
        stream: Stream,
        producer: Producer,
        handler: MessageHandler,
        leases: LeaseRenewal,
        sweep_store: SweptStore,
        concurrency: int,
        gates: ProviderGates | None,
        metrics: OkaneMetrics,
        stream_metrics: Metrics,
        tracing: tracing.Tracing,
    ) -> None:
        """Without `gates` no call is held back."""
        capacity = None if gates is None else partial(gates.capacity, concurrency)
        self._options = options
        self._producer = producer
        self._leases = leases
        self._inspector = Inspector(redis, stream, group=options.group)
        self._consumer = Consumer(
            redis,
            stream,
            group=options.group,
            name=options.name,
            handler=handler,
            on_poison=handler.poison,
            options=_consumer_options(options, concurrency),
            metrics=stream_metrics,
            tracer=tracing.messages,
            capacity=capacity,
        )
        self._direct = DirectRuns(tracing.handler(handler), concurrency=concurrency, metrics=metrics, capacity=capacity)
        self._delayed = Delayed(redis, stream, poll=options.poll, metrics=stream_metrics)
        sweep = Sweep(
            store=sweep_store,
            producer=tracing.publisher(producer),
            direct=self._direct,
            lanes=self._lane_states,
            stream=stream,
            interval=options.sweep_interval,
            metrics=metrics,
            unable_for=self._unable_for,
            patience=options.redis_patience,
            mark_interval=options.mark_interval,
        )
        janitor = Janitor(redis, stream, group=options.group, idle=options.janitor_idle, every=options.janitor_interval)
        self._duties: Sequence[Duty] = (self._delayed, sweep, janitor)

    def start(self, running: asyncio.TaskGroup, stop: asyncio.Event, drained: asyncio.Event) -> None:
        """Start to work, until `stop`. Leases are renewed until `drained`."""
        running.create_task(self._leases.run(drained))
        for duty in self._duties:
            running.create_task(duty.run(stop))
        self._consuming = running.create_task(self._consumer.run(stop))

    async def drain(self) -> None:
        """Finish what is in hand, after `stop`."""
        await self._direct.drain(self._options.drain)
        await self._consuming

    async def _lane_states(self) -> Mapping[str, LaneState]:
        """Return the state of every lane. Raises StreamError, also while Redis takes no wake-up."""
        stats = await self._inspector.stats()
        await self._producer.check()
        return {
            lane.lane: LaneState(
                oldest_entry=_age(lane.oldest_ms, stats.now_ms),
                room=self._options.max_stream_length - lane.length,
            )
            for lane in stats.lanes
        }

    def _unable_for(self) -> timedelta:
        return max(self._consumer.unable_for, self._delayed.unable_for)


def _consumer_options(options: WorkerOptions, concurrency: int) -> ConsumerOptions:
    return ConsumerOptions(
        concurrency=concurrency,
        lease=options.lease,
        policy=options.rules.policy,
        max_deliveries=options.rules.max_deliveries,
        drain=options.drain,
    )


def _age(since_ms: int | None, now_ms: int) -> timedelta | None:
    return None if since_ms is None else timedelta(milliseconds=max(0, now_ms - since_ms))
