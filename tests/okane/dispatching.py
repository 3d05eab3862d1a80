"""A dispatcher in the test's own process, over real Postgres, and the changes of payments that it reports."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry

from okane.http.guard import Guard
from okane.metrics import OkaneMetrics
from okane.store.webhook_deliveries import WebhookDeliveryStore
from okane.store.webhook_endpoints import Endpoint, WebhookEndpointStore
from okane.store.webhook_events import WebhookEventStore
from okane.store.webhook_queues import LeaseRules, WebhookQueueStore
from okane.webhooks import keys
from okane.webhooks.dispatcher import Dispatcher, DispatcherOptions
from okane.webhooks.keys import load_masters
from okane.webhooks.metrics import DispatcherMetrics
from tests.flow.system import MASTER
from tests.okane.webhook_receiver import Receiver
from tests.okane.webhook_rows import created, fetch

_numbers = itertools.count(1)

# A change of each payment, with its event and its outbox row, in one statement as in the store.
CHANGE = """WITH ids AS (
    SELECT id, number FROM unnest(%(ids)s::uuid[], %(numbers)s::bigint[]) AS n (id, number)
), paid AS (
    INSERT INTO payments AS p (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,
                               status, version, attempts)
    SELECT id, %(account)s, 'key ' || id, 'f', 100 + number, 'USD', 'default', 'key', 'success', %(version)s, 1 FROM ids
    ON CONFLICT (id) DO UPDATE SET version = excluded.version
    RETURNING p.id, p.account_id, p.version
), logged AS (
    INSERT INTO payment_events (payment_id, version, event, status, attempt, actor)
    SELECT id, version, 'success', 'success', 1, 'w1' FROM paid
)
INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)
SELECT ARRAY[id], ARRAY[version], account_id, %(type)s FROM paid
WHERE EXISTS (SELECT FROM webhook_accounts a WHERE a.account_id = %(account)s)"""


async def change(
    url: str,
    ids: Sequence[UUID],
    *,
    version: int = 2,
    account_id: str = "default",
    type_: str = "payment.succeeded",
) -> None:
    """Change these payments, and make those that are new."""
    numbers = [next(_numbers) for _ in ids]
    values = {"ids": list(ids), "numbers": numbers, "version": version, "account": account_id, "type": type_}
    await fetch_named(url, CHANGE, values)


async def fetch_named(url: str, statement: str, values: dict[str, Any]) -> None:
    import psycopg  # noqa: PLC0415 - the tests of okane's modules do not use it

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, values)


def payments(count: int) -> list[UUID]:
    """Return ids of new payments."""
    return [uuid4() for _ in range(count)]


@dataclass
class Running:
    """A dispatcher that runs, until `stop`."""

    dispatcher: Dispatcher
    metrics: DispatcherMetrics
    store: WebhookQueueStore
    events: WebhookEventStore
    stop: asyncio.Event
    task: asyncio.Task[None]

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def end(self) -> None:
        """Stop it, and wait until it has ended, with its connections: others count those."""
        self.stop.set()
        await self.task
        await self.store.aclose()

    async def die(self) -> None:
        """End it in the middle of everything, as kill -9 would, with no lease released."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class DispatchDesk:
    """The endpoints and dispatchers of one test."""

    url: str
    receiver: Receiver
    endpoints: WebhookEndpointStore
    deliveries: WebhookDeliveryStore
    running: list[Running] = field(default_factory=list)

    async def endpoint(self, path: str = "/hook", account_id: str = "default", **more: Any) -> Endpoint:
        """Create an endpoint at the receiver, which verifies its requests from now on."""
        made = await created(self.endpoints, account_id, url=self.receiver.url + path, **more)
        self.receiver.secrets[path] = keys.secret(MASTER.encode(), made.id, made.key_generation)
        return made

    async def dispatch(self, *, rules: LeaseRules | None = None, guard: Guard | None = None) -> Running:
        """Start a dispatcher."""
        masters = load_masters(MASTER)
        assert masters is not None
        metrics = OkaneMetrics(CollectorRegistry())
        own = DispatcherMetrics(CollectorRegistry())
        store = WebhookQueueStore(self.url, owner=f"d{len(self.running)}", rules=rules)
        events = WebhookEventStore(self.url)
        dispatcher = Dispatcher(
            DispatcherOptions(leases_every=timedelta(milliseconds=50), drain=timedelta(seconds=5)),
            events=events,
            store=store,
            guard=guard or Guard(allow=[ip_network("127.0.0.0/8")]),
            masters=masters,
            metrics=metrics,
            own_metrics=own,
        )
        stop = asyncio.Event()
        one = Running(dispatcher, own, store, events, stop, asyncio.create_task(dispatcher.run(stop)))
        self.running.append(one)
        return one

    async def rows(self, columns: str, table: str = "webhook_deliveries") -> list[tuple[object, ...]]:
        """Return columns of a table, ordered by the first."""
        return [tuple(row) for row in await fetch(self.url, f"SELECT {columns} FROM {table} ORDER BY 1")]

    async def has_rows(self, count: int) -> bool:
        """Return True if there are so many deliveries."""
        return len(await self.rows("position")) >= count

    async def wake(self, endpoint: Endpoint) -> None:
        """Let the owner look for due rows, which a test has made due."""
        await fetch(self.url, "UPDATE webhook_endpoints SET version = version + 1 WHERE id = %s", endpoint.id)

    async def at_rest(self, *, within_s: float = 60.0) -> None:
        """Wait until nothing is to be delivered: the outbox is empty, nothing waits, and each cursor is at the end."""
        statement = """SELECT (SELECT count(*) FROM webhook_outbox)
            + (SELECT count(*) FROM webhook_deliveries WHERE next_at IS NOT NULL)
            + (SELECT count(*) FROM webhook_replays)
            + (SELECT count(*) FROM webhook_queues q, webhook_sequencer s WHERE q.done_to < s.last)"""
        await until(self._is_zero(statement), within_s=within_s)

    def _is_zero(self, statement: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return bool((await fetch(self.url, statement))[0][0] == 0)

        return look


async def until(look: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Wait until `look` returns True."""
    async with asyncio.timeout(within_s):
        while not await look():
            await asyncio.sleep(0.02)


def retry_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries be an hour away: no one comes by itself before the test has looked, however slow the machine is."""
    monkeypatch.setattr("okane.webhooks.queue.retry_delay_s", lambda *_attempts, **_more: 3600.0)


async def arrived(desk: DispatchDesk, path: str, count: int) -> bool:
    """Return True if so many events have come to a path."""
    return len({one.id for one in desk.receiver.received if one.path == path}) >= count


async def serves(running: Running, count: int) -> bool:
    """Return True if a dispatcher serves so many queues."""
    return len(running.dispatcher.queues) == count


@asynccontextmanager
async def dispatch_desk(url: str, receiver: Receiver) -> AsyncIterator[DispatchDesk]:
    """The stores, and the end of all dispatchers."""
    desk = DispatchDesk(url, receiver, WebhookEndpointStore(url), WebhookDeliveryStore(url))
    try:
        yield desk
    finally:
        for one in desk.running:
            if not one.task.done():
                await one.die()
            for sent in one.dispatcher.queues:
                await sent.sender.aclose()
            await one.store.aclose()
            await one.events.aclose()
        await desk.endpoints.aclose()
        await desk.deliveries.aclose()
