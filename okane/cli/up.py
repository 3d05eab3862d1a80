"""`okane up`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from okane.cli.context import load_settings
from okane.cli.options import Data
from okane.local.plan import UpOptions
from okane.local.up import up as run_up

app = typer.Typer(add_completion=False)


@app.command()
def up(
    *,
    data: Data = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="worker processes")] = 2,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="the API's port (default: PORT or 8080)")] = None,
    provider_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="the mock provider's (default: 8081)")
    ] = None,
    postgres_port: Annotated[int, typer.Option(min=0, max=65535, help="the embedded Postgres'")] = 15432,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="the embedded Redis'")] = 16379,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="the API's metrics; workers take the next ones")
    ] = 9101,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="take requests without an API key, as the systems before us did")
    ] = False,
) -> None:
    options = UpOptions(
        data=data,
        workers=workers,
        port=port,
        provider_port=provider_port,
        postgres_port=postgres_port,
        redis_port=redis_port,
        metrics_port=metrics_port,
    )
    sys.exit(asyncio.run(run_up(load_settings(auth="none" if no_keys else None), options)))
