"""From a message to a final outcome: calls the handler and lets nothing but an outcome out of it.

Promise: an exception, or an answer that is not an outcome, is never counted as done. Pure but for the handler.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import assert_never

from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry
from streams.retry import RetryPolicy

log = logging.getLogger("streams")

Handler = Callable[[Message], Awaitable[Outcome]]


async def ask(handler: Handler, message: Message, *, metrics: Metrics) -> Outcome:
    """The handler's outcome; `Retry` when it raised or answered something else. Cancellation passes through."""
    try:
        outcome = await handler(message)
    except Exception as error:
        log.exception("handler failed for message %s of lane %s, attempt %d", message.id, message.lane, message.attempt)
        metrics.handler_error(message.lane)
        return Retry(f"{type(error).__name__}: {error}")
    if isinstance(outcome, Done | Retry | Dead):
        return outcome
    # The type checker says this cannot be; a handler without annotations says it can.
    log.error("a bug: handler answered %r for message %s, which is not an outcome", outcome, message.id)
    metrics.handler_error(message.lane)
    return Retry(f"handler answered {outcome!r}")


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
