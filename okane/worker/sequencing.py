"""Sequencing in a worker: without it, the outbox of webhooks would grow while no dispatcher runs.

Every worker does it once a sweep. Dispatchers do it forty times a second; then there is nothing left to do here.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.metrics import OkaneMetrics
from okane.pausing import pause
from okane.store import SweepStore, WebhookEventStore

log = structlog.get_logger("okane.webhooks")


class Sequencing:
    """The sequencing of one worker, every `interval`. `events` is connected only if an account has an endpoint."""

    def __init__(
        self, *, sweep_store: SweepStore, events: WebhookEventStore, metrics: OkaneMetrics, interval: timedelta
    ) -> None:
        self._sweep_store = sweep_store
        self._events = events
        self._metrics = metrics
        self._interval_s = interval.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Sequence every interval until `stop`."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("sequencing_interrupted", reason=str(error))
            except Exception:
                log.exception("sequencing_failed")  # the next round may succeed
            await pause(self._interval_s, stop)

    async def run_once(self) -> int:
        """Give the committed changes positions in the log; return their number, 0 while another process does it. Raises
        StoreUnavailable.
        """
        if not await self._sweep_store.needs_sequencing():
            return 0
        sequenced = await self._events.sequence()
        if sequenced is None or not sequenced.count:
            return 0
        self._metrics.observe_sequenced(sequenced.by_type, timedelta(seconds=sequenced.oldest_s))
        return sequenced.count
