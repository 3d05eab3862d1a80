"""The harness of the peers counts every execution."""

from __future__ import annotations

import asyncio

from bench.peers.harness import CALLERS, Tally, by_callers


async def test_callers_send_every_job_once() -> None:
    sent: list[int] = []
    in_flight = 0
    most = 0

    async def send(number: int) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        sent.append(number)

    await by_callers(1_000, send)
    assert sorted(sent) == list(range(1_000))
    assert most == CALLERS


async def test_a_tally_is_done_with_the_last_job_and_counts_on() -> None:
    tally = Tally(100)
    for _ in range(99):
        tally.executed()
    assert not tally.done.is_set()
    tally.executed()
    assert tally.done.is_set()
    rate = tally.per_s
    assert rate > 0
    tally.executed()
    assert (tally.count, tally.per_s) == (101, rate)


async def test_jobs_that_come_in_one_batch_have_a_rate_too() -> None:
    tally = Tally(100)
    tally.executed(100)
    assert tally.done.is_set()
    assert tally.per_s > 0
