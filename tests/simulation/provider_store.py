"""A model of `okane.store.providers.ProviderStore`, behind the network: the rows that a worker's watch reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from okane.store.providers import ProviderState, ProviderStore, SharedBreakerRules
from tests.simulation.postgres import Remote
from tests.simulation.store import MemoryDatabase, ProviderRow

RULES = SharedBreakerRules(longest=timedelta(seconds=8))


class RemoteProviderStore:
    """The `ProviderStore` of one process."""

    def __init__(self, remote: Remote, database: MemoryDatabase) -> None:
        self._remote = remote
        self._database = database

    async def read_all(self) -> Sequence[ProviderState]:
        return await self._remote.ask_repeatably("read_providers", self._read_all)

    async def suspect(self, name: str, *, worker: str, alone: bool) -> bool:
        return await self._remote.ask("suspect", lambda: self._suspect(name, worker, alone=alone))

    async def close(self, name: str) -> bool:
        return await self._remote.ask("close_circuit", lambda: self._close(name))

    async def _read_all(self) -> Sequence[ProviderState]:
        now = self._database.now()
        return [
            ProviderState(name, mode="off" if row.mode == "off" else "on", open_s=_left_s(row, now))
            for name, row in sorted(self._database.providers.items())
        ]

    async def _suspect(self, name: str, worker: str, *, alone: bool) -> bool:
        now = self._database.now()
        row = self._database.providers.setdefault(name, ProviderRow())
        if row.open_until is not None and row.open_until > now:
            return False
        suspected_at = row.suspected_at or datetime.min.replace(tzinfo=UTC)
        confirms = row.suspected_by not in (None, worker) and now - suspected_at < RULES.within
        if row.open_until is not None and row.open_until <= now - RULES.forget:
            row.open_count = 0
        if alone or confirms:
            row.open_until = now + min(RULES.longest, RULES.first * 2**row.open_count)
            row.open_count += 1
        row.suspected_by, row.suspected_at = worker, now
        return alone or confirms

    async def _close(self, name: str) -> bool:
        row = self._database.providers.get(name)
        if row is None or (row.open_until is None and row.suspected_by is None and not row.open_count):
            return False
        row.open_until, row.open_count, row.suspected_by = None, 0, None
        return True


def as_provider_store(store: RemoteProviderStore) -> ProviderStore:
    """Return the store, typed as the real one."""
    return cast(ProviderStore, store)


def _left_s(row: ProviderRow, now: datetime) -> float:
    return 0.0 if row.open_until is None else max(0.0, (row.open_until - now).total_seconds())
