"""Makes table partitions ahead of time, as `okane partitions --create` does: without one, new payments are refused.

Every worker does it, if the database has table partitions; the migration lock keeps them out of each other's way. The sweep
has read the parts already, so that a look costs no statement.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from okane.errors import SetupError
from okane.pausing import pause
from okane.store import SweepStore, table_partitions
from okane.store.partition_bounds import are_short

log = structlog.get_logger("okane.store")

INTERVAL_S = 300.0
AGAIN_S = 3600.0  # after a failure, which only an operator can end, mostly
LOCK_WAIT = timedelta(seconds=5)  # a worker that stops waits for it


class PartitionsAhead:
    """The table partitions that one worker makes."""

    def __init__(self, *, url: str, sweep_store: SweepStore) -> None:
        self._url = url
        self._sweep_store = sweep_store

    async def run(self, stop: asyncio.Event) -> None:
        """Look every few minutes until `stop`."""
        pause_s = INTERVAL_S
        while not stop.is_set():
            await pause(pause_s, stop)
            pause_s = AGAIN_S
            try:
                if not stop.is_set():
                    await self.run_once()
                pause_s = INTERVAL_S
            except SetupError as error:  # the alert and `okane doctor` tell it too, a day before the end
                log.warning("table_partitions_not_made", reason=str(error))
            except Exception:
                log.exception("table_partitions_failed")

    async def run_once(self) -> int:
        """Make the table partitions that are missing; return how many. Raises SetupError."""
        if not are_short(self._sweep_store.parts, now=datetime.now(UTC)):
            return 0
        made = await table_partitions.make_parts(self._url, wait=LOCK_WAIT)
        if made:
            log.info("table_partitions_made", parts=[part.suffix for part in made])
        return len(made)
