"""Captures, voids and refunds through real processes, some of which are killed, and a provider whose answers get lost."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from okane.local.redis_server import RedisServer
from tests.flow.system import System

QUIET = ("--unavailable", "0", "--decline", "0")


async def test_operations_survive_killed_workers_and_lost_answers(system: System) -> None:
    """Nothing is executed twice, and nothing is forgotten."""
    await system.start("w1", provider=QUIET)
    held = await asyncio.gather(*(system.hold(f"held-{number}") for number in range(6)))
    charged = await system.pay(6)
    assert await system.settled(charged) == {"success": 6}
    await system.control_provider(
        success=40, unavailable=15, reset_before_charge=15, reset_after_charge=15, error_500_after_charge=15
    )
    system.launch_worker("w2")
    voided = held[:3]
    for payment_id in voided:
        assert (await system.ask("POST", f"/v1/payments/{payment_id}/cancel"))[0] == 202
    for payment_id in held[3:]:
        path = f"/v1/payments/{payment_id}/capture"
        assert (await system.ask("POST", path, {"idempotency_key": payment_id}))[0] == 202
    refunds = [system.refund(one, 100, f"{one}-{number}") for one in charged for number in range(2)]
    refunding = asyncio.gather(*refunds)
    for name in ("w1", "w2"):
        async with asyncio.timeout(30):
            while not await system.executed():  # in the middle of it
                await asyncio.sleep(0.02)
        await system.kill(name)
        system.launch_worker(name)
    await refunding
    await system.control_provider(
        success=100, unavailable=0, reset_before_charge=0, reset_after_charge=0, error_500_after_charge=0
    )
    counts = await system.moved([*held, *charged], within_s=60)
    executed = await system.executed()
    assert sum(counts.values()) == 18
    assert {status for _, status in counts} <= {"success", "failed_final"}  # spent retries: nothing moved
    for kind in ("capture", "void", "refund"):
        assert sum(count for (_, done), count in executed.items() if done == kind) == counts[kind, "success"]
    assert all(count == 1 for (_, kind), count in executed.items() if kind != "refund")
    await system.at_rest()


def is_stopped(system: System, name: str) -> bool:
    """Return True after a SIGSTOP."""
    state = Path(f"/proc/{system.pid(name)}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


async def logged(system: System, name: str, event: str) -> None:
    """Wait until a process has logged this."""
    async with asyncio.timeout(30):
        while not any(line["event"] == event for line in system.log(name)):
            await asyncio.sleep(0.05)


async def test_workers_that_are_stopped_beyond_their_lease_refund_nothing_twice(system: System) -> None:
    """One before its call, one during it, one with the answer in its hands. Another worker takes over meanwhile."""
    places = {
        "before": ("operate.before_call", "lease_ran_out"),
        "during": ("provider.before_answer", "late_result"),
        "after": ("operate.before_settle", "late_result"),
    }
    await system.start("w1", provider=QUIET)
    [charged] = await system.pay(1)
    assert await system.settled([charged]) == {"success": 1}
    assert await system.stop("w1") == 0
    for name, (place, _) in places.items():
        system.launch_worker(name, OKANE_FAILPOINT=f"{place}:stop:1")
    async with asyncio.timeout(60):
        for number in range(len(places)):
            await system.refund(charged, 100, f"refund-{number}")
            while sum(is_stopped(system, name) for name in places) <= number:
                await asyncio.sleep(0.02)
    await system.start_worker("w2")
    assert await system.moved([charged], within_s=60) == {("refund", "success"): 3}
    for name, (_, event) in places.items():
        system.signal(name, signal.SIGCONT)
        await logged(system, name, event)
    assert await system.executed() == {(charged, "refund"): 3}
    assert (await system.payment(charged))["amount_refunded"] == 300
    _, answer = await system.ask("GET", f"/v1/payments/{charged}/events")
    assert [one["event"] for one in answer["events"]].count("refunded") == 3
    await system.at_rest()


async def test_an_operation_in_hand_ends_before_its_worker_does(system: System) -> None:
    await system.start("w1", provider=(*QUIET, "--latency-ms", "400"))
    [charged] = await system.pay(1)
    assert await system.settled([charged]) == {"success": 1}
    await system.refund(charged, 100, "refund")
    async with asyncio.timeout(30):
        while await system.metric("w1", "okane_operations_in_flight") == 0:
            await asyncio.sleep(0.01)
    assert await system.stop("w1") == 0
    [refund] = await system.operations(charged)
    assert refund["status"] == "success"
    assert await system.executed() == {(charged, "refund"): 1}


async def test_operations_run_while_redis_is_away(system_own_redis: tuple[System, RedisServer]) -> None:
    system, redis_server = system_own_redis
    await system.start("w1", provider=QUIET)
    held, [charged] = await system.hold("held"), await system.pay(1)
    assert await system.settled([charged]) == {"success": 1}
    redis_server.kill()
    await system.refund(charged, 100, "refund")
    await system.ask("POST", f"/v1/payments/{held}/cancel")
    assert await system.moved([charged, held]) == {("refund", "success"): 1, ("void", "success"): 1}
    assert await system.executed() == {(charged, "refund"): 1, (held, "void"): 1}
    redis_server.start()
    await system.at_rest()
