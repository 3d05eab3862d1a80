"""`okane doctor --failpoints`: the places where a test can make a process die, stop, wait or fail."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from okane.app.failpoints import all_failpoints


def run(*, as_json: bool) -> None:
    """Print every failpoint with what has happened, and what has not, when it is reached."""
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
        "\nOKANE_FAILPOINT=NAME:kill|stop|raise|delay[=SECONDS][:NTH] in the environment of an API or a worker arms one;"
        " NTH counts from 1, * is every time.",
        soft_wrap=True,
    )
