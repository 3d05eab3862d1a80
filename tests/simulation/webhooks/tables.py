"""The tables of events and webhooks in memory: a model of the statements of `webhook_events.sql` and `webhook_queues.sql`.

A statement is one call here: nothing runs in between. Transactions of payments become visible when they commit, in any order;
what they wrote is in the outbox from then on. Sequencing by snapshots is tested on a real Postgres (test_webhook_events.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow, LoggedEvent, Sequenced
from okane.store.webhook_queues import (
    Due,
    DueRows,
    EndpointChange,
    Hold,
    LeasedQueue,
    LeaseRules,
    QueueBatch,
    Replay,
    ReplayPage,
    ResultRow,
    Share,
)
from okane.webhooks.types import expand


@dataclass(slots=True)
class QueueRow:
    """One row of `webhook_queues`. Times are seconds since the epoch."""

    done_to: int
    owner: str | None = None
    epoch: int = 0
    lease_until_s: float = float("-inf")
    seen_version: int = 0
    failing_since_s: float | None = None
    failures: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class DeliveryRow:
    """One row of `webhook_deliveries`."""

    state: str
    attempts: int
    ms: int | None
    reason: str | None
    at_s: float
    next_at_s: float | None
    first_failed_s: float | None = None  # `earlier` begins with it


@dataclass(slots=True)
class Change:
    """A change of a payment in the outbox."""

    payment_id: UUID
    version: int
    account_id: str
    type: str
    at_s: float


@dataclass(slots=True)
class Tables:
    """All tables. `on_write` gets every row that is written, for the rules that are judged at each step."""

    clock_s: Callable[[], float]
    outbox: list[Change] = field(default_factory=list)
    log: list[EventRow] = field(default_factory=list)  # the event at position n is number n - 1
    endpoints: dict[UUID, Endpoint] = field(default_factory=dict)
    queues: dict[UUID, QueueRow] = field(default_factory=dict)
    deliveries: dict[tuple[UUID, int], DeliveryRow] = field(default_factory=dict)
    replays: dict[UUID, Replay] = field(default_factory=dict)
    dispatchers: dict[str, float] = field(default_factory=dict)  # when each has run a statement last
    _positions: dict[tuple[UUID, int], int] = field(default_factory=dict)

    # -- the log

    def sequence(self) -> Sequenced:
        """Move the outbox into the log."""
        by_type: dict[str, int] = {}
        oldest_s = min((one.at_s for one in self.outbox), default=self.clock_s())
        for one in sorted(self.outbox, key=lambda one: one.version):
            event = LoggedEvent(
                len(self.log) + 1, one.account_id, one.payment_id, one.version, one.type, _datetime(one.at_s)
            )
            self._positions[one.payment_id, one.version] = event.position
            self.log.append(EventRow(event, "success", 1, None, None, 440, "USD", "key", _datetime(one.at_s), {}))
            by_type[one.type] = by_type.get(one.type, 0) + 1
        self.outbox.clear()
        return Sequenced(self.last, by_type, self.clock_s() - oldest_s)

    @property
    def last(self) -> int:
        """The highest position."""
        return len(self.log)

    def read(self, after: int, limit: int) -> Sequence[EventRow]:
        """Return events of all accounts."""
        return self.log[after : after + limit]

    def read_account(
        self,
        account_id: str,
        after: int,
        limit: int,
        types: Sequence[str] | None,
        *,
        up_to: int,
        undelivered_to: UUID | None,
    ) -> tuple[Sequence[EventRow], int]:
        """Return events of one account, and the position up to which none was left out."""
        found: list[EventRow] = []
        for row in self.log[after:up_to]:
            event = row.event
            if event.account_id != account_id or (types is not None and event.type not in types):
                continue
            if undelivered_to is not None and (undelivered_to, event.position) in self.deliveries:
                continue
            found.append(row)
            if len(found) == limit:
                return found, event.position
        return found, max(after, min(up_to, self.last))

    def position_of(self, payment_id: UUID, version: int) -> int:
        """Return the position of an event."""
        return self._positions[payment_id, version]

    # -- leases

    def share(self, rules: LeaseRules) -> Share:
        """Return how many queues and dispatchers there are."""
        now_s = self.clock_s()
        served = self._served()
        queues = [self.queues[one.id] for one in served]
        free_since_s = [max(self.queues[one.id].lease_until_s, one.created_at.timestamp()) for one in served]
        orphans = [since_s for since_s in free_since_s if since_s <= now_s - rules.orphaned.total_seconds()]
        silent_s = rules.silent.total_seconds()
        running = sum(now_s - used_s < silent_s for used_s in self.dispatchers.values())
        free = sum(one.lease_until_s <= now_s for one in queues)
        is_used = bool(self.outbox) or any(one.status != "deleted" for one in self.endpoints.values())
        return Share(len(queues), free, len(orphans), max(1, running), is_used, now_s)

    def lease(self, owner: str, limit: int, lease_s: float) -> Sequence[LeasedQueue]:
        """Lease queues without an owner, the longest free ones first."""
        now_s = self.clock_s()
        free = [one for one in self._served() if self.queues[one.id].lease_until_s <= now_s]
        free.sort(key=lambda one: self.queues[one.id].lease_until_s)
        return [self._lease(endpoint, owner, now_s + lease_s) for endpoint in free[:limit]]

    def _lease(self, endpoint: Endpoint, owner: str, until_s: float) -> LeasedQueue:
        queue = self.queues[endpoint.id]
        taken_over = queue.owner is not None
        queue.owner, queue.epoch, queue.lease_until_s = owner, queue.epoch + 1, until_s
        queue.seen_version = endpoint.version
        queue.done_to = min(queue.done_to, self.last)
        return LeasedQueue(
            endpoint=endpoint,
            done_to=queue.done_to,
            epoch=queue.epoch,
            failures=queue.failures,
            last_error=queue.last_error,
            taken_over=taken_over,
            has_waiting=any(row.next_at_s is not None for _, row in self._rows(endpoint.id)),
            has_replays=endpoint.id in self.replays,
            has_backlog=any(row.event.account_id == endpoint.account_id for row in self.log[queue.done_to :]),
            last=self.last,
        )

    def renew(self, owner: str, lease_s: float, *, idle_to: int, idle: Iterable[UUID]) -> int:
        """Renew the owner's leases, and move its idle queues on."""
        idle = set(idle)
        mine = [(id_, queue) for id_, queue in self.queues.items() if queue.owner == owner]
        for id_, queue in mine:
            queue.lease_until_s = self.clock_s() + lease_s
            if id_ in idle:
                queue.done_to = max(queue.done_to, idle_to)
        return len(mine)

    def owned(self, owner: str) -> Mapping[UUID, int]:
        """Return the epochs of the owner's queues."""
        return {id_: queue.epoch for id_, queue in self.queues.items() if queue.owner == owner}

    def changed(self, owner: str) -> Sequence[tuple[Endpoint, int]]:
        """Return the owner's endpoints that it has not confirmed."""
        return [
            (self.endpoints[id_], queue.epoch)
            for id_, queue in self.queues.items()
            if queue.owner == owner and self.endpoints[id_].version != queue.seen_version
        ]

    def confirm(self, owner: str, versions: Mapping[UUID, int]) -> None:
        """Note that the owner works by these versions."""
        for id_, version in versions.items():
            if id_ in self.queues and self.queues[id_].owner == owner:
                self.queues[id_].seen_version = version

    def release(self, owner: str, endpoint_ids: Iterable[UUID]) -> None:
        """End leases."""
        for id_ in endpoint_ids:
            if id_ in self.queues and self.queues[id_].owner == owner:
                self.queues[id_].owner, self.queues[id_].lease_until_s = None, self.clock_s()

    # -- results

    def holds_epoch(self, owner: str, queue: QueueRow, epoch: int) -> bool:
        """Tell if the owner may write under this epoch. A mutant breaks it."""
        return queue.owner == owner and queue.epoch == epoch

    def write(self, owner: str, batches: Sequence[QueueBatch], now_s: float) -> set[UUID]:
        """Write results; return the queues that are still the owner's."""
        held: set[UUID] = set()
        for one in batches:
            queue = self.queues.get(one.endpoint_id)
            if queue is None or not self.holds_epoch(owner, queue, one.epoch):
                continue
            held.add(one.endpoint_id)
            self._write_state(queue, one)
            if one.replay is not None and one.batch.replayed_to and self.replays.get(one.endpoint_id) == one.replay:
                self.replays[one.endpoint_id] = replace(one.replay, next=one.batch.replayed_to + 1)
            for row in one.batch.results:
                self._write_row(one.endpoint_id, row, max(now_s - row.ended_at_s, 0.0))
        return held

    def _write_state(self, queue: QueueRow, one: QueueBatch) -> None:
        batch = one.batch
        queue.done_to = max(queue.done_to, batch.done_to)
        queue.failures = batch.failures
        if batch.failures == 0:
            queue.failing_since_s = queue.last_error = None
        else:
            started_s = None if batch.succeeded else queue.failing_since_s
            queue.failing_since_s = self.clock_s() if started_s is None else started_s
            queue.last_error = batch.last_error or queue.last_error

    def _write_row(self, endpoint_id: UUID, row: ResultRow, age_s: float) -> None:
        next_at_s = None if row.delay_s is None else self.clock_s() + row.delay_s
        before = self.deliveries.get((endpoint_id, row.position))
        if before is not None and row.ms is None:
            before.next_at_s = before.next_at_s if before.state != "waiting" else next_at_s
            return
        at_s = self.clock_s() - age_s
        first_s = before.first_failed_s if before is not None else None
        if before is not None and before.ms is not None and first_s is None:
            first_s = before.at_s
        self.deliveries[endpoint_id, row.position] = DeliveryRow(
            row.state, row.attempts, row.ms, row.reason, at_s, next_at_s, first_s
        )

    def disable(self, owner: str, gone: Iterable[UUID], after_s: float) -> Sequence[EndpointChange]:
        """Disable endpoints of the owner that are gone, or have failed for too long."""
        gone, found = set(gone), []
        for id_, queue in self.queues.items():
            endpoint = self.endpoints[id_]
            late = queue.failing_since_s is not None and queue.failing_since_s <= self.clock_s() - after_s
            if queue.owner == owner and endpoint.status == "enabled" and (id_ in gone or late):
                reason = "gone" if id_ in gone else "failing"
                self.change(id_, status="disabled", disabled_reason=reason)
                found.append(EndpointChange(id_, endpoint.account_id, reason, queue.last_error))
        return found

    def change(self, id_: UUID, **changes: object) -> Endpoint:
        """Change an endpoint, as its owner does through the API; return it."""
        endpoint = self.endpoints[id_]
        changed = replace(endpoint, version=endpoint.version + 1, **changes)  # type: ignore[arg-type] # members by name
        self.endpoints[id_] = changed
        return changed

    def restart_queue(self, id_: UUID, *, from_now: bool = False) -> None:
        """Let the failures of a queue begin anew, as enabling does; with `from_now` its place is the end of the log."""
        queue = self.queues[id_]
        queue.failing_since_s, queue.failures = None, 0
        if from_now:
            queue.done_to, queue.epoch = max(queue.done_to, self.last), queue.epoch + 1
            self._give_up_waiting(id_)

    def finish_delete(self, endpoint: Endpoint) -> bool:
        """Remove the queue of a deleted endpoint, if its owner has confirmed that or holds no lease."""
        queue = self.queues.get(endpoint.id)
        if queue is None:
            return True
        if (
            queue.owner is not None
            and queue.lease_until_s > self.clock_s()
            and queue.seen_version < self.endpoints[endpoint.id].version
        ):
            return False
        del self.queues[endpoint.id]
        self._give_up_waiting(endpoint.id)
        return True

    def _give_up_waiting(self, endpoint_id: UUID) -> None:
        """End what waits at an endpoint, and its replays."""
        self.replays.pop(endpoint_id, None)
        for _, row in self._rows(endpoint_id):
            if row.state == "waiting":
                row.state, row.next_at_s = "given_up", None

    # -- deliveries

    def due(self, rooms: Mapping[UUID, int]) -> DueRows:
        """Return the rows that are due."""
        now_s, rows, next_s = self.clock_s(), [], {}
        for id_, room in rooms.items():
            waiting = sorted(
                (row.next_at_s, position) for position, row in self._rows(id_) if row.next_at_s is not None
            )
            due = [position for at_s, position in waiting if at_s <= now_s][:room]
            rows += [Due(id_, position, self.deliveries[id_, position].attempts) for position in due]
            later = [at_s - now_s for at_s, _ in waiting if at_s > now_s]
            if later:
                next_s[id_] = min(later)
        return DueRows(rows, next_s)

    def holds(self, holds_s: Mapping[UUID, int]) -> Sequence[Hold]:
        """Return the rows that hold back later events of their payments."""
        found = []
        for id_, hold_s in holds_s.items():
            for position, row in self._rows(id_):
                if row.next_at_s is None:
                    continue
                began_s = row.at_s if row.first_failed_s is None else row.first_failed_s
                left_s = None if row.ms is None else max(0.0, began_s + hold_s - self.clock_s())
                if left_s is None or left_s > 0:
                    found.append(Hold(id_, self.log[position - 1].event.payment_id, position, left_s))
        return found

    def replay_page(
        self, replay: Replay, endpoint: Endpoint, *, after: int, up_to: int, types: Sequence[str], limit: int
    ) -> ReplayPage:
        """Return the next positions of a replay."""
        rows, reached = self.read_account(endpoint.account_id, after, limit, types, up_to=up_to, undelivered_to=None)
        positions = [
            row.event.position
            for row in rows
            if not replay.only_failed or not self.is_delivered(endpoint.id, row.event.position)
        ]
        return ReplayPage(max(after, reached) if len(rows) == limit else max(after, up_to), positions)

    def is_delivered(self, endpoint_id: UUID, position: int) -> bool:
        """Tell if the row of an event says that it was delivered."""
        row = self.deliveries.get((endpoint_id, position))
        return row is not None and row.state == "delivered"

    # -- what is left to do

    def has_endpoint(self, account_id: str) -> bool:
        """Tell if the changes of an account go to the outbox."""
        return any(one.account_id == account_id and one.status != "deleted" for one in self.endpoints.values())

    def is_at_rest(self) -> bool:
        """Tell if nothing is to be sequenced or delivered at an enabled endpoint."""
        return (
            not self.outbox
            and all(
                queue.done_to == self.last and not any(row.state == "waiting" for _, row in self._rows(id_))
                for id_, queue in self.queues.items()
                if self.endpoints[id_].status != "deleted"
            )
            and not self.replays
        )

    def subscribed(self, endpoint: Endpoint) -> Iterator[EventRow]:
        """Yield the events that an endpoint is to get, in the order of the log."""
        types = expand(endpoint.types)
        for row in self.log[endpoint.starts_after :]:
            if row.event.account_id == endpoint.account_id and row.event.type in types:
                yield row

    def _served(self) -> list[Endpoint]:
        return [one for one in self.endpoints.values() if one.status == "enabled" and one.id in self.queues]

    def _rows(self, endpoint_id: UUID) -> list[tuple[int, DeliveryRow]]:
        return [(position, row) for (id_, position), row in self.deliveries.items() if id_ == endpoint_id]


def _datetime(since_epoch_s: float) -> datetime:
    return datetime.fromtimestamp(since_epoch_s, UTC)
