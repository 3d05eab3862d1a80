"""`okane top`: rates, latencies, lanes and workers, live, for machines without Grafana."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from okane.cli.context import Context, open_context
from okane.cli.options import Data, Interval, Json
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.top.drawing import render
from okane.cli.top.observer import open_observer
from okane.monitoring.picture import build_picture

ONCE = timedelta(seconds=1)  # between the two observations of `--once`

app = typer.Typer(add_completion=False)


@app.command()
def top(
    *,
    data: Data = None,
    interval: Interval = 2.0,
    once: Annotated[bool, typer.Option("--once", help="print one picture, measured over one second, and exit")] = False,
    json_: Json = False,
) -> None:
    run(_show(open_context(data), interval=timedelta(seconds=interval), once=once, as_json=json_))


async def _show(context: Context, *, interval: timedelta, once: bool, as_json: bool) -> None:
    """Show a picture every `interval` until Ctrl-C, or one."""
    async with contextlib.AsyncExitStack() as closing:
        observer = await closing.enter_async_context(open_observer(context))
        live = None
        if CONSOLE.is_terminal and not once and not as_json:
            first = Text("measuring rates …")
            live = closing.enter_context(Live(first, console=CONSOLE, screen=True, auto_refresh=False))
            live.refresh()
        before = await observer.observe(())
        while True:
            await asyncio.sleep((ONCE if once else interval).total_seconds())
            after = await observer.observe(before.processes)
            picture = build_picture(before, after)
            if as_json:
                print_json(picture.to_json())
            elif live is not None:
                live.update(render(picture, height=CONSOLE.height), refresh=True)
            else:
                CONSOLE.print(render(picture, height=None))
            if once:
                return
            before = after
