"""The endpoint queues that a dispatcher serves, by id and by account: each with its endpoint, connections and replay."""

from __future__ import annotations

import math
from asyncio import TimerHandle
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow
from okane.store.webhook_queues import Replay
from okane.webhooks.delivery import Delivery, Limits
from okane.webhooks.memory import FEW, PAGE, Memory, event_bytes
from okane.webhooks.queue import EndpointQueue
from okane.webhooks.sender import Sender
from okane.webhooks.types import expand


@dataclass(slots=True, eq=False)
class ServedQueue:
    """One leased queue.

    `due_at_s`: when rows in Postgres are to be read. `may_repeat`: the next so many events may have been sent before, by an
    owner that died. `is_leaving`: it is released as soon as nothing is in flight and the last result is written.
    """

    endpoint: Endpoint
    epoch: int
    queue: EndpointQueue[EventRow]
    sender: Sender
    due_at_s: float = math.inf
    replay: Replay | None = None
    may_repeat: int = 0
    is_leaving: bool = False
    timer: TimerHandle | None = None
    types: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        self.types = frozenset(expand(self.endpoint.types))

    def __hash__(self) -> int:
        """By values: sets of queues have the same order in every process, which the simulation replays."""
        return hash((self.endpoint.id, self.epoch))

    def receives(self, row: EventRow) -> bool:
        """Return True for an event that the endpoint has subscribed to. The endpoint gets none about itself."""
        return row.event.type in self.types and row.event.payment_id != self.endpoint.id

    @property
    def least_room(self) -> int:
        """The number of events for which a read is worth its cost."""
        return FEW if self.queue.memory.is_short else PAGE

    @property
    def is_settled(self) -> bool:
        """True if nothing is in flight or unwritten: its lease can end."""
        return self.queue.in_flight == 0 and not self.queue.has_results

    def forget_timer(self) -> None:
        """Cancel the timer of its next wake-up."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def limits_of(endpoint: Endpoint) -> Limits:
    """Return the limits that the endpoint's queue follows."""
    return Limits(max_in_flight=endpoint.max_in_flight, rate_limit=endpoint.rate_limit, hold_s=float(endpoint.hold_s))


def delivery_of(row: EventRow, attempts: int = 0) -> Delivery[EventRow]:
    """Return a delivery of an event."""
    event = row.event
    return Delivery(event.position, event.payment_id, row, attempts=attempts, size=event_bytes(row.metadata))


class ServedQueues:
    """All queues of a dispatcher, and those of them that have something to do: idle ones cost its loops nothing.

    `behind`: they read their own backlog; the others have every event up to the feed's position, and get the next from it.
    """

    def __init__(self) -> None:
        self.active: set[ServedQueue] = set()  # those that are not idle, and perhaps some that are
        self.failing: set[ServedQueue] = set()  # no success since the last failure
        self.behind: set[ServedQueue] = set()
        self.waiting: set[ServedQueue] = set()  # with rows that are due at some time
        self.unread_replays: set[ServedQueue] = set()  # with a replay to begin
        self.replaying: set[ServedQueue] = set()
        self.leaving: set[ServedQueue] = set()
        self.memory = Memory()
        self._by_id: dict[UUID, ServedQueue] = {}
        self._by_account: dict[str, list[ServedQueue]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ServedQueue]:
        return iter(self._by_id.values())

    def get(self, endpoint_id: UUID) -> ServedQueue | None:
        """Return the queue of an endpoint, None if it is not served here."""
        return self._by_id.get(endpoint_id)

    def of_account(self, account_id: str) -> Collection[ServedQueue]:
        """Return the queues of an account."""
        return self._by_account.get(account_id, ())

    def add(self, served: ServedQueue) -> None:
        """Add a queue. One of the same endpoint, under an epoch that is over, is replaced."""
        before = self._by_id.get(served.endpoint.id)
        if before is not None:
            self.remove(before)
        self._by_id[served.endpoint.id] = served
        self._by_account.setdefault(served.endpoint.account_id, []).append(served)

    def busy(self) -> list[ServedQueue]:
        """Return the queues with anything in memory, or to read; no other has an open event up to the feed's position."""
        self.active = {served for served in self.active if not served.queue.is_idle}
        return [*self.active | self.behind]

    def set_due(self, served: ServedQueue, at_s: float) -> None:
        """Read the queue's due rows at this time, if not before."""
        if at_s < math.inf:
            served.due_at_s = min(served.due_at_s, at_s)
            self.waiting.add(served)

    def leave(self, served: ServedQueue) -> None:
        """Begin nothing in the queue any more, and release it when it is settled."""
        served.queue.stopped = served.is_leaving = True
        self.leaving.add(served)

    def remove(self, served: ServedQueue) -> None:
        """Remove a queue: nothing begins in it any more, and its results are not written."""
        served.queue.stopped = True
        served.queue.memory.close()
        served.forget_timer()
        for some in (
            self.active,
            self.failing,
            self.behind,
            self.waiting,
            self.unread_replays,
            self.replaying,
            self.leaving,
        ):
            some.discard(served)
        del self._by_id[served.endpoint.id]
        of_account = self._by_account[served.endpoint.account_id]
        of_account.remove(served)
        if not of_account:
            del self._by_account[served.endpoint.account_id]
