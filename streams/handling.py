"""Calls handlers, and turns all that they return or raise into outcomes.

Guarantee: an exception (a panic of an extension, too) or a result that is not an outcome is `Retry`, never `Done`. Only the
end of the process or of the consumer is raised. Pure, except for the handler.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import types
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Protocol, assert_never

from streams.message import Message
from streams.metrics import Metrics
from streams.outcome import Dead, Done, Outcome, Retry
from streams.retry import MAX_DELAY, RetryPolicy

log = logging.getLogger("streams")

_AWAITABLES = ("Awaitable", "Coroutine", "Future", "Task")
_SHOWN = 200  # characters of a result that is not an outcome

Handler = Callable[[Message], Awaitable[Outcome]]
BatchHandler = Callable[[Sequence[Message]], Awaitable[Sequence[Outcome]]]


class Tracer(Protocol):
    """Traces the handling of messages. The context from their producer is in their headers, which stay the same through
    retries, take-overs and replays."""

    def processing(self, messages: Sequence[Message]) -> AbstractContextManager[object]:
        """Return the context manager for one call of the handler with these messages, or of `on_poison`."""


def check_handler(handler: object, name: str) -> None:
    """Raise TypeError unless the handler may be asynchronous: for a plain function, a partial of one, a class, an object
    whose `__call__` is plain. Lambdas and functions that declare an awaitable result pass."""
    function = handler
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"{name} is an async function or an object with an async __call__, not {_name(handler)}")
    function = inspect.unwrap(function)
    if _is_marked(function):
        return
    if not isinstance(function, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        function = type(function).__call__
    if isinstance(function, types.MethodType):
        function = function.__func__
    if isinstance(function, types.FunctionType) and not _may_be_awaited(function):
        raise TypeError(
            f"{name} {_name(handler)} is a plain function, which would block the event loop: make it `async def` "
            "(and put what blocks into asyncio.to_thread). One that returns a coroutine says so: `-> Awaitable[Outcome]`"
        )


def is_cancelled() -> bool:
    """Return True if the running task is being cancelled."""
    task = _running_task()
    return task is not None and task.cancelling() > 0


def must_propagate(error: BaseException, *, cancelled: Callable[[], bool] = is_cancelled) -> bool:
    """Return True for an error that is not the handler's own: an exit (SystemExit, KeyboardInterrupt), the cancellation
    of its caller (if `cancelled` returns True), or the end of the loop, which closes waiting coroutines."""
    match error:
        case Exception():
            return False
        case SystemExit() | KeyboardInterrupt():
            return True
        case asyncio.CancelledError():
            return cancelled()
        case GeneratorExit():
            return _running_task() is None
    return False


async def call_handler(
    handler: Handler, message: Message, *, metrics: Metrics, cancelled: Callable[[], bool] = is_cancelled
) -> Outcome:
    """Return the handler's outcome, or `Retry` for an error or another result. Raises only what `must_propagate`."""
    try:
        outcome = await handler(message)
    except BaseException as error:
        if must_propagate(error, cancelled=cancelled):
            raise
        log.exception("handler failed for message %s of lane %s, attempt %d", message.id, message.lane, message.attempt)
        metrics.handler_error(message.lane)
        return Retry(_reason(error))
    return outcome if is_outcome(outcome) else _retry_for_bug(message, outcome, metrics=metrics)


async def call_batch_handler(
    handler: BatchHandler,
    messages: Sequence[Message],
    *,
    metrics: Metrics,
    cancelled: Callable[[], bool] = is_cancelled,
) -> Sequence[Outcome]:
    """Return the handler's outcomes, one for each message, in order: `Retry` for all after an error or a wrong number of
    outcomes, and for each result that is not an outcome. Raises only what `must_propagate`."""
    given = tuple(messages)  # the handler may change its list
    try:
        outcomes = list(islice(await handler(messages), len(given) + 1))  # it may be an endless iterator
    except BaseException as error:
        if must_propagate(error, cancelled=cancelled):
            raise
        log.exception("handler failed for %d messages, first %s", len(given), given[0].id)
        return _retry_all(given, _reason(error), metrics=metrics)
    if len(outcomes) != len(given):
        count = len(outcomes) if len(outcomes) < len(given) else f"more than {len(given)}"
        reason = f"handler answered {count} outcomes for {len(given)} messages"
        log.error("a bug: %s, first %s", reason, given[0].id)
        return _retry_all(given, reason, metrics=metrics)
    return [
        outcome if is_outcome(outcome) else _retry_for_bug(message, outcome, metrics=metrics)
        for message, outcome in zip(given, outcomes, strict=True)
    ]


def is_outcome(answer: object) -> bool:
    """Return True for an outcome with fields of the right types. A handler without annotations may return anything."""
    try:
        match answer:
            case Done() | Dead(reason=str()) | Retry(reason=str(), after=None | timedelta()):
                return True
    except Exception:  # an object whose attributes raise
        log.debug("an answer that cannot be looked at", exc_info=True)
    return False


def resolve(outcome: Outcome, *, attempt: int, policy: RetryPolicy, roll: float) -> Outcome:
    """Return the outcome, with a delay for a `Retry` that has none, or `Dead` when the policy is spent. No delay is
    longer than MAX_DELAY."""
    match outcome:
        case Done() | Dead():
            return outcome
        case Retry(reason=reason, after=None):
            delay = policy.delay(attempt, roll=roll)
            if delay is None:
                return Dead(f"gave up after {attempt} attempts: {reason}")
            return Retry(reason, after=min(delay, MAX_DELAY))
        case Retry(reason=reason, after=after):
            assert after is not None
            return outcome if after <= MAX_DELAY else Retry(reason, after=MAX_DELAY)
        case _:
            assert_never(outcome)


def _retry_for_bug(message: Message, answer: object, *, metrics: Metrics) -> Retry:
    shown = _shown(answer)
    log.error("a bug: handler answered %s for message %s, which is not an outcome", shown, message.id)
    metrics.handler_error(message.lane)
    return Retry(f"handler answered {shown}")


def _retry_all(messages: Sequence[Message], reason: str, *, metrics: Metrics) -> Sequence[Outcome]:
    for message in messages:
        metrics.handler_error(message.lane)
    return [Retry(reason)] * len(messages)


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # its __str__ raises, too
        return name


def _shown(answer: object) -> str:
    try:
        return repr(answer)[:_SHOWN]
    except Exception:
        return f"a {type(answer).__name__}"


def _may_be_awaited(function: Callable[..., object]) -> bool:
    if _is_marked(function):
        return True
    returns = inspect.get_annotations(function).get("return")
    text = returns if isinstance(returns, str) else repr(returns)
    return function.__name__ == "<lambda>" or any(word in text for word in _AWAITABLES)


def _is_marked(function: Callable[..., object]) -> bool:
    """Return True for `async def`, and for compiled, decorated or mocked functions that are marked as such."""
    return inspect.iscoroutinefunction(function) or hasattr(function, "_is_coroutine")


def _name(handler: object) -> str:
    kind = type(handler)
    return getattr(handler, "__qualname__", None) or f"{kind.__module__}.{kind.__qualname__}"


def _running_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # the loop has ended
        return None
