"""Keeps the claims of this process alive in Postgres while their provider calls last.

Most payments settle long before their lease is a third old and are never seen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import structlog

from okane.errors import StoreUnavailable
from okane.store import Claimed, PaymentStore

log = structlog.get_logger("okane.lease")


class Leases:
    """The claims held by this process, by (payment, attempt), with the monotonic time until which each is valid."""

    def __init__(self, *, store: PaymentStore, lease: timedelta) -> None:
        self._store = store
        self._lease_s = lease.total_seconds()
        self._valid_until_s: dict[tuple[UUID, int], float] = {}

    @contextlib.contextmanager
    def held(self, claimed: Claimed) -> Iterator[None]:
        """Renew the lease of this claim for as long as the block lasts."""
        key = (claimed.payment.id, claimed.payment.attempts)
        self._valid_until_s[key] = claimed.valid_until_s
        try:
            yield
        finally:
            del self._valid_until_s[key]

    def valid(self, claimed: Claimed) -> bool:
        """Whether this process may still call the provider. False after it was stopped for longer than its lease."""
        return time.monotonic() < self._valid_until_s[claimed.payment.id, claimed.payment.attempts]

    async def run_once(self) -> int:
        """Renew what has used up a third of its lease; how many were renewed. What fails is tried again next time."""
        now_s = time.monotonic()
        aging = [key for key, until_s in self._valid_until_s.items() if until_s - now_s < self._lease_s * 2 / 3]
        answers = await asyncio.gather(*(self._store.renew(*key) for key in aging), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, StoreUnavailable):
                log.error("renewal_failed", exc_info=answer)
        kept = [key for key, answer in zip(aging, answers, strict=True) if answer is True]
        for key in kept:
            if key in self._valid_until_s:
                self._valid_until_s[key] = now_s + self._lease_s
        return len(kept)

    async def run(self, stop: asyncio.Event) -> None:
        """Renew until `stop`. Runs on while the last provider calls drain: set `stop` after them."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 6):
                    await stop.wait()
            await self.run_once()
