"""What shows that it works, on this machine: load, faults, benchmarks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data, Json, finite

app = typer.Typer()

_CHECKOUT = Path(__file__).resolve().parents[2]


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


@app.command()
def torture(
    *,
    minutes: Annotated[float, typer.Option(min=0, max=1e6, callback=finite, help="how long at least")] = 0.0,
    kills: Annotated[int, typer.Option(min=0, max=1_000_000, help="kill -9 of processes at least (default: 50)")] = 0,
    payments: Annotated[int, typer.Option(min=0, max=1_000_000_000, help="payments at least (default: 5000)")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, max=1e6, callback=finite, help="payments per second")] = 150.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="worker processes")] = 3,
    apis: Annotated[int, typer.Option(min=1, max=16, help="API processes")] = 2,
    faults: Annotated[str, typer.Option(help="only these, by name, separated by commas; none: not any")] = "",
    list_faults: Annotated[bool, typer.Option("--list-faults", help="say which there are, and end")] = False,
    seed: Annotated[int, typer.Option(help="of the schedule of faults and of the payments")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE in the environment of every okane process")
    ] = None,
    rest: Annotated[
        float, typer.Option(min=1, max=1e6, callback=finite, help="seconds to come to rest in the end")
    ] = 120.0,
    data: Annotated[
        Path | None, typer.Option(help="folder (default: a temporary one, kept when something is wrong)")
    ] = None,
    json_: Json = False,
) -> None:
    """Torture a system of its own on this machine: kill, stop, cut off and starve it while it is paid through, then check
    every invariant over what clients, provider, Postgres and metrics say. Exit code 1 if one is violated."""
    from rich.console import Console

    from okane import logs
    from okane.torture.faults.listing import listed
    from okane.torture.options import TortureOptions
    from okane.torture.run import run_torture

    console = Console(highlight=False)
    if list_faults:
        console.out(listed(as_json=json_))
        return
    try:
        options = TortureOptions(
            minutes=minutes,
            kills=kills,
            payments=payments,
            rate=rate,
            workers=workers,
            apis=apis,
            faults=tuple(name for name in faults.split(",") if name),
            seed=seed,
            settings=dict(_named(setting) for setting in settings or ()),
            rest_s=rest,
            data=data,
            json=json_,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    logs.configure(level="error", format_="console", process="torture")  # what is lost and found is in the report
    # Not on uvloop: its closed connections are in the way of a proxy that resets them.
    sys.exit(asyncio.run(run_torture(options, console)).exit_code)


def _named(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not name or not equals:
        raise typer.BadParameter("expected NAME=VALUE")
    return name, value


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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure okane on this machine, against other ways to do the same. Only in a checkout; `--help` tells the options."""
    if not (_CHECKOUT / "bench" / "__main__.py").exists():
        shared.fail(
            "the benchmarks are not installed: they stand in bench/ of a checkout, run `python3 run.py bench` there"
        )
    from bench.__main__ import main as run

    run(context.args)
