"""The event loop and the log of a command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from okane import logs
from okane.config import Settings

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end, on uvloop where that is installed, and return its result."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def log_as(settings: Settings, process: str) -> None:
    """Log as the settings say, with the name of the process in every line."""
    logs.configure(level=settings.log_level, format_=settings.log_format, process=process)
