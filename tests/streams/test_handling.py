from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from streams import Dead, Done, Message, Metrics, Outcome, Retry, RetryPolicy
from streams.clock import milliseconds
from streams.entry import to_dead_fields, to_fields, to_message
from streams.handling import call_handler, resolve
from streams.retry import MAX_DELAY

MESSAGE = Message("1-1", "default", b"body")


class Errors(Metrics):
    def __init__(self) -> None:
        self.lanes: list[str] = []

    def handler_error(self, lane: str) -> None:
        self.lanes.append(lane)


@pytest.mark.parametrize("outcome", [Done(), Retry("later"), Dead("never")])
async def test_an_outcome_comes_through_as_it_is(outcome: Outcome) -> None:
    async def handler(message: Message) -> Outcome:
        return outcome

    assert await call_handler(handler, MESSAGE, metrics=Metrics()) is outcome


async def test_an_exception_means_retry_by_policy_and_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(message: Message) -> Outcome:
        raise LookupError("no such thing")

    errors = Errors()
    assert await call_handler(handler, MESSAGE, metrics=errors) == Retry("LookupError: no such thing")
    assert errors.lanes == ["default"]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    "answer",
    [None, True, "done", Done, Dead(ValueError("not text")), Retry("r", after=5), Retry(None)],  # type: ignore[arg-type] # on purpose
)
async def test_anything_else_is_a_bug_and_never_done(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(message: Message) -> Any:
        return answer

    errors = Errors()
    assert isinstance(await call_handler(handler, MESSAGE, metrics=errors), Retry)
    assert errors.lanes == ["default"]
    assert caplog.records[0].levelno == logging.ERROR


async def test_cancellation_is_not_swallowed() -> None:
    entered = asyncio.Event()

    async def handler(message: Message) -> Outcome:
        entered.set()
        await asyncio.Event().wait()
        return Done()

    asking = asyncio.create_task(call_handler(handler, MESSAGE, metrics=Metrics()))
    await entered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_an_exit_is_not_swallowed(error: BaseException) -> None:
    async def handler(message: Message) -> Outcome:
        raise error

    with pytest.raises(type(error)):
        await call_handler(handler, MESSAGE, metrics=Metrics())


def test_a_handler_that_is_closed_with_its_loop_raises() -> None:
    async def handler(message: Message) -> Outcome:
        await asyncio.sleep(3600)
        return Done()

    asking = call_handler(handler, MESSAGE, metrics=Metrics())
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(asking)
        loop.run_until_complete(asyncio.sleep(0))
        asking.close()  # as the garbage collector does
        task.cancel()
        with pytest.raises(RuntimeError, match="cannot reuse"):
            loop.run_until_complete(task)
    finally:
        loop.close()


def test_a_retry_without_a_delay_gets_the_policys() -> None:
    policy = RetryPolicy(base=timedelta(seconds=4))
    assert resolve(Retry("r"), attempt=1, policy=policy, roll=0.5) == Retry("r", after=timedelta(seconds=2))


def test_a_spent_policy_means_dead() -> None:
    outcome = resolve(Retry("503"), attempt=3, policy=RetryPolicy(max_attempts=3), roll=0.5)
    assert outcome == Dead("gave up after 3 attempts: 503")


def test_an_explicit_delay_wins_over_a_spent_policy() -> None:
    wish = Retry("r", after=timedelta(seconds=9))
    assert resolve(wish, attempt=99, policy=RetryPolicy(max_attempts=3), roll=0.5) is wish


def test_an_entry_reads_back_as_it_was_written() -> None:
    fields = to_fields(b"\x00\xff", {"trace": "äbc", "b": "clash"}, attempt=7)
    raw = [part if isinstance(part, bytes) else str(part).encode() for part in fields]
    message = to_message(b"12-3", raw, lane="low", deliveries=2)
    assert message == Message("12-3", "low", b"\x00\xff", {"trace": "äbc", "b": "clash"}, 7, 2)


def test_a_reason_that_utf8_cannot_write_is_written_all_the_same() -> None:
    fields = to_dead_fields(Message("1-1", "default", b"x"), "no such file: caf\udce9", group="g")
    assert fields[-1] == b"no such file: caf?"


def test_the_first_attempt_costs_no_field() -> None:
    assert to_fields(b"x", {}) == ["b", b"x"]
    assert to_message(b"1-1", [b"b", b"x"], lane="low") == Message("1-1", "low", b"x")


def test_a_strangers_entry_is_read_as_far_as_it_goes() -> None:
    assert to_message(b"1-1", [b"what", b"ever", b"a", b"x"], lane="low") == Message("1-1", "low", b"")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("do not look at me")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


async def test_an_exception_or_answer_that_cannot_be_shown_means_retry_too() -> None:
    async def raises(message: Message) -> Outcome:
        raise Unspeakable

    async def answers(message: Message) -> Any:
        return Unshowable()

    assert await call_handler(raises, MESSAGE, metrics=Metrics()) == Retry("Unspeakable")
    assert await call_handler(answers, MESSAGE, metrics=Metrics()) == Retry("handler answered a Unshowable")


@pytest.mark.parametrize(
    ("after", "delay"),
    [
        (timedelta.max, MAX_DELAY),
        (timedelta(days=366), MAX_DELAY),
        (timedelta(days=365), MAX_DELAY),
        (timedelta(seconds=-5), timedelta(seconds=-5)),
        (timedelta.min, timedelta.min),
    ],
    ids=str,
)
def test_no_delay_is_longer_than_the_cap(after: timedelta, delay: timedelta) -> None:
    resolved = resolve(Retry("r", after=after), attempt=1, policy=RetryPolicy(), roll=0.5)
    assert resolved == Retry("r", after=delay)
    assert milliseconds(delay) == max(0, delay // timedelta(milliseconds=1))


def test_no_policy_delays_for_longer_than_the_cap() -> None:
    policy = RetryPolicy(base=timedelta(days=400), cap=timedelta.max, factor=1e300)
    for attempt in (1, 2, 7, 10**30):
        assert resolve(Retry("r"), attempt=attempt, policy=replace(policy, max_attempts=None), roll=0.999) == Retry(
            "r", after=MAX_DELAY
        )


@pytest.mark.parametrize("factor", [math.nan, math.inf, 0.5])
def test_a_policy_whose_factor_is_no_number_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="finite factor"):
        RetryPolicy(factor=factor)


@pytest.mark.parametrize("attempt", [b"0", b"9" * 5_000, b"-1", b"x"], ids=lambda raw: raw[:3])
def test_an_attempt_that_no_producer_of_ours_wrote_counts_as_the_first(attempt: bytes) -> None:
    assert to_message(b"1-1", [b"b", b"x", b"a", attempt], lane="low").attempt == 1
