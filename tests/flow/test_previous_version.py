"""The version before this one beside it, under load, while the schema is brought forward: each reads what the other wrote.

Every change of the schema is held to this. Which version is the one before stands in `tests/flow/previous.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import psycopg
import pytest
from psycopg.rows import dict_row

from okane.client import Client, NewPayment
from okane.client.client import Filter
from okane.payment import Status
from okane.store import schema
from okane.store.overview import Overview
from tests.flow import previous
from tests.flow.system import System

Row = Mapping[str, Any]

# The provider's answers by the last four digits: charged, declined, unavailable, and one that never comes. In all lanes.
AMOUNTS = (440, 2_000, 20_000, 4_002, 14_003, 5_003, 15_003, 5_005)
# What is to be tried again or looked up stays so until the test is over.
PATIENT = {"OKANE_RETRY_BASE": "10h", "OKANE_RETRY_CAP": "10h", "OKANE_LOOK_UP_DELAYS": "10h", "MAX_RETRIES": "7"}

ROWS = """
SELECT p.*,
       ARRAY(SELECT DISTINCT e.provider FROM payment_events e WHERE e.payment_id = p.id AND e.provider <> '') AS providers,
       ARRAY(SELECT e.version FROM payment_events e WHERE e.payment_id = p.id ORDER BY 1) AS versions,
       (SELECT e.status FROM payment_events e WHERE e.payment_id = p.id ORDER BY e.version DESC LIMIT 1) AS last_event,
       ARRAY(SELECT DISTINCT e.actor FROM payment_events e WHERE e.payment_id = p.id) AS actors
