"""Consumes a stream: reads as many messages as there are free slots, runs their handlers, acks their outcomes.

Guarantees: the outcome of its handler ends a message, or it stays pending and is delivered again; stopping drains; neither
an outage nor the loss of the group ends the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from streams import scripts
from streams.ack import Acker
from streams.clock import Clock, SystemClock, pause
from streams.connection import Outage, checked_client
from streams.errors import GroupLost, StreamError
from streams.flights import Flight, Flights, Work
from streams.group import Group
from streams.handling import (
    BatchHandler,
    Handler,
    Tracer,
    call_batch_handler,
    call_handler,
    check_handler,
    is_outcome,
    resolve,
)
from streams.keys import Stream
from streams.leases import Heartbeat, release_leases
from streams.lost_deliveries import LostDeliveries
from streams.message import Message
from streams.metrics import Metrics, guarded, quiet
from streams.options import ConsumerOptions
from streams.outcome import Dead, Done, Outcome
from streams.reader import Reader, ReadResult
from streams.reclaim import Reclaimer

log = logging.getLogger("streams")

_READ_LIMIT = 500  # messages per read: more gain nothing, and a read of that size holds the server for a millisecond
_FLOWING = 4  # messages in one read: from here on they arrive so fast that a short wait brings more of them
_PATIENCE_S = 2.0  # for Redis, when the consumer stops
_SHORTEST_WAIT = timedelta(milliseconds=10)
_CAPACITY_PAUSE = timedelta(milliseconds=50)  # between two looks at a `capacity` that has no place


async def bury_poison(message: Message) -> Outcome:
    """Return `Dead`: the default of `on_poison`."""
    return Dead(f"poison: delivered {message.deliveries} times")


class Consumer:
    """One consumer of one group, with a `handler` for each message or a `batch_handler` for several at a time.

    `name` is stable for the place of a process (host and slot, not pid), so that a restart is the same consumer. `on_poison`
    returns the outcome of a message that was delivered more than `options.max_deliveries` times and never acked: its handler
    may kill the process. If `on_poison` raises, the message stays pending and comes again. The last delivery happens with
    nothing else in hand, so that a message that only died beside poison is acked. `tracer` surrounds every handler.

    `capacity` returns how many messages may be in hand now. While that many are, or none may, the consumer reads nothing and
    takes over nothing; it goes on with those in hand, renews their leases, and acks. A read that waits may bring one message
    of each lane. It is called for every read: keep it cheap.
    """

    def __init__(
        self,
        client: Redis,
        stream: Stream,
        *,
        group: str,
        name: str,
        handler: Handler | None = None,
        batch_handler: BatchHandler | None = None,
        on_poison: Callable[[Message], Awaitable[Outcome]] | None = None,
        options: ConsumerOptions | None = None,
        clock: Clock | None = None,
        roll: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        capacity: Callable[[], int] | None = None,
    ) -> None:
        self._options = options = options or ConsumerOptions()
        _check_client(client, options)
        self._group = Group(client, stream, group, name)
        work, self._batch = self._choose_work(handler, batch_handler)
        self._work, self._poison_work = _traced(tracer, work), _traced(tracer, self._handle_poison)
        self._on_poison = on_poison or bury_poison
        check_handler(self._on_poison, "on_poison")
        self._capacity = capacity
        self._clock = clock = clock or SystemClock()
        self._roll = roll
        self._metrics = metrics = guarded(metrics)
        self._group_exists = False
        self._group_existed = False
        self._unread_since_s: float | None = None  # the time since which a read has been due and has not succeeded
        self._flights = Flights(capacity=options.concurrency, clock=clock, metrics=metrics)
        self._outage = Outage(client, f"consumer {name}", clock=clock, roll=roll)
        self._lost = LostDeliveries(self._group, lease=options.lease, clock=clock)
        self._reader = Reader(self._group, lost=self._lost, clock=clock)
        self._acker = Acker(
            self._group,
            flights=self._flights,
            outage=Outage(client, f"settling of consumer {name}", clock=clock, roll=roll),
            refusals=Outage(client, f"settling of single messages of consumer {name}", clock=clock, roll=roll),
            metrics=metrics,
        )
        self._reclaimer = Reclaimer(
            self._group,
            min_idle=options.lease,
            every=options.reclaim_every or max(options.lease / 10, timedelta(milliseconds=50)),
            max_deliveries=options.max_deliveries,
            lost=self._lost,
            clock=clock,
            roll=roll,
        )
        self._heartbeat = Heartbeat(
            self._group,
            lease=options.lease,
            flights=self._flights,
            outage=self._outage,
            clock=clock,
            metrics=metrics,
        )

    @property
    def in_flight(self) -> int:
        """The number of messages read and not yet acked."""
        return len(self._flights)

    @property
    def unable_for(self) -> timedelta:
        """The time since which it can neither read nor ack, or cannot do one of them; zero while it can do both. For callers
        that have another way to the work."""
        since_s = self._unread_since_s
        unread = timedelta(0) if since_s is None else timedelta(seconds=self._clock.monotonic() - since_s)
        return max(unread, self._acker.unable_for)

    @property
    def _free_slots(self) -> int:
        """The number of messages that may be added to those in hand."""
        free = self._flights.free_slots
        return free if self._capacity is None else max(0, min(free, self._capacity() - len(self._flights)))

    async def run_once(self) -> int:
        """Take over what dead consumers held, read what is there, handle and ack all of it; return how many were acked.

        Raises `StreamError` when the server cannot be read.
        """
        self._flights.start()
        async with self._renewing():
            await self._ensure_group()
            await self._release_lost_deliveries()
            flights = await self._reclaim() if self._free_slots else []
            try:
                if self._free_slots:
                    flights += await self._read_available()
            finally:
                await self._flights.wait_for(flights)
            flights += await self._run_last_deliveries(asyncio.Event())
        return sum(flight.acked for flight in flights if self._is_ours(flight.message))

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then drain. A cancellation releases what is in hand, to be delivered again."""
        self._flights.start()
        waker = asyncio.ensure_future(self._wake_on_stop(stop))
        try:
            async with self._renewing():
                while not stop.is_set():
                    try:
                        await self._run_round(stop)
                    except StreamError as error:
                        self._group_exists = self._group_exists and not isinstance(error, GroupLost)
                        await self._outage.wait(error, stop)
                await self._flights.wait_for_all(self._options.drain)
        finally:
            waker.cancel()
            left = await self._flights.abandon()
            await self._release(left)
            await self._acker.stop_retrying()

    async def _run_round(self, stop: asyncio.Event) -> None:
        """Read once, as soon as there is room; wait for messages when there is none."""
        await self._flights.wait_for_room()
        if stop.is_set():
            return
        if not self._free_slots:
            self._unread_since_s = None  # the wait is for capacity, not for the server
            await pause(self._clock, _CAPACITY_PAUSE, stop)
            return
        if self._unread_since_s is None:
            self._unread_since_s = self._clock.monotonic()
        await self._ensure_group()
        await self._release_lost_deliveries()
        claimed = [] if self._reclaimer.due_in else await self._reclaim()
        if self._reclaimer.has_last_deliveries:
            self._unread_since_s = None  # the wait is for handlers, not for the server
            await self._flights.wait_for_all(self._options.lease, until=stop)
            claimed += await self._run_last_deliveries(stop)
            self._unread_since_s = self._clock.monotonic()
        free = self._free_slots
        read = await self._read_available() if free else []
        self._unread_since_s = None
        self._outage.end()
        if not claimed and not read and not stop.is_set() and (free := self._free_slots):
            longest = min(self._options.block, max(self._reclaimer.due_in, _SHORTEST_WAIT))
            read = self._launch_read(await self._reader.wait_for_messages(free, longest))
        gather = self._options.gather
        if _FLOWING <= len(read) < min(free, _READ_LIMIT) and gather and not self._reader.was_cut:
            await self._clock.sleep(gather)

    async def _ensure_group(self) -> None:
        if self._group_exists:
            return
        created = await scripts.create_group(self._group) > 0
        if created and self._group_existed:
            log.warning("the consumer group had vanished and was created again at 0")
            self._flights.mark_group_recreated()
            self._metrics.group_recreated()
        self._group_exists = self._group_existed = True

    async def _release_lost_deliveries(self) -> None:
        """Release what was delivered in a lost reply, and make it come again at once."""
        if self._lost.is_suspected and await self._lost.release(self._flights.ids_by_lane):
            self._reclaimer.scan_now()

    async def _reclaim(self) -> list[Flight]:
        return self._launch_reclaimed(await self._reclaimer.run_once(self._free_slots))

    def _launch_reclaimed(self, messages: Sequence[Message]) -> list[Flight]:
        spent = [message for message in messages if message.deliveries > self._options.max_deliveries]
        poison = [message for message in spent if self._is_ours(message)]
        sound = [message for message in messages if message not in poison]
        flights = self._launch(sound) + self._flights.launch(poison, self._poison_work)
        for lane, count in Counter(flight.message.lane for flight in flights).items():
            self._metrics.reclaimed(lane, count)
        return flights

    async def _run_last_deliveries(self, stop: asyncio.Event) -> list[Flight]:
        """Handle messages on their last delivery one by one, for about a lease, so that the others get their turn."""
        until_s = self._clock.monotonic() + self._options.lease.total_seconds()
        handled: list[Flight] = []
        while self._reclaimer.has_last_deliveries and not stop.is_set() and self._clock.monotonic() < until_s:
            message = await self._reclaimer.take_last_delivery()
            if message is not None:
                handled += self._launch_reclaimed([message])
                await self._flights.wait_for_all(self._options.lease, until=stop)
        return handled

    async def _read_available(self) -> list[Flight]:
        limit = min(self._free_slots, _READ_LIMIT)
        held = self._flights.count_by_lane
        return self._launch_read(
            await self._reader.read_available(limit, capacity=self._options.concurrency, held=held)
        )

    def _launch_read(self, result: ReadResult) -> list[Flight]:
        if result.messages:
            self._metrics.batch("read", len(result.messages))
        flights = self._launch(result.messages)
        if result.error is not None and not flights:
            raise result.error
        return flights

    def _launch(self, messages: Sequence[Message]) -> list[Flight]:
        group = self._group.name
        ours = [message for message in messages if message.group is None or message.group == group]
        flights = self._flights.launch(ours, self._work, batch=self._batch)
        if len(ours) < len(messages):
            others = [message for message in messages if not self._is_ours(message)]
            flights += self._flights.launch(others, self._ack_for_other_group, batch=len(others))
        return flights

    def _is_ours(self, message: Message) -> bool:
        """Return True unless the message came back for another group."""
        return message.group is None or message.group == self._group.name

    async def _ack_for_other_group(self, flights: Sequence[Flight]) -> None:
        """Ack messages that came back for another group, unhandled, so that the other group deletes them."""
        for flight in flights:
            self._acker.ack(flight, Done())

    def _choose_work(self, handler: Handler | None, batch_handler: BatchHandler | None) -> tuple[Work, int]:
        """Return the work for messages, and how many it takes at a time."""
        if handler is not None and batch_handler is None:
            check_handler(handler, "handler")
            return partial(self._handle, handler), 1
        if batch_handler is not None and handler is None:
            check_handler(batch_handler, "batch_handler")
            return partial(self._handle_batch, batch_handler), self._options.max_batch
        raise ValueError("a consumer has a handler or a batch_handler, exactly one of them")

    async def _handle(self, handler: Handler, flights: Sequence[Flight]) -> None:
        """Run the handler of one message, and ack its outcome."""
        [flight] = flights
        message = flight.message
        started_s = self._clock.monotonic()
        self._metrics.started(message.lane, self._reader.waited_s(message, started_s))
        outcome = await call_handler(handler, message, metrics=self._metrics, cancelled=self._flights.is_ending)
        self._metrics.handled(message.lane, self._clock.monotonic() - started_s)
        self._ack(flight, outcome)

    async def _handle_batch(self, handler: BatchHandler, flights: Sequence[Flight]) -> None:
        """Run the handler of several messages, and ack the outcome of each."""
        messages = [flight.message for flight in flights]
        started_s = self._clock.monotonic()
        for message in messages:
            self._metrics.started(message.lane, self._reader.waited_s(message, started_s))
        outcomes = await call_batch_handler(handler, messages, metrics=self._metrics, cancelled=self._flights.is_ending)
        took_s = self._clock.monotonic() - started_s
        for flight, outcome in zip(flights, outcomes, strict=True):
            self._metrics.handled(flight.message.lane, took_s)
            self._ack(flight, outcome)

    async def _handle_poison(self, flights: Sequence[Flight]) -> None:
        """Run `on_poison`, and ack its outcome. An error leaves the message pending: a retry would reset the deliveries."""
        [flight] = flights
        message = flight.message
        log.error("poison: message %s of lane %s, %d deliveries", message.id, message.lane, message.deliveries)
        outcome = await self._on_poison(message)
        if not is_outcome(outcome):
            raise TypeError(f"a bug: on_poison answered a {type(outcome).__name__}, which is not an outcome")
        self._ack(flight, outcome)

    def _ack(self, flight: Flight, outcome: Outcome) -> None:
        if not isinstance(outcome, Done):
            policy = self._options.policy
            outcome = resolve(outcome, attempt=flight.message.attempt, policy=policy, roll=self._roll())
        self._acker.ack(flight, outcome)

    async def _release(self, left: Sequence[Flight]) -> None:
        """Release unfinished messages. If that fails, they come again when their leases run out, as after a crash."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                if left:
                    await release_leases(self._group, left)
                await self._lost.release(self._flights.ids_by_lane)
        except (StreamError, TimeoutError) as error:
            log.warning("%d messages could not be handed back, and wait for their leases to end: %s", len(left), error)

    async def _wake_on_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._flights.wake()

    @asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Renew leases inside the block, while draining too."""
        stop = asyncio.Event()
        task = asyncio.ensure_future(self._heartbeat.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


def _traced(tracer: Tracer | None, work: Work) -> Work:
    """Return the work inside the tracer's spans. The choice is made once: without a tracer a message pays nothing."""
    if tracer is None:
        return work

    enter, leave = quiet(_enter, "tracer.processing"), quiet(_leave, "tracer.processing")

    async def traced(flights: Sequence[Flight]) -> None:
        spans = ExitStack()
        enter(spans, tracer, flights)
        try:
            await work(flights)
        except BaseException as error:
            leave(spans, error)
            raise
        leave(spans, None)

    return traced


def _enter(spans: ExitStack, tracer: Tracer, flights: Sequence[Flight]) -> None:
    spans.enter_context(tracer.processing([flight.message for flight in flights]))


def _leave(spans: ExitStack, error: BaseException | None) -> None:
    spans.__exit__(None if error is None else type(error), error, None if error is None else error.__traceback__)


def _check_client(client: Redis, options: ConsumerOptions) -> None:
    checked_client(client)
    timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    if timeout_s is not None and options.block.total_seconds() >= timeout_s:
        raise ValueError(f"block ({options.block}) must be shorter than the client's time-out ({timeout_s} s)")
