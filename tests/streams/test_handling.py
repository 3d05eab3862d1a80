from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from streams import Dead, Done, Message, Metrics, Outcome, Retry, RetryPolicy
from streams.entry import to_dead_fields, to_fields, to_message
from streams.handling import ask, resolve

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

    assert await ask(handler, MESSAGE, metrics=Metrics()) is outcome


async def test_an_exception_means_retry_by_policy_and_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(message: Message) -> Outcome:
        raise LookupError("no such thing")

    errors = Errors()
    assert await ask(handler, MESSAGE, metrics=errors) == Retry("LookupError: no such thing")
    assert errors.lanes == ["default"]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    "answer",
    [None, True, "done", Done, Dead(ValueError("not text")), Retry("r", after=5), Retry(None)],  # type: ignore[arg-type]
)
async def test_anything_else_is_a_bug_and_never_done(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(message: Message) -> Any:
        return answer

    errors = Errors()
    assert isinstance(await ask(handler, MESSAGE, metrics=errors), Retry)
    assert errors.lanes == ["default"]
    assert caplog.records[0].levelno == logging.ERROR


async def test_cancellation_is_not_swallowed() -> None:
    async def handler(message: Message) -> Outcome:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await ask(handler, MESSAGE, metrics=Metrics())


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
