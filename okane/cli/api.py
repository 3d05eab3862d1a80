"""`okane api`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from okane.cli.context import load_settings
from okane.cli.options import Processes
from okane.cli.running import log_as, run

app = typer.Typer(add_completion=False)


@app.command()
def api(
    *,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="port to bind (default: PORT or 8080)")] = None,
    host: Annotated[
        str | None, typer.Option(help="addresses to bind, separated by commas (default: 127.0.0.1)")
    ] = None,
    processes: Processes = 1,
) -> None:
    settings = load_settings(port=port, host=host)
    log_as(settings, "api")
    if processes > 1:
        from okane.app import copies

        sys.exit(run(copies.run_copies(copies.of_api(settings, processes))))
    from okane.app.api import run_api

    run(run_api(settings))
