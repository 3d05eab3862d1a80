"""API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from okane.api_key import ACCOUNT, Mode
from okane.cli import shared
from okane.cli.shared import Data, Json

app = typer.Typer(help="API keys: who may use the API, and for what.", no_args_is_help=True)


@app.command()
def create(
    *,
    data: Data = None,
    account: Annotated[str, typer.Option(help="whose payments it is for")] = ACCOUNT,
    scopes: Annotated[
        str, typer.Option(help="what it may do: read, write, operate, separated by commas")
    ] = "read,write",
    mode: Annotated[Mode | None, typer.Option(help="for play money, or somebody's (default: OKANE_MODE)")] = None,
    name: Annotated[str, typer.Option(help="what it is for, in your words")] = "",
    expires: Annotated[str | None, typer.Option(help="it ends after so long: 30m, 720h (default: never)")] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="requests: 100/s, 6000/m, 100/s burst 500 (default: OKANE_RATE_LIMIT)")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a key. Its secret is printed once."""
    from okane.commands import keys as command

    wanted = command.Wanted(
        account=account,
        scopes=scopes,
        mode=mode,
        name=shared.label(name, "--name") if name else "",
        lifetime=None if expires is None else shared.duration(expires),
        rate=rate_limit,
    )
    shared.run(command.create(shared.context(data), wanted, as_json=json_))


@app.command()
def ls(
    *,
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="only this one's")] = None,
    everything: Annotated[bool, typer.Option("--all", help="those that were revoked or have expired, too")] = False,
    json_: Json = False,
) -> None:
    """List keys: whose, what for, and when they were last used."""
    from okane.commands import keys as command

    shared.run(command.ls(shared.context(data), account=account, everything=everything, as_json=json_))


@app.command()
def revoke(key: str, *, data: Data = None, json_: Json = False) -> None:
    """Let a key in no more, named as `okane keys ls` does. Every API knows it within 5 s."""
    from okane.commands import keys as command

    shared.run(command.revoke(shared.context(data), key, as_json=json_))


@app.command()
def rotate(
    key: str,
    *,
    data: Data = None,
    overlap: Annotated[str, typer.Option(help="the old one ends after so long: 30m, 24h")] = "24h",
    json_: Json = False,
) -> None:
    """Make a key that may do the same as this one, which ends after the overlap."""
    from okane.commands import keys as command

    shared.run(command.rotate(shared.context(data), key, overlap=shared.duration(overlap), as_json=json_))
