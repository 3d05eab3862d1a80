"""Renewal of this process's claims in Postgres while their provider calls last.

Most payments and operations settle before their lease is a third old, and are never renewed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

import structlog

from okane.errors import StoreUnavailable
from okane.pausing import pause

log = structlog.get_logger("okane.lease")


class RenewingStore(Protocol):
    """The part of a store that renews claims, of payments or of operations."""

    async def renew(self, claimed_id: UUID, attempt: int, /) -> bool:
        """Extend the lease of this attempt. Return False if it has lost the payment or operation."""
        ...


@dataclass(slots=True, eq=False)
class Lease:
    """One claim, held inside its block. `valid_until_s` is monotonic time."""

    claimed_id: UUID
    attempt: int
    valid_until_s: float
    held: dict[Lease, None]

    @property
    def is_valid(self) -> bool:
        """True while this process may call the provider. False after it was stopped for longer than its lease."""
        return time.monotonic() < self.valid_until_s

    def __enter__(self) -> Self:
        self.held[self] = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.held[self]


class LeaseRenewal:
    """The claims that this process holds, and their renewal."""

    def __init__(self, *, store: RenewingStore, lease: timedelta) -> None:
        self._store = store
        self.lease = lease
        self._lease_s = lease.total_seconds()
        self._held: dict[Lease, None] = {}  # in the order of their claims

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, claimed_id: UUID, attempt: int, valid_until_s: float) -> Lease:
        """Return the lease of the claim of this id and attempt. It is renewed while its block lasts."""
        return Lease(claimed_id, attempt, valid_until_s, self._held)

    async def run_once(self) -> int:
        """Renew the leases that are a third used up; return how many were renewed. A failed renewal is repeated next time."""
        now_s = time.monotonic()
        aging = [lease for lease in self._held if lease.valid_until_s - now_s < self._lease_s * 2 / 3]
        renewals = (self._store.renew(lease.claimed_id, lease.attempt) for lease in aging)
        answers = await asyncio.gather(*renewals, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, StoreUnavailable):
                log.error("renewal_failed", exc_info=answer)
        kept = [lease for lease, answer in zip(aging, answers, strict=True) if answer is True]
        for lease in kept:
            lease.valid_until_s = now_s + self._lease_s
        return len(kept)

    async def run(self, stop: asyncio.Event) -> None:
        """Renew until `stop`. Set `stop` after the last provider call has drained."""
        while not stop.is_set():
            await pause(self._lease_s / 6, stop)
            await self.run_once()
