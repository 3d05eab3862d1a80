from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest

from streams import Message, Metrics, SystemClock
from streams.flights import Flight, Flights

Work = Callable[[Sequence[Flight]], Awaitable[None]]


def flights(work: Work, *, capacity: int = 100) -> Flights:
    return Flights(capacity=capacity, work=work, clock=SystemClock(), metrics=Metrics())


def messages(count: int) -> list[Message]:
    return [Message(f"{number}-0", "default", b"x") for number in range(count)]


def settle(flight: Flight) -> None:
    """What a consumer does when the outcome is known, and the server when it has heard it."""
    flight.settling = True
    flight.set_result(None)


async def landed(hands: Flights, launched: Sequence[Flight]) -> None:
    async with asyncio.timeout(30):
        await hands.landed(launched)


async def test_handlers_that_never_wait_share_one_task() -> None:
    tasks = set()

    async def work(given: Sequence[Flight]) -> None:
        tasks.add(asyncio.current_task())
        settle(given[0])

    hands = flights(work)
    await landed(hands, hands.launch(messages(100)))
    assert len(tasks) == 1


async def test_handlers_that_wait_all_run_at_once() -> None:
    running, all_running = 0, asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running
        running += 1
        if running == 100:
            all_running.set()
        await all_running.wait()
        settle(given[0])

    hands = flights(work)
    await landed(hands, hands.launch(messages(100)))


async def test_no_more_work_is_done_at_once_than_there_are_slots() -> None:
    running = most = 0

    async def work(given: Sequence[Flight]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        settle(given[0])

    hands = flights(work, capacity=7)
    await landed(hands, hands.launch(messages(50)))
    assert most == 7


async def test_what_a_handler_leaves_bound_in_its_context_does_not_reach_the_next() -> None:
    bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="nothing")
    seen = []

    async def work(given: Sequence[Flight]) -> None:
        seen.append(bound.get())
        bound.set(given[0].message.id)
        settle(given[0])

    hands = flights(work)
    await landed(hands, hands.launch(messages(20)))
    assert seen == ["nothing"] * 20


async def test_a_handler_that_cancels_its_own_task_does_not_stall_those_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id in ("0-0", "3-0"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        settle(given[0])

    hands = flights(work, capacity=1)
    launched = hands.launch(messages(6))
    await landed(hands, launched)
    assert [flight.settled for flight in launched] == [False, True, True, False, True, True]
    assert caplog.text.count("its handler was cancelled") == 2


async def test_work_that_raises_lands_its_message_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def work(given: Sequence[Flight]) -> None:
        if given[0].message.id == "1-0":
            raise ValueError("odd")
        settle(given[0])

    hands = flights(work)
    launched = hands.launch(messages(3))
    await landed(hands, launched)
    assert [flight.settled for flight in launched] == [True, False, True]
    assert "message 1-0 of lane default stays pending: odd" in caplog.text


async def test_a_message_in_hand_is_not_launched_again() -> None:
    release = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        await release.wait()
        settle(given[0])

    hands = flights(work)
    launched = hands.launch(messages(3))
    assert hands.launch(messages(3)) == []
    await asyncio.sleep(0)
    assert hands.launch(messages(3)) == []
    assert (len(hands), hands.held["default"]) == (3, 3)
    release.set()
    await landed(hands, launched)
    assert (len(hands), hands.held["default"]) == (0, 0)


async def test_what_is_abandoned_lands_whether_it_was_begun_or_not() -> None:
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        entered.set()
        await asyncio.Event().wait()

    hands = flights(work, capacity=1)
    launched = hands.launch(messages(3))
    await entered.wait()
    await hands.abandon()
    assert len(hands) == 0
    assert not any(flight.settled for flight in launched)


async def test_a_handler_that_answers_when_it_is_cancelled_is_settled() -> None:
    entered = asyncio.Event()

    async def work(given: Sequence[Flight]) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            settle(given[0])

    hands = flights(work)
    [flight] = hands.launch(messages(1))
    await entered.wait()
    await hands.abandon()
    assert flight.settled


async def test_abandoning_leaves_what_is_being_settled_to_the_settling() -> None:
    async def work(given: Sequence[Flight]) -> None:
        given[0].settling = True

    hands = flights(work)
    [flight] = hands.launch(messages(1))
    while not flight.settling:
        await asyncio.sleep(0)
    await hands.abandon()
    assert not flight.landed
    flight.set_result(None)
    assert flight.landed


async def test_draining_returns_at_its_limit_with_the_messages_still_in_hand() -> None:
    async def work(given: Sequence[Flight]) -> None:
        await asyncio.Event().wait()

    hands = flights(work)
    hands.launch(messages(2))
    await hands.drain(timedelta(milliseconds=10))
    assert len(hands) == 2
    await hands.abandon()
