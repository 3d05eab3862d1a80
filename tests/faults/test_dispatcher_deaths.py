"""Dispatchers that die at every crash point: each event still arrives, in order, and repeats are bounded."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from okane.store.webhook_endpoints import Endpoint, WebhookEndpointStore
from okane.webhooks import keys
from tests.faults.test_failpoints import OF_DISPATCHERS
from tests.flow.system import MASTER, System, running
from tests.okane.dispatching import until
from tests.okane.webhook_receiver import Received, Receiver, receiving
from tests.okane.webhook_rows import created, fetch

PAYMENTS = 40
IN_FLIGHT = 4
LEASE_S = 10.0
WRITTEN_WITHIN_S = 1.0  # results are: some 60 ms, on a machine that is not busy

AT_REST = """SELECT (SELECT count(*) FROM webhook_outbox) = 0
    AND (SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered') = 0
    AND (SELECT bool_and(q.done_to = s.last) FROM webhook_queues q, webhook_sequencer s)"""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def system(tmp_path: Path, database_url: str, redis_url: str) -> AsyncIterator[System]:
    async with running(tmp_path / "system", database_url, redis_url) as one:
        yield one


async def subscribe(url: str, receiver: Receiver) -> Endpoint:
    store = WebhookEndpointStore(url)
    endpoint = await created(
        store, url=f"{receiver.url}/hook", types=("payment.*",), max_in_flight=IN_FLIGHT, description="shop"
    )
    await store.aclose()
    receiver.secrets["/hook"] = keys.secret(MASTER.encode(), endpoint.id, endpoint.key_generation)
    return endpoint


async def let_the_lease_run_out(url: str) -> None:
    """The lease of the dead dispatcher: ten seconds, which need not be waited for."""
    await fetch(url, "UPDATE webhook_queues SET lease_until = lease_until - interval '15 s'")


async def check(url: str, receiver: Receiver, *, died_s: float) -> None:
    """Wait for the rest. Every change in the log has arrived, in order. Repeats are of what was in flight at the death, or
    answered too shortly before it to be written."""

    async def rests() -> bool:
        return bool((await fetch(url, AT_REST))[0][0])

    await until(rests, within_s=60)
    logged = await fetch(url, "SELECT payment_id::text, version FROM webhook_events ORDER BY position")
    expected: dict[str, list[int]] = {}
    for payment_id, version in logged:
        expected.setdefault(payment_id, []).append(version)
    assert len(expected) == PAYMENTS
    assert receiver.versions() == expected
    assert not receiver.overlaps
    first: dict[str, Received] = {}
    for one in receiver.received:
        before = first.setdefault(one.id, one)
        if before is not one:
            assert (before.body, before.type) == (one.body, one.type)
            assert died_s - WRITTEN_WITHIN_S < before.at_s < died_s < one.at_s


@pytest.mark.parametrize("name", sorted(OF_DISPATCHERS))
async def test_killed_at_a_crash_point_every_event_arrives(
    system: System, receiver: Receiver, database_url: str, name: str
) -> None:
    await subscribe(database_url, receiver)
    await system.start("w1", provider=("--unavailable", "30", "--decline", "20"))
    system.launch_dispatcher(OKANE_FAILPOINT=f"{name}:kill:5" if "results" not in name else f"{name}:kill:2")
    ids = await system.pay(PAYMENTS, pause_s=0.01)
    await system.killed("d1")
    died_s = time.monotonic()
    await let_the_lease_run_out(database_url)
    await system.start_dispatcher("d2")
    await system.settled(ids)
    await check(database_url, receiver, died_s=died_s)


async def test_a_dispatcher_that_is_stopped_beyond_its_lease_begins_nothing(
    system: System, receiver: Receiver, database_url: str
) -> None:
    await subscribe(database_url, receiver)
    await system.start("w1", provider=("--unavailable", "0"))
    system.launch_dispatcher(OKANE_FAILPOINT="webhooks.before_request:stop:5")
    ids = await system.pay(PAYMENTS, pause_s=0.01)
    await stopped(system.pid("d1"))
    stopped_s = time.monotonic()
    await system.settled(ids)
    await system.start_dispatcher("d2")
    await asyncio.sleep(LEASE_S + 0.5 - (time.monotonic() - stopped_s))  # by both clocks: Postgres', and its own
    await check(database_url, receiver, died_s=stopped_s)
    before = len(receiver.received)
    system.signal("d1", signal.SIGCONT)
    await until(lambda: lost_queue(system))
    assert len(receiver.received) == before
    assert await fetch(database_url, "SELECT split_part(owner, ' ', 1) FROM webhook_queues") == [("d2",)]


async def stopped(pid: int) -> None:
    async def look() -> bool:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)

    await until(look)


async def lost_queue(system: System) -> bool:
    return any(line["event"] == "webhook_queue_lost" for line in system.log("d1"))


async def test_deaths_and_a_receiver_that_is_away_lose_no_event(
    system: System, receiver: Receiver, database_url: str
) -> None:
    await subscribe(database_url, receiver)
    await system.start(
        "w1",
        provider=(
            "--unavailable",
            "20",
        ),
    )
    paying = asyncio.ensure_future(system.pay(PAYMENTS, pause_s=0.05))
    for number in range(3):
        receiver.answers = 503 if number == 1 else 200
        name = f"d{number}"
        await system.start_dispatcher(name)
        await receiver.until(len(receiver.received) + 1)
        await system.kill(name)
        await let_the_lease_run_out(database_url)
    receiver.answers = 200
    await system.settled(await paying)
    await fetch(
        database_url, "UPDATE webhook_deliveries SET next_at = now() WHERE next_at IS NOT NULL"
    )  # seconds later
    await system.start_dispatcher("last")
    await check_all_arrive(database_url, receiver)


async def check_all_arrive(url: str, receiver: Receiver) -> None:
    async def rests() -> bool:
        return bool((await fetch(url, AT_REST))[0][0])

    await until(rests, within_s=60)
    logged = {(row[0], row[1]) for row in await fetch(url, "SELECT payment_id::text, version FROM webhook_events")}
    assert {(one.payment, one.version) for one in receiver.received} == logged
    assert not receiver.overlaps
