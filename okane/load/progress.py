"""Show the progress of a run: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_REFRESH_S = 0.2
_LINE_EVERY_S = 2.0

Counts = Callable[[], tuple[int, int]]  # accepted, at rest


@contextlib.asynccontextmanager
async def show_progress(
    console: Console, *, total: int, counts: Counts, every_s: float | None = None
) -> AsyncIterator[None]:
    """Show `counts` against `total` while the block runs, every 0.2 s on a terminal and every 2 s elsewhere."""
    if console.is_terminal:
        drawing = asyncio.create_task(_draw(console, total, counts, every_s or _REFRESH_S))
    else:
        drawing = asyncio.create_task(_write(console, total, counts, every_s or _LINE_EVERY_S))
    try:
        yield
    finally:
        drawing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drawing


async def _draw(console: Console, total: int, counts: Counts, every_s: float) -> None:
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>8,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=total, rate=0.0) for name in ("accepted", "settled")]
        started = time.monotonic()
        try:
            while True:
                await asyncio.sleep(every_s)
                _update(progress, tasks, counts(), time.monotonic() - started)
        finally:
            _update(progress, tasks, counts(), time.monotonic() - started)


def _update(progress: Progress, tasks: list[TaskID], counts: tuple[int, int], elapsed_s: float) -> None:
    for task, count in zip(tasks, counts, strict=True):
        progress.update(task, completed=count, rate=count / max(elapsed_s, 0.001))
    progress.refresh()


async def _write(console: Console, total: int, counts: Counts, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        accepted, at_rest = counts()
        console.print(f"accepted {accepted:,} of {total:,}, settled {at_rest:,}", highlight=False)
