"""Read the state of the system at one moment: /metrics of each process, Redis once, Postgres for what waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import aiohttp

from okane.errors import StoreBusy, StoreUnavailable
from okane.monitoring.operation_summary import OperationCounts, count_in, read_counts
from okane.monitoring.paced_read import PacedRead
from okane.monitoring.samples import Samples, scrape
from okane.operation import OperationStatus
from okane.payment import Status
from okane.redis.presence import Presence, PresentProcess
from okane.store import Overview
from okane.store.providers import ProviderState
from okane.store.webhook_overview import WebhookOverview
from streams import Inspector, StreamError, StreamStats

LATE_READ_S = 20.0  # beyond every time-out of a read: its facts would be old
LATE_FACTS_S = 0.05  # so long does an observation wait for facts, if it has earlier ones
FRESH_S = 15.0  # earlier ones that are older than that would be no news
MAX_SCRAPED = 500  # processes; the rates leave out the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The state at one moment. The fields of a server that did not answer are None; `trouble` has the reason.

    `operation_stats` and `operations` stay None for an observer without the inspector of their stream.
    `is_postgres_heard` is False where the facts from Postgres are those before, and tell nothing about it now.
    """

    at_s: float
    processes: Sequence[PresentProcess]
    samples: Mapping[str, Samples | None]  # by address
    stats: StreamStats | None
    oldest_due: timedelta | None
    dead: int | None
    waiting: Mapping[Status, int] | None
    providers: Sequence[ProviderState]
    webhooks: WebhookOverview | None
    trouble: tuple[str, ...]
    is_postgres_heard: bool = True
    disputes: Mapping[str, int] | None = None  # that wait for evidence, by provider
    operations_in_review: int | None = None
    operation_stats: StreamStats | None = None
    operations: OperationCounts | None = None


class Observer:
    """Reads processes, Redis and Postgres side by side.

    With `operations`, the inspector of their stream, also the lanes and the counts of captures, voids and refunds.
    With `names`, of each process those samples alone. With `facts_s`, the counts from Postgres are used again for that time,
    and every read for longer if it took long; while new facts are late, those before are used, for `patience_s`. A Postgres
    that takes longer than `patience_s` counts as away until it answers; one that has told the age of waiting payments, and
    takes long to count others, does not.
    """

    def __init__(
        self,
        *,
        inspector: Inspector,
        presence: Presence,
        overview: Overview,
        http: aiohttp.ClientSession,
        operations: Inspector | None = None,
        names: Sequence[str] = (),
        facts_s: float = 0.0,
        patience_s: float | None = None,
    ) -> None:
        self._inspector = inspector
        self._presence = presence
        self._overview = overview
        self._http = http
        self._operations = operations
        self._names = names
        self._facts_s = facts_s
        self._patience_s = patience_s
        self._due = PacedRead(self._read_oldest_due, every_s=0.0)
        self._counts = PacedRead(self._count, every_s=facts_s)
        self._reading: asyncio.Task[_Facts] | None = None
        self._began_s = 0.0
        self._facts: _Facts | None = None  # the latest, while Postgres answers
        self._facts_at_s = 0.0
        self._oldest_due: timedelta | None = None  # what the read that is under way, or was the last, has heard
        self._is_heard = False  # Postgres has answered since the last observation

    async def observe(self, known: Sequence[PresentProcess]) -> Observation:
        """Return the state now. While Redis is away, the processes are those `known` before."""
        trouble: list[str] = []
        stats, operation_stats, processes = None, None, known
        try:
            stats, processes = await asyncio.gather(self._inspector.stats(), self._presence.processes())
            if self._operations is not None:
                operation_stats = await self._operations.stats()
        except StreamError as error:
            trouble.append(f"Redis: {error}")
        scraping = [scrape(self._http, one.address, self._names) for one in processes[:MAX_SCRAPED]]
        facts, answers = await asyncio.gather(self._postgres(trouble), asyncio.gather(*scraping))
        is_heard, self._is_heard = self._is_heard, False
        return Observation(
            is_postgres_heard=is_heard,
            at_s=time.monotonic(),
            processes=processes,
            samples={one.address: answer for one, answer in zip(processes, answers, strict=False)},
            stats=stats,
            oldest_due=facts.oldest_due,
            dead=facts.dead,
            waiting=facts.waiting,
            providers=facts.providers,
            webhooks=facts.webhooks,
            trouble=tuple(trouble),
            disputes=facts.disputes,
            operations_in_review=facts.operations_in_review,
            operation_stats=operation_stats,
            operations=facts.operations,
        )

    async def aclose(self) -> None:
        """End a read that is still waiting for Postgres."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _postgres(self, trouble: list[str]) -> _Facts:
        # A read that is late goes on: to cancel it would mean to wait for it, and to begin another one would queue behind it.
        if self._reading is not None and time.monotonic() - self._began_s > LATE_READ_S:
            await self.aclose()
            self._reading = None
        if self._reading is None:
            self._reading, self._began_s = asyncio.create_task(self._read_facts()), time.monotonic()
        reading, before = self._reading, self._fresh_facts()
        await asyncio.wait({reading}, timeout=self._patience_s if before is None else LATE_FACTS_S)
        if not reading.done():
            is_late = self._patience_s is None or time.monotonic() - self._began_s < self._patience_s
            if before is not None and is_late:
                return before
            trouble.append("Postgres: no answer in time")
            return _Facts(oldest_due=self._oldest_due)  # read already: it answers, and takes long to count
        self._reading = None
        try:
            self._facts, self._facts_at_s = reading.result(), time.monotonic()
        except StoreBusy as error:
            trouble.append(f"Postgres: {error}")
            self._is_heard = True
            return _Facts(oldest_due=self._oldest_due)
        except StoreUnavailable as error:
            trouble.append(f"Postgres: {error}")
            self._facts = None
            self._is_heard = False
            self._due.forget()
            self._counts.forget()
            return _Facts()
        return self._facts

    def _fresh_facts(self) -> _Facts | None:
        """Return facts that may stand in for late ones, if there are any."""
        return self._facts if self._facts_s and time.monotonic() - self._facts_at_s < FRESH_S else None

    async def _read_facts(self) -> _Facts:
        if not self._facts_s:  # all of it at each time
            self._due.forget()
            self._counts.forget()
        self._oldest_due = None
        oldest_due = await self._due.get()
        return replace(await self._counts.get(), oldest_due=oldest_due)

    async def _read_oldest_due(self) -> timedelta:
        self._oldest_due = await self._overview.oldest_due()
        self._is_heard = True
        return self._oldest_due

    async def _count(self) -> _Facts:
        facts = _Facts(
            dead=await self._overview.count_dead(),
            waiting=await self._overview.count_waiting(),
            providers=await self._overview.providers(),
            webhooks=await self._overview.webhooks(),
            disputes=await self._overview.count_disputes(),
        )
        if self._operations is None:
            waiting = await self._overview.count_waiting_operations()
            facts = replace(facts, operations_in_review=count_in(waiting, OperationStatus.NEEDS_REVIEW))
        else:
            counts = await read_counts(self._overview)
            in_review = counts.count(OperationStatus.NEEDS_REVIEW)
            facts = replace(facts, operations=counts, operations_in_review=in_review)
        self._is_heard = True
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """The facts from Postgres; the defaults while it does not answer."""

    oldest_due: timedelta | None = None
    dead: int | None = None
    waiting: Mapping[Status, int] | None = None
    providers: Sequence[ProviderState] = ()
    webhooks: WebhookOverview | None = None
    disputes: Mapping[str, int] | None = None
    operations_in_review: int | None = None
    operations: OperationCounts | None = None
