"""`okane refunds`: the refunds of the account whose API key is used."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import UUID

import typer

from okane.cli.api_client import Key, Url, first, open_client
from okane.cli.context import open_context
from okane.cli.operation_output import document, print_operation, print_operations, print_receipt
from okane.cli.operation_requests import Amount, Currency, IdempotencyKey, chosen_key, requested
from okane.cli.options import Data, Json, Yes, check_label
from okane.cli.output import CONSOLE, more_line, print_json
from okane.cli.review import Decision
from okane.cli.running import run
from okane.cli.stores import payment_id as parsed_payment_id
from okane.client import NewRefund, RefundFilter, arguments
from okane.errors import SetupError
from okane.intake.decision_texts import find_fault
from okane.operation import OperationStatus
from okane.payment import Status

app = typer.Typer(no_args_is_help=True, add_completion=False)

RefundArgument = Annotated[str, typer.Argument(metavar="REFUND", help="the refund's id, from `okane refunds ls`")]


@app.command()
def ls(
    *,
    data: Data = None,
    status: Annotated[list[OperationStatus] | None, typer.Option(help="only in this status; repeatable")] = None,
    payment: Annotated[str | None, typer.Option(help="only those of this payment")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """List refunds, newest first."""
    wanted = RefundFilter()
    if status:
        wanted["status"] = status
    if payment is not None:
        wanted["payment"] = parsed_payment_id(payment, listed_by="GET /v1/payments")

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found, more = await first(client.refunds.list(**wanted), limit)
        if json_:
            print_json({"refunds": [document(one) for one in found], "more": more})
            return
        print_operations(found, by_payment=True)
        if not found:
            CONSOLE.print("there are no such refunds")
        if more:
            CONSOLE.print(more_line(limit))

    run(main())


@app.command()
def show(refund: RefundArgument, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Show one refund."""
    refund_id = _id(refund)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.refunds.get(refund_id)
        print_operation(found, as_json=json_)

    run(main())


@app.command()
def create(
    payment: Annotated[str, typer.Argument(metavar="PAYMENT", help="the payment whose money is given back")],
    *,
    data: Data = None,
    amount: Amount = None,
    currency: Currency = None,
    reason: Annotated[str | None, typer.Option(help="kept with the refund")] = None,
    idempotency_key: IdempotencyKey = None,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Give money of a payment back: all that is not refunded yet, or --amount."""
    try:
        new = NewRefund(
            payment_id=parsed_payment_id(payment, listed_by="GET /v1/payments"),
            idempotency_key=chosen_key(idempotency_key),
            amount=amount,
            currency=currency,
            reason=None if reason is None else check_label(reason, "--reason"),
        )
    except ValueError as error:
        raise SetupError(str(error)) from None
    if not yes and sys.stdin.isatty():
        what = "all that is left" if amount is None else f"{amount:,} (in minor units)"
        typer.confirm(f"Refund {what} of payment {new.payment_id}?", abort=True, err=True)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            with requested(new.idempotency_key):
                receipt = await client.refunds.create(new)
        print_receipt(receipt, as_json=json_)

    run(main())


@app.command()
def cancel(refund: RefundArgument, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Withdraw a refund before it is executed."""
    refund_id = _id(refund)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.refunds.cancel(refund_id)
        print_operation(found, as_json=json_)

    run(main())


@app.command()
def retry(refund: RefundArgument, *, data: Data = None, url: Url = None, key: Key = None, json_: Json = False) -> None:
    """Try a failed refund again."""
    refund_id = _id(refund)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            receipt = await client.refunds.retry(refund_id)
        print_operation(receipt.operation, as_json=json_)

    run(main())


@app.command()
def resolve(
    refund: RefundArgument,
    *,
    data: Data = None,
    decision: Annotated[Decision, typer.Option("--as", help="the outcome according to the provider")],
    reason: Annotated[str, typer.Option(help="the reason, kept in the refund's history")],
    provider_ref: Annotated[
        str | None, typer.Option("--provider-ref", help="the refund found at the provider, with success only")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="refused unless the refund still is in this version")
    ] = None,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    json_: Json = False,
) -> None:
    """Decide a refund that needs a review; the key needs the scope operate."""
    refund_id = _id(refund)
    if fault := find_fault(reason, provider_ref, Status(decision.value)):
        option, text = fault
        raise SetupError(f"--{option.replace('_', '-')} {text}")
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Record for good that refund {refund_id} is {decision}?", abort=True, err=True)

    async def main() -> None:
        async with open_client(open_context(data), url, key) as client:
            found = await client.refunds.resolve(
                refund_id, as_=decision.value, reason=reason, provider_ref=provider_ref, version=version
            )
        print_operation(found, as_json=json_)

    run(main())


def _id(text: str) -> UUID:
    try:
        return arguments.refund_id(text)
    except ValueError:
        raise SetupError(f"{text[:64]!r} is not a refund's id: see `okane refunds ls`") from None
