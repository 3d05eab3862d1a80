"""Show the progress of a run: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0

Line = Callable[[], str]


@contextlib.asynccontextmanager
async def show_progress(console: Console, line: Line) -> AsyncIterator[None]:
    """Show `line` while the block runs."""
    showing = asyncio.create_task(_draw(console, line) if console.is_terminal else _write(console, line))
    try:
        yield
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _draw(console: Console, line: Line) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(line()), refresh=True)
            await asyncio.sleep(_REFRESH_S)


async def _write(console: Console, line: Line) -> None:
    while True:
        await asyncio.sleep(_LINE_EVERY_S)
        console.print(Text(line()), soft_wrap=True)
