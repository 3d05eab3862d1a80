"""The messages a consumer has in hand: from the read to the moment the server knows what became of them.

They are worked on by hands: tasks that take one piece of work after the other. A handler that never waits keeps its hand, and
no further one is started; where handlers wait, more hands come, twice as many each turn of the loop, and the next time at
once as many as were needed. So a quick handler costs no task per message, a slow one runs as often at once as there are
slots, and what was read together is begun together.

Promise: no message is in hand twice, one that is not acked stays pending and is said to, and what a handler binds in its
context (for the logs) is gone when the next one starts.
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

_CANCELLATIONS = 2  # of a handler that swallows the first
_CANCEL_GRACE_S = 3.0  # that a cancelled handler has to leave things in order


@dataclass(slots=True, eq=False)
class Flight:
    """One message in hand. It has an `outcome` once that is being acked, is `acked` when the server knows it, and has
    `landed` when it is in hand no more. It is `group_was_recreated` if the group was made anew since it was read."""

    message: Message
    since: float
    outcome: Outcome | None = None
    acked: bool = False
    landed: bool = False
    group_was_recreated: bool = False


Work = Callable[[Sequence[Flight]], Awaitable[None]]


class Flights:
    """All messages in hand."""

    def __init__(self, *, capacity: int, clock: Clock, metrics: Metrics) -> None:
        self._capacity = capacity
        # Refilled in chunks: one by one, every acked message would cost a read of its own.
        self._chunk = max(1, capacity // 4)
        self._clock = clock
        self._metrics = metrics
        self._lanes: dict[str, dict[str, Flight]] = defaultdict(dict)  # by lane and entry id
        self._queue: deque[tuple[Work, Sequence[Flight]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_start = 1  # hands to start in the next turn
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
        """How many are in hand, by lane."""
        return {lane: len(flights) for lane, flights in self._lanes.items()}

    @property
    def ids_by_lane(self) -> Mapping[str, list[str]]:
        """The entries of those in hand, by lane."""
        return {lane: list(flights) for lane, flights in self._lanes.items()}

    @property
    def free_slots(self) -> int:
        return max(0, self._capacity - len(self))

    @property
    def has_room(self) -> bool:
        """Whether a read is worth its round trip: a quarter of the slots is free, or all."""
        free = self.free_slots
        return free >= self._chunk or free == self._capacity

    def is_ending(self) -> bool:
        """Tell whether handlers are cancelled by us, so that their cancellation is not their own. A loop that ends cancels
        all tasks at once, the consumer's and the hands."""
        return self._abandoning or (self._owner is not None and self._owner.cancelling() > 0)

    def start(self) -> None:
        """The running task runs the consumer from now on."""
        self._owner = asyncio.current_task()
        self._cancelled_with_loop.clear()

    def get(self, lane: str, entry_id: str) -> Flight | None:
        return self._lanes[lane].get(entry_id)

    def in_hand_since(self, before: float) -> list[Flight]:
        """Those in hand since `before` (monotonic) or longer."""
        return [flight for lane in self._lanes.values() for flight in lane.values() if flight.since <= before]

    def launch(self, messages: Sequence[Message], work: Work, *, batch: int = 1) -> list[Flight]:
        """Takes messages in hand that are not yet. `work` sees to up to `batch` of them: has them acked, or raises.

        One that is comes again when its group was created anew, or when renewals failed for so long that we reclaimed
        it from ourselves: in both cases it is ours again, and a second handler must not start.
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
        """They are in hand no more: acked, or not; after an error still pending."""
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
        """The group was made anew: it knows nothing of what is in hand."""
        for flight in self._all():
            flight.group_was_recreated = True

    async def wait_for_room(self) -> None:
        """Returns when `has_room`, or at the next `wake`."""
        self._room_event.clear()
        if not self.has_room:
            await self._room_event.wait()

    def wake(self) -> None:
        self._room_event.set()

    async def wait_for(self, flights: Iterable[Flight]) -> None:
        """Returns when none of `flights` is in hand any more."""
        left = [flight for flight in flights if not flight.landed]
        while left:
            self._landed_event.clear()
            await self._landed_event.wait()
            left = [flight for flight in left if not flight.landed]

    async def wait_for_all(self, limit: timedelta, *, until: asyncio.Event | None = None) -> None:
        """Waits for all to land, for `limit` at most and no longer than `until` is set."""
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
        """Cancels the handlers; those whose work has ended without an outcome. They stay pending and are delivered again.

        A handler that goes on all the same is left behind: what it has is in hand no more, and its outcome will be dropped.
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
            self._next_start = max(1, len(self._tasks))  # those that wait: the next time as many start at once
            return
        loop = asyncio.get_running_loop()
        for _ in range(min(self._next_start, len(self._queue), self._capacity - len(self._tasks))):
            task = loop.create_task(self._run_queue())
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
        self._next_start *= 2
        if len(self._tasks) < self._capacity:
            self._schedule_start()  # to see whether those who started now have to wait

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # said already, of its message
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
                # Whatever happens: no slot stays taken by a message without a handler.
                for flight in flights:
                    if flight.outcome is None:  # else it is being acked: a handler may answer when it is cancelled
                        self.land([flight], error or RuntimeError("a bug: it was left without an outcome"))
                        if isinstance(error, asyncio.CancelledError) and not self._abandoning and self.is_ending():
                            self._cancelled_with_loop.append(flight)
            try:
                is_clean = contextvars.copy_context() == context and not task.cancelling()
            except Exception:  # values that cannot be compared
                is_clean = False
            if not is_clean:
                return  # the handler left something behind there: the next one begins with another hand

    def _remove_by_identity(self, flight: Flight) -> None:
        """Searches for a flight whose message was changed by its handler, against its type: its slot must not stay taken."""
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
        """After landings, once a turn of the loop."""
        self._notify_scheduled = False
        self._metrics.in_flight(len(self))
        self._landed_event.set()
        if self.has_room:
            self._room_event.set()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
