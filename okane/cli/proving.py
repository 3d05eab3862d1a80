"""What shows that it works, on this machine: load, faults, benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data, Json
from okane.commands.options import finite

app = typer.Typer()

_CHECKOUT = Path(__file__).resolve().parents[2]
# All options go to the program's own command line.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


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
    """Send payments to a running API, follow each to its end, and check them against the provider's journal."""
    from rich.console import Console

    from okane.load import ApiUnreachableError, LoadOptions, run_load

    where = shared.context(data)
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
        report = shared.run(run_load(options, Console(highlight=False)))
    except ApiUnreachableError as error:
        shared.fail(str(error))
    sys.exit(report.exit_code)


def _base_url(url: str, option: str) -> str:
    from okane.addresses import check_http

    try:
        return check_http(url, userinfo=False)
    except ValueError as error:
        raise typer.BadParameter(f"it {error}", param_hint=option) from error


def _sendable(key: str) -> str:
    """A key that a header can carry."""
    if not key.isascii() or not key.isprintable() or not key.strip():
        raise typer.BadParameter("a key is visible ASCII characters", param_hint="--key")
    return key


@app.command(context_settings=_PASSED_ON)
def torture(context: typer.Context) -> None:
    """Break a system of its own and check every invariant. Only in a checkout; `--help` tells the options."""
    _need_checkout("torture")
    from torture.__main__ import main as run

    run(context.args)


@app.command(context_settings=_PASSED_ON)
def bench(context: typer.Context) -> None:
    """Measure okane on this machine, against other ways to do the same. Only in a checkout; `--help` tells the options."""
    _need_checkout("bench")
    from bench.__main__ import main as run

    run(context.args)


def _need_checkout(folder: str) -> None:
    """Fail unless `folder` of the checkout is there: an installed okane has only the product."""
    if not (_CHECKOUT / folder / "__main__.py").exists():
        shared.fail(f"{folder} is not installed: it is in {folder}/ of a checkout, run `python3 run.py {folder}` there")
