"""Endpoints in Postgres: the lock of the first one, the limit, changes, and deletions that the dispatcher confirms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.store import SweepStore
from okane.store.webhook_endpoints import (
    KEPT_DELETED,
    MAX_ENDPOINTS,
    CreateRefusal,
    Endpoint,
    WebhookEndpointStore,
)
from okane.worker.endpoint_cleanup import EndpointCleanup
from tests.okane.webhook_rows import created, fetch, lease, log_event, new_endpoint

# A statement that changes a payment of `%s` holds this lock, and has looked the account up, until its transaction ends.
CHANGE = """INSERT INTO webhook_outbox (payment_ids, versions, account_id, type)
SELECT ARRAY[gen_random_uuid()], '{2}', %(account)s, 'payment.succeeded'
WHERE EXISTS (SELECT FROM webhook_accounts WHERE account_id = %(account)s) RETURNING 1"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[WebhookEndpointStore]:
    one = WebhookEndpointStore(database_url)
    yield one
    await one.aclose()


async def accounts(url: str) -> list[str]:
    return [row[0] for row in await fetch(url, "SELECT account_id FROM webhook_accounts ORDER BY 1")]


async def until_blocked(url: str) -> None:
    """Return when a session waits for a lock on the outbox."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'webhook_outbox'::regclass"
    while not (await fetch(url, waiting))[0][0]:
        await asyncio.sleep(0.005)


async def test_an_endpoint_begins_at_the_end_of_the_log(store: WebhookEndpointStore, database_url: str) -> None:
    last = [await log_event(database_url) for _ in range(3)][-1]
    made = await created(store, rate_limit=50, description="orders", hold_s=0, asymmetric=True)
    assert (made.starts_after, made.status, made.version, made.key_generation) == (last, "enabled", 1, 1)
    assert (made.rate_limit, made.description, made.hold_s, made.asymmetric) == (50, "orders", 0, True)
    [state] = await store.list("default")
    assert state.endpoint == made
    assert (state.backlog, state.waiting, state.failing_since, state.last_error) == (0, 0, None, None)
    assert await fetch(database_url, "SELECT done_to, owner FROM webhook_queues") == [(last, None)]
    assert await accounts(database_url) == ["default"]


async def test_the_first_endpoint_waits_for_a_change_in_progress(
    store: WebhookEndpointStore, database_url: str
) -> None:
    """It has looked the account up before the endpoint was there, and is over before the endpoint is answered."""
    async with await psycopg.AsyncConnection.connect(database_url) as change:
        cursor = await change.execute(CHANGE, {"account": "default"})
        assert cursor.rowcount == 0
        creating = asyncio.create_task(store.create(new_endpoint()))
        await until_blocked(database_url)
        assert await accounts(database_url) == []
        await change.commit()
    assert isinstance(await creating, Endpoint)


async def test_a_change_that_waits_for_the_first_endpoint_is_recorded(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as first:
        await first.execute("LOCK TABLE webhook_outbox IN SHARE MODE")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
            changing = asyncio.create_task(other.execute(CHANGE, {"account": "default"}))
            await until_blocked(database_url)
            await first.execute("INSERT INTO webhook_accounts VALUES ('default')")
            await first.commit()
            assert (await changing).rowcount == 1


async def test_a_change_that_does_not_end_refuses_the_first_endpoint_and_nothing_is_stored(database_url: str) -> None:
    store = WebhookEndpointStore(database_url, first_lock_s=0.3)
    try:
        async with await psycopg.AsyncConnection.connect(database_url) as change:
            await change.execute(CHANGE, {"account": "default"})
            assert await store.create(new_endpoint()) is CreateRefusal.BUSY
            assert (await store.list("default"), await accounts(database_url)) == ([], [])
            await change.rollback()
        await created(store)
    finally:
        await store.aclose()


async def test_later_endpoints_of_the_account_need_no_lock(store: WebhookEndpointStore, database_url: str) -> None:
    await created(store)
    async with await psycopg.AsyncConnection.connect(database_url) as change:
        assert (await change.execute(CHANGE, {"account": "default"})).rowcount == 1
        await created(store)
        await change.rollback()


async def test_an_account_has_sixteen_endpoints_at_most_also_at_once(database_url: str) -> None:
    stores = [WebhookEndpointStore(database_url) for _ in range(4)]
    try:
        made = await asyncio.gather(*(stores[n % 4].create(new_endpoint()) for n in range(MAX_ENDPOINTS + 4)))
        assert made.count(CreateRefusal.TOO_MANY) == 4
        assert len(await stores[0].list("default")) == MAX_ENDPOINTS
        await created(stores[0], "another")
        await stores[0].delete("default", (await stores[0].list("default"))[0].endpoint.id)
        await created(stores[0])
    finally:
        for one in stores:
            await one.aclose()


async def test_an_account_sees_and_changes_its_own_endpoints_alone(store: WebhookEndpointStore) -> None:
    made = await created(store, "acme")
    await created(store, "globex")
    assert await store.get("globex", made.id) is None
    for change in (
        store.change("globex", made.id, {"url": "https://globex.example/"}),
        store.rotate("globex", made.id, older_valid_for=timedelta()),
        store.disable("globex", made.id, reason="test"),
        store.enable("globex", made.id, from_now=True),
        store.delete("globex", made.id),
        store.poll("globex", made.id),
    ):
        assert await change is None
    [state] = await store.list("acme")
    assert state.endpoint == made


async def test_a_change_sets_the_given_members_alone(store: WebhookEndpointStore) -> None:
    made = await created(store, rate_limit=5, description="orders")
    changed = await store.change("default", made.id, {"rate_limit": None, "types": ["payment.*"], "timeout_s": 3})
    assert changed is not None
    assert (changed.rate_limit, changed.types, changed.timeout_s) == (None, ["payment.*"], 3)
    assert (changed.url, changed.description, changed.version) == (made.url, "orders", 2)
    same = await store.change("default", made.id, {})
    assert same is not None
    assert same.version == 3


async def test_a_rotation_keeps_the_older_secret_for_a_time(store: WebhookEndpointStore) -> None:
    made = await created(store)
    rotated = await store.rotate("default", made.id, older_valid_for=timedelta(hours=24))
    assert rotated is not None
    assert rotated.older_key_until is not None
    assert (rotated.key_generation, rotated.version) == (2, 2)
    assert timedelta(hours=23) < rotated.older_key_until - datetime.now(UTC) < timedelta(hours=25)


async def test_disabling_pauses_and_enabling_resumes(store: WebhookEndpointStore, database_url: str) -> None:
    made = await created(store)
    await fetch(database_url, "UPDATE webhook_queues SET failures = 9, failing_since = now(), last_error = 'timeout'")
    first = await log_event(database_url)
    await log_event(database_url, type_="payment.retried")  # not one of its types
    await log_event(database_url, "another")
    disabled = await store.disable("default", made.id, reason="by request")
    assert disabled is not None
    assert (disabled.status, disabled.disabled_reason) == ("disabled", "by request")
    state = await store.get("default", made.id)
    assert state is not None
    assert (state.backlog, state.failures, state.last_error) == (1, 9, "timeout")
    enabled = await store.enable("default", made.id, from_now=False)
    assert enabled is not None
    assert (enabled.status, enabled.disabled_reason, enabled.version) == ("enabled", None, 3)
    [(done_to, failures, since, epoch)] = await fetch(
        database_url, "SELECT done_to, failures, failing_since, epoch FROM webhook_queues"
    )
    assert (done_to, failures, since, epoch) == (first - 1, 0, None, 0)


async def test_an_endpoint_that_has_changed_since_it_was_seen_stays_as_it_is(store: WebhookEndpointStore) -> None:
    made = await created(store)
    seen = made.version
    assert await store.disable("default", made.id, reason="requested", version=seen) is not None
    assert await store.disable("default", made.id, reason="late", version=seen) is None
    assert await store.enable("default", made.id, from_now=True, version=seen) is None
    state = await store.get("default", made.id)
    assert state is not None
    assert (state.endpoint.status, state.endpoint.disabled_reason) == ("disabled", "requested")
    assert await store.enable("default", made.id, from_now=False, version=state.endpoint.version) is not None


async def test_enabling_from_now_skips_what_waits(store: WebhookEndpointStore, database_url: str) -> None:
    made = await created(store)
    positions = [await log_event(database_url) for _ in range(3)]
    await fetch(
        database_url,
        """INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, at, next_at)
        VALUES (%s, %s, 'waiting', 1, now(), now())""",
        made.id,
        positions[0],
    )
    await fetch(database_url, "INSERT INTO webhook_replays VALUES (%s, 1, 3, 1, true)", made.id)
    await lease(database_url, made.id)
    await store.enable("default", made.id, from_now=True)
    queue = await fetch(database_url, "SELECT done_to, epoch, owner, lease_until > now() FROM webhook_queues")
    # The owner writes nothing any more, and no other begins before the end of its lease.
    assert queue == [(positions[-1], 2, None, True)]
    found = await fetch(database_url, "SELECT state, reason, next_at FROM webhook_deliveries")
    assert found == [("given_up", "skipped", None)]
    assert await fetch(database_url, "SELECT 1 FROM webhook_replays") == []


async def test_a_deleted_endpoint_is_gone_and_its_account_is_not_recorded_after_an_hour(
    store: WebhookEndpointStore, database_url: str
) -> None:
    one, two = await created(store), await created(store)
    for endpoint in (one, two):
        deleted = await store.delete("default", endpoint.id)
        assert deleted is not None
        assert (deleted.status, deleted.version) == ("deleted", 2)
        assert await store.delete("default", endpoint.id) == deleted  # a repeated request
        assert await store.finish_delete(deleted)
        assert await store.finish_delete(deleted)
        assert await store.delete("default", endpoint.id) is None
    assert await fetch(database_url, "SELECT 1 FROM webhook_queues") == []
    await age(database_url, "deleted_at", one.id, "61 minutes")
    await age(database_url, "deleted_at", two.id, "59 minutes")
    await store.tidy()
    assert await accounts(database_url) == ["default"]  # its changes are recorded still
    await age(database_url, "deleted_at", two.id, "61 minutes")
    await store.tidy()
    assert await accounts(database_url) == []


async def test_a_deletion_ends_when_the_owner_has_confirmed_it(store: WebhookEndpointStore, database_url: str) -> None:
    made = await created(store)
    await lease(database_url, made.id)
    deleted = await store.delete("default", made.id)
    assert deleted is not None
    assert not await store.finish_delete(deleted)
    assert not await store.is_confirmed(deleted)
    await lease(database_url, made.id, seen_version=deleted.version)
    assert await store.is_confirmed(deleted)
    assert await store.finish_delete(deleted)


async def test_a_deletion_ends_when_the_lease_has_expired(store: WebhookEndpointStore, database_url: str) -> None:
    made = await created(store)
    await lease(database_url, made.id, seconds=-1)
    deleted = await store.delete("default", made.id)
    assert deleted is not None
    assert await store.finish_delete(deleted)


async def test_a_lease_that_is_written_at_the_same_time_holds_the_deletion_up(
    store: WebhookEndpointStore, database_url: str
) -> None:
    """Its dispatcher may have read the endpoint before it was deleted."""
    made = await created(store)
    async with await psycopg.AsyncConnection.connect(database_url) as dispatcher:
        await dispatcher.execute(
            """UPDATE webhook_queues SET owner = 'd1', seen_version = 1,
            lease_until = clock_timestamp() + interval '10 seconds' WHERE endpoint_id = %s""",
            [made.id],
        )
        deleted = await store.delete("default", made.id)
        assert deleted is not None
        finishing = asyncio.create_task(store.finish_delete(deleted))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%webhook_queues%%'"
        )
        while not (await fetch(database_url, waiting))[0][0]:
            await asyncio.sleep(0.005)
        await dispatcher.commit()
    assert not await finishing


async def test_the_last_deletion_and_a_new_endpoint_come_one_after_the_other(database_url: str) -> None:
    one, two = WebhookEndpointStore(database_url), WebhookEndpointStore(database_url)
    try:
        for _ in range(20):
            made = await created(one)
            _, again = await asyncio.gather(one.delete("default", made.id), two.create(new_endpoint()))
            assert isinstance(again, Endpoint)
            assert await accounts(database_url) == ["default"]
            await one.delete("default", again.id)
            await age(database_url, "deleted_at", made.id, "61 minutes")
            await age(database_url, "deleted_at", again.id, "61 minutes")
            await one.tidy()
            assert await accounts(database_url) == []
    finally:
        await one.aclose()
        await two.aclose()


async def test_rows_of_deleted_endpoints_are_bounded(store: WebhookEndpointStore, database_url: str) -> None:
    for _ in range(KEPT_DELETED + 3):
        deleted = await store.delete("default", (await created(store)).id)
        assert deleted is not None
        await store.finish_delete(deleted)
    [(count,)] = await fetch(database_url, "SELECT count(*) FROM webhook_endpoints")
    assert count <= KEPT_DELETED + 1


async def age(url: str, column: str, endpoint_id: UUID, interval: str) -> None:
    statement = f"UPDATE webhook_endpoints SET {column} = now() - %s::interval WHERE id = %s"
    await fetch(url, statement, interval, endpoint_id)


async def test_an_endpoint_without_a_reader_is_deleted_after_an_hour(
    store: WebhookEndpointStore, database_url: str
) -> None:
    polled, left = await created(store, url=None), await created(store, "another", url=None)
    for one in (polled, left):
        await age(database_url, "polled_at", one.id, "61 minutes")
    assert await store.poll("default", polled.id) == polled
    assert await store.tidy() == []
    assert await store.get("default", polled.id) is not None
    assert await store.get("another", left.id) is None


async def test_a_deletion_that_was_left_in_the_middle_is_found(store: WebhookEndpointStore, database_url: str) -> None:
    made = await created(store)
    await lease(database_url, made.id)
    deleted = await store.delete("default", made.id)
    await age(database_url, "deleted_at", made.id, "2 minutes")
    assert await store.tidy() == [deleted]
    assert deleted is not None
    await created(store)
    sweep_store = SweepStore(database_url, grace=timedelta(seconds=10))
    cleanup = EndpointCleanup(sweep_store=sweep_store, endpoints=store)
    assert await cleanup.run_once() == 0
    await lease(database_url, made.id, seen_version=deleted.version)
    assert await cleanup.run_once() == 1
    assert await store.tidy() == []
    await sweep_store.aclose()
    await age(database_url, "deleted_at", made.id, "31 days")
    await store.tidy()
    assert await fetch(database_url, "SELECT status FROM webhook_endpoints") == [("enabled",)]


async def test_there_is_no_endpoint_of_an_unknown_id(store: WebhookEndpointStore) -> None:
    assert await store.get("default", uuid4()) is None
