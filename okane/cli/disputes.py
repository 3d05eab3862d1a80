"""`okane disputes`: the disputes of the account whose API key is used."""

from __future__ import annotations

from typing import Annotated

import typer

from okane.cli.api_client import Key, Url, first, open_client, plain
from okane.cli.context import open_context
from okane.cli.options import Data, Json
from okane.cli.output import CONSOLE, more_line, print_json
from okane.cli.running import run
from okane.cli.stores import payment_id as parsed_payment_id
from okane.cli.webhook_output import printable
from okane.client import Dispute, arguments
from okane.dispute import DisputeStatus
from okane.errors import SetupError
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def ls(
    *,
    data: Data = None,
    status: Annotated[list[DisputeStatus] | None, typer.Option(help="only in this status; repeatable")] = None,
    provider: Annotated[str | None, typer.Option(help="only those at this provider")] = None,
    payment: Annotated[str | None, typer.Option(help="only those of this payment")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="how many at most")] = 20,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List disputes, newest first."""
    payment_id = None if payment is None else parsed_payment_id(payment, listed_by="GET /v1/payments")

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            listed = client.disputes.list(status=status or (), provider=provider, payment_id=payment_id)
            found, more = await first(listed, limit)
        if json_:
            print_json({"disputes": plain(found), "more": more})
            return
        for one in found:
            _print_line(one)
        if not found:
            CONSOLE.print("there are no such disputes")
        if more:
            CONSOLE.print(more_line(limit))

    run(main())


@app.command()
def show(
    dispute: Annotated[str, typer.Argument(metavar="DISPUTE", help="the dispute's id, from `okane disputes ls`")],
    *,
    data: Data = None,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Show one dispute as its provider reported it last."""
    try:
        dispute_id = arguments.dispute_id(dispute)
    except ValueError:
        raise SetupError(f"{dispute[:64]!r} is not a dispute's id: see `okane disputes ls`") from None

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            members = plain(await client.disputes.get(dispute_id))
        if json_:
            print_json(members)
            return
        for name, value in members.items():
            if value is not None:
                CONSOLE.print(f"{name:<16} {printable(str(value))}", soft_wrap=True)

    run(main())


def _print_line(one: Dispute) -> None:
    """Print a dispute, and below it its payment, its reason, and the end of the time for evidence while one is awaited."""
    amount = f"{one.amount:,} {one.currency}"
    line = f"{one.id}  {amount:>16}  {one.status:<14} {format_time(one.created_at)}  {one.provider} {one.provider_ref}"
    CONSOLE.print(printable(line), soft_wrap=True)
    about = [f"payment {one.payment}"]
    if one.reason is not None:
        about.append(printable(one.reason))
    if one.due_by is not None and one.status is DisputeStatus.NEEDS_RESPONSE:
        about.append(f"evidence until {format_time(one.due_by)}")
    CONSOLE.print(f"    {'  '.join(about)}", soft_wrap=True)
