"""Endpoints and events in a database: created by the product's store where that is quick enough, else as it leaves them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import psycopg

from okane.store.webhook_endpoints import Endpoint, NewEndpoint, WebhookEndpointStore
from okane.webhooks.types import API_VERSION, DEFAULT_TYPES

ACCOUNT = "default"  # of the payments that an API without keys accepts
SETTINGS = {
    "OKANE_WEBHOOK_MASTER": "the-master-of-the-benchmarks-which-is-public",
    "OKANE_WEBHOOK_ALLOW": "127.0.0.0/8",
}
MAX_IN_FLIGHT = 64

_BACKLOG = """
WITH logged AS (
    INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)
    SELECT row_number() OVER (ORDER BY e.payment_id), %(account)s, e.payment_id, e.version, 'payment.succeeded', e.at
    FROM payment_events e WHERE e.event = 'success'
    RETURNING position)
UPDATE webhook_sequencer SET last = n.n FROM (SELECT count(*) AS n FROM logged) n RETURNING last
"""
_REWIND = "UPDATE webhook_queues SET done_to = 0"
_IDLE = """
WITH made AS (
    INSERT INTO webhook_endpoints (id, account_id, url, types, api_version, starts_after)
    SELECT gen_random_uuid(), 'idle_' || i, %(url)s, %(types)s, %(api_version)s, 0
    FROM generate_series(1, %(count)s::integer) AS i
    RETURNING id, account_id),
accounts AS (INSERT INTO webhook_accounts SELECT account_id FROM made)
INSERT INTO webhook_queues (endpoint_id, done_to) SELECT id, 0 FROM made
"""
_OWNED = "SELECT count(*) FROM webhook_queues WHERE owner IS NOT NULL AND lease_until > now()"


@dataclass(frozen=True, slots=True)
class Subscription:
    """An account, and the URL of its endpoint."""

    account_id: str
    url: str


def subscribe(database_url: str, subscriptions: Sequence[Subscription], *, max_in_flight: int = 8) -> None:
    """Create an endpoint for each of them, with the types of the default."""
    asyncio.run(_subscribe(database_url, subscriptions, max_in_flight))


async def _subscribe(database_url: str, subscriptions: Sequence[Subscription], max_in_flight: int) -> None:
    store = WebhookEndpointStore(database_url)
    try:
        for one in subscriptions:
            made = await store.create(
                NewEndpoint(
                    id=uuid4(),
                    account_id=one.account_id,
                    url=one.url,
                    types=list(DEFAULT_TYPES),
                    api_version=API_VERSION,
                    max_in_flight=max_in_flight,
                )
            )
            assert isinstance(made, Endpoint), made
    finally:
        await store.aclose()


def add_backlog(database_url: str, endpoint_url: str) -> int:
    """Log every settled payment, for one endpoint that has received none of them; return their number."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(_BACKLOG, {"account": ACCOUNT}).fetchone()
        assert row is not None
    subscribe(database_url, [Subscription(ACCOUNT, endpoint_url)], max_in_flight=MAX_IN_FLIGHT)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_REWIND)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    return int(row[0])


def add_idle(database_url: str, endpoint_url: str, count: int) -> None:
    """Add accounts with an endpoint each, which get no events."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        parameters = {"url": endpoint_url, "types": list(DEFAULT_TYPES), "api_version": API_VERSION, "count": count}
        connection.execute(_IDLE, parameters)
        connection.execute("VACUUM (ANALYZE)")


def owned(database_url: str) -> int:
    """Return the number of endpoint queues that a dispatcher holds."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(_OWNED).fetchone()
        assert row is not None
        return int(row[0])
