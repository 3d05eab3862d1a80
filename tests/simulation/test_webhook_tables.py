"""The model of the webhook tables does what the statements do: the same calls on both, in an order that a seed decides."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow, LoggedEvent
from okane.store.webhook_queues import LeasedQueue, WebhookQueueStore
from tests.okane.webhook_desk import Desk, batch, failed, held, make_desk, result  # noqa: F401 - a fixture
from tests.okane.webhook_rows import created, log_event
from tests.simulation.webhooks.tables import QueueRow, Tables

CALLS = 40
LEASE_S = 10.0
PAYMENTS = [UUID(int=number) for number in range(1, 4)]


class Both:
    """The tables in Postgres and in memory. Each call goes to both, and must bring the same."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.shift_s = 0.0
        self.tables = Tables(lambda: time.time() + self.shift_s)
        self.leased: dict[str, dict[UUID, LeasedQueue]] = {"one": {}, "other": {}}

    def store(self, owner: str) -> WebhookQueueStore:
        return self.desk.one if owner == "one" else self.desk.other

    async def create(self, account_id: str) -> None:
        endpoint = await created(self.desk.endpoints, account_id, hold_s=3_600)
        self.tables.endpoints[endpoint.id] = endpoint
        self.tables.queues[endpoint.id] = QueueRow(done_to=endpoint.starts_after)

    async def log(self, account_id: str, payment_id: UUID, version: int) -> None:
        position = await log_event(self.desk.url, account_id, payment_id=payment_id, version=version)
        event = LoggedEvent(
            position, account_id, payment_id, version, "payment.succeeded", self._any_endpoint().created_at
        )
        self.tables.log.append(EventRow(event, "success", 1, None, None, 440, "USD", "key", event.at, {}))

    def _any_endpoint(self) -> Endpoint:
        return next(iter(self.tables.endpoints.values()))

    async def let_pass(self, seconds: float) -> None:
        await self.desk.let_pass(f"{seconds} s")
        self.shift_s += seconds

    async def lease(self, owner: str) -> None:
        found = {one.endpoint.id: one for one in await self.store(owner).lease(10)}
        mine = {one.endpoint.id: one for one in self.tables.lease(owner, 10, LEASE_S)}
        assert [_undated(one.endpoint) for one in found.values()] == [_undated(mine[id_].endpoint) for id_ in found]
        assert {id_: replace(one, endpoint=mine[id_].endpoint) for id_, one in found.items()} == mine
        self.leased[owner] |= found

    async def renew(self, owner: str, idle_to: int, idle: Iterable[UUID]) -> None:
        ids = list(idle)
        assert await self.store(owner).renew(idle_to=idle_to, idle=ids) == self.tables.renew(
            owner, LEASE_S, idle_to=idle_to, idle=ids
        )

    async def write(self, owner: str, dice: Random) -> None:
        """Write results of queues that it has, or had: some under an epoch that is over."""
        batches = []
        for queue in self.leased[owner].values():
            position = dice.randint(1, self.tables.last)
            row = dice.choice(
                (
                    result(position),
                    failed(position, delay_s=dice.choice((0.0, 600.0, None))),
                    held(position, delay_s=600.0),
                )
            )
            done_to = dice.choice((0, position))
            batches.append(
                batch(queue, row, done_to=done_to, failures=dice.choice((0, 2)), succeeded=dice.random() < 0.5)
            )
        assert await self.store(owner).write(batches, 0.0) == self.tables.write(owner, batches, 0.0)

    async def release(self, owner: str, ids: Sequence[UUID]) -> None:
        await self.store(owner).release(ids)
        self.tables.release(owner, ids)

    async def rotate(self, endpoint_id: UUID) -> None:
        before = self.tables.endpoints[endpoint_id]
        changed = await self.desk.endpoints.change(before.account_id, endpoint_id, {"description": "changed"})
        self.tables.change(endpoint_id, description="changed")
        assert changed is not None
        assert _undated(changed) == _undated(self.tables.endpoints[endpoint_id])

    async def compare(self) -> None:
        """Compare all that both can tell."""
        ids = list(self.tables.endpoints)
        for owner in self.leased:
            store = self.store(owner)
            assert dict(await store.owned()) == self.tables.owned(owner)
            assert sorted_by_id(await store.changed()) == sorted_by_id(self.tables.changed(owner))
        due, mine = await self.desk.one.due(dict.fromkeys(ids, 100)), self.tables.due(dict.fromkeys(ids, 100))
        assert sorted(due.rows, key=repr) == sorted(mine.rows, key=repr)
        assert due.next_s == pytest.approx(mine.next_s, abs=5)
        holds = dict.fromkeys(ids, 1_000_000)
        assert sorted(
            (one.endpoint_id, one.position, one.left_s is None) for one in await self.desk.one.holds(holds)
        ) == sorted((one.endpoint_id, one.position, one.left_s is None) for one in self.tables.holds(holds))
        share, other = await self.desk.one.share(), self.tables.share(self.desk.one.rules)
        assert (share.queues, share.free, share.orphans) == (other.queues, other.free, other.orphans)
        stored = await self.desk.rows("endpoint_id, done_to, owner, epoch, seen_version, failures", "webhook_queues")
        assert stored == sorted(
            (id_, queue.done_to, queue.owner, queue.epoch, queue.seen_version, queue.failures)
            for id_, queue in self.tables.queues.items()
        )
        rows = await self.desk.rows("endpoint_id, position, state, attempts, ms, next_at IS NULL")
        assert sorted(rows, key=repr) == sorted(
            (
                (id_, position, row.state, row.attempts, row.ms, row.next_at_s is None)
                for (id_, position), row in self.tables.deliveries.items()
            ),
            key=repr,
        )


