"""The stores of a dispatcher: the model of the tables, behind a network that delays and loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import FARTHEST, EventPage, EventRow, Sequenced
from okane.store.webhook_partitions import Dropped
from okane.store.webhook_queues import (
    DueRows,
    EndpointChange,
    Hold,
    LeasedQueue,
    LeaseRules,
    QueueBatch,
    Replay,
    ReplayPage,
    Share,
)
from tests.simulation.postgres import Remote
from tests.simulation.webhooks.audit import WebhookAudit
from tests.simulation.webhooks.tables import Tables

T = TypeVar("T")


class _RemoteTables:
    """The way to the tables. A statement that is safe to repeat is sent once more when its connection turns out dead."""

    def __init__(self, remote: Remote, tables: Tables) -> None:
        self._remote = remote
        self._tables = tables

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _once(self, what: str, call: Callable[[], T]) -> T:
        async def statement() -> T:
            return call()

        return await self._remote.ask(what, statement)

    async def _repeatably(self, what: str, call: Callable[[], T]) -> T:
        async def statement() -> T:
            return call()

        return await self._remote.ask_repeatably(what, statement)


class RemoteEventStore(_RemoteTables):
    """The `WebhookEventStore` of one process."""

    async def sequence(self) -> Sequenced | None:
        return await self._once("sequence", self._tables.sequence)

    async def prepare_partitions(self) -> int:
        return 0

    async def drop_partitions(self, keep: timedelta, max_bytes: int | None) -> Dropped:
        raise NotImplementedError("no run lasts for so long")

    async def last_position(self) -> int:
        return await self._repeatably("last", lambda: self._tables.last)

    async def read(self, after: int, limit: int) -> Sequence[EventRow]:
        return await self._repeatably("read", lambda: self._tables.read(after, limit))

    async def read_account(
        self,
        account_id: str,
        after: int,
        limit: int,
        types: Sequence[str] | None = None,
        *,
        up_to: int = FARTHEST,
        undelivered_to: UUID | None = None,
    ) -> EventPage:
        rows, reached = await self._repeatably(
            "read_account",
            lambda: self._tables.read_account(
                account_id, after, limit, types, up_to=up_to, undelivered_to=undelivered_to
            ),
        )
        return EventPage(rows, reached)

    async def get_many(self, positions: Sequence[int]) -> Sequence[EventRow]:
        return await self._repeatably("get_many", lambda: [self._tables.log[one - 1] for one in sorted(set(positions))])

    async def get_whole(self, positions: Sequence[int]) -> Sequence[EventRow]:
        return await self._repeatably("get_whole", lambda: [self._tables.log[one - 1] for one in positions])


class RemoteQueueStore(_RemoteTables):
    """The `WebhookQueueStore` of one process. The audit judges what it writes."""

    def __init__(self, remote: Remote, tables: Tables, audit: WebhookAudit, *, owner: str, rules: LeaseRules) -> None:
        super().__init__(remote, tables)
        self.owner = owner
        self.rules = rules
        self._audit = audit
        self._has_resigned = False

    def _used(self) -> None:
        if not self._has_resigned:
            self._tables.dispatchers[self.owner] = self._tables.clock_s()

    async def share(self) -> Share:
        return await self._repeatably("share", lambda: self._tables.share(self.rules))

    async def resign(self) -> None:
        self._has_resigned = True
        await self._repeatably("resign", lambda: self._tables.dispatchers.pop(self.owner, None))

    async def lease(self, limit: int) -> Sequence[LeasedQueue]:
        def call() -> Sequence[LeasedQueue]:
            self._used()
            leased = self._tables.lease(self.owner, limit, self.rules.lease.total_seconds())
            self._audit.repairs["taken over"] += sum(one.taken_over for one in leased)
            return leased

        return await self._once("lease", call)

    async def renew(self, *, idle_to: int, idle: Iterable[UUID]) -> int:
        idle = list(idle)

        def call() -> int:
            self._used()
            with self._audit.moving():
                return self._tables.renew(self.owner, self.rules.lease.total_seconds(), idle_to=idle_to, idle=idle)

        return await self._repeatably("renew", call)

    async def owned(self) -> Mapping[UUID, int]:
        return await self._repeatably("owned", lambda: self._tables.owned(self.owner))

    async def changed(self) -> Sequence[tuple[Endpoint, int]]:
        return await self._repeatably("changed", lambda: self._tables.changed(self.owner))

    async def confirm(self, versions: Mapping[UUID, int]) -> None:
        await self._repeatably("confirm", lambda: self._tables.confirm(self.owner, versions))

    async def release(self, endpoint_ids: Iterable[UUID]) -> None:
        ids = list(endpoint_ids)
        await self._repeatably("release", lambda: self._tables.release(self.owner, ids))

    async def write(self, batches: Sequence[QueueBatch], now_s: float) -> set[UUID]:
        def call() -> set[UUID]:
            with self._audit.moving():
                held = self._audit.holders(batches, self.owner)
                written = self._tables.write(self.owner, batches, now_s)
                self._audit.written(self.owner, batches, written, held)
                return written

        return await self._once("write", call)

    async def report_failing(self) -> Sequence[EndpointChange]:
        return []

    async def disable(self, gone: Iterable[UUID]) -> Sequence[EndpointChange]:
        ids, after_s = list(gone), self.rules.disabled.total_seconds()
        return await self._once("disable", lambda: self._tables.disable(self.owner, ids, after_s))

    async def due(self, rooms: Mapping[UUID, int]) -> DueRows:
        return await self._repeatably("due", lambda: self._tables.due(rooms))

    async def holds(self, holds_s: Mapping[UUID, int]) -> Sequence[Hold]:
        return await self._repeatably("holds", lambda: self._tables.holds(holds_s))

    async def replays(self, endpoint_ids: Iterable[UUID]) -> Sequence[Replay]:
        ids = list(endpoint_ids)
        return await self._repeatably(
            "replays", lambda: [self._tables.replays[one] for one in ids if one in self._tables.replays]
        )

    async def replay_page(
        self, replay: Replay, endpoint: Endpoint, *, after: int, up_to: int, types: Sequence[str], limit: int
    ) -> ReplayPage:
        return await self._repeatably(
            "replay_page",
            lambda: self._tables.replay_page(replay, endpoint, after=after, up_to=up_to, types=types, limit=limit),
        )

    async def end_replay(self, replay: Replay, *, epoch: int) -> None:
        def call() -> None:
            found, queue = self._tables.replays.get(replay.endpoint_id), self._tables.queues.get(replay.endpoint_id)
            if found is None or queue is None or found.from_position != replay.from_position:
                return
            if found.next > found.to_position and (queue.owner, queue.epoch) == (self.owner, epoch):
                del self._tables.replays[replay.endpoint_id]

        await self._repeatably("end_replay", call)
