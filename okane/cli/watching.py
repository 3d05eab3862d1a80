"""What an operator looks at first."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data, Interval, Json

app = typer.Typer()


@app.command()
def status(
    *,
    data: Data = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="refresh until Ctrl-C")] = False,
    interval: Interval = 2.0,
    json_: Json = False,
) -> None:
    """Show the queue and the payments: depth, pending, delayed, dead, consumers, the oldest due payment."""
    from okane.commands import status as command

    shared.run(command.run(shared.context(data), watch=timedelta(seconds=interval) if watch else None, as_json=json_))


@app.command()
def top(
    *,
    data: Data = None,
    interval: Interval = 2.0,
    once: Annotated[bool, typer.Option("--once", help="one picture, of one second, and end")] = False,
    json_: Json = False,
) -> None:
    """Watch it live: rates, latencies, lanes, workers, retries, dead letters. For machines without Grafana."""
    from okane.commands import top as command

    shared.run(command.run(shared.context(data), interval=timedelta(seconds=interval), once=once, as_json=json_))


@app.command()
def doctor(
    *,
    data: Data = None,
    failpoints: Annotated[bool, typer.Option("--failpoints", help="list the failpoints instead")] = False,
    json_: Json = False,
) -> None:
    """Check versions, configuration, schema, clocks and ports, and say what to do. Exit code 1 if something is wrong."""
    if failpoints:
        from okane.commands import failpoints as listing

        listing.run(as_json=json_)
        return
    from okane.commands import doctor as command

    healthy = shared.run(command.run(shared.context(data), as_json=json_))
    sys.exit(0 if healthy else 1)
