"""The follow-up of notices: wake payments and operations whose notice came while a worker had them in work, and delete old
notices.

Every worker that calls gateways does it. Such a notice may be newer than the answer that the worker has written: the payment
or operation is looked up once more. A wake-up that is lost is one that the sweep finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.store import ProviderEventStore
from okane.worker.direct_run import DueWork
from streams import Draft, Publisher, StreamError

log = structlog.get_logger("okane.notices")

KEPT = timedelta(days=30)
DELETE_EVERY_S = 3600.0
DELETED_AT_ONCE = 1_000
MOST_DELETED = 100_000  # in one round: the next one goes on


class NoticeFollowUp:
    """The follow-up of one worker, every `interval`. `operations` publishes to the stream of captures, voids and refunds;
    None: only payments are followed up."""

    def __init__(
        self,
        *,
        events: ProviderEventStore,
        producer: Publisher,
        interval: timedelta,
        operations: Publisher | None = None,
    ) -> None:
        self._events = events
        self._producer = producer
        self._operations = operations
        self._interval_s = interval.total_seconds()
        self._delete_at_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Wake and delete until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
                if time.monotonic() >= self._delete_at_s:
                    await self.delete_old()
                    self._delete_at_s = time.monotonic() + DELETE_EVERY_S
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("notices_interrupted", reason=str(error))
            except Exception:
                log.exception("notices_failed")  # the next round may succeed
            await pause(self._interval_s, stop)

    async def run_once(self) -> int:
        """Wake what has been settled since its notice came; return the number. Raises StoreUnavailable."""
        woken = await self._wake(self._producer, await self._events.wake_noticed())
        if self._operations is not None:
            woken += await self._wake(self._operations, await self._events.wake_noticed_operations())
        return woken

    async def _wake(self, producer: Publisher, due: Sequence[DueWork]) -> int:
        if due:
            with contextlib.suppress(StreamError):
                await producer.publish_many([Draft(one.body, lane=one.lane) for one in due])
        return len(due)

    async def delete_old(self) -> int:
        """Delete the notices of more than 30 days ago, in batches; return their number. Raises StoreUnavailable."""
        deleted = 0
        while deleted < MOST_DELETED:
            batch = await self._events.delete_old(KEPT, limit=DELETED_AT_ONCE)
            deleted += batch
            if batch < DELETED_AT_ONCE:
                break
        return deleted
