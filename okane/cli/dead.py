"""Dead letters."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from okane.cli import shared
from okane.cli.shared import Data, Json, Yes
from okane.commands.options import finite

app = typer.Typer(help="Dead letters: payments that were given up, and why.", no_args_is_help=True)


@app.command()
def ls(
    *,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[str | None, typer.Option(help="the next page: TIME,ID as the last one ends with")] = None,
    json_: Json = False,
) -> None:
    """List dead letters, newest first."""
    from okane.commands import dead as command

    shared.run(command.ls(shared.context(data), limit=limit, before=before, as_json=json_))


@app.command()
def show(payment_id: str, *, data: Data = None, json_: Json = False) -> None:
    """Show one dead letter and its payment's timeline."""
    from okane.commands import dead as command

    shared.run(command.show(shared.context(data), payment_id, as_json=json_))


@app.command()
def replay(
    payment_ids: Annotated[list[str] | None, typer.Argument(help="from `okane dead ls`")] = None,
    *,
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="every one, oldest first")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="at most so many")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would happen")] = False,
    json_: Json = False,
) -> None:
    """Try payments again: they become pending, and leave the list."""
    from okane.commands import dead as command

    shared.run(
        command.replay(
            shared.context(data),
            _chosen(payment_ids, everything=everything),
            limit=limit,
            dry_run=dry_run,
            as_json=json_,
        )
    )


@app.command()
def purge(
    payment_ids: Annotated[list[str] | None, typer.Argument(help="from `okane dead ls`")] = None,
    *,
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="every one")] = False,
    older_than_h: Annotated[
        float | None, typer.Option(min=0, max=1_000_000, callback=finite, help="only those older than so many hours")
    ] = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Strike payments off the list. They stay as they are: failed_final, or needs_review."""
    from okane.commands import dead as command

    older_than = None if older_than_h is None else timedelta(hours=older_than_h)
    chosen = None if older_than is not None and not payment_ids else _chosen(payment_ids, everything=everything)
    if chosen is None and not yes:
        typer.confirm("Strike all of these off the list?", abort=True, err=True)
    shared.run(command.purge(shared.context(data), chosen, older_than=older_than, as_json=json_))


def _chosen(payment_ids: list[str] | None, *, everything: bool) -> list[str] | None:
    """The payments named, or None for all of them."""
    if bool(payment_ids) == everything:
        raise typer.BadParameter("name payments, or say --all")
    return payment_ids
