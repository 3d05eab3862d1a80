"""The dispatcher: leases endpoint queues, feeds them from the log, sends, and writes the results. It needs Postgres only.

Each loop has a duty of its own and goes on after an error: a queue that one of them cannot serve is late, never lost. On
`stop` nothing begins; requests in flight end, their results are written, and the leases are released.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog

from okane.errors import StoreUnavailable
from okane.http.guard import Guard
from okane.metrics import OkaneMetrics
from okane.pausing import pause
from okane.store.webhook_events import WebhookEventStore
from okane.store.webhook_queues import WebhookQueueStore
from okane.webhooks.feed import Feed
from okane.webhooks.keys import Masters
from okane.webhooks.leases import LeaseKeeper
from okane.webhooks.long_metadata import LongMetadata
from okane.webhooks.metrics import DispatcherMetrics
from okane.webhooks.repeats import Repeats
from okane.webhooks.results import ResultWriter
from okane.webhooks.sender import Sender
from okane.webhooks.sending import Sending
from okane.webhooks.served_queue import ServedQueue, ServedQueues

log = structlog.get_logger("okane.webhooks")

AWAY_S = 0.5  # between two tries while Postgres is away
QUIET_AFTER_S = 10.0  # without an event
IDLE_S = 0.2  # between two looks at the own memory while no account has an endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherOptions:
    """The intervals of the loops, and how long requests may end after `stop`."""

    sequence_every: timedelta = timedelta(milliseconds=25)
    sequence_quiet: timedelta = timedelta(
        milliseconds=100
    )  # while no event comes: forty looks a second are 2 % of a core
    results_every: timedelta = timedelta(milliseconds=50)
    repeats_every: timedelta = timedelta(milliseconds=100)
    leases_every: timedelta = timedelta(seconds=1)
    drain: timedelta = timedelta(seconds=25)


class Duty(Protocol):
    """A task of a dispatcher beside its own."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`."""
        ...


class Dispatcher:
    """One dispatcher. Its caller opens and closes the stores."""

    def __init__(
        self,
        options: DispatcherOptions,
        *,
        events: WebhookEventStore,
        store: WebhookQueueStore,
        guard: Guard,
        masters: Masters,
        metrics: OkaneMetrics,
        own_metrics: DispatcherMetrics,
        duties: tuple[Duty, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._metrics = own_metrics
        self._duties = duties
        self._event_at_s = time.monotonic()
        self.queues = ServedQueues()
        self.results = ResultWriter(store=store, queues=self.queues, clock=clock, lost=self._lost)
        self.sending = Sending(
            metrics=own_metrics,
            clock=clock,
            ended=self._ended,
            may_begin=lambda: self.results.has_room,
            long_metadata=LongMetadata(events),
        )
        wake = self._wake
        self.feed = Feed(
            events=events,
            store=store,
            queues=self.queues,
            wake=wake,
            metrics=metrics,
            clock=clock,
            went_back=self._log_went_back,
        )
        self.repeats = Repeats(
            store=store, events=events, queues=self.queues, wake=wake, moved=self.results.mark, clock=clock
        )
        self.leases = LeaseKeeper(
            store=store,
            queues=self.queues,
            feed=self.feed,
            new_sender=lambda: Sender(guard, masters),
            wake=wake,
            metrics=own_metrics,
            clock=clock,
        )
        own_metrics.in_flight.set_function(lambda: self.sending.in_flight)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop`, then end as the module says, within the drain."""
        drained = asyncio.Event()
        options = self._options
        async with asyncio.TaskGroup() as running:
            for duty in self._duties:
                running.create_task(duty.run(stop))
            await self._start(stop)
            running.create_task(self._repeat("feed", self._feed_once, stop))
            running.create_task(self._repeat("backlogs", self._read_backlogs_once, stop))
            running.create_task(self._repeat("repeats", self._repeats_once, stop))
            running.create_task(self._repeat("leases", self._leases_once, drained))
            running.create_task(self._repeat("results", self._results_once, drained))
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.drain.total_seconds()):
                    with contextlib.suppress(StoreUnavailable):
                        await self.leases.stop()
                    await self.sending.drain()
                    await self._release()
            drained.set()
            self.results.has_work.set()
        log.info("dispatcher_drained")

    async def _start(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.feed.start()
            except StoreUnavailable:
                await pause(AWAY_S, stop)
            else:
                return

    async def _repeat(
        self, name: str, run_once: Callable[[asyncio.Event], Coroutine[Any, Any, float]], stop: asyncio.Event
    ) -> None:
        """Run one duty again and again until `stop`, after the pause that it returns."""
        while not stop.is_set():
            try:
                pause_s = await run_once(stop)
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("dispatcher_interrupted", duty=name, reason=str(error))
                pause_s = AWAY_S
            except Exception:
                log.exception("dispatcher_failed", duty=name)  # the next round may succeed
                pause_s = AWAY_S
            if pause_s:
                await pause(pause_s, stop)

    async def _feed_once(self, _stop: asyncio.Event) -> float:
        if not self.leases.share.is_used:
            return IDLE_S
        began_s = time.monotonic()
        if await self.feed.run_once():
            self._event_at_s = began_s
        # An interval, not a pause: what a run costs does not delay the next one.
        return max(0.001, self._interval_s() - (time.monotonic() - began_s))

    def _interval_s(self) -> float:
        is_quiet = time.monotonic() - self._event_at_s > QUIET_AFTER_S
        return (self._options.sequence_quiet if is_quiet else self._options.sequence_every).total_seconds()

    async def _read_backlogs_once(self, _stop: asyncio.Event) -> float:
        if not len(self.queues):
            return IDLE_S
        behind = await self.feed.read_backlogs()
        return 0.001 if behind else self._interval_s()

    async def _repeats_once(self, _stop: asyncio.Event) -> float:
        if not len(self.queues):
            return IDLE_S
        are_more_due = await self.repeats.read_due()
        await self.repeats.read_replays()
        return 0.001 if are_more_due else self._options.repeats_every.total_seconds()

    async def _leases_once(self, _stop: asyncio.Event) -> float:
        await self.leases.run_once()
        return self._options.leases_every.total_seconds()

    async def _results_once(self, stop: asyncio.Event) -> float:
        await self.results.has_work.wait()
        await pause(self._options.results_every.total_seconds(), stop)
        was_full = not self.results.has_room
        await self.results.run_once()
        if was_full:
            for served in self.queues.busy():
                self.sending.wake(served)
        return 0.0

    async def _release(self) -> None:
        """Release the queues as their last results are written."""
        while len(self.queues) or self.leases.is_taking:
            with contextlib.suppress(StoreUnavailable):
                await self.leases.release_settled()
            await asyncio.sleep(0.01)

    def _wake(self, served: ServedQueue) -> None:
        self.queues.active.add(served)
        self.sending.wake(served)
        if served.queue.has_results:
            self.results.mark(served)  # events that wait for an earlier one of their payment

    def _lost(self, served: ServedQueue) -> None:
        self.leases.drop(served)

    def _log_went_back(self) -> None:
        self.results.forget()
        self.leases.drop_all()

    def _ended(self, served: ServedQueue) -> None:
        if served.queue.is_gone and not served.is_leaving:
            self.leases.is_gone(served.endpoint.id)
        if served.queue.failures:
            self.queues.failing.add(served)
        else:
            self.queues.failing.discard(served)
        self.results.note(served)
