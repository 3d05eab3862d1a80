"""From messages to final outcomes: calls the handler and lets nothing but outcomes out of it.

Promise: an exception, or an answer that is not an outcome, is never counted as done. Pure but for the handler.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol, assert_never

from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry
from streams.retry import RetryPolicy

log = logging.getLogger("streams")

Handler = Callable[[Message], Awaitable[Outcome]]
BatchHandler = Callable[[Sequence[Message]], Awaitable[Sequence[Outcome]]]


class Tracer(Protocol):
    """What traces the handling of messages. The context that a producer gave them along is in their headers: these stay
    the same through retries, take-overs and replays."""

    def processing(self, messages: Sequence[Message]) -> AbstractContextManager[object]:
        """Entered before the handler is called with these, and left when it has answered; also for poison."""


async def ask(handler: Handler, message: Message, *, metrics: Metrics) -> Outcome:
    """The handler's outcome; `Retry` when it raised or answered something else. Cancellation passes through."""
    try:
        outcome = await handler(message)
    except Exception as error:
        log.exception("handler failed for message %s of lane %s, attempt %d", message.id, message.lane, message.attempt)
        metrics.handler_error(message.lane)
        return Retry(f"{type(error).__name__}: {error}")
    return outcome if is_outcome(outcome) else _bug(message, outcome, metrics=metrics)


async def ask_batch(handler: BatchHandler, messages: Sequence[Message], *, metrics: Metrics) -> Sequence[Outcome]:
    """The handler's outcomes, one for each message and in their order; `Retry` for all of them when it raised or answered
    too few or too many, and for each that it answered something else. Cancellation passes through."""
    try:
        outcomes = list(await handler(messages))
    except Exception as error:
        log.exception("handler failed for %d messages, first %s", len(messages), messages[0].id)
        return _retry_all(messages, f"{type(error).__name__}: {error}", metrics=metrics)
    if len(outcomes) != len(messages):
        reason = f"handler answered {len(outcomes)} outcomes for {len(messages)} messages"
        log.error("a bug: %s, first %s", reason, messages[0].id)
        return _retry_all(messages, reason, metrics=metrics)
    return [
        outcome if is_outcome(outcome) else _bug(message, outcome, metrics=metrics)
        for message, outcome in zip(messages, outcomes, strict=True)
    ]


def is_outcome(answer: object) -> bool:
    """Whether it is one through and through. The type checker says that it is; a handler without annotations knows better."""
    match answer:
        case Done() | Dead(reason=str()) | Retry(reason=str(), after=None | timedelta()):
            return True
    return False


def resolve(outcome: Outcome, *, attempt: int, policy: RetryPolicy, roll: float) -> Outcome:
    """Fills in the delay of a `Retry` that has none; when the policy is spent it is `Dead`."""
    match outcome:
        case Done() | Dead():
            return outcome
        case Retry(reason=reason, after=None):
            delay = policy.delay(attempt, roll=roll)
            if delay is None:
                return Dead(f"gave up after {attempt} attempts: {reason}")
            return Retry(reason, after=delay)
        case Retry():
            return outcome
        case _:
            assert_never(outcome)


def _bug(message: Message, answer: object, *, metrics: Metrics) -> Retry:
    log.error("a bug: handler answered %r for message %s, which is not an outcome", answer, message.id)
    metrics.handler_error(message.lane)
    return Retry(f"handler answered {answer!r}")


def _retry_all(messages: Sequence[Message], reason: str, *, metrics: Metrics) -> Sequence[Outcome]:
    for message in messages:
        metrics.handler_error(message.lane)
    return [Retry(reason)] * len(messages)