def sorted_by_id(changed: Sequence[tuple[Endpoint, int]]) -> list[Any]:
    return sorted(((_undated(endpoint), epoch) for endpoint, epoch in changed), key=lambda one: one[0].id)


def _undated(endpoint: Endpoint) -> Endpoint:
    """In Postgres the rows become older, in the model the clock goes on."""
    return replace(endpoint, created_at=datetime.fromtimestamp(0, UTC))


@pytest.mark.parametrize("seed", range(3))
async def test_the_model_of_the_tables_is_the_store(desk: Desk, seed: int) -> None:
    dice = Random(seed)
    both = Both(desk)
    for account_id in ("a", "a", "b"):
        await both.create(account_id)
    versions = dict.fromkeys(PAYMENTS, 1)
    for _ in range(3):
        payment_id = dice.choice(PAYMENTS)
        versions[payment_id] += 1
        await both.log("a", payment_id, versions[payment_id])
    for _ in range(CALLS):
        owner = dice.choice(("one", "other"))
        ids = dice.sample(list(both.tables.endpoints), dice.randint(0, 3))
        match dice.choice(
            ("lease", "lease", "write", "write", "write", "renew", "release", "confirm", "rotate", "log", "pass")
        ):
            case "lease":
                await both.lease(owner)
            case "write":
                await both.write(owner, dice)
            case "renew":
                await both.renew(owner, dice.randint(0, both.tables.last), ids)
            case "release":
                await both.release(owner, ids)
            case "confirm":
                confirmed = {id_: both.tables.endpoints[id_].version for id_ in ids}
                await both.store(owner).confirm(confirmed)
                both.tables.confirm(owner, confirmed)
            case "rotate" if ids:
                await both.rotate(ids[0])
            case "log":
                payment_id = dice.choice(PAYMENTS)
                versions[payment_id] += 1
                await both.log(dice.choice(("a", "b")), payment_id, versions[payment_id])
            case "pass":
                await both.let_pass(dice.choice((4, 11)))
        await both.compare()
