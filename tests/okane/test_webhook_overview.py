"""The counts and ages of events and endpoint queues against a real Postgres, and the metrics made of them."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from okane.app.system_metrics import SystemMetrics
from okane.store import Overview
from okane.store.session import IN_ORDER
from okane.store.webhook_overview import SQL, LogSize, WebhookOverview
from okane.store.webhook_partitions import POSITIONS
from tests.okane.stored_payments import execute

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def overview(database_url: str) -> AsyncIterator[Overview]:
    one = Overview(database_url)
    yield one
    await one.aclose()


class Webhooks:
    """Rows of a test, as sequencer and dispatcher write them."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def execute(self, statement: str, *parameters: Any) -> None:
        await execute(self._url, statement, list(parameters))

    async def endpoint(
        self,
        account: str,
        *,
        types: Sequence[str] = ("payment.succeeded",),
        status: str = "enabled",
        url: str | None = "https://example.com/hook",
        done_to: int = 0,
        lease: str = "10 s",
        failing: str | None = None,
    ) -> UUID:
        """Add an endpoint with its queue; return its id."""
        endpoint_id = uuid4()
        await self.execute(
            "INSERT INTO webhook_endpoints (id, account_id, url, types, api_version, status, starts_after)"
            " VALUES (%s, %s, %s, %s, '2026-12-01', %s, 0)",
            endpoint_id,
            account,
            url,
            list(types),
            status,
        )
        await self.execute(
            "INSERT INTO webhook_queues (endpoint_id, done_to, lease_until, failing_since)"
            " VALUES (%s, %s, now() + %s::interval, now() - %s::interval)",
            endpoint_id,
            done_to,
            lease,
            failing,
        )
        return endpoint_id

    async def plan(self, statement: str) -> str:
        """Return the plan of a statement of the overview, as it was run."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            for name, setting in IN_ORDER.items():
                await connection.execute(f"SET {name} = {setting}".encode())
            found = await connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}".encode())
            return "\n".join(row[0] for row in await found.fetchall())

    async def event(self, position: int, account: str, *, type_: str = "payment.succeeded", age: str = "1 s") -> None:
        await self.execute(
            "INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)"
            " VALUES (%s, %s, gen_random_uuid(), 2, %s, now() - %s::interval)",
            position,
            account,
            type_,
            age,
        )
        await self.execute("UPDATE webhook_sequencer SET last = greatest(last, %s)", position)


@pytest.fixture
def webhooks(database_url: str) -> Webhooks:
    return Webhooks(database_url)


async def test_without_an_endpoint_everything_is_0(overview: Overview) -> None:
    assert await overview.webhooks() == WebhookOverview()
    assert (await overview.webhooks()).unowned == 0


async def test_endpoints_are_counted_by_state_with_their_backlog_and_its_age(
    overview: Overview, webhooks: Webhooks
) -> None:
    await webhooks.endpoint("a", done_to=2)
    await webhooks.endpoint("a", failing="2 hours")
    await webhooks.endpoint("b", status="disabled", lease="-1 hour")
    await webhooks.endpoint("b", status="deleted")
    await webhooks.endpoint("b", url=None)
    for position, account, age in ((1, "a", "3 hours"), (2, "b", "5 hours"), (3, "a", "1 minute")):
        await webhooks.event(position, account, age=age)
    states = (await overview.webhooks()).states
    assert {name: (one.endpoints, one.backlog) for name, one in states.items()} == {
        "healthy": (1, 1),
        "failing": (1, 2),
        "disabled": (1, 1),
    }
    assert timedelta(minutes=1) <= states["healthy"].oldest < timedelta(minutes=2)
    assert 3 * HOUR <= states["failing"].oldest < 4 * HOUR
    assert 5 * HOUR <= states["disabled"].oldest < 6 * HOUR
    assert 2 * HOUR <= states["failing"].failing < 3 * HOUR
    assert states["disabled"].first == 2


async def test_only_subscribed_types_are_in_a_backlog(overview: Overview, webhooks: Webhooks) -> None:
    await webhooks.endpoint("a", types=("refund.*", "payment.failed"))
    for position, type_ in enumerate(("payment.succeeded", "payment.failed", "refund.succeeded", "refunded"), 1):
        await webhooks.event(position, "a", type_=type_)
    assert (await overview.webhooks()).states["healthy"].backlog == 2


async def test_an_endpoint_of_all_types_has_all_events_in_its_backlog(overview: Overview, webhooks: Webhooks) -> None:
    await webhooks.endpoint("a", types=("*",))
    for position, type_ in enumerate(("payment.failed", "webhook_endpoint.failing"), start=1):
        await webhooks.event(position, "a", type_=type_)
    assert (await overview.webhooks()).states["healthy"].backlog == 2


async def test_a_waiting_retry_is_in_the_backlog_and_makes_nothing_late(overview: Overview, webhooks: Webhooks) -> None:
    endpoint_id = await webhooks.endpoint("a", done_to=2)
    for position, state, next_at in ((1, "waiting", "1 minute"), (2, "delivered", None)):
        await webhooks.event(position, "a", age="1 hour")
        await webhooks.execute(
            "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at, next_at)"
            " VALUES (%s, %s, %s, 1, now(), now() + %s::interval)",
            endpoint_id,
            position,
            state,
            next_at,
        )
    healthy = (await overview.webhooks()).states["healthy"]
    assert (healthy.backlog, healthy.oldest) == (1, timedelta(0))


async def test_an_enabled_endpoint_whose_lease_has_ended_is_unowned(overview: Overview, webhooks: Webhooks) -> None:
    await webhooks.endpoint("a", lease="-1 second")
    await webhooks.endpoint("a", lease="5 seconds")
    await webhooks.endpoint("a", lease="-1 second", status="disabled")
    await webhooks.endpoint("a", lease="-1 second", url=None)
    assert (await overview.webhooks()).unowned == 1


async def test_the_outbox_counts_only_changes_that_have_no_place_yet(overview: Overview, webhooks: Webhooks) -> None:
    await webhooks.endpoint("a")
    add = (
        "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type, at)"
        " VALUES (ARRAY[gen_random_uuid()], '{2}', 'a', 'payment.succeeded', now() - interval '90 seconds')"
    )
    await webhooks.execute(add)
    await webhooks.execute("UPDATE webhook_sequencer SET seen = pg_current_snapshot()")
    seen = await overview.webhooks()
    assert (seen.outbox_changes, seen.outbox_oldest) == (0, timedelta(0))
    await webhooks.execute(add)
    after = await overview.webhooks()
    assert after.outbox_changes == 1
    assert timedelta(seconds=90) <= after.outbox_oldest < timedelta(seconds=120)


async def test_a_change_that_was_in_progress_at_the_last_run_counts(
    overview: Overview, webhooks: Webhooks, database_url: str
) -> None:
    await webhooks.endpoint("a")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(
            "INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)"
            " VALUES (ARRAY[gen_random_uuid()], '{2}', 'a', 'payment.succeeded')"
        )
        await webhooks.execute("SELECT pg_current_xact_id()")  # a later transaction ends first
        await webhooks.execute("UPDATE webhook_sequencer SET seen = pg_current_snapshot()")
        assert (await overview.webhooks()).outbox_changes == 0
        await connection.commit()
    assert (await overview.webhooks()).outbox_changes == 1


async def test_the_backlog_of_one_endpoint_is_read_up_to_a_bound(
    overview: Overview, webhooks: Webhooks, database_url: str
) -> None:
    """However long it was off: neither the planner's estimates nor other table partitions make a scrape read all of it."""
    await webhooks.endpoint("a", status="disabled")
    await webhooks.execute(
        "INSERT INTO webhook_events (position, account_id, payment_id, version, type, at)"
        " SELECT n, 'a', gen_random_uuid(), 2, 'payment.succeeded', now() FROM generate_series(1, 10500) n"
    )
    await webhooks.execute("UPDATE webhook_sequencer SET last = 10500")
    assert (await overview.webhooks()).states["disabled"].backlog == 10_000
    plan = await webhooks.plan(SQL["queues"])
    assert "->  Sort" not in plan, plan  # MergeAppend has a sort key, too
    assert "Seq Scan on webhook_events" not in plan, plan
    read = re.findall(r"Index Scan using webhook_events_\d+_account_id_position_idx .*\(actual rows=(\d+)", plan)
    assert max(map(int, read)) == 10_000, plan
    assert "webhook_deliveries_0_endpoint_id_next_at_idx" in plan, plan


