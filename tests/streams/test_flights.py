from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from datetime import timedelta

import pytest

from streams import Done, Message, Metrics, SystemClock
from streams.flights import Flight, Flights


@pytest.fixture
def flights() -> Flights:
    return with_capacity(100)


def with_capacity(capacity: int) -> Flights:
    return Flights(capacity=capacity, clock=SystemClock(), metrics=Metrics())


def messages(count: int) -> list[Message]:
    return [Message(f"{number}-0", "default", b"x") for number in range(count)]


def ack(flights: Flights, given: Sequence[Flight]) -> None:
    """Set outcomes and land, as a consumer and its acker do."""
    for flight in given:
        flight.outcome = Done()
    flights.land(given)


async def landed(flights: Flights, launched: Sequence[Flight]) -> None:
    async with asyncio.timeout(30):
        await flights.wait_for(launched)


async def test_handlers_that_never_wait_share_one_task(flights: Flights) -> None:
    tasks = set()

    async def work(given: Sequence[Flight]) -> None:
        tasks.add(asyncio.current_task())
        ack(flights, given)

    await landed(flights, flights.launch(messages(100), work))
    assert len(tasks) == 1


async def test_handlers_that_wait_all_run_at_once(flights: Flights) -> None:
    running, all_running = 0, asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running
        running += 1
        if running == 100:
            all_running.set()
        await all_running.wait()
        ack(flights, given)

    await landed(flights, flights.launch(messages(100), work))


async def test_handlers_that_had_to_wait_are_begun_together_the_next_time(flights: Flights) -> None:
    begun, go_on = 0, asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        ack(flights, given)

    for turns in (20, 2):  # one turn to start the flights, one for what they do
        begun = 0
        go_on.clear()
        launched = flights.launch(messages(40), work)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert begun == 40
        go_on.set()
        await landed(flights, launched)


async def test_no_more_work_is_done_at_once_than_there_are_slots() -> None:
    flights = with_capacity(7)
    running = most = 0

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        ack(flights, given)

    await landed(flights, flights.launch(messages(50), work))
    assert most == 7


async def test_what_a_handler_leaves_bound_in_its_context_does_not_reach_the_next(flights: Flights) -> None:
    bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="nothing")
    seen = []

    async def work(given: Sequence[Flight]) -> None:
        seen.append(bound.get())
        bound.set(given[0].message.id)
        ack(flights, given)

    await landed(flights, flights.launch(messages(20), work))
    assert seen == ["nothing"] * 20


async def test_a_handler_that_cancels_its_own_task_does_not_stall_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flights = with_capacity(1)

    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id in ("0-0", "3-0"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        ack(flights, given)

    launched = flights.launch(messages(6), work)
    await landed(flights, launched)
    assert [flight.acked for flight in launched] == [False, True, True, False, True, True]
    assert caplog.text.count("its handler was cancelled") == 2


async def test_work_that_raises_lands_its_message_alone(flights: Flights, caplog: pytest.LogCaptureFixture) -> None:
    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id == "1-0":
            raise ValueError("odd")
        ack(flights, given)

    launched = flights.launch(messages(3), work)
    await landed(flights, launched)
    assert [flight.acked for flight in launched] == [True, False, True]
    assert "message 1-0 of lane default stays pending: odd" in caplog.text


async def test_a_message_in_hand_is_not_launched_again(flights: Flights) -> None:
    release = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        await release.wait()
        ack(flights, given)

    launched = flights.launch(messages(3), work)
    assert flights.launch(messages(3), work) == []
    await asyncio.sleep(0)
    assert flights.launch(messages(3), work) == []
    assert (len(flights), flights.count_by_lane["default"]) == (3, 3)
    release.set()
    await landed(flights, launched)
    assert (len(flights), flights.count_by_lane["default"]) == (0, 0)


async def test_what_is_abandoned_lands_whether_it_was_begun_or_not() -> None:
    flights = with_capacity(1)
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        entered.set()
        await asyncio.Event().wait()

    launched = flights.launch(messages(3), work)
    await entered.wait()
    await flights.abandon()
    assert len(flights) == 0
    assert not any(flight.acked for flight in launched)


async def test_a_handler_that_answers_when_it_is_cancelled_is_settled(flights: Flights) -> None:
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ack(flights, given)

    [flight] = flights.launch(messages(1), work)
    await entered.wait()
    await flights.abandon()
    assert flight.acked


async def test_abandoning_leaves_what_is_being_acked_to_the_acking(flights: Flights) -> None:
    async def work(given: Sequence[Flight]) -> None:
        given[0].outcome = Done()

    [flight] = flights.launch(messages(1), work)
    while flight.outcome is None:
        await asyncio.sleep(0)
    await flights.abandon()
    assert not flight.landed
    flights.land([flight])
    assert flight.landed


async def test_draining_returns_at_its_limit_with_the_messages_still_in_hand(flights: Flights) -> None:
    async def work(given: Sequence[Flight]) -> None:
        await asyncio.Event().wait()

    flights.launch(messages(2), work)
    await flights.wait_for_all(timedelta(milliseconds=10))
    assert len(flights) == 2
    await flights.abandon()
