"""The messages in flight: those a consumer has in hand, from the read to the ack.

Tasks run the handlers, one after the other. A handler that never waits keeps its task, and no second one starts. While
handlers wait, the number of tasks doubles with each turn of the loop; the next time as many start at once as were needed.
So a quick handler costs no task per message, slow handlers fill all slots, and messages read together start together.

Guarantees: no message is in hand twice; one that is not acked stays pending, and is logged; the context variables that a
handler sets (for the logs) are gone when the next one starts.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streams.clock import Clock
from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Outcome

log = logging.getLogger("streams")

_CANCELLATIONS = 2  # for a handler that swallows the first
_CANCEL_GRACE_S = 3.0  # for the cleanup of a cancelled handler


@dataclass(slots=True, eq=False)
class Flight:
    """One message in hand. It has an `outcome` from when the ack starts, is `acked` when the server has done so, and has
    `landed` when it is no longer in hand. `group_was_recreated`: since it was read."""

    message: Message
    since: float
    outcome: Outcome | None = None
    acked: bool = False
    landed: bool = False
    group_was_recreated: bool = False


Work = Callable[[Sequence[Flight]], Awaitable[None]]


class Flights:
    """All messages in hand, the tasks that run their handlers, and the free slots."""

    def __init__(self, *, capacity: int, clock: Clock, metrics: Metrics) -> None:
        self._capacity = capacity
        # Slots are refilled in chunks: one by one, every acked message would cost a read.
        self._chunk = max(1, capacity // 4)
        self._clock = clock
        self._metrics = metrics
        self._lanes: dict[str, dict[str, Flight]] = defaultdict(dict)  # by lane and entry id
        self._queue: deque[tuple[Work, Sequence[Flight]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_start = 1  # tasks to start in the next turn
        self._start_scheduled = False
        self._notify_scheduled = False
        self._room_event = asyncio.Event()
        self._landed_event = asyncio.Event()
        self._abandoning = False
        # Cancelled by the end of the loop, which cancels tasks before `abandon` can.
        self._cancelled_with_loop: list[Flight] = []
        self._owner: asyncio.Task[object] | None = None  # the task that runs the consumer

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def count_by_lane(self) -> Mapping[str, int]:
        """The number of messages in hand, by lane."""
        return {lane: len(flights) for lane, flights in self._lanes.items()}

    @property
    def ids_by_lane(self) -> Mapping[str, list[str]]:
        """The entry ids of the messages in hand, by lane."""
        return {lane: list(flights) for lane, flights in self._lanes.items()}

    @property
    def free_slots(self) -> int:
        return max(0, self._capacity - len(self))

    @property
    def has_room(self) -> bool:
        """True if a read is worth its round trip: a quarter of the slots is free, or all."""
        free = self.free_slots
        return free >= self._chunk or free == self._capacity

    def is_ending(self) -> bool:
        """Return True if the consumer's end cancels the handlers, not they themselves. A loop that ends cancels all tasks at
        once, the consumer's and those of the handlers."""
        return self._abandoning or (self._owner is not None and self._owner.cancelling() > 0)

    def start(self) -> None:
        """Record the running task as the one that runs the consumer."""
        self._owner = asyncio.current_task()
        self._cancelled_with_loop.clear()

    def get(self, lane: str, entry_id: str) -> Flight | None:
        return self._lanes[lane].get(entry_id)

    def in_hand_since(self, before: float) -> list[Flight]:
        """Return the messages in hand since `before` (monotonic) or longer."""
        return [flight for lane in self._lanes.values() for flight in lane.values() if flight.since <= before]

    def launch(self, messages: Sequence[Message], work: Work, *, batch: int = 1) -> list[Flight]:
        """Take messages in hand that are not yet, and queue `work` for each `batch` of them; return their flights.

        A message in hand comes again after the group was recreated, or when renewals failed for so long that the consumer
        reclaimed it from itself. It is the consumer's in both cases, and a second handler must not start.
        """
        now = self._clock.monotonic()
        launched = []
        for message in messages:
            lane = self._lanes[message.lane]
            if message.id not in lane:
                lane[message.id] = flight = Flight(message, now)
                launched.append(flight)
        if launched:
            self._metrics.in_flight(len(self))
            self._queue.extend((work, launched[at : at + batch]) for at in range(0, len(launched), batch))
            self._schedule_start()
        return launched

    def land(self, flights: Iterable[Flight], error: BaseException | None = None, *, acked: bool | None = None) -> None:
        """End flights: acked, or after an error still pending."""
        landing = [flight for flight in flights if not flight.landed]
        for flight in landing:
            flight.acked = error is None if acked is None else acked
            flight.landed = True
            if self._lanes[flight.message.lane].pop(flight.message.id, None) is not flight:
                self._remove_by_identity(flight)
        if not self._notify_scheduled:
            self._notify_scheduled = True
            asyncio.get_running_loop().call_soon(self._notify)
        if error is not None:
            for flight in landing:
                self._log_pending(flight.message, error)

    def mark_group_recreated(self) -> None:
        """Mark all in hand: the recreated group does not have them as pending."""
        for flight in self._all():
            flight.group_was_recreated = True

    async def wait_for_room(self) -> None:
        """Return when `has_room`, or at the next `wake`."""
        self._room_event.clear()
        if not self.has_room:
            await self._room_event.wait()

    def wake(self) -> None:
        self._room_event.set()

    async def wait_for(self, flights: Iterable[Flight]) -> None:
        """Return when all of `flights` have landed."""
        left = [flight for flight in flights if not flight.landed]
        while left:
            self._landed_event.clear()
            await self._landed_event.wait()
            left = [flight for flight in left if not flight.landed]

    async def wait_for_all(self, limit: timedelta, *, until: asyncio.Event | None = None) -> None:
        """Wait until all have landed, for `limit` at most, or until `until` is set."""
        if not len(self):
            return
        waits = [self.wait_for(self._all()), self._clock.sleep(limit)]
        if until is not None:
            waits.append(_set(until))
        racers = [asyncio.ensure_future(each) for each in waits]
        try:
            await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for racer in racers:
                racer.cancel()
            await asyncio.gather(*racers, return_exceptions=True)

    async def abandon(self) -> list[Flight]:
        """Cancel the handlers; return the flights whose work has ended without an outcome. They stay pending and are
        delivered again.

        A handler that ignores its cancellation is left behind: its messages land, and its outcome will be dropped.
        """
        unfinished = self._cancelled_with_loop + [flight for flight in self._all() if flight.outcome is None]
        if not unfinished:
            return []
        log.warning("%d messages in hand were not finished in time: they will be delivered again", len(unfinished))
        self._abandoning = True
        try:
            while self._queue:
                _, flights = self._queue.popleft()
                self.land(flights, asyncio.CancelledError())
            await self._cancel_tasks()
        finally:
            self._abandoning = False
        ended = [flight for flight in unfinished if flight.landed and flight.outcome is None]
        if going_on := [flight for flight in unfinished if not flight.landed and flight.outcome is None]:
            log.error(
                "%d handlers go on though they were cancelled, first of message %s",
                len(going_on),
                going_on[0].message.id,
            )
            self.land(going_on, asyncio.CancelledError())
        return ended

    async def _cancel_tasks(self) -> None:
        for _ in range(_CANCELLATIONS):
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_CANCEL_GRACE_S)
        self._tasks.clear()

    def _all(self) -> list[Flight]:
        return [flight for lane in self._lanes.values() for flight in lane.values()]

    def _schedule_start(self) -> None:
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_tasks)

    def _start_tasks(self) -> None:
        self._start_scheduled = False
        if not self._queue:
            self._next_start = max(1, len(self._tasks))  # these wait: the next time as many start at once
            return
        loop = asyncio.get_running_loop()
        for _ in range(min(self._next_start, len(self._queue), self._capacity - len(self._tasks))):
            task = loop.create_task(self._run_queue())
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
        self._next_start *= 2
        if len(self._tasks) < self._capacity:
            self._schedule_start()  # checks in the next turn whether the new tasks have to wait

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # already logged with its message
        if self._queue:
            self._schedule_start()

    async def _run_queue(self) -> None:
        context = contextvars.copy_context()
        task = asyncio.current_task()
        assert task is not None
        while self._queue:
            work, flights = self._queue.popleft()
            error: BaseException | None = None
            try:
                await work(flights)
            except BaseException as raised:
                error = raised
                if not isinstance(raised, Exception):
                    raise
            finally:
                # In every case: a message without a handler must not keep its slot.
                for flight in flights:
                    if flight.outcome is None:  # else it is being acked: a cancelled handler may return an outcome
                        self.land([flight], error or RuntimeError("a bug: it was left without an outcome"))
                        if isinstance(error, asyncio.CancelledError) and not self._abandoning and self.is_ending():
                            self._cancelled_with_loop.append(flight)
            try:
                is_clean = contextvars.copy_context() == context and not task.cancelling()
            except Exception:  # values that cannot be compared
                is_clean = False
            if not is_clean:
                return  # the handler changed the context or was cancelled: the next one starts in another task

    def _remove_by_identity(self, flight: Flight) -> None:
        """Remove a flight whose handler has changed its message, against its type, so that its slot becomes free."""
        for lane in self._lanes.values():
            for entry_id, other in list(lane.items()):
                if other is flight:
                    del lane[entry_id]

    def _log_pending(self, message: Message, error: BaseException) -> None:
        if not isinstance(error, asyncio.CancelledError):
            log.error("message %s of lane %s stays pending: %s", message.id, message.lane, error, exc_info=error)
        elif not self._abandoning:
            log.error("message %s of lane %s stays pending: its handler was cancelled", message.id, message.lane)

    def _notify(self) -> None:
        """Report landings, once per turn of the loop."""
        self._notify_scheduled = False
        self._metrics.in_flight(len(self))
        self._landed_event.set()
        if self.has_room:
            self._room_event.set()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
