"""The rules of events and webhooks, most of them judged at the moment in which they could be broken.

I13 and I17 are judged at rest, I14, I16 and I18 when a request begins or is accepted. Sharper ones: a request begins under a
lease that the tables know; the cursor of a queue passes no event without a row; only the holder of a queue writes its
results; an event that is noted as delivered was accepted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_queues import QueueBatch
from tests.simulation.loop import Process
from tests.simulation.webhooks.tables import Tables

_CONTINUED_S = 1.0  # a process that was stopped may begin what it was about to begin

Place = tuple[UUID, UUID]  # endpoint and payment


@dataclass(slots=True)
class Flight:
    """A request under way, as its sender sees it."""

    process: Process
    epoch: int
    position: int


@dataclass(slots=True)
class WebhookAudit:
    """The violations that were found, and the state that the rules need."""

    tables: Tables
    found: list[str] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    deleted_s: dict[UUID, float] = field(default_factory=dict)  # when the deletion of an endpoint was answered
    replayed: set[tuple[UUID, int]] = field(default_factory=set)  # sent again on request
    skipped_to: dict[UUID, int] = field(
        default_factory=dict
    )  # the end of the log when an endpoint was enabled from then on
    over: bool = False
    _flights: dict[Place, list[Flight]] = field(default_factory=dict)
    _accepted: dict[tuple[UUID, int], float] = field(default_factory=dict)  # the first time, by endpoint and position
    _failed_s: dict[tuple[UUID, int], float] = field(default_factory=dict)  # the first failure, likewise
    _newest: dict[Place, int] = field(default_factory=dict)  # the highest version that was accepted
    _continued_s: dict[Process, float] = field(default_factory=dict)

    def report(self, what: str) -> None:
        """Note a violation."""
        if not self.over:
            self.found.append(f"{self.tables.clock_s():.3f} {what}")

    def skip(self, endpoint_id: UUID) -> None:
        """Note that what an endpoint has not got by now need not arrive."""
        self.skipped_to[endpoint_id] = self.tables.last
        self.repairs["skipped"] += 1

    # -- requests

    def continued(self, process: Process) -> None:
        """Note that a process was stopped until now."""
        self._continued_s[process] = self.tables.clock_s()

    def begin(self, process: Process, endpoint: Endpoint, position: int) -> Flight:
        """Judge a request that begins, by the endpoint as its sender has it."""
        endpoint_id = endpoint.id
        event = self.tables.log[position - 1].event
        queue = self.tables.queues.get(endpoint_id)
        flight = Flight(process, -1 if queue is None else queue.epoch, position)
        said = f"{process.name} sends {position} to {endpoint_id}"
        now_s, was_stopped = self.tables.clock_s(), self._was_stopped(process)
        if endpoint_id in self.deleted_s and not was_stopped:
            self.report(f"I16: {said}, which is deleted")
        elif not was_stopped and (queue is None or queue.owner != process.name or queue.lease_until_s <= now_s):
            self.report(f"I14: {said} without a lease: {queue}")
        elif not was_stopped and queue is not None and endpoint.version < queue.seen_version:
            self.report(f"I15: {said} by version {endpoint.version}, and has confirmed {queue.seen_version}")
        if (
            self.tables.is_delivered(endpoint_id, position)
            and (endpoint_id, position) not in self.replayed
            and not was_stopped
        ):
            self.report(f"I18: {said}, which has its row")
        flights = self._flights.setdefault((endpoint_id, event.payment_id), [])
        for other in flights:
            if other.process is process or (other.process.alive and other.epoch == flight.epoch):
                self.report(f"I14: {said} beside {other.position} of the same payment")
        flights.append(flight)
        self.repairs["repeats"] += (endpoint_id, position) in self._accepted
        self.repairs["retries"] += (endpoint_id, position) in self._failed_s
        return flight

    def end(self, endpoint_id: UUID, flight: Flight, *, failed: bool) -> None:
        """Note the end of a request."""
        payment_id = self.tables.log[flight.position - 1].event.payment_id
        flights = self._flights.get((endpoint_id, payment_id), [])
        if flight in flights:
            flights.remove(flight)
        if failed:
            self._failed_s.setdefault((endpoint_id, flight.position), self.tables.clock_s())

    def killed(self, process: Process) -> None:
        """Forget the requests of a process that is gone."""
        for flights in self._flights.values():
            flights[:] = [one for one in flights if one.process is not process]

    def accept(self, endpoint_id: UUID, position: int) -> None:
        """Judge an acceptance by the receiver."""
        event = self.tables.log[position - 1].event
        if (endpoint_id, position) in self._accepted:
            return
        self._accepted[endpoint_id, position] = self.tables.clock_s()
        place = endpoint_id, event.payment_id
        newest = self._newest.get(place, 0)
        was_asked_for = (endpoint_id, position) in self.replayed  # it may have been skipped before
        if event.version < newest and not was_asked_for and not self._held_long_enough(endpoint_id, position):
            self.report(f"I14: version {event.version} of {event.payment_id} came after {newest} at {endpoint_id}")
        self._newest[place] = max(newest, event.version)

    def _was_stopped(self, process: Process) -> bool:
        continued_s = self._continued_s.get(process)
        return continued_s is not None and self.tables.clock_s() - continued_s < _CONTINUED_S

    def _held_long_enough(self, endpoint_id: UUID, position: int) -> bool:
        failed_s = self._failed_s.get((endpoint_id, position))
        return failed_s is not None and self.tables.clock_s() - failed_s >= self.tables.endpoints[endpoint_id].hold_s

    # -- what is written

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Judge the cursors that are moved inside the block."""
        before = {id_: queue.done_to for id_, queue in self.tables.queues.items()}
        yield
        for id_, queue in self.tables.queues.items():
            if queue.done_to > before.get(id_, 0):
                self._judge_cursor(id_, before.get(id_, 0), queue.done_to)

    def _judge_cursor(self, endpoint_id: UUID, before: int, done_to: int) -> None:
        for row in self.tables.subscribed(self.tables.endpoints[endpoint_id]):
            position = row.event.position
            if before < position <= done_to and (endpoint_id, position) not in self.tables.deliveries:
                self.report(f"the cursor of {endpoint_id} passed {position}, which has no row")

    def holders(self, batches: Sequence[QueueBatch], owner: str) -> Mapping[UUID, bool]:
        """Tell for each queue if the owner holds it under the epoch that it writes under."""
        return {
            one.endpoint_id: (queue := self.tables.queues.get(one.endpoint_id)) is not None
            and (queue.owner, queue.epoch) == (owner, one.epoch)
            for one in batches
        }

    def written(self, owner: str, batches: Sequence[QueueBatch], written: set[UUID], held: Mapping[UUID, bool]) -> None:
        """Judge results that were written."""
        for one in batches:
            if one.endpoint_id not in written:
                self.repairs["stale results"] += 1
                continue
            if not held[one.endpoint_id]:
                self.report(f"{owner} wrote results of {one.endpoint_id} under epoch {one.epoch}, which is over")
            for row in one.batch.results:
                if row.state == "delivered" and (one.endpoint_id, row.position) not in self._accepted:
                    self.report(f"{row.position} is noted as delivered to {one.endpoint_id}, which did not accept it")

    # -- at rest

    def conclude(self) -> None:
        """Judge what was delivered, once everything is at rest."""
        if not self.tables.is_at_rest():
            waiting = {key: row for key, row in self.tables.deliveries.items() if row.state == "waiting"}
            behind = {id_: queue for id_, queue in self.tables.queues.items() if queue.done_to != self.tables.last}
            rest = f"outbox {self.tables.outbox}, waiting {waiting}, replays {self.tables.replays}"
            self.report(f"I17: not at rest: last {self.tables.last}, behind {behind}, {rest}")
        for endpoint in self.tables.endpoints.values():
            if endpoint.status == "deleted":
                continue
            for row in self.tables.subscribed(endpoint):
                position = row.event.position
                stored = self.tables.deliveries.get((endpoint.id, position))
                given_up = stored is not None and stored.state == "given_up"
                skipped = position <= self.skipped_to.get(endpoint.id, 0)
                if (endpoint.id, position) not in self._accepted and not given_up and not skipped:
                    self.report(f"I13: {position} never arrived at {endpoint.id}: {stored}")
