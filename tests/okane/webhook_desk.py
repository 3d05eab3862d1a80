"""The stores of two dispatchers and of the API on one database, and rows of results, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from okane.store.webhook_deliveries import WebhookDeliveryStore
from okane.store.webhook_endpoints import WebhookEndpointStore
from okane.store.webhook_queues import LeasedQueue, QueueBatch, Replay, WebhookQueueStore
from okane.webhooks.delivery import Batch, Result
from tests.okane.webhook_rows import created, fetch

Row = tuple[object, ...]


@dataclass(frozen=True)
class Desk:
    """The stores of two dispatchers and of the API."""

    url: str
    endpoints: WebhookEndpointStore
    deliveries: WebhookDeliveryStore
    one: WebhookQueueStore
    other: WebhookQueueStore

    async def rows(self, columns: str, table: str = "webhook_deliveries") -> list[Row]:
        order = "position" if table == "webhook_deliveries" else "1"
        return [tuple(row) for row in await fetch(self.url, f"SELECT {columns} FROM {table} ORDER BY {order}")]

    async def let_pass(self, interval: str) -> None:
        """Make leases, failures and waiting rows that much older."""
        await fetch(
            self.url,
            "WITH q AS (UPDATE webhook_queues SET lease_until = lease_until - %s::interval, "
            "failing_since = failing_since - %s::interval), "
            "ep AS (UPDATE webhook_endpoints SET created_at = created_at - %s::interval) "
            "UPDATE webhook_deliveries SET next_at = next_at - %s::interval, at = at - %s::interval RETURNING 1",
            *(interval,) * 5,
        )


@pytest.fixture(name="desk")
async def make_desk(database_url: str) -> AsyncIterator[Desk]:
    one = Desk(
        database_url,
        WebhookEndpointStore(database_url),
        WebhookDeliveryStore(database_url),
        WebhookQueueStore(database_url, owner="one"),
        WebhookQueueStore(database_url, owner="other"),
    )
    yield one
    for store in (one.endpoints, one.deliveries, one.one, one.other):
        await store.aclose()


def result(position: int, state: str = "delivered", **more: object) -> Result:
    values: dict[str, object] = {"attempts": 1, "ended_at_s": 0.0, "status": 200, "ms": 5} | more
    return Result(position=position, state=state, **values)  # type: ignore[arg-type] # a test's values


def failed(position: int, *, attempts: int = 1, delay_s: float | None = 5.0) -> Result:
    state = "given_up" if delay_s is None else "waiting"
    return result(position, state, attempts=attempts, status=500, reason="status_5xx\nboom", delay_s=delay_s)


def held(position: int, *, delay_s: float = 300.0) -> Result:
    return result(position, "waiting", attempts=0, status=None, ms=None, reason="held", delay_s=delay_s)


def batch(
    queue: LeasedQueue,
    *results: Result,
    done_to: int = 0,
    failures: int = 0,
    succeeded: bool = True,
    error: str | None = None,
    replayed_to: int | None = None,
    replay: Replay | None = None,
) -> QueueBatch:
    values = Batch(
        results=results,
        done_to=done_to,
        failures=failures,
        succeeded=succeeded,
        last_error=error,
        replayed_to=replayed_to,
    )
    return QueueBatch(queue.endpoint.id, queue.epoch, values, replay)


async def leased(desk: Desk, account_id: str = "default", **more: Any) -> LeasedQueue:
    await created(desk.endpoints, account_id, **more)
    [queue] = await desk.one.lease(10)
    return queue
