"""`okane load`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from okane.addresses import check_http
from okane.cli.context import open_context
from okane.cli.errors import fail
from okane.cli.options import Data, Json, finite
from okane.cli.running import run
from okane.load import ApiUnreachableError, LoadOptions, run_load

app = typer.Typer(add_completion=False)


@app.command()
def load(
    *,
    data: Data = None,
    payments: Annotated[int, typer.Option(min=1, max=10_000_000, help="how many payments to send")] = 1000,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=1e6, callback=finite, help="payments per second (default: as fast as it goes)"),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=100_000, help="requests in flight at most")] = 64,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", min=0, max=1e7, callback=finite, help="seconds to follow payments after the last was sent"
        ),
    ] = 120.0,
    url: Annotated[str | None, typer.Option(help="the API's base URL (default: the running one)")] = None,
    provider_url: Annotated[
        str | None,
        typer.Option(help="the mock provider's, for the check against its journal (default: the running one)"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="the API key to send (default: OKANE_API_KEY, or that of the running one)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the amounts")] = 0,
    json_: Json = False,
) -> None:

    where = open_context(data)
    options = LoadOptions(
        url=where.api_url if url is None else _base_url(url, "--url"),
        payments=payments,
        rate=rate,
        connections=connections,
        timeout_s=timeout_s,
        provider_url=where.provider_url if provider_url is None else _base_url(provider_url, "--provider-url"),
        key=where.api_key if key is None else _sendable(key),
        seed=seed,
        json=json_,
    )
    try:
        report = run(run_load(options, Console(highlight=False)))
    except ApiUnreachableError as error:
        fail(str(error))
    sys.exit(report.exit_code)


def _base_url(url: str, option: str) -> str:

    try:
        return check_http(url, userinfo=False)
    except ValueError as error:
        raise typer.BadParameter(f"it {error}", param_hint=option) from error


def _sendable(key: str) -> str:
    """A key that a header can carry."""
    if not key.isascii() or not key.isprintable() or not key.strip():
        raise typer.BadParameter("a key is visible ASCII characters", param_hint="--key")
    return key
