"""`okane up`."""

from __future__ import annotations

import asyncio
import sys

import typer

from okane.cli.context import load_settings
from okane.cli.options import options_from
from okane.local.options import UpOptions

app = typer.Typer(add_completion=False)


@app.command()
@options_from(UpOptions)
def up(options: UpOptions) -> None:
    from okane.local.up import up as run_up

    settings = load_settings(auth="none" if options.no_keys else None)
    sys.exit(asyncio.run(run_up(settings, options)))
