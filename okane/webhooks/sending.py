"""The requests of a dispatcher: each queue begins as many as it may, and every answer goes back into its queue.

A queue without events costs nothing: no task, no timer. Guarantee: an exception in here is a failed attempt, never a lost
delivery. No request begins once its lease has ended, its queue has stopped, or its endpoint has changed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from okane.errors import StoreUnavailable
from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow
from okane.webhooks.delivery import Answer, Delivery
from okane.webhooks.long_metadata import LongMetadata
from okane.webhooks.metrics import DispatcherMetrics
from okane.webhooks.payload import body, event_id, needs_metadata
from okane.webhooks.sender import NOT_BEGUN
from okane.webhooks.served_queue import ServedQueue
from okane.webhooks.shares import Kind
from streams.failpoints import failpoint

log = structlog.get_logger("okane.webhooks")

BEFORE_REQUEST = failpoint("webhooks.before_request", "an event is in memory, nothing is sent")
AFTER_ANSWER = failpoint("webhooks.after_answer", "the endpoint has answered, nothing is written")

MAX_CONNECTIONS = 1_000  # of one process, while each queue may have one
MAX_SHARE = 0.25  # of these for the endpoints of one account


@dataclass(frozen=True, slots=True)
class _Broken:
    """The answer in the place of one that a bug has cost."""

    outcome: str = "connect"
    status: int | None = None
    ms: int = 0
    retry_after: float | None = None
    reason: str = "an error in okane: see its log"
    text: str = ""
    is_kept: bool = False
    is_reconnected: bool = False


class Sending:
    """The requests in flight. `ended` is called with the queue after each answer."""

    def __init__(
        self,
        *,
        metrics: DispatcherMetrics,
        clock: Callable[[], float],
        ended: Callable[[ServedQueue], None],
        may_begin: Callable[[], bool],
        long_metadata: LongMetadata,
        most: int = MAX_CONNECTIONS,
    ) -> None:
        self.in_flight = 0
        self.clock_offset_s = 0.0  # of the database's clock
        self._metrics = metrics
        self._clock = clock
        self._ended = ended
        self._may_begin = may_begin
        self._long = long_metadata
        self._most = most
        self._most_of_one = max(1, int(most * MAX_SHARE))
        self._of_account: Counter[str] = Counter()
        self._starved: dict[ServedQueue, None] = {}  # those that got no connection; first come, first served
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, served: ServedQueue) -> None:
        """Begin what the queue may send now; come back when time alone lets it send more."""
        while (one := self._begin(served)) is not None:
            task = asyncio.create_task(self._send_on(served, one))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._set_timer(served)

    async def drain(self) -> None:
        """Wait until nothing is in flight."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, served: ServedQueue) -> Delivery[EventRow] | None:
        account_id = served.endpoint.account_id
        if served.queue.in_flight and (
            self.in_flight >= self._most or self._of_account[account_id] >= self._most_of_one
        ):
            self._starved[served] = None
            return None
        if not self._may_begin():
            return None
        one = served.queue.begin(self._clock())
        if one is not None:
            self.in_flight += 1
            self._of_account[account_id] += 1
        return one

    def _set_timer(self, served: ServedQueue) -> None:
        served.forget_timer()
        now_s = self._clock()
        at_s = served.queue.wake_at_s(now_s)
        if at_s is not None and at_s > now_s:
            served.timer = asyncio.get_running_loop().call_later(at_s - now_s, self.wake, served)

    async def _send_on(self, served: ServedQueue, one: Delivery[EventRow] | None) -> None:
        """Send one delivery after the other while the queue has more."""
        while one is not None:
            answer = await self._send(served, one)
            self.in_flight -= 1
            self._of_account[served.endpoint.account_id] -= 1
            if answer is None:
                served.queue.give_back(one)
                self._wake_starved()
                self.wake(served)  # by a changed endpoint it may begin
                return
            state = served.queue.finish(one, answer, self._clock())
            self._note(one, answer, delivered=state == "delivered")
            if state == "given_up":
                self._metrics.given_up.inc()
            self._ended(served)
            self._wake_starved()
            one = self._begin(served)
            self.wake(served)

    def _wake_starved(self) -> None:
        """Let the queues go on that got no connection, in their order."""
        if not self._starved:
            return
        for first in list(self._starved):  # a copy: one whose account has its share is starved again
            if self.in_flight >= self._most:
                return
            del self._starved[first]
            self.wake(first)

    async def _send(self, served: ServedQueue, one: Delivery[EventRow]) -> Answer | None:
        """Return the answer; None if the request did not begin, since it may not any more, or not like this."""
        event, endpoint = one.event.event, served.endpoint

        def may_begin() -> bool:
            queue = served.queue
            return served.endpoint is endpoint and not queue.stopped and self._clock() < queue.lease.until_s

        try:
            if BEFORE_REQUEST.armed:
                await BEFORE_REQUEST.hit()
            content = await self._body(one.event, endpoint)
            if not may_begin():
                return None
            id_ = event_id(event.payment_id, event.version)
            answer = await served.sender.send(endpoint, id_, content, now=datetime.now(UTC), may_begin=may_begin)
            if answer is NOT_BEGUN:
                return None
            self._count_repeat(served, one)
            if AFTER_ANSWER.armed:
                await AFTER_ANSWER.hit()
        except StoreUnavailable:  # nothing was sent: the event stays in the queue
            return None
        except Exception:
            log.exception("webhook_request_failed", endpoint=str(served.endpoint.id), position=one.position)
            return _Broken()
        self._metrics.count_connection("kept" if answer.is_kept else "new")
        if answer.is_reconnected:
            self._metrics.count_repeat("reconnect")
        return answer

    async def _body(self, row: EventRow, endpoint: Endpoint) -> bytes:
        return body(await self._long.whole(row) if needs_metadata(row, endpoint) else row, endpoint)

    def _count_repeat(self, served: ServedQueue, one: Delivery[EventRow]) -> None:
        match one.kind:
            case Kind.LIVE:
                if served.may_repeat:
                    served.may_repeat -= 1
                    self._metrics.count_repeat("takeover")
            case Kind.RETRY:
                if one.attempts:
                    self._metrics.count_repeat("retry")
            case Kind.REPLAY:
                self._metrics.count_repeat("replay")

    def _note(self, one: Delivery[EventRow], answer: Answer, *, delivered: bool) -> None:
        self._metrics.observe_request(answer.outcome, answer.ms / 1000)
        if delivered and one.kind is not Kind.REPLAY:
            database_s = time.time() + self.clock_offset_s
            self._metrics.observe_delivery(max(0.0, database_s - one.event.event.at.timestamp()))
