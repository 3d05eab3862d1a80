"""Every change of a payment is written to the outbox, in its own statement, if its account has an endpoint."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from typing import Any
from uuid import UUID

import psycopg
import pytest

from okane.payment import Status
from okane.store import PaymentStore, sql_files
from okane.store.session import INDEX_ONLY
from okane.webhooks.types import EventType, type_of_change
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, execute, expire_lease, new, settlement

SUBSCRIBE = "INSERT INTO webhook_accounts VALUES ('default')"
RECORDED = """
SELECT c.version, o.type, h.event, h.status, o.at = h.at, o.account_id
FROM webhook_outbox o, unnest(o.payment_ids, o.versions) AS c (payment_id, version)
LEFT JOIN payment_events h USING (payment_id, version)
WHERE c.payment_id = %s ORDER BY c.version
"""
LOCKED = """
SELECT l.mode FROM pg_locks l WHERE l.relation = 'webhook_outbox'::regclass AND l.pid = pg_backend_pid()
"""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="test", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


def test_every_statement_that_writes_the_history_writes_the_outbox() -> None:
    writing = {}
    for file in (resources.files("okane.store") / "sql").iterdir():
        for name, text in sql_files.load_statements(file.name, blocks_of="payments.sql").items():
            if "INSERT INTO payment_events" in text:
                writing[file.name, name] = "INSERT INTO webhook_outbox" in text
    unrecorded = {one for one, is_recorded in writing.items() if not is_recorded}
    claims = {one for one in writing if one[1].startswith("claim")}  # leases are internal
    requests = {("operations.sql", "request"), ("operations.sql", "retry")}  # their outcomes are news
    assert unrecorded == claims | requests
    assert {name for file, name in writing if file == "payments.sql"} - {name for _, name in claims} == {
        *CHANGES,
        "settle",
        "fall_back",
    }


def test_no_other_code_writes_the_history() -> None:
    for file in resources.files("okane.store").iterdir():
        if file.name.endswith(".py"):
            code = re.sub(r'"""[^"]*"""', "", file.read_text())
            assert not re.search(r"\b(INTO|UPDATE|FROM) payment_events\b", code), file.name


async def row(url: str, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await (await connection.execute(query.encode(), parameters or None)).fetchall()


async def pending(store: PaymentStore, _url: str) -> UUID:
    return (await accept_one(store, new())).payment.id


async def failed(store: PaymentStore, url: str) -> UUID:
    payment_id = await pending(store, url)
    claim = await claimed(store, payment_id)
    await store.settle(settlement(claim.payment, Status.FAILED_FINAL, event="declined", decline_code="stolen"))
    return payment_id


async def in_review(store: PaymentStore, url: str) -> UUID:
    payment_id = await pending(store, url)
    assert await store.bury(payment_id, reason="poison")
    return payment_id


Change = Callable[[PaymentStore, str, UUID], Awaitable[object]]


async def retry(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    return await store.retry(payment_id, account_id="default", actor="api")


async def cancel(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    return await store.cancel(payment_id, account_id="default", actor="api")


async def expire(store: PaymentStore, url: str, payment_id: UUID) -> object:
    await execute(url, "UPDATE payments SET expires_at = now() WHERE id = %s", [payment_id])
    return await store.expire(payment_id)


async def bury(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    return await store.bury(payment_id, reason="poison")


async def record_late(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    payment = await store.get(payment_id, account_id="default")
    return await store.record_late(settlement(payment))


async def fail_late_look_up(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    payment = await store.get(payment_id, account_id="default")
    return await store.fail_late_look_up(payment, reason="no answer")


async def resolve(store: PaymentStore, _url: str, payment_id: UUID) -> object:
    return await store.resolve(
        payment_id, account_id=None, decision=Status.SUCCESS, reason="found", provider_ref=None, actor="operator"
    )


CHANGES: dict[str, tuple[Callable[[PaymentStore, str], Awaitable[UUID]], Change, EventType]] = {
    "retry": (failed, retry, EventType.RETRIED),
    "cancel": (pending, cancel, EventType.CANCELED),
    "expire": (pending, expire, EventType.CANCELED),
    "bury": (pending, bury, EventType.REVIEW_REQUIRED),
    "record_late": (failed, record_late, EventType.REVIEW_REQUIRED),
    "fail_late_look_up": (failed, fail_late_look_up, EventType.REVIEW_REQUIRED),
    "resolve": (in_review, resolve, EventType.SUCCEEDED),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_rare_change_is_recorded_with_its_version_and_time(
    store: PaymentStore, database_url: str, name: str
) -> None:
    before, change, type_ = CHANGES[name]
    payment_id = await before(store, database_url)
    await execute(database_url, SUBSCRIBE, [])
    assert await change(store, database_url, payment_id)
    payment = await store.get(payment_id, account_id="default")
    [recorded] = await row(database_url, RECORDED, (payment_id,))
    assert recorded[:2] == (payment.version, type_)
    assert recorded[3:] == (payment.status, True, "default")
    assert type_of_change(recorded[2], Status(recorded[3])) == type_


# No attempt ends canceled: `cancel` and `expire` are above.
ENDS = [one for one in Status if type_of_change("settled", one) is not None and one is not Status.CANCELED]


@pytest.mark.parametrize("status", ENDS)
async def test_an_outcome_is_recorded_as_the_type_of_its_status(
    store: PaymentStore, database_url: str, status: Status
) -> None:
    await execute(database_url, SUBSCRIBE, [])
    payment_id = await pending(store, database_url)
    claim = await claimed(store, payment_id)
    assert await store.settle(settlement(claim.payment, status, delay=timedelta(seconds=5))) is not None
    [recorded] = await row(database_url, RECORDED, (payment_id,))
    assert recorded == (2, type_of_change(status.value, status), status.value, status.value, True, "default")


async def test_a_late_result_that_changes_no_status_has_a_type_of_its_own(
    store: PaymentStore, database_url: str
) -> None:
    await execute(database_url, SUBSCRIBE, [])
    settled = await pending(store, database_url)
    claim = await claimed(store, settled)
    await store.settle(settlement(claim.payment))
    await record_late(store, database_url, settled)
    assert [found[1] for found in await row(database_url, RECORDED, (settled,))] == [
        EventType.SUCCEEDED,
        EventType.LATE_RESULT,
    ]
    reviewed = (await accept_one(store, new("other"))).payment.id
    await store.bury(reviewed, reason="poison")
    await record_late(store, database_url, reviewed)
    assert [found[1] for found in await row(database_url, RECORDED, (reviewed,))] == [
        EventType.REVIEW_REQUIRED,
        EventType.LATE_RESULT,
    ]


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_of_an_account_without_an_endpoint_is_not_recorded(
    store: PaymentStore, database_url: str, name: str
) -> None:
    before, change, _ = CHANGES[name]
    await execute(database_url, "INSERT INTO webhook_accounts VALUES ('another')", [])
    payment_id = await before(store, database_url)
    assert await change(store, database_url, payment_id)
    assert await row(database_url, "SELECT FROM webhook_outbox") == []


async def test_a_batch_writes_one_row_for_each_account_and_type(store: PaymentStore, database_url: str) -> None:
    await execute(database_url, "INSERT INTO webhook_accounts VALUES ('default'), ('other')", [])
    claims = []
    for number in range(12):
        account_id = ("default", "other", "silent")[number % 3]
        accepted = await accept_one(store, replace(new(f"k-{number}"), account_id=account_id))
        claims.append(await claimed(store, accepted.payment.id))
    ends = [Status.FAILED_FINAL if number == 0 else Status.SUCCESS for number in range(12)]
    done = [store.settle(settlement(one.payment, end)) for one, end in zip(claims, ends, strict=True)]
    assert None not in await asyncio.gather(*done)
    found = await row(database_url, "SELECT account_id, type, payment_ids, versions, xid FROM webhook_outbox")
    assert len({xid for *_, xid in found}) < len(claims)  # several outcomes were in one statement
    assert len(found) == len({(account_id, type_, xid) for account_id, type_, _, _, xid in found})
    assert {(account_id, type_, one) for account_id, type_, ids, _, _ in found for one in ids} == {
        (one.payment.account_id, type_of_change("settled", end), one.payment.id)
        for one, end in zip(claims, ends, strict=True)
        if one.payment.account_id != "silent"
    }
    assert all(versions == [2] * len(ids) for _, _, ids, versions, _ in found)


async def test_an_outcome_of_a_lost_attempt_is_not_recorded(store: PaymentStore, database_url: str) -> None:
    await execute(database_url, SUBSCRIBE, [])
    payment_id = await pending(store, database_url)
    lost = await claimed(store, payment_id)
    await expire_lease(database_url, payment_id)
    await claimed(store, payment_id)
    assert await store.settle(settlement(lost.payment)) is None
    assert await row(database_url, "SELECT FROM webhook_outbox") == []


async def test_a_settle_locks_the_outbox_also_without_a_row_for_it(store: PaymentStore, database_url: str) -> None:
    """The first endpoint of an account waits for this lock: such a statement may have a snapshot without the account."""
    await pending(store, database_url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        text = sql_files.load_statements("payments.sql")["cancel"]
        wanted = {"id": UUID(int=0), "account_id": "default", "actor": "a", "late_ms": 1, "seen": None}
        await connection.execute(text, wanted)
        assert ("RowExclusiveLock",) in await (await connection.execute(LOCKED)).fetchall()


async def test_a_settle_that_waits_for_the_first_endpoint_of_its_account_is_recorded(
    store: PaymentStore, database_url: str
) -> None:
    """Its plan is cached: the locks come first then, and the snapshot after them."""
    first, second = [await claimed(store, (await accept_one(store, new(key))).payment.id) for key in ("1", "2")]
    await store.settle(settlement(first.payment))
    async with await psycopg.AsyncConnection.connect(database_url) as creating:
        await creating.execute("LOCK TABLE webhook_outbox IN SHARE MODE")
        await creating.execute(SUBSCRIBE.encode())
        settling = asyncio.create_task(store.settle(settlement(second.payment)))
        async with asyncio.timeout(60):
            while not await row(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"):
                await asyncio.sleep(0.002)
        await creating.commit()
    assert await settling is not None
    assert [found[1] for found in await row(database_url, RECORDED, (second.payment.id,))] == [EventType.SUCCEEDED]


async def test_without_any_endpoint_a_settle_does_not_look_for_each_account(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for setting, text in INDEX_ONLY.items():
            await connection.execute(f"SET {setting} = '{text}'".encode())
        block = sql_files.load_statements("payments.sql")["outboxed"].split("INSERT INTO webhook_outbox")[1]
        select = block[block.index("SELECT") : block.rindex(")")]
        explained = await connection.execute(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) WITH changed AS MATERIALIZED ("
            "SELECT gen_random_uuid() AS id, 2 AS version, 'default' AS account_id, 'success' AS event, 'success' AS status"
            f" FROM generate_series(1, 256)) {select}".encode()
        )
        plan = "\n".join(line for (line,) in await explained.fetchall())
    assert "One-Time Filter" in plan
    assert re.search(r"Scan.*webhook_accounts a.*never executed", plan), plan


EVENTS_OF_OPERATIONS = (
    "captured", "capture_failed", "capture_requested", "voided", "void_failed", "void_requested",
    "refunded", "refund_failed", "refund_requested", "refund_canceled", "authorized", "retried",
    "dispute_opened", "dispute_closed",
)  # fmt: skip


@pytest.mark.parametrize("event", EVENTS_OF_OPERATIONS)
async def test_the_statements_know_the_type_of_every_change(database_url: str, event: str) -> None:
    type_of = sql_files.load_statements("payments.sql")["webhook_type"]
    for status in Status:
        [(found,)] = await row(
            database_url, f"SELECT {type_of} FROM (SELECT %s AS event, %s AS status) c", (event, status.value)
        )
        assert found == type_of_change(event, status), (event, status)
