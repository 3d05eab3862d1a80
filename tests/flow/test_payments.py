"""Whole payments through real processes: from the POST to the provider's journal."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from tests.flow.system import System

ALWAYS = ("--unavailable", "0", "--decline", "0")


async def test_payments_of_every_lane_settle(system: System) -> None:
    await system.start("w1", "w2", provider=ALWAYS)
    ids = await system.pay(60)
    assert await system.settled(ids) == Counter(success=60)
    await system.check(ids)
    settled = sum(
        [await system.metric(name, 'okane_payments_settled_total{status="success"}') for name in ("w1", "w2")]
    )
    assert settled == 60
    assert await system.metric("api", 'okane_payments_accepted_total{result="created"}') == 60
    for lane in ("critical", "default", "low"):
        assert await system.metric("w1", f'okane_sweep_repairs_total{{lane="{lane}"}}') == 0


async def test_the_ancestors_provider_mix_ends_in_success_or_decline(system: System) -> None:
    await system.start("w1", "w2", provider=("--seed", "1"))
    ids = await system.pay(150)
    counts = await system.settled(ids)
    assert set(counts) == {"success", "failed_final"}
    assert counts["success"] > counts["failed_final"] > 0
    await system.check(ids)


async def test_open_outcomes_are_looked_up_and_charged_once(system: System) -> None:
    """Every way in which a charge may have happened without our hearing of it."""
    mix = ("timeout-after-charge", "reset-after-charge", "error-500-after-charge", "garbage")
    others = ("reset-before-charge", "error-500")
    weights = [part for name in (*mix, *others) for part in (f"--{name}", "10")]
    await system.start("w1", "w2", provider=("--success", "40", *ALWAYS, *weights, "--seed", "3"))
    ids = await system.pay(90)
    assert await system.settled(ids) == Counter(success=90)
    await system.check(ids)
    looked_up = sum(
        [
            await system.metric(
                name, 'okane_provider_attempts_total{call="look_up",outcome="approved",provider="http"}'
            )
            for name in ("w1", "w2")
        ]
    )
    assert looked_up > 0


async def test_a_hundred_parallel_equal_posts_make_one_charge(system: System) -> None:
    await system.start("w1", "w2", provider=ALWAYS)
    answers = await asyncio.gather(*(system.post("same") for _ in range(100)))
    assert Counter(status for status, _ in answers) == Counter({200: 99, 202: 1})
    ids = {body["payment"]["id"] for _, body in answers}
    assert len(ids) == 1
    assert await system.settled(ids) == Counter(success=1)
    await system.check(ids)


async def test_a_provider_that_stays_away_spends_the_retries_and_leaves_a_dead_letter(system: System) -> None:
    system.env |= {"MAX_RETRIES": "2"}
    await system.start("w1", provider=("--success", "0", "--decline", "0", "--unavailable", "1"))
    ids = await system.pay(3)
    assert await system.settled(ids) == Counter(failed_final=3)
    payment = await system.payment(ids[0])
    assert (payment["attempts"], payment["last_error"]) == (3, "HTTP 503")
    await system.check(ids)
    dead = f'okane_dead_letter_messages{{stream="{system.stream}"}}'
    assert await system.metric("w1", dead, "/metrics/system") == 3
    assert {event["event"] for event in system.log("w1")} >= {"payment_spent"}


async def test_a_worker_that_is_told_to_stop_finishes_what_it_holds(system: System) -> None:
    await system.start("w1", provider=(*ALWAYS, "--latency-ms", "300"))
    ids = await system.pay(40)
    assert await system.stop("w1") == 0
    statuses = Counter([(await system.payment(payment_id))["status"] for payment_id in ids])
    assert set(statuses) <= {"success", "pending"}
    assert statuses["success"] == sum((await system.captures()).values())
    await system.start_worker("w2")
    assert await system.settled(ids) == Counter(success=40)
    await system.check(ids)


async def test_an_api_that_is_told_to_stop_answers_what_it_has_taken(system: System) -> None:
    await system.start("w1", provider=ALWAYS)
    posts = [asyncio.ensure_future(system.post(f"k-{number}")) for number in range(50)]
    await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
    assert await system.stop("api") == 0
    answers = await asyncio.gather(*posts)
    assert {status for status, _ in answers} <= {202, 0}
    await system.start_api()
    ids = [body["payment"]["id"] for status, body in answers if status]
    assert await system.settled(ids) == Counter(success=len(ids))


async def test_a_stopped_provider_is_waited_for(system: System) -> None:
    """Connections are taken and nothing is answered: open outcomes, looked up when it is back."""
    await system.start("w1", provider=ALWAYS)
    system.signal("provider", signal.SIGSTOP)
    ids = await system.pay(10)
    await asyncio.sleep(1.5)  # longer than the provider's deadline
    system.signal("provider", signal.SIGCONT)
    assert await system.settled(ids) == Counter(success=10)
    await system.check(ids)
