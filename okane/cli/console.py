"""`okane console`."""

from __future__ import annotations

from typing import Annotated

import typer

from okane.cli.context import load_settings
from okane.cli.running import log_as, run

app = typer.Typer(add_completion=False)


@app.command()
def console(
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="port to bind (default: OKANE_CONSOLE_PORT or 8082)")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="addresses to bind, separated by commas (default: 127.0.0.1)")
    ] = None,
) -> None:
    settings = load_settings(console_port=port, console_host=host)
    log_as(settings, "console")
    from okane.app.console import run_console

    run(run_console(settings))
