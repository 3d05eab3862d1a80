"""`okane methods`: the saved payment methods of the account whose API key is used."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from okane.cli.api_client import Key, Url, first, open_client, plain
from okane.cli.context import open_context
from okane.cli.options import Data, Json, Yes
from okane.cli.output import CONSOLE, more_line, print_json
from okane.cli.running import run
from okane.client import PaymentMethod, arguments
from okane.errors import SetupError
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)

Which = Annotated[str, typer.Argument(metavar="METHOD", help="the payment method's id")]


@app.command()
def ls(
    *,
    data: Data = None,
    customer: Annotated[str | None, typer.Option(help="of this customer, by the client's name for them")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="how many at most")] = 50,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List the payment methods that are not deleted, newest first."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found, more = await first(client.payment_methods.list(customer=customer), limit)
        if json_:
            print_json({"payment_methods": plain(found), "more": more})
            return
        for method in found:
            CONSOLE.print(_line(method), soft_wrap=True)
        if not found:
            CONSOLE.print("no payment methods")
        if more:
            CONSOLE.print(more_line(limit))

    run(main())


@app.command()
def show(method: Which, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Show one payment method, also a deleted one."""

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.payment_methods.get(_id(method))
        if json_:
            print_json(plain(found))
        else:
            CONSOLE.print(_line(found), soft_wrap=True)

    run(main())


@app.command()
def rm(
    method: Which, *, data: Data = None, yes: Yes = False, url: Url = None, key: Key = None, json_: Json = False
) -> None:
    """Delete a payment method. It takes no new payments; those that were accepted are still charged."""

    async def main() -> None:
        chosen = _id(method)
        async with open_client(open_context(data), url, key) as client:
            found = await client.payment_methods.get(chosen)
            if not yes:
                typer.confirm(f"Delete the payment method {_line(found)}?", abort=True, err=True)
            await client.payment_methods.delete(chosen)
        if json_:
            print_json({"deleted": str(chosen)})
        else:
            CONSOLE.print(f"deleted {chosen}: it takes no new payments")

    run(main())


def _line(method: PaymentMethod) -> str:
    digits = None if method.last4 is None else f"…{method.last4}"
    expires = None if method.expires is None else f"until {method.expires}"
    customer = None if method.customer is None else f"customer {method.customer}"
    deleted = None if method.deleted_at is None else f"deleted {format_time(method.deleted_at)}"
    parts = [str(method.id), method.kind, method.brand, digits, expires, ",".join(method.providers), customer, deleted]
    return "  ".join(part for part in parts if part is not None)


def _id(text: str) -> UUID:
    try:
        return arguments.method_id(text)
    except ValueError:
        raise SetupError(f"{text[:64]!r} is not a payment method's id: see `okane methods ls`") from None
