"""`okane dispatch`."""

from __future__ import annotations

from typing import Annotated

import typer

from okane.cli.context import load_settings
from okane.cli.options import check_process_name
from okane.cli.running import log_as, run

app = typer.Typer(add_completion=False)


@app.command()
def dispatch(
    *,
    name: Annotated[str | None, typer.Option(help="this dispatcher's name in lists (default: host and pid)")] = None,
) -> None:
    from okane.app.dispatcher import run_dispatcher
    from okane.app.process import worker_name

    settings = load_settings()
    name = worker_name() if name is None else check_process_name(name)
    log_as(settings, name)
    run(run_dispatcher(settings, name=name))
