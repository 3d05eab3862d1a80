"""`okane doctor`: check the servers and processes, and print what to do about each finding. Also lists the failpoints."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from okane.cli.context import Context, open_context
from okane.cli.options import Data, Json
from okane.cli.output import print_json
from okane.cli.running import run
from okane.monitoring.doctor import diagnose

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    *,
    data: Data = None,
    failpoints: Annotated[bool, typer.Option("--failpoints", help="list the failpoints instead")] = False,
    json_: Json = False,
) -> None:
    if failpoints:
        _list_failpoints(as_json=json_)
    elif not run(_diagnose(open_context(data), as_json=json_)):
        sys.exit(1)


def _list_failpoints(*, as_json: bool) -> None:
    """Print every failpoint, with the moment at which it is reached."""
    from okane.app.failpoints import all_failpoints

    points = sorted(all_failpoints().items())
    if as_json:
        print(json.dumps([{"name": name, "meaning": point.meaning} for name, point in points]))  # noqa: T201 - the answer
        return
    table = Table("failpoint", "reached when", box=None, pad_edge=False)
    for name, point in points:
        table.add_row(name, point.meaning)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\nOKANE_FAILPOINT=NAME:kill|stop|raise|delay[=SECONDS][:NTH] in the environment of a process arms one;"
        " NTH counts from 1, * is every time.",
        soft_wrap=True,
    )


async def _diagnose(context: Context, *, as_json: bool) -> bool:
    """Check everything and print it. Return False if anything failed."""
    checks = await diagnose(context)
    healthy = all(check.state != "fail" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
        return healthy
    console = Console(highlight=False, emoji=False)
    console.print(f"addresses from {escape(context.source)}")
    for check in checks:
        found = escape(check.found)
        console.print(f"[{_STYLE[check.state]}]{check.state:<4}[/] {check.name:<20} {found}", soft_wrap=True)
        if check.advice:
            console.print(f"     {'':<20} -> {escape(check.advice)}", soft_wrap=True)
    console.print("healthy" if healthy else "unhealthy: see the lines marked fail")
    return healthy