FROM payments p
"""


@pytest.fixture
def old(tmp_path: Path) -> Mapping[str, str]:
    """The environment in which `okane` is the previous version."""
    try:
        return previous.unpack(tmp_path / "previous")
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(300)
async def test_two_versions_side_by_side_read_what_the_other_wrote(
    system: System, database_url: str, old: Mapping[str, str]
) -> None:
    execute(database_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    okane("migrate", env={**system.env, **old})
    await system.start_provider("--unavailable", "0", "--decline", "0", "--magic-amounts", "--hang-s", "3")
    patient_old, hasty_old = {**PATIENT, **old}, {**PATIENT, **old, "MAX_RETRIES": "0"}
    old_url = await system.start_api("old-api", **old)
    await system.start_worker("old-1", **patient_old)
    async with Client(old_url) as old_client:
        await pay(old_client, "before", rounds=4)
        await quiet(database_url)

        paying = asyncio.ensure_future(pay(old_client, "meanwhile", rounds=15, pause_s=0.01))
        await schema.migrate(database_url)
        await paying
        assert await schema.read_version(database_url) == schema.VERSION

        await asyncio.gather(
            system.start_worker("old-2", **hasty_old),  # on the newer schema: a version may be taken back
            system.start_worker("new-1", **PATIENT),
            system.start_api(),
        )
        await asyncio.gather(
            *(pay(client, f"beside-{n}", rounds=12) for n, client in enumerate((old_client, system.client)))
        )
        await system.kill("old-1")  # its claims are taken over by either version
        await quiet(database_url)
        await ask_again(database_url, old_client, system.client)
        await quiet(database_url)
    for worker in ("old-2", "new-1"):
        await system.stop(worker)

    rows = scan(database_url)
    assert {worker for row in rows for worker in row["actors"]} > {"old-1", "old-2", "new-1"}
    seen = Counter(row["status"] for row in rows)
    assert seen.keys() >= {"success", "failed_retryable", "failed_final", "unknown", "canceled"}
    for row in rows:
        assert row["versions"] == list(range(1, row["version"] + 1))
        assert row["last_event"] == row["status"]
    await lists_hold_what_the_tables_do(system.client, rows)
    await counts_hold_what_the_tables_do(database_url, rows)
    await both_apis_show_the_same(rows, old_url, system.url)
    captured = await system.captures()
    assert captured == Counter(str(row["id"]) for row in rows if row["status"] == "success")


async def pay(client: Client, prefix: str, *, rounds: int, pause_s: float = 0.0) -> None:
    """POST so many payments of each amount, in two currencies."""
    for number in range(rounds):
        await asyncio.gather(
            *(
                client.pay(
                    NewPayment(
                        amount=amount,
                        idempotency_key=f"{prefix}-{number}-{amount}",
                        currency=("USD", "EUR")[number % 2],
                        metadata={"round": str(number)},
                    )
                )
                for amount in AMOUNTS
            )
        )
        await asyncio.sleep(pause_s)


async def ask_again(database_url: str, old: Client, new: Client) -> None:
    """Retries and withdrawals, through the API of either version, of what either version settled."""
    failed = [
        [row["id"] for row in scan(database_url) if row["status"] == status]
        for status in ("failed_final", "failed_retryable")
    ]
    for number, payment_id in enumerate(failed[0][:20]):
        await (old, new)[number % 2].retry(payment_id)
    for number, payment_id in enumerate(failed[1][:20]):
        if number % 4:
            await new.cancel(payment_id)
        else:
            await old.retry(payment_id)


async def quiet(database_url: str) -> None:
    """Wait until every payment has an outcome, if an open one."""
    async with asyncio.timeout(60):
        while execute(database_url, "SELECT 1 FROM payments WHERE status IN ('pending', 'processing') LIMIT 1"):
            await asyncio.sleep(0.05)


async def lists_hold_what_the_tables_do(client: Client, rows: Sequence[Row]) -> None:
    """Every filter, alone and beside each status; and every two statuses."""
    times = sorted(row["created_at"] for row in rows)
    middle = times[len(times) // 2]
    one = next(row for row in rows if row["status"] == "success")
    filters: Sequence[tuple[Filter, Callable[[Row], bool]]] = (
        ({}, lambda _: True),
        ({"currency": "EUR"}, lambda row: row["currency"] == "EUR"),
        ({"provider": one["providers"][0]}, lambda row: one["providers"][0] in row["providers"]),
        ({"created_after": middle}, lambda row: row["created_at"] >= middle),
        ({"created_before": middle}, lambda row: row["created_at"] < middle),
        ({"updated_after": middle}, lambda row: row["updated_at"] >= middle),
        ({"updated_before": middle}, lambda row: row["updated_at"] < middle),
        ({"amount_min": 4_002}, lambda row: row["amount_minor"] >= 4_002),
        ({"amount_max": 4_002}, lambda row: row["amount_minor"] <= 4_002),
        ({"idempotency_key": one["idempotency_key"]}, lambda row: row["id"] == one["id"]),
        ({"provider_ref": one["provider_ref"]}, lambda row: row["id"] == one["id"]),
        ({"metadata": {"round": "1"}}, lambda row: row["metadata"].get("round") == "1"),
    )
    single = [set[Status](), *({status} for status in Status), set(Status)]
    pairs = [(filters[0], set(pair)) for pair in itertools.combinations(Status, 2)]
    for (which, meant), statuses in (*itertools.product(filters, single), *pairs):
        wanted = [row["id"] for row in rows if meant(row) and (not statuses or row["status"] in statuses)]
        query: Filter = {**which, "status": sorted(statuses)}
        assert await listed(client, query) == sorted(wanted, reverse=True), query


async def listed(client: Client, query: Filter) -> Sequence[UUID]:
    return [payment.id async for payment in client.payments(**query)]


async def counts_hold_what_the_tables_do(database_url: str, rows: Sequence[Row]) -> None:
    overview = Overview(database_url)
    counts, dead, waiting = await overview.count_all(), await overview.count_dead(), await overview.count_waiting()
    await overview.aclose()
    scanned = Counter(Status(row["status"]) for row in rows)
    assert counts == scanned
    assert dead == sum(row["dead_at"] is not None for row in rows) > 0
    for status in (Status.FAILED_RETRYABLE, Status.UNKNOWN, Status.NEEDS_REVIEW):
        assert waiting.get(status, 0) == scanned[status], status


async def both_apis_show_the_same(rows: Sequence[Row], old_url: str, new_url: str) -> None:
    """Check that this version answers every member of a payment that the previous one answers."""
    async with aiohttp.ClientSession() as http:
        for row in rows:
            old, new = [await shown(http, f"{url}/v1/payments/{row['id']}") for url in (old_url, new_url)]
            assert old.items() <= new.items()


async def shown(http: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    async with http.get(url) as response:
        assert response.status == 200, await response.text()
        return dict((await response.json())["payment"])


def okane(*arguments: str, env: Mapping[str, str]) -> None:
    command = [sys.executable, "-P", "-m", "okane", *arguments]
    ended = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def scan(database_url: str) -> Sequence[Row]:
    return execute(database_url, ROWS)


def execute(database_url: str, statement: str) -> Sequence[Row]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
