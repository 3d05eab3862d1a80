"""Consumes a stream: reads as much as there are free slots, has it handled, acks what the handlers answer.

Promise: a message is acked by its handler's outcome or stays pending, to be delivered again; stopping drains; neither
an outage nor a lost group ends the loop.
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

from streams.ack import Acker
from streams.clock import Clock, SystemClock
from streams.connection import Outage, checked_client
from streams.errors import GroupLost, StreamError
from streams.flights import Flight, Flights, Work
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
from streams.leases import LeaseRenewal, release_leases
from streams.lost_deliveries import LostDeliveries
from streams.message import Message
from streams.metrics import Metrics, guarded, quiet
from streams.outcome import Dead, Done, Outcome
from streams.reader import Reader, ReadResult
from streams.reclaim import Reclaimer
from streams.retry import RetryPolicy

log = logging.getLogger("streams")

_READ_LIMIT = 500  # messages per read: more gain nothing, and a read of that size holds the server for a millisecond
_FLOWING = 4  # messages in one read: from here on they come so fast that more of them are worth a wait
_PATIENCE_S = 2.0  # for Redis, at the end
_SHORTEST_WAIT = timedelta(milliseconds=10)


async def bury_poison(message: Message) -> Outcome:
    """What happens to poison unless `on_poison` says otherwise."""
    return Dead(f"poison: delivered {message.deliveries} times")


class Consumer:
    """One consumer of one group, with a `handler` for each message or a `batch_handler` for up to `max_batch` of them.

    `name` should be stable for a process's place (host and slot, not pid), so that a restart finds its own. `lease` is
    how long a message stays ours without renewal; it is renewed while the handler runs, so it bounds how long a *dead*
    consumer keeps a message. `concurrency` bounds the messages in handlers at once. `on_poison` decides about a message
    delivered more than `max_deliveries` times, which means that it was never acked: it may kill its worker; if it
    raises, the message stays pending and it is asked again. The last of these deliveries happens with nothing else in
    hand, so that what only died beside poison is acked, and poison is found out. `block` bounds one wait for messages,
    and with it how long an idle consumer takes to stop. `gather` is for how long a consumer that keeps up lets messages
    gather before it reads again, when there were several at a time: a few milliseconds make all that is done in batches
    cheaper, and a trickle does not pay for it. `drain` bounds how long `run` waits for handlers after stop; those not
    done by then are cancelled, and their messages handed back: others take them over at once, and the delivery does not
    count. `tracer` stands around every handler.
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
        max_batch: int = 128,
        concurrency: int = 64,
        lease: timedelta = timedelta(seconds=30),
        policy: RetryPolicy | None = None,
        max_deliveries: int = 5,
        on_poison: Callable[[Message], Awaitable[Outcome]] | None = None,
        block: timedelta = timedelta(seconds=1),
        gather: timedelta = timedelta(milliseconds=20),
        reclaim_every: timedelta | None = None,
        drain: timedelta = timedelta(seconds=25),
        clock: Clock | None = None,
        roll: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        _check(client, concurrency=concurrency, max_batch=max_batch, lease=lease, block=block)
        work, self._batch = self._choose_work(handler, batch_handler, max_batch)
        self._work, self._poison_work = _traced(tracer, work), _traced(tracer, self._handle_poison)
        self._client, self._stream, self._group, self._name = client, stream, group, name
        self._policy = policy or RetryPolicy()
        self._max_deliveries = max_deliveries
        self._on_poison = on_poison or bury_poison
        check_handler(self._on_poison, "on_poison")
        self._block = block
        self._gather = gather
        self._lease = lease
        self._drain = drain
        self._clock = clock = clock or SystemClock()
        self._roll = roll
        self._metrics = metrics = guarded(metrics)
        self._capacity = concurrency
        self._group_known = False
        self._group_was_known = False
        self._unread_since: float | None = None
        self._flights = Flights(capacity=concurrency, clock=clock, metrics=metrics)
        self._outage = Outage(client, f"consumer {name}", clock=clock, roll=roll)
        self._lost = LostDeliveries(client, stream, group=group, consumer=name, lease=lease, clock=clock)
        self._reader = Reader(client, stream, group=group, consumer=name, lost=self._lost, clock=clock)
        self._acker = Acker(
            client,
            stream,
            group=group,
            consumer=name,
            flights=self._flights,
            outage=Outage(client, f"settling of consumer {name}", clock=clock, roll=roll),
            refusals=Outage(client, f"settling of single messages of consumer {name}", clock=clock, roll=roll),
            metrics=metrics,
        )
        self._reclaimer = Reclaimer(
            client,
            stream,
            group=group,
            consumer=name,
            min_idle=lease,
            every=reclaim_every or max(lease / 10, timedelta(milliseconds=50)),
            max_deliveries=max_deliveries,
            lost=self._lost,
            clock=clock,
            roll=roll,
        )
        self._lease_renewal = LeaseRenewal(
            client,
            stream,
            group=group,
            consumer=name,
            lease=lease,
            flights=self._flights,
            outage=self._outage,
            clock=clock,
            metrics=metrics,
        )

    @property
    def in_flight(self) -> int:
        """Messages read and not yet acked."""
        return len(self._flights)

    @property
    def unable_for(self) -> timedelta:
        """For how long it has been unable to read, or to ack what it has in hand; zero while it can. For those who have
        another way to the work."""
        since = self._unread_since
        unread = timedelta(0) if since is None else timedelta(seconds=self._clock.monotonic() - since)
        return max(unread, self._acker.unable_for)

    async def run_once(self) -> int:
        """One round: takes over what silent consumers hold, reads what is there, handles and acks it all.

        Answers how many were acked. Raises `StreamError` when the server cannot be read.
        """
        self._flights.start()
        async with self._renewing():
            await self._ensure_group()
            await self._release_lost_deliveries()
            flights = await self._reclaim()
            try:
                if self._flights.free_slots:
                    flights += await self._read()
            finally:
                await self._flights.wait_for(flights)
            flights += await self._run_last_deliveries(asyncio.Event())
        return sum(flight.acked for flight in flights if self._is_ours(flight.message))

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes until `stop` is set, then drains. Cancelling it hands what is in hand back, to be delivered again."""
        self._flights.start()
        waker = asyncio.ensure_future(self._wake_on_stop(stop))
        try:
            async with self._renewing():
                while not stop.is_set():
                    try:
                        await self._run_round(stop)
                    except StreamError as error:
                        self._group_known = self._group_known and not isinstance(error, GroupLost)
                        await self._outage.endure(error, stop)
                await self._flights.wait_for_all(self._drain)
        finally:
            waker.cancel()
            left = await self._flights.abandon()
            await self._hand_back(left)
            await self._acker.stop_retrying()

    async def _run_round(self, stop: asyncio.Event) -> None:
        """Reads once, as soon as there is room; when there is nothing to read, waits for it."""
        await self._flights.wait_for_room()
        if stop.is_set():
            return
        if self._unread_since is None:
            self._unread_since = self._clock.monotonic()
        await self._ensure_group()
        await self._release_lost_deliveries()
        claimed = [] if self._reclaimer.due_in else await self._reclaim()
        if self._reclaimer.has_last_deliveries:
            self._unread_since = None  # handlers are waited for, not the server
            await self._flights.wait_for_all(self._lease, until=stop)
            claimed += await self._run_last_deliveries(stop)
            self._unread_since = self._clock.monotonic()
        free = self._flights.free_slots
        read = await self._read() if free else []
        self._unread_since = None
        self._outage.over()
        if not claimed and not read and not stop.is_set():
            longest = min(self._block, max(self._reclaimer.due_in, _SHORTEST_WAIT))
            read = self._launch_read(await self._reader.wait_for_messages(self._flights.free_slots, longest))
        if _FLOWING <= len(read) < min(free, _READ_LIMIT) and self._gather and not self._reader.was_cut:
            await self._clock.sleep(self._gather)

    async def _ensure_group(self) -> None:
        if self._group_known:
            return
        created = await self._reader.create_group()
        if created and self._group_was_known:
            log.warning("the consumer group had vanished and was created again at 0")
            self._flights.mark_group_recreated()
            self._metrics.group_recreated()
        self._group_known = self._group_was_known = True

    async def _release_lost_deliveries(self) -> None:
        """Has come again what was delivered in a reply that was lost."""
        if self._lost.is_suspected and await self._lost.release(self._flights.ids_by_lane):
            self._reclaimer.hurry()

    async def _reclaim(self) -> list[Flight]:
        return self._launch_reclaimed(await self._reclaimer.run_once(self._flights.free_slots))

    def _launch_reclaimed(self, messages: Sequence[Message]) -> list[Flight]:
        spent = [message for message in messages if message.deliveries > self._max_deliveries]
        poison = [message for message in spent if self._is_ours(message)]
        sound = [message for message in messages if message not in poison]
        flights = self._launch(sound) + self._flights.launch(poison, self._poison_work)
        for lane, count in Counter(flight.message.lane for flight in flights).items():
            self._metrics.reclaimed(lane, count)
        return flights

    async def _run_last_deliveries(self, stop: asyncio.Event) -> list[Flight]:
        """Handles messages on their last delivery one by one, for about a lease: then the others have their turn."""
        until = self._clock.monotonic() + self._lease.total_seconds()
        handled: list[Flight] = []
        while self._reclaimer.has_last_deliveries and not stop.is_set() and self._clock.monotonic() < until:
            message = await self._reclaimer.take_last_delivery()
            if message is not None:
                handled += self._launch_reclaimed([message])
                await self._flights.wait_for_all(self._lease, until=stop)
        return handled

    async def _read(self) -> list[Flight]:
        limit = min(self._flights.free_slots, _READ_LIMIT)
        return self._launch_read(
            await self._reader.read_available(limit, capacity=self._capacity, held=self._flights.count_by_lane)
        )

    def _launch_read(self, reading: ReadResult) -> list[Flight]:
        if reading.messages:
            self._metrics.batch("read", len(reading.messages))
        flights = self._launch(reading.messages)
        if reading.error is not None and not flights:
            raise reading.error
        return flights

    def _launch(self, messages: Sequence[Message]) -> list[Flight]:
        group = self._group
        ours = [message for message in messages if message.group is None or message.group == group]
        flights = self._flights.launch(ours, self._work, batch=self._batch)
        if len(ours) < len(messages):
            others = [message for message in messages if not self._is_ours(message)]
            flights += self._flights.launch(others, self._ack_for_other_group, batch=len(others))
        return flights

    def _is_ours(self, message: Message) -> bool:
        """Tell whether it is for every group, or has come back for this one."""
        return message.group is None or message.group == self._group

    async def _ack_for_other_group(self, flights: Sequence[Flight]) -> None:
        """The story of messages that have come back for another group: acknowledged, so that it is the last to do so."""
        for flight in flights:
            self._acker.ack(flight, Done())

    def _choose_work(
        self, handler: Handler | None, batch_handler: BatchHandler | None, max_batch: int
    ) -> tuple[Work, int]:
        """How messages are handled, and how many together."""
        if handler is not None and batch_handler is None:
            check_handler(handler, "handler")
            return partial(self._handle, handler), 1
        if batch_handler is not None and handler is None:
            check_handler(batch_handler, "batch_handler")
            return partial(self._handle_batch, batch_handler), max_batch
        raise ValueError("a consumer has a handler or a batch_handler, exactly one of them")

    async def _handle(self, handler: Handler, flights: Sequence[Flight]) -> None:
        """The story of one message."""
        [flight] = flights
        message = flight.message
        started_s = self._clock.monotonic()
        self._metrics.started(message.lane, self._reader.waited_s(message, started_s))
        outcome = await call_handler(handler, message, metrics=self._metrics, cancelled=self._flights.is_ending)
        self._metrics.handled(message.lane, self._clock.monotonic() - started_s)
        self._ack(flight, outcome)

    async def _handle_batch(self, handler: BatchHandler, flights: Sequence[Flight]) -> None:
        """The story of several messages whose handler takes them together."""
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
        """The story of poison. What goes wrong here leaves it pending: a retry would forget the deliveries."""
        [flight] = flights
        message = flight.message
        log.error("poison: message %s of lane %s, %d deliveries", message.id, message.lane, message.deliveries)
        outcome = await self._on_poison(message)
        if not is_outcome(outcome):
            raise TypeError(f"a bug: on_poison answered a {type(outcome).__name__}, which is not an outcome")
        self._ack(flight, outcome)

    def _ack(self, flight: Flight, outcome: Outcome) -> None:
        if not isinstance(outcome, Done):
            outcome = resolve(outcome, attempt=flight.message.attempt, policy=self._policy, roll=self._roll())
        self._acker.ack(flight, outcome)

    async def _hand_back(self, left: Sequence[Flight]) -> None:
        """Hand them back. If that fails, they are delivered again when their leases have run out, as after a crash."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                if left:
                    await release_leases(self._client, self._stream, left, group=self._group, consumer=self._name)
                await self._lost.release(self._flights.ids_by_lane)
        except (StreamError, TimeoutError) as error:
            log.warning("%d messages could not be handed back, and wait for their leases to end: %s", len(left), error)

    async def _wake_on_stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._flights.wake()

    @asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Leases are renewed inside, while draining too."""
        stop = asyncio.Event()
        task = asyncio.ensure_future(self._lease_renewal.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


def _traced(tracer: Tracer | None, work: Work) -> Work:
    """Chosen once: who does not trace pays nothing."""
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


def _check(client: Redis, *, concurrency: int, max_batch: int, lease: timedelta, block: timedelta) -> None:
    checked_client(client)
    if min(concurrency, max_batch) < 1 or min(lease, block) <= timedelta(0):
        raise ValueError("concurrency, max_batch, lease and block are positive")
    timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    if timeout_s is not None and block.total_seconds() >= timeout_s:
        raise ValueError(f"block ({block}) must be shorter than the client's time-out ({timeout_s} s)")
