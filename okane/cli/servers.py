"""The processes of the system, alone and together."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data
from okane.commands.options import taking
from okane.simulator.options import SimulatorOptions

app = typer.Typer()

Processes = Annotated[
    int, typer.Option(min=1, max=256, help="copies on this machine: they share the port, or the consumer group")
]


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
    """Run everything on this machine: Postgres, Redis, mock provider, API and workers. Ctrl-C drains and stops it."""
    from okane.local.plan import UpOptions
    from okane.local.up import up as run

    options = UpOptions(
        data=data,
        workers=workers,
        port=port,
        provider_port=provider_port,
        postgres_port=postgres_port,
        redis_port=redis_port,
        metrics_port=metrics_port,
    )
    sys.exit(asyncio.run(run(shared.settings(auth="none" if no_keys else None), options)))


@app.command()
def api(
    *,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="port to bind (default: PORT or 8080)")] = None,
    host: Annotated[
        str | None, typer.Option(help="addresses to bind, separated by commas (default: 127.0.0.1)")
    ] = None,
    processes: Processes = 1,
) -> None:
    """Serve the HTTP API: accept payments and tell what became of them."""
    from okane.app.api import run_api

    settings = shared.settings(port=port, host=host)
    shared.log_as(settings, "api")
    if processes > 1:
        from okane.app import copies

        sys.exit(shared.run(copies.run_copies(copies.of_api(settings, processes))))
    shared.run(run_api(settings))


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
    """Charge payments: read the streams, call the provider, write the outcome. Start as many as you like."""
    from okane.app.worker import run_worker, worker_name

    settings = shared.settings(concurrency=concurrency)
    name = worker_name() if name is None else shared.label(name, "--name")
    if processes > 1:
        from okane.app import copies

        shared.log_as(settings, name)
        sys.exit(shared.run(copies.run_copies(copies.of_worker(settings, processes, name=name))))
    shared.log_as(settings, name)
    shared.run(run_worker(settings, name=name))


def _journal() -> Path:
    from okane.local.data_folder import default_path

    default_path().mkdir(mode=0o700, exist_ok=True)
    return default_path() / "provider.jsonl"


@app.command()
@taking(SimulatorOptions, port=lambda: shared.settings().mock_provider_port, journal=_journal)
def provider(options: SimulatorOptions) -> None:
    """Run the mock provider: a real HTTP server that keeps a journal of what it charged, and misbehaves on demand."""
    from okane.app.mock_provider import run_provider

    shared.log_as(shared.settings(), "provider")
    shared.run(run_provider(options))


@app.command()
def migrate(
    *,
    data: Data = None,
    wait: Annotated[str, typer.Option(help="for another migration to end, then give up: 30s, 5m")] = "5m",
) -> None:
    """Bring the database to this version's schema. Safe to repeat, and from several machines at once."""
    from okane.store import schema

    patience = shared.duration(wait)
    report = partial(typer.echo, err=True)
    changed = shared.run(schema.migrate(shared.context(data).database_url, wait=patience, report=report))
    typer.echo(f"schema version {schema.VERSION}: " + ("applied" if changed else "already there"))


@app.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the HTTP API, for generators of clients."""
    import json

    from okane.api.contract.openapi import build_document
    from okane.api.routes import SCOPES

    typer.echo(json.dumps(build_document(SCOPES), indent=2))
