"""`okane migrate`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from okane.cli.context import open_context
from okane.cli.options import Data, positive_duration
from okane.cli.running import run
from okane.store import schema

app = typer.Typer(add_completion=False)


@app.command()
def migrate(
    *,
    data: Data = None,
    wait: Annotated[str, typer.Option(help="for another migration to end, then give up: 30s, 5m")] = "5m",
) -> None:
    patience = positive_duration(wait)
    report = partial(typer.echo, err=True)
    changed = run(schema.migrate(open_context(data).database_url, wait=patience, report=report))
    typer.echo(f"schema version {schema.VERSION}: " + ("applied" if changed else "already there"))
