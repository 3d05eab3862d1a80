"""Every crash point of docs/guarantees.md, in real processes: kill -9 right there, start again, and look at the books."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from okane.app.failpoints import all_failpoints
from okane.client import NewRefund
from okane.local.redis_server import RedisServer
from streams import connect
from tests.flow.stripe_account import dispute_of, send, stripe_account, submitted
from tests.flow.system import System
from tests.okane.stored_payments import execute

GUARANTEES = Path(__file__).resolve().parents[2] / "docs" / "guarantees.md"


@dataclass(frozen=True)
class Scenario:
    """The way to reach a failpoint: the process, the provider, and the steps before."""

    process: str = "w1"
    provider: Sequence[str] = ("--unavailable", "0", "--decline", "0")
    lost_wake_ups: bool = False  # the API sends none
    dead_worker: bool = False  # another worker dies before, with payments in hand
    locked_row: bool = False  # another session holds a row, so that batches are split
    max_retries: int = 2
    subscribed: bool = False  # the account has an endpoint: changes are events


UNAVAILABLE = ("--unavailable", "60", "--decline", "0")
SCENARIOS = {
    "accept.before_insert": Scenario("api"),
    "accept.after_commit": Scenario("api"),
    "accept.before_wake": Scenario("api"),
    "publish.after_add": Scenario("api"),
    "accept.before_answer": Scenario("api"),
    "charge.before_claim": Scenario(),
    "claim.after_commit": Scenario(),
    "charge.before_call": Scenario(),
    "provider.before_answer": Scenario(),
    "charge.before_settle": Scenario(),
    "settle.after_commit": Scenario(),
    "store.between_singles": Scenario(locked_row=True),
    "settle.before_ack": Scenario(),
    "settle.after_ack": Scenario(),
    "retry.before_delay": Scenario(provider=UNAVAILABLE),
    "promote.before": Scenario(provider=UNAVAILABLE),
    "promote.after": Scenario(provider=UNAVAILABLE),
    # Given up at the first refusal: retries would wait for the circuit, which these refusals open.
    "bury.before_dead_letter": Scenario(provider=("--unavailable", "100", "--decline", "0"), max_retries=0),
    # A look-up of what is closed: the first call was reset, the next one declined. Were it refused, the circuit would open.
    "late.before_record": Scenario(provider=("--success", "0", "--reset-before-charge", "40", "--decline", "60")),
    "sweep.after_mark": Scenario(lost_wake_ups=True),
    "sweep.after_take": Scenario(lost_wake_ups=True),
    "reclaim.after_claim": Scenario(provider=("--latency-ms", "300"), dead_worker=True),
    "webhooks.after_sequence": Scenario(subscribed=True),
}


# Of captures, voids and refunds: what the provider does with them.
OF_OPERATIONS: dict[str, dict[str, object]] = {
    "operate.before_claim": {},
    "operate.after_claim": {},
    "operate.before_call": {},
    "operate.before_settle": {},
    "operate.after_settle": {},
    "operate.before_delay": {"success": 40, "unavailable": 60},
    "operate.before_dead_letter": {"success": 0, "unavailable": 100},
    # The first call was reset, the next one declined.
    "late.before_record_operation": {"success": 0, "reset_before_charge": 40, "decline": 60},
}
QUIET = {"success": 100, "unavailable": 0, "reset_before_charge": 0, "decline": 0}
OF_ENDING_AUTHORIZATIONS = {"void.before_wake"}
OF_REQUESTS = {"operations.after_commit", "operations.before_wake"}
OF_WEBHOOKS = {"notice.after_commit", "dispute.before_write"}  # below
OF_DISPATCHERS = {
    "webhooks.before_request",
    "webhooks.after_answer",
    "webhooks.before_results",
    "webhooks.after_results",
}


def test_every_failpoint_has_a_scenario_here_and_a_row_in_the_guarantees() -> None:
    of_operations = set(OF_OPERATIONS) | OF_ENDING_AUTHORIZATIONS | OF_REQUESTS
    assert set(SCENARIOS) | of_operations | OF_WEBHOOKS | OF_DISPATCHERS == set(all_failpoints())
    assert set(re.findall(r"`(\w+\.\w+)`", GUARANTEES.read_text())) >= set(all_failpoints())


@pytest.mark.parametrize("name", SCENARIOS)
async def test_killed_at_a_crash_point_nothing_is_lost_or_doubled(system: System, database_url: str, name: str) -> None:
    scenario = SCENARIOS[name]
    system.env |= {"MAX_RETRIES": str(scenario.max_retries), "OKANE_LATE_LOOK_UPS": "500ms,1s"}
    armed = {"OKANE_FAILPOINT": f"{name}:kill"}
    await system.start_provider(*scenario.provider)
    if scenario.subscribed:
        await execute(database_url, "INSERT INTO webhook_accounts VALUES ('default')", [])
    if scenario.process == "api":
        await asyncio.gather(system.start_api(**armed), system.start_worker("w1"))
    elif scenario.lost_wake_ups:
        await system.start_api(OKANE_FAILPOINT="accept.before_wake:raise:*")
    else:
        await system.start_api()
    paying = asyncio.ensure_future(system.pay(30, pause_s=0.005))
    if scenario.locked_row:
        await paying
        await reach_with_a_locked_row(system, database_url, armed)
    elif scenario.process == "w1":
        if scenario.dead_worker:
            await die_with_payments_in_hand(system)
        system.launch_worker("w1", **armed)
    await system.killed(scenario.process)
    await (system.start_api() if scenario.process == "api" else system.start_worker("w1"))
    ids = await paying
    counts = await system.settled(ids, within_s=60)
    assert sum(counts.values()) == 30
    assert counts["needs_review"] == 0
    await system.check(ids)
    if scenario.subscribed:
        await every_change_is_in_the_log(database_url)


async def test_killed_at_the_crash_points_of_operations_nothing_moves_twice(system: System) -> None:
    """One death after the other: each worker takes over what the one before has left, and dies elsewhere."""
    system.env |= {"MAX_RETRIES": "8", "OKANE_MAX_DELIVERIES": "20", "OKANE_LATE_LOOK_UPS": "500ms,1s"}
    await system.start("w1", provider=("--unavailable", "0", "--decline", "0"))
    held = await asyncio.gather(*(system.hold(f"held-{number}") for number in range(3)))
    charged = await system.pay(3)
    assert await system.settled(charged) == {"success": 3}
    await system.kill("w1")
    for payment_id in held:
        await system.ask("POST", f"/v1/payments/{payment_id}/capture", {"idempotency_key": payment_id})
    asked = 0
    for name, behaviour in OF_OPERATIONS.items():
        await system.control_provider(**QUIET | behaviour)
        # Given up at the first refusal: retries would wait for the circuit, which these refusals open.
        max_retries = "0" if name == "operate.before_dead_letter" else "8"
        system.launch_worker("w1", OKANE_FAILPOINT=f"{name}:kill", MAX_RETRIES=max_retries)
        asked += await refund_until_dead(system, charged, name)
    await system.control_provider(**QUIET)
    await system.start_worker("w1")
    counts = await system.moved([*held, *charged], within_s=60)
    executed = await system.executed()
    assert sum(counts.values()) == len(held) + asked
    assert {status for _, status in counts} <= {"success", "failed_final"}
    for kind in ("capture", "refund"):
        done = {payment_id: count for (payment_id, of_kind), count in executed.items() if of_kind == kind}
        assert sum(done.values()) == counts[kind, "success"]
        assert kind == "refund" or set(done.values()) <= {1}
    await system.at_rest()


async def refund_until_dead(system: System, payment_ids: Sequence[str], name: str) -> int:
    """Request refunds until the worker has died: whether one reaches the failpoint is up to the provider's dice.

    Return how many.
    """
    dying = asyncio.ensure_future(system.killed("w1"))
    asked = 0
    while not dying.done():
        payment_id = payment_ids[asked % len(payment_ids)]
        await system.refund(payment_id, 5, f"{name}-{asked}")
        asked += 1
        await asyncio.wait([dying], timeout=0 if asked % len(payment_ids) else 0.5)
    await dying
    return asked


async def test_killed_before_the_wake_up_of_its_own_void_an_authorization_is_voided(system: System) -> None:
    await system.start("w1", provider=("--unavailable", "0", "--decline", "0", "--authorization-s", "6"))
    payment_id = await system.hold("held")
    await system.stop("w1")
    system.launch_worker("w1", OKANE_FAILPOINT="void.before_wake:kill")
    await system.killed("w1")
    await system.start_worker("w1")
    assert await system.settled([payment_id], within_s=60) == {"canceled": 1}
    assert await system.executed() == {(payment_id, "void"): 1}


async def every_change_is_in_the_log(url: str) -> None:
    """Wait until the outbox is empty; then compare the log with the history: each change once, positions dense."""
    changes = "SELECT payment_id, version FROM payment_events WHERE event <> 'claimed' ORDER BY 1, 2"
    log = "SELECT payment_id, version FROM webhook_events ORDER BY 1, 2"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(30):
            while await (await connection.execute("SELECT FROM webhook_outbox LIMIT 1")).fetchall():
                await asyncio.sleep(0.05)
        logged = await (await connection.execute(log)).fetchall()
        assert logged == await (await connection.execute(changes)).fetchall()
        ends = await (await connection.execute("SELECT min(position), max(position) FROM webhook_events")).fetchone()
        assert ends == (1, len(logged))


async def reach_with_a_locked_row(system: System, database_url: str, armed: dict[str, str]) -> None:
    """A worker claims 30 payments at once, of which another session holds one."""
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT 1 FROM payments ORDER BY id LIMIT 1 FOR UPDATE")
        system.launch_worker("w1", **armed)
        await system.killed("w1")


async def die_with_payments_in_hand(system: System) -> None:
    await system.start_worker("w0")
    async with asyncio.timeout(30):
        while await system.metric("w0", "okane_payments_in_flight") == 0:
            await asyncio.sleep(0.01)
    await system.kill("w0")


@pytest.mark.parametrize("name", sorted(OF_REQUESTS))
async def test_an_api_that_dies_with_a_refund_requested_has_it_executed_once(system: System, name: str) -> None:
    await system.start_provider(*SCENARIOS["charge.before_call"].provider)
    await asyncio.gather(system.start_api(OKANE_FAILPOINT=f"{name}:kill"), system.start_worker("w1"))
    [payment_id] = await system.pay(1)
    assert await system.settled([payment_id]) == {"success": 1}
    new = NewRefund(payment_id=payment_id, idempotency_key="r-1", amount=40)
    asking = asyncio.ensure_future(system.client.refunds.create(new))
    await system.killed("api")
    await system.start_api()
    receipt = await asking  # the client repeats it
    assert not receipt.created
    async with asyncio.timeout(30):
        while (await system.payment(payment_id)).get("amount_refunded") != 40:
            await asyncio.sleep(0.05)
    assert [one.id async for one in system.client.operations(payment_id)] == [receipt.operation.id]


async def test_an_api_that_dies_with_a_notice_stored_loses_nothing(system: System, tmp_path: Path) -> None:
    async with stripe_account(system, tmp_path) as account:
        await asyncio.gather(system.start_api(OKANE_FAILPOINT="notice.after_commit:kill"), system.start_worker("w1"))
        payment_id = await submitted(system)
        assert await send(system.url, account.decide(payment_id)) == 0
        await system.killed("api")
        await system.start_api()
        assert await system.settled([payment_id], within_s=30) == {
            "success": 1
        }  # by the sweep: the poll is a minute away
        assert await send(system.url, account.intent_of(payment_id)) == 200
        assert account.calls == {"POST": 1, "GET": 1}


async def test_a_worker_that_dies_with_a_dispute_fetched_loses_nothing(
    system: System, database_url: str, tmp_path: Path
) -> None:
    async with stripe_account(system, tmp_path) as account:
        await asyncio.gather(system.start_api(), system.start_worker("w1"))
        payment_id = await submitted(system)
        assert await send(system.url, account.decide(payment_id)) == 200
        assert await system.settled([payment_id], within_s=30) == {"success": 1}
        await system.kill("w1")
        system.launch_worker("w1", OKANE_FAILPOINT="dispute.before_write:kill")
        assert await send(system.url, dispute_of(account.intent_of(payment_id)), "evt_2") == 200
        await system.killed("w1")
        await execute(database_url, "UPDATE dispute_notices SET due_at = now()", [])  # a minute later
        await system.start_worker("w1")
        async with asyncio.timeout(30):
            while "dispute_opened" not in (found := [one.event async for one in system.client.events(payment_id)]):
                await asyncio.sleep(0.02)
        assert found.count("dispute_opened") == 1
        assert account.calls["dispute"] == 2


async def test_a_payment_that_kills_its_workers_goes_to_a_human(system: System) -> None:
    system.env["OKANE_MAX_DELIVERIES"] = "3"
    system.env["VISIBILITY_TIMEOUT"] = "1500ms"
    await system.start(provider=("--unavailable", "0"))
    [poison] = await system.pay(1)
    for _ in range(3):
        system.launch_worker("w1", OKANE_FAILPOINT="charge.before_claim:kill:*")
        await system.killed("w1")
    system.launch_worker("w1", OKANE_FAILPOINT="charge.before_claim:kill:*")  # it is not even tried
    assert await system.settled([poison]) == {"needs_review": 1}
    assert "poison" in (await system.payment(poison))["last_error"]
    assert await system.captures() == {}


async def test_a_payment_whose_look_ups_kill_goes_to_a_human(system_own_redis: tuple[System, RedisServer]) -> None:
    """With its entry lost each time, the deliveries are not counted: the crashes in Postgres are."""
    system, redis_server = system_own_redis
    system.env |= {"MAX_RETRIES": "0", "OKANE_MAX_DELIVERIES": "2", "VISIBILITY_TIMEOUT": "1500ms"}
    await system.start(provider=("--unavailable", "0"))
    [poison] = await system.pay(1)
    for _ in range(3):
        system.launch_worker("w1", OKANE_FAILPOINT="claim.after_commit:kill:*")
        await system.killed("w1")
        async with connect(redis_server.url) as redis:
            await redis.flushall()
    await system.start_worker("w1")
    assert await system.settled([poison]) == {"needs_review": 1}
    assert "again and again" in (await system.payment(poison))["last_error"]
    assert await system.captures() == {}