async def test_the_retention_is_used_by_the_queue_that_is_furthest_behind(
    overview: Overview, webhooks: Webhooks
) -> None:
    await webhooks.endpoint("a", status="disabled")
    await webhooks.endpoint("a", done_to=POSITIONS)
    await webhooks.event(7, "a", age="28 days")
    first = (await overview.webhooks()).log
    assert (first.first, first.last, first.needed_from) == (7, 7, 7)
    assert first.used_retention(30 * DAY, None) == 0  # its table partition is still being written
    await webhooks.event(POSITIONS - 1, "a", age="27 days")
    await webhooks.event(POSITIONS + 1, "a", age="1 minute")
    log = (await overview.webhooks()).log
    assert log.size_bytes > 50_000
    assert 0.9 <= log.used_retention(30 * DAY, None) < 0.91
    assert log.used_retention(30 * DAY, log.size_bytes) == 1


@pytest.mark.parametrize(
    ("log", "share"),
    [
        (LogSize(first=0, last=9_999_999, size_bytes=2_000, needed_from=None), 0),
        (LogSize(first=0, last=9_999_999, size_bytes=2_000, needed_from=9_000_000), 0.25),
        (LogSize(first=0, last=9_999_999, size_bytes=2_000, needed_from=10), 0.5),
        (LogSize(first=0, last=9_999_999, size_bytes=2_000, needed_from=10, ended=24 * DAY), 0.8),
    ],
)
def test_the_used_retention_is_the_larger_of_age_and_size(log: LogSize, share: float) -> None:
    assert log.used_retention(30 * DAY, 4_000) == pytest.approx(share)


def test_the_gauges_of_webhooks_are_not_a_number_while_postgres_is_away() -> None:
    system = SystemMetrics(CollectorRegistry())
    system.set_endpoint_state("failing", endpoints=2, backlog=30, oldest=timedelta(seconds=4))
    value = system.registry.get_sample_value
    assert value("okane_webhook_endpoints", {"state": "failing"}) == 2
    assert value("okane_webhook_backlog_events", {"state": "failing"}) == 30
    assert value("okane_webhook_oldest_seconds", {"state": "failing"}) == 4
    system.forget_waiting()
    for family in system.registry.collect():
        if family.name.startswith("okane_webhook_"):
            assert family.samples
            assert all(math.isnan(sample.value) for sample in family.samples), family.name
