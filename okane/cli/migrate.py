"""`okane migrate`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from okane.cli.context import open_context
from okane.cli.options import Data, positive_duration
from okane.cli.running import run
from okane.store import schema
from okane.store.metadata_index import set_metadata_index

app = typer.Typer(add_completion=False)


@app.command()
def migrate(
    *,
    data: Data = None,
    wait: Annotated[str, typer.Option(help="for another migration to end, then give up: 30s, 5m")] = "5m",
    metadata_index: Annotated[
        bool | None,
        typer.Option(
            "--metadata-index/--no-metadata-index",
            help="build, or drop, the index by which the console finds metadata at once; every new payment pays for it",
        ),
    ] = None,
) -> None:
    patience = positive_duration(wait)
    report = partial(typer.echo, err=True)
    database_url = open_context(data).database_url
    changed = run(schema.migrate(database_url, wait=patience, report=report))
    typer.echo(f"schema version {schema.VERSION}: " + ("applied" if changed else "already there"))
    if metadata_index is not None:
        changed = run(set_metadata_index(database_url, wanted=metadata_index, wait=patience, report=report))
        done, same = ("built", "already there") if metadata_index else ("dropped", "not there")
        typer.echo("index on metadata: " + (done if changed else same))
