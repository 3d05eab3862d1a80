"""Rows of webhooks for tests: endpoints, events in the log, and leases of dispatchers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg

from okane.store.webhook_endpoints import Endpoint, NewEndpoint, WebhookEndpointStore

URL = "https://shop.example/hook"


def new_endpoint(account_id: str = "default", *, url: str | None = URL, **more: Any) -> NewEndpoint:
    plain: dict[str, Any] = {"types": ("payment.succeeded", "payment.failed"), "api_version": "2026-12-01"}
    return NewEndpoint(id=uuid4(), account_id=account_id, url=url, **plain | more)


async def created(store: WebhookEndpointStore, account_id: str = "default", **more: Any) -> Endpoint:
    made = await store.create(new_endpoint(account_id, **more))
    assert isinstance(made, Endpoint)
    return made


async def fetch(url: str, statement: str, *parameters: object) -> Sequence[Any]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement, parameters)
        return await cursor.fetchall() if cursor.description else ()


async def log_event(
    url: str,
    account_id: str = "default",
    *,
    type_: str = "payment.succeeded",
    payment_id: UUID | None = None,
    version: int = 2,
    at: datetime | None = None,
) -> int:
    """Write an event to the end of the log, as the sequencer does; return its position."""
    [(position,)] = await fetch(
        url,
        """WITH moved AS (UPDATE webhook_sequencer SET last = last + 1 RETURNING last)
        INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)
        SELECT last, %s, %s, %s, %s, coalesce(%s, now()) FROM moved RETURNING position""",
        account_id,
        payment_id or uuid4(),
        version,
        type_,
        at,
    )
    return int(position)


async def lease(url: str, endpoint_id: UUID, *, seconds: float = 10.0, seen_version: int = 1) -> None:
    """Write the lease of a dispatcher that works by this version of the endpoint."""
    await fetch(
        url,
        """UPDATE webhook_queues SET owner = 'd1', epoch = epoch + 1, seen_version = %s,
        lease_until = clock_timestamp() + %s * interval '1 second' WHERE endpoint_id = %s""",
        seen_version,
        seconds,
        endpoint_id,
    )
