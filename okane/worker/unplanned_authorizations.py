"""Finds authorizations without a time of their next look: a worker of an older version wrote them, beside this one perhaps.

Every worker reads all authorizations when it starts, and once a day. Several at once do no harm.
"""

from __future__ import annotations

import asyncio

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause
from okane.store import SweepStore
from okane.store.sweep import AuthorizationPlace

log = structlog.get_logger("okane.sweep")

INTERVAL_S = 86_400.0
AGAIN_S = 60.0  # after a failure
BETWEEN_PAGES_S = 0.1  # the sweep uses the same connection


class UnplannedAuthorizations:
    """The search of one worker. What it finds gets a look within a day: the sweep sends it, and the worker looks it up."""

    def __init__(self, *, sweep_store: SweepStore) -> None:
        self._sweep_store = sweep_store
        self._place: AuthorizationPlace | None = None  # where a failure has interrupted it

    async def run(self, stop: asyncio.Event) -> None:
        """Search each day until `stop`."""
        while not stop.is_set():
            pause_s = AGAIN_S
            try:
                await self.run_once(stop)
                pause_s = INTERVAL_S
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("authorizations_interrupted", reason=str(error))
            except Exception:
                log.exception("authorizations_failed")  # the next round may succeed
            await pause(pause_s, stop)

    async def run_once(self, stop: asyncio.Event) -> int:
        """Read all authorizations, a page at a time; return how many were planned. Raises StoreUnavailable."""
        planned = 0
        while not stop.is_set():
            page = await self._sweep_store.plan_authorizations(self._place)
            planned += page.planned
            self._place = page.place
            if self._place is None:
                break
            await pause(BETWEEN_PAGES_S, stop)
        if planned:
            log.info("authorizations_planned", count=planned)
        return planned
