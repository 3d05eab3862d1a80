"""The accounts of a world: their payments change, and they change, pause, delete and create endpoints, as the API allows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_queues import Replay
from tests.simulation.webhooks.audit import WebhookAudit
from tests.simulation.webhooks.scenario import Act, EndpointPlan, Scenario, endpoint
from tests.simulation.webhooks.tables import Change, QueueRow, Tables

_TYPES = ("payment.retry_scheduled", "payment.outcome_unknown", "payment.succeeded", "payment.failed")
_OPEN_S = 0.3  # a transaction is open for so long at most
_POLL_S = 0.05
_SKIPS = 0.3  # of those who enable an endpoint


class Owners:
    """All accounts."""

    def __init__(self, plan: Scenario, tables: Tables, audit: WebhookAudit, dice: Random) -> None:
        self._plan = plan
        self._tables = tables
        self._audit = audit
        self._dice = dice
        self._ids = self._new_ids()
        self.paused: set[UUID] = set()

    async def run(self) -> None:
        """Change payments and endpoints until all of the plan is done."""
        for one in self._plan.endpoints:
            self.create(one)
        async with asyncio.TaskGroup() as acting:
            for _ in range(self._plan.payments):
                acting.create_task(self._change_payment())
            for at_s, act in self._plan.acts:
                acting.create_task(self._act(at_s, act))

    def enable_all(self) -> None:
        """Enable what was disabled."""
        for one in list(self._tables.endpoints.values()):
            if one.status == "disabled" and one.id not in self.paused:
                self._enable(one)

    def create(self, plan: EndpointPlan) -> Endpoint:
        """Create an endpoint at the end of the log."""
        made = Endpoint(
            id=next(self._ids),
            account_id=plan.account,
            url="https://receiver.example/hook",
            types=plan.types,
            api_version="2026-12-01",
            max_in_flight=plan.max_in_flight,
            hold_s=plan.hold_s,
            timeout_s=plan.timeout_s,
            rate_limit=plan.rate_limit,
            created_at=datetime.fromtimestamp(self._tables.clock_s(), UTC),
            starts_after=self._tables.last,
        )
        self._tables.endpoints[made.id] = made
        self._tables.queues[made.id] = QueueRow(done_to=made.starts_after)
        return made

    async def _change_payment(self) -> None:
        """Write the changes of one payment: each in a transaction that stays open for a while, one after the other."""
        payment_id, account = next(self._ids), self._dice.choice(("a", "a", "b"))
        await asyncio.sleep(self._plan.arrivals_s * self._dice.random())
        for version in range(2, 2 + self._dice.randint(1, self._plan.changes)):
            await asyncio.sleep(self._dice.random() ** 3 * self._plan.arrivals_s)
            began_s = self._tables.clock_s()
            await asyncio.sleep(self._dice.random() ** 4 * _OPEN_S)
            change = Change(payment_id, version, account, self._dice.choice(_TYPES), began_s)
            if self._tables.has_endpoint(account):
                self._tables.outbox.append(change)

    async def _act(self, at_s: float, act: Act) -> None:
        await asyncio.sleep(at_s)
        if act == "create":
            self.create(endpoint(self._dice))
            return
        there = [one for one in self._tables.endpoints.values() if one.status == "enabled"]
        if not there:
            return
        one = self._dice.choice(there)
        match act:
            case "rotate":
                self._tables.change(one.id, key_generation=one.key_generation + 1)
            case "pause":
                await self._pause(one)
            case "delete":
                await self._delete(one)
            case "replay":
                self._replay(one)

    async def _pause(self, one: Endpoint) -> None:
        self.paused.add(one.id)
        self._tables.change(one.id, status="disabled", disabled_reason="requested")
        await asyncio.sleep(self._dice.random() * 5)
        self.paused.discard(one.id)
        self._enable(one, from_now=self._dice.random() < _SKIPS)

    def _enable(self, one: Endpoint, *, from_now: bool = False) -> None:
        if self._tables.endpoints[one.id].status == "disabled":
            self._tables.change(one.id, status="enabled", disabled_reason=None)
            if from_now:
                self._audit.skip(one.id)
            self._tables.restart_queue(one.id, from_now=from_now)

    async def _delete(self, one: Endpoint) -> None:
        """Delete an endpoint: answered when its owner has confirmed it, or its lease has expired."""
        deleted = self._tables.change(one.id, status="deleted")
        while not self._tables.finish_delete(deleted):
            await asyncio.sleep(_POLL_S)
        self._audit.deleted_s[one.id] = self._tables.clock_s()

    def _replay(self, one: Endpoint) -> None:
        """Recover a range, delivered events included."""
        last = self._tables.last
        if last <= one.starts_after or one.id in self._tables.replays:
            return
        first = self._dice.randint(one.starts_after + 1, last)
        self._tables.replays[one.id] = Replay(one.id, first, last, first, self._dice.random() < 0.5)
        self._tables.change(one.id)
        self._audit.replayed |= {(one.id, position) for position in range(first, last + 1)}

    def _new_ids(self) -> Iterator[UUID]:
        number = 0
        while True:
            number += 1
            yield UUID(int=number)
