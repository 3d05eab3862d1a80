"""Follow accepted payments to their end by polling, without becoming the load that is measured.

Promise: polls that find a payment settled are unlimited; those that find it open have a limit, whatever the backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Sequence

from okane.load.client import HttpClient
from okane.load.customers import Customers
from okane.load.report import Tally, Tracked
from okane.load.sending import take_in

_FIRST_POLL_S = 0.3
_GROWTH = 1.6
_LONGEST_S = 5.0
# With 100,000 payments open, polling each even every 5 s would be 20,000 requests a second for nothing.
_FRUITLESS_PER_S = 200.0


class Follower:
    """Polls the payments of `add` until they are at rest. `run` ends once `no_more` was called and none is open."""

    def __init__(
        self, *, url: str, http: HttpClient, tally: Tally, connections: int, customers: Customers | None = None
    ) -> None:
        self._payments_url = f"{url}/v1/payments"
        self._http = http
        self._tally = tally
        self._customers = customers
        self._connections = connections
        self._polls_at_once = max(2, connections // 8)  # while the sending goes on
        self._due: list[tuple[float, int, float, Tracked]] = []  # (when, number, interval, payment)
        self._polls: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._complete = False
        self._ration = _FRUITLESS_PER_S  # how many polls may still find a payment open
        self._ration_at = time.monotonic()
        self.at_rest = 0

    def add(self, payment: Tracked) -> None:
        self._later(payment, _FIRST_POLL_S)

    def no_more(self) -> None:
        """Mark the sending as complete: all connections are free for polls."""
        self._complete = True
        self._polls_at_once = self._connections
        self._changed.set()

    async def run(self) -> None:
        try:
            while self._due or self._polls or not self._complete:
                self._changed.clear()
                wait_s = self._start_due()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
        finally:
            for poll in self._polls:
                poll.cancel()
            await asyncio.gather(*self._polls, return_exceptions=True)

    async def look_once(self, payments: Sequence[Tracked]) -> None:
        """Poll each payment a last time, as fast as the connections allow."""
        queue = iter(payments)

        async def hand() -> None:
            for payment in queue:
                await self._look(payment)

        async with asyncio.TaskGroup() as hands:
            for _ in range(min(self._connections, len(payments))):
                hands.create_task(hand())

    def _start_due(self) -> float | None:
        """Start every poll that is due and allowed. Return the seconds until the next one; None: until a change."""
        now = time.monotonic()
        self._ration = min(self._ration + (now - self._ration_at) * _FRUITLESS_PER_S, _FRUITLESS_PER_S)
        self._ration_at = now
        while self._due and len(self._polls) < self._polls_at_once:
            when, _, interval_s, payment = self._due[0]
            if when > now:
                return when - now
            if self._ration < 1:
                return (1 - self._ration) / _FRUITLESS_PER_S
            heapq.heappop(self._due)
            poll = asyncio.create_task(self._poll(payment, interval_s))
            self._polls.add(poll)
            poll.add_done_callback(self._polled)
        return None

    def _polled(self, poll: asyncio.Task[None]) -> None:
        self._polls.discard(poll)
        self._changed.set()

    async def _poll(self, payment: Tracked, interval_s: float) -> None:
        await self._look(payment)
        if payment.at_rest:
            self.at_rest += 1
        else:
            self._ration -= 1
            self._later(payment, min(interval_s * _GROWTH, _LONGEST_S))

    def _later(self, payment: Tracked, interval_s: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + interval_s, payment.number, interval_s, payment))
        if self._due[0][-1] is payment:  # otherwise `run` already waits for one that is due earlier
            self._changed.set()

    async def _look(self, payment: Tracked) -> None:
        reply = await self._http.get(f"{self._payments_url}/{payment.id}")
        if reply.status == 404:
            payment.lost = True
        elif reply.status != 200 or not take_in(payment, reply):
            self._tally.errors[f"GET {reply.error_kind}"] += 1
        elif payment.action_url is not None and self._customers is not None:
            await self._customers.authenticate(payment)
