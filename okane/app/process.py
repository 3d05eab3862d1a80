"""The stop signals, failpoints, garbage collector, background duties and name of a process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

from okane.config import Settings
from okane.errors import SetupError
from streams import failpoints

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
    """Run a duty beside the block. Stop it at the end of the block, and wait until it has ended."""
    stop = asyncio.Event()
    task = asyncio.create_task(duty(stop))
    try:
        yield
    finally:
        stop.set()
        await task


class StopSignal(asyncio.Event):
    """An event that the first SIGTERM or SIGINT sets. A second one ends the process at once, as by default."""

    number: signal.Signals | None = None  # the signal that came


def stop_on_signals() -> StopSignal:
    stop = StopSignal()
    loop = asyncio.get_running_loop()

    def stop_once(number: signal.Signals) -> None:
        stop.number = number
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once, number)
    return stop


def tune_gc() -> None:
    """Freeze the objects of the start, which are never garbage, and collect rarely: a payment's objects are freed by
    reference counts, and Python's default of 700 objects would scan the payments in flight again and again."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)


def worker_name() -> str:
    """Return a name from host and process id. The janitor removes such a consumer once it is idle and empty."""
    return f"{socket.gethostname()}-{os.getpid()}"
