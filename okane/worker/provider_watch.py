"""The watch over the providers' rows in Postgres: it copies them to a worker's gates, and writes the shared breaker level.

It runs beside the charges, so no charge waits for it. While Postgres is away nothing is copied or written; claims fail then,
too. A death loses at most one suspicion: the next worker whose breaker opens writes its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from okane.errors import StoreUnavailable
from okane.store.providers import ProviderState, ProviderStore
from okane.worker.provider_gate import ProviderGate, ProviderGates
from streams import StreamError

log = structlog.get_logger("okane.gate")

COUNT_EVERY = 5  # rounds between two counts of the workers


class WorkerCount:
    """The number of running workers, 0 until it is known. It stays as it was while `count` raises StreamError."""

    def __init__(self, count: Callable[[], Awaitable[int]] | None = None, *, workers: int = 0) -> None:
        self._count = count
        self.workers = workers

    async def refresh(self) -> None:
        """Count again."""
        if self._count is not None:
            with contextlib.suppress(StreamError):
                self.workers = await self._count()


class ProviderWatch:
    """The watch of one worker, called `name`."""

    def __init__(
        self,
        gates: ProviderGates,
        *,
        store: ProviderStore,
        name: str,
        count: WorkerCount,
        every: timedelta = timedelta(seconds=1),
    ) -> None:
        self._gates = gates
        self._store = store
        self._name = name
        self._count = count
        self._every_s = every.total_seconds()
        self._rows: dict[str, ProviderState] = {}
        self._round = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`: every second, and at once when a breaker has opened or closed."""
        while not stop.is_set():
            try:
                await self.run_once()
            except StoreUnavailable as error:  # the connection that was lost has logged it
                log.debug("provider_watch_interrupted", reason=str(error))
            except Exception:
                log.exception("provider_watch_failed")  # claims and breakers work without it: it goes on after a bug
            await self._pause(stop)

    async def run_once(self) -> None:
        """Write what has changed here, then read all rows. Raises StoreUnavailable."""
        if self._round % COUNT_EVERY == 0:
            await self._count.refresh()
        self._round += 1
        self._gates.changed.clear()
        for gate in self._gates.by_name.values():
            await self._write(gate)
        self._rows = {one.name: one for one in await self._store.read_all()}
        for name, gate in self._gates.by_name.items():
            row = self._rows.get(name, ProviderState(name=name))
            gate.observe(switched_off=row.mode == "off", shared_open_s=row.open_s)

    async def _write(self, gate: ProviderGate) -> None:
        """Write that a breaker has opened or closed here. Raises StoreUnavailable; the next round tries again then."""
        if gate.is_suspect:
            opened = await self._store.suspect(gate.name, worker=self._name, alone=self._count.workers == 1)
            gate.is_suspect = False
            self._rows.setdefault(gate.name, ProviderState(name=gate.name))
            if opened:
                log.error("circuit_opened_for_all", provider=gate.name)
        if gate.has_recovered:
            # Without a row there is nothing to close: the breaker of one worker seldom makes one.
            if gate.name in self._rows:
                await self._store.close(gate.name)
            gate.has_recovered = False

    async def _pause(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(one.wait()) for one in (stop, self._gates.changed)]
        try:
            await asyncio.wait(waits, timeout=self._every_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
