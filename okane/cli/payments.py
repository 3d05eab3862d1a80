"""`okane payments`: take or let go the money that is held for a payment, with the API key of its account."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from okane.cli.api_client import Key, Url, open_client, plain
from okane.cli.context import open_context
from okane.cli.operation_output import document, print_operations, print_receipt
from okane.cli.operation_requests import Amount, Currency, IdempotencyKey, chosen_key, requested
from okane.cli.options import Data, Json, Yes
from okane.cli.output import CONSOLE, print_json
from okane.cli.running import run
from okane.cli.stores import payment_id as parsed_payment_id

LISTED_BY = "GET /v1/payments"

PaymentArgument = Annotated[str, typer.Argument(metavar="PAYMENT", help="the payment's id")]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def capture(
    payment: PaymentArgument,
    *,
    data: Data = None,
    amount: Amount = None,
    currency: Currency = None,
    idempotency_key: IdempotencyKey = None,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Take the money that is held: all of it, or --amount, and the rest is let go."""
    payment_id, own_key = parsed_payment_id(payment, listed_by=LISTED_BY), chosen_key(idempotency_key)
    if not yes and sys.stdin.isatty():
        what = "all that is held" if amount is None else f"{amount:,} (in minor units)"
        typer.confirm(f"Capture {what} for payment {payment_id}?", abort=True, err=True)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            with requested(own_key):
                receipt = await client.capture(payment_id, amount=amount, currency=currency, idempotency_key=own_key)
        print_receipt(receipt, as_json=json_)

    run(main())


@app.command()
def void(
    payment: PaymentArgument,
    *,
    data: Data = None,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Let the money go that is held, or withdraw a payment that is not charged yet."""
    payment_id = parsed_payment_id(payment, listed_by=LISTED_BY)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Cancel payment {payment_id}?", abort=True, err=True)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            canceled = await client.cancel(payment_id)
        if json_:
            print_json(plain(canceled))
        elif canceled.status == "canceled":
            CONSOLE.print(f"payment {canceled.id} is canceled", soft_wrap=True)
        else:
            CONSOLE.print(f"payment {canceled.id} is {canceled.status}: its void is under way", soft_wrap=True)

    run(main())


@app.command()
def operations(
    payment: PaymentArgument, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False
) -> None:
    """List the captures, voids and refunds of a payment, oldest first."""
    payment_id = parsed_payment_id(payment, listed_by=LISTED_BY)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = [one async for one in client.operations(payment_id)]
        if json_:
            print_json({"operations": [document(one) for one in found]})
        elif not found:
            CONSOLE.print("the payment has no captures, voids or refunds")
        else:
            print_operations(found, by_payment=False)

    run(main())
