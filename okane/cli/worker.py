"""`okane worker`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from okane.cli.context import load_settings
from okane.cli.options import Processes, check_process_name
from okane.cli.running import log_as, run

app = typer.Typer(add_completion=False)


@app.command()
def worker(
    *,
    name: Annotated[
        str | None, typer.Option(help="this consumer's name, stable over restarts (default: host and pid)")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="payments in flight (default: WORKER_COUNT or 256)")
    ] = None,
    processes: Processes = 1,
) -> None:
    from okane.app.process import worker_name

    settings = load_settings(concurrency=concurrency)
    name = worker_name() if name is None else check_process_name(name)
    log_as(settings, name)
    if processes > 1:
        from okane.app import copies

        sys.exit(run(copies.run_copies(copies.of_worker(settings, processes, name=name))))
    from okane.app.worker import run_worker

    run(run_worker(settings, name=name))
