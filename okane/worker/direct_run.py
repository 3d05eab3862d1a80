"""Direct runs: due payments straight from Postgres while Redis cannot be used.

They pass the same handler as a message of the stream, with the same claim: entries that Redis still holds for these payments
find them claimed or settled. The handler's outcome is dropped; the row says when the payment is due again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog

from okane.metrics import OkaneMetrics
from streams import Handler, Message

log = structlog.get_logger("okane.direct")


class DueWork(Protocol):
    """A payment or an operation that is due. `body` is that of its entry, `scheduled` as in `WakeUp`."""

    @property
    def body(self) -> bytes: ...

    @property
    def lane(self) -> str: ...

    @property
    def scheduled(self) -> bool: ...


class DirectRuns:
    """The direct runs of one worker: at most `concurrency` at once, beside those from the stream.

    `capacity` returns how many payments may be in hand now, fewer than that while providers cannot be used.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        concurrency: int,
        metrics: OkaneMetrics,
        capacity: Callable[[], int] | None = None,
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._capacity = capacity or (lambda: concurrency)
        self._metrics = metrics
        self._running: set[asyncio.Task[None]] = set()
        self._draining = False

    @property
    def free(self) -> int:
        """The number of payments that may be started now."""
        return max(0, min(self._concurrency, self._capacity()) - len(self._running))

    @property
    def may_run(self) -> bool:
        """True unless no provider can be used: then no payment is worth its wake-up."""
        return self._capacity() > 0

    async def wait_for_room(self) -> None:
        """Wait until a quarter of the places is free, or nothing runs: refilled one by one, every payment would cost a query
        of its own."""
        while self._running and self.free < max(1, self._concurrency // 4):
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def start(self, due: Sequence[DueWork]) -> None:
        """Run these, as many as are `free`, and none after `drain`. The sweep takes the others again."""
        if self._draining:
            return
        for one in due[: self.free]:
            task = asyncio.get_running_loop().create_task(self._run(one))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def drain(self, limit: timedelta) -> None:
        """Wait for running payments, for `limit` at most; cancel the rest, whose leases run out."""
        self._draining = True
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=limit.total_seconds())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _run(self, one: DueWork) -> None:
        self._metrics.direct.labels(one.lane).inc()
        try:
            await self._handler(Message(id="direct", lane=one.lane, body=one.body))
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # the panic of an extension, too
            log.exception("direct_run_failed", id=str(UUID(bytes=one.body)))
