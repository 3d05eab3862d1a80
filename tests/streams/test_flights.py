from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from datetime import timedelta

import pytest

from streams import Done, Message, Metrics, SystemClock
from streams.flights import Flight, Flights


@pytest.fixture
def hands() -> Flights:
    return with_capacity(100)


def with_capacity(capacity: int) -> Flights:
    return Flights(capacity=capacity, clock=SystemClock(), metrics=Metrics())


def messages(count: int) -> list[Message]:
    return [Message(f"{number}-0", "default", b"x") for number in range(count)]


def ack(hands: Flights, given: Sequence[Flight]) -> None:
    """What a consumer does when the outcomes are known, and the server when it has heard them."""
    for flight in given:
        flight.outcome = Done()
    hands.land(given)


async def landed(hands: Flights, launched: Sequence[Flight]) -> None:
    async with asyncio.timeout(30):
        await hands.landed(launched)


async def test_handlers_that_never_wait_share_one_task(hands: Flights) -> None:
    tasks = set()

    async def work(given: Sequence[Flight]) -> None:
        tasks.add(asyncio.current_task())
        ack(hands, given)

    await landed(hands, hands.launch(messages(100), work))
    assert len(tasks) == 1


async def test_handlers_that_wait_all_run_at_once(hands: Flights) -> None:
    running, all_running = 0, asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running
        running += 1
        if running == 100:
            all_running.set()
        await all_running.wait()
        ack(hands, given)

    await landed(hands, hands.launch(messages(100), work))


async def test_handlers_that_had_to_wait_are_begun_together_the_next_time(hands: Flights) -> None:
    begun, go_on = 0, asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        ack(hands, given)

    for turns in (20, 2):  # one turn to start the hands, one for what they do
        begun = 0
        go_on.clear()
        launched = hands.launch(messages(40), work)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert begun == 40
        go_on.set()
        await landed(hands, launched)


async def test_no_more_work_is_done_at_once_than_there_are_slots() -> None:
    hands = with_capacity(7)
    running = most = 0

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        ack(hands, given)

    await landed(hands, hands.launch(messages(50), work))
    assert most == 7


async def test_what_a_handler_leaves_bound_in_its_context_does_not_reach_the_next(hands: Flights) -> None:
    bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="nothing")
    seen = []

    async def work(given: Sequence[Flight]) -> None:
        seen.append(bound.get())
        bound.set(given[0].message.id)
        ack(hands, given)

    await landed(hands, hands.launch(messages(20), work))
    assert seen == ["nothing"] * 20


async def test_a_handler_that_cancels_its_own_task_does_not_stall_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hands = with_capacity(1)

    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id in ("0-0", "3-0"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        ack(hands, given)

    launched = hands.launch(messages(6), work)
    await landed(hands, launched)
    assert [flight.acked for flight in launched] == [False, True, True, False, True, True]
    assert caplog.text.count("its handler was cancelled") == 2


async def test_work_that_raises_lands_its_message_alone(hands: Flights, caplog: pytest.LogCaptureFixture) -> None:
    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id == "1-0":
            raise ValueError("odd")
        ack(hands, given)

    launched = hands.launch(messages(3), work)
    await landed(hands, launched)
    assert [flight.acked for flight in launched] == [True, False, True]
    assert "message 1-0 of lane default stays pending: odd" in caplog.text


async def test_a_message_in_hand_is_not_launched_again(hands: Flights) -> None:
    release = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        await release.wait()
        ack(hands, given)

    launched = hands.launch(messages(3), work)
    assert hands.launch(messages(3), work) == []
    await asyncio.sleep(0)
    assert hands.launch(messages(3), work) == []
    assert (len(hands), hands.held["default"]) == (3, 3)
    release.set()
    await landed(hands, launched)
    assert (len(hands), hands.held["default"]) == (0, 0)


async def test_what_is_abandoned_lands_whether_it_was_begun_or_not() -> None:
    hands = with_capacity(1)
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        entered.set()
        await asyncio.Event().wait()

    launched = hands.launch(messages(3), work)
    await entered.wait()
    await hands.abandon()
    assert len(hands) == 0
    assert not any(flight.acked for flight in launched)


async def test_a_handler_that_answers_when_it_is_cancelled_is_settled(hands: Flights) -> None:
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ack(hands, given)

    [flight] = hands.launch(messages(1), work)
    await entered.wait()
    await hands.abandon()
    assert flight.acked


async def test_abandoning_leaves_what_is_being_acked_to_the_acking(hands: Flights) -> None:
    async def work(given: Sequence[Flight]) -> None:
        given[0].outcome = Done()

    [flight] = hands.launch(messages(1), work)
    while flight.outcome is None:
        await asyncio.sleep(0)
    await hands.abandon()
    assert not flight.landed
    hands.land([flight])
    assert flight.landed


async def test_draining_returns_at_its_limit_with_the_messages_still_in_hand(hands: Flights) -> None:
    async def work(given: Sequence[Flight]) -> None:
        await asyncio.Event().wait()

    hands.launch(messages(2), work)
    await hands.drain(timedelta(milliseconds=10))
    assert len(hands) == 2
    await hands.abandon()
