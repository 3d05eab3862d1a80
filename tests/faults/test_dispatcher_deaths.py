"""Dispatchers that die at every crash point: each event still arrives, in order, and repeats are bounded."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from okane.store.webhook_endpoints import Endpoint, WebhookEndpointStore
from okane.webhooks import keys
from okane.webhooks.payload import event_id
from tests.faults.test_failpoints import OF_DISPATCHERS
from tests.flow.system import MASTER, System, running
from tests.okane.dispatching import until
from tests.okane.webhook_receiver import Received, Receiver, receiving
from tests.okane.webhook_rows import created, fetch

PAYMENTS = 40
IN_FLIGHT = 4
LEASE_S = 10.0
ROUNDS = 3
OF_BATCHES = {"webhooks.before_results", "webhooks.after_results"}  # the other crash points are of each request

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


async def has_results(url: str) -> bool:
    return bool((await fetch(url, "SELECT EXISTS (SELECT FROM webhook_deliveries)"))[0][0])


async def until_at_rest(url: str) -> None:
    async def rests() -> bool:
        return bool((await fetch(url, AT_REST))[0][0])

    await until(rests)


@dataclass(frozen=True)
class Death:
    """The time when a dispatcher had ended or stopped, and the ids of the events whose results were committed then."""

    at_s: float
    written: frozenset[str]


async def death(url: str) -> Death:
    at_s = time.monotonic()
    rows = await fetch(
        url,
        "SELECT payment_id, version FROM webhook_deliveries JOIN webhook_events USING (position) WHERE state = 'delivered'",
    )
    return Death(at_s, frozenset(event_id(payment_id, version) for payment_id, version in rows))


async def check(url: str, receiver: Receiver, died: Death, *, next_s: float) -> None:
    """Wait for the rest. Every change in the log has arrived, in order. Repeats are of what was in flight at the death, or
    answered before it and not written: all that had come by `next_s`, when the next dispatcher was ready."""
    await until_at_rest(url)
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
            assert one.id not in died.written
            assert before.at_s < next_s
            assert died.at_s < one.at_s


@pytest.mark.parametrize("name", sorted(OF_DISPATCHERS))
async def test_killed_at_a_crash_point_every_event_arrives(
    system: System, receiver: Receiver, database_url: str, name: str
) -> None:
    await subscribe(database_url, receiver)
    await system.start("w1", provider=("--unavailable", "30", "--decline", "20"))
    system.launch_dispatcher(OKANE_FAILPOINT=f"{name}:kill:2" if name in OF_BATCHES else f"{name}:kill:5")
    ids = await system.pay(PAYMENTS // 2, pause_s=0.01)
    if name in OF_BATCHES:
        await until(lambda: has_results(database_url))  # those of the other half come in another batch
    ids += await system.pay(PAYMENTS // 2, prefix="later", pause_s=0.01)
    await system.killed("d1")
    died = await death(database_url)
    await let_the_lease_run_out(database_url)
    await system.start_dispatcher("d2")
    next_s = time.monotonic()
    await system.settled(ids, within_s=60)
    await check(database_url, receiver, died, next_s=next_s)


async def test_a_dispatcher_that_is_stopped_beyond_its_lease_begins_nothing(
    system: System, receiver: Receiver, database_url: str
) -> None:
    await subscribe(database_url, receiver)
    await system.start("w1", provider=("--unavailable", "0"))
    system.launch_dispatcher(OKANE_FAILPOINT="webhooks.before_request:stop:5")
    ids = await system.pay(PAYMENTS, pause_s=0.01)
    await stopped(system.pid("d1"))
    died = await death(database_url)
    await system.settled(ids, within_s=60)
    await system.start_dispatcher("d2")
    next_s = time.monotonic()
    await asyncio.sleep(LEASE_S + 0.5 - (time.monotonic() - died.at_s))  # by both clocks: Postgres', and its own
    await check(database_url, receiver, died, next_s=next_s)
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
    await system.start("w1", provider=("--unavailable", "20"))
    ids: list[str] = []
    for number in range(ROUNDS):
        receiver.answers = 503 if number == 1 else 200
        before, name = len(receiver.received), f"d{number}"
        # Each dispatcher has payments of its own to report: the one before it may have sent all that there was.
        paying = asyncio.ensure_future(system.pay(PAYMENTS // ROUNDS, prefix=name, pause_s=0.05))
        await system.start_dispatcher(name)
        await receiver.until(before + 1)
        await system.kill(name)
        await let_the_lease_run_out(database_url)
        ids += await paying
    receiver.answers = 200
    await system.settled(ids, within_s=60)
    # Retries that are seconds away.
    await fetch(database_url, "UPDATE webhook_deliveries SET next_at = now() WHERE next_at IS NOT NULL")
    await system.start_dispatcher("last")
    await until_at_rest(database_url)
    rows = await fetch(database_url, "SELECT payment_id::text, version FROM webhook_events")
    logged = {(payment_id, version) for payment_id, version in rows}
    assert {(one.payment, one.version) for one in receiver.received} == logged
    assert not receiver.overlaps
