"""What every process of okane shares: stop signals, armed failpoints, the garbage collector and background duties."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

from okane.config import Settings
from okane.errors import SetupError
from streams import (
    failpoints,
)

GARBAGE_OBJECTS = 20_000

log = structlog.get_logger("okane.app")


def arm_failpoints(settings: Settings) -> None:
    if settings.failpoint is None:
        return
    try:
        failpoints.arm(settings.failpoint)
    except ValueError as error:
        raise SetupError(f"OKANE_FAILPOINT: {error}") from error
    log.warning("failpoint_armed", failpoint=settings.failpoint)


@contextlib.asynccontextmanager
async def running(duty: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """A duty in the background of the block, which is told to stop, and has ended, when the block ends."""
    stop = asyncio.Event()
    task = asyncio.create_task(duty(stop))
    try:
        yield
    finally:
        stop.set()
        await task


class StopSignal(asyncio.Event):
    """Set by the first SIGTERM or SIGINT. A second one ends the process at once, as it would have by default."""

    number: signal.Signals | None = None  # the signal that came


def stop_on_signals() -> StopSignal:
    stop = StopSignal()
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        stop.number = number
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop


def tune_gc() -> None:
    """What is here now stays: to look through it would free nothing. And what a payment leaves behind goes by itself, without
    the collector: to look after every 700 objects, as Python does, is to look through the payments in hand."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
