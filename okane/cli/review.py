"""`okane review`: list and show payments, captures, voids and refunds that need a human's decision, and record it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from okane.cli.context import Context, open_context
from okane.cli.dead_operations import (
    Operations,
    count_reviews,
    document,
    find_operation,
    list_reviews,
    show_operation,
)
from okane.cli.options import Data, Json, Yes
from okane.cli.output import CONSOLE, event_document, iso, print_json
from okane.cli.running import run
from okane.cli.stores import Stores, open_stores, payment_id
from okane.errors import PaymentArchived, PaymentNotFound, SetupError
from okane.intake.decision_texts import find_fault
from okane.operation import OperationStatus
from okane.payment import Payment, Status
from okane.store import OPERATOR
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)


class Decision(StrEnum):
    """The statuses that a decision can set."""

    SUCCESS = "success"
    FAILED_FINAL = "failed_final"


@app.command()
def ls(
    *,
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="only those of this account")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[
        str | None, typer.Option(help="the next page: the place that is printed at the end of this one")
    ] = None,
    operations: Operations = False,
    json_: Json = False,
) -> None:
    """List payments that need a review, newest first."""
    run(_list(open_context(data), operations=operations, account=account, limit=limit, before=before, as_json=json_))


@app.command()
def show(payment_id: str, *, data: Data = None, json_: Json = False) -> None:
    """Show one payment, capture, void or refund with its provider key and its timeline."""
    run(_show(open_context(data), payment_id, as_json=json_))


@app.command()
def resolve(
    payment_id: str,
    *,
    data: Data = None,
    decision: Annotated[Decision, typer.Option("--as", help="the outcome according to the provider")],
    reason: Annotated[str, typer.Option(help="the reason, kept in the history")],
    provider_ref: Annotated[
        str | None,
        typer.Option("--provider-ref", help="the charge or refund found at the provider, with success only"),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="refused unless it still is in this version")
    ] = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Decide a payment, capture, void or refund. Repeating a decision changes nothing; a different one is refused."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Record for good that {payment_id} is {decision}?", abort=True, err=True)
    run(
        _resolve(
            open_context(data),
            payment_id,
            decision=decision,
            reason=reason,
            provider_ref=provider_ref,
            version=version,
            as_json=json_,
        )
    )


async def _list(
    context: Context, *, operations: bool, account: str | None, limit: int, before: str | None, as_json: bool
) -> None:
    """Print a page, newest first."""
    async with open_stores(context) as stores:
        if operations:
            await list_reviews(stores, account=account, limit=limit, before=before, as_json=as_json)
            return
        place = None if before is None else _id(before)
        found = await stores.reviews.page(limit + 1, account_id=account, before=place)
        others = 0 if account else await count_reviews(stores)
    payments, more = found[:limit], len(found) > limit
    older = str(payments[-1].id) if more else None
    if as_json:
        found_payments = [_document(payment) for payment in payments]
        of_all = {} if account else {"operations": others}
        print_json({"payments": found_payments, "before": older, **of_all})
        return
    if payments:
        _print_payments(payments)
        CONSOLE.print(f"{len(payments):,}" + (f"; older ones: okane review ls --before {older}" if older else ""))
    elif before is not None:
        CONSOLE.print("nothing older needs a review")
    else:
        CONSOLE.print("no payment needs a review" if others or account else "nothing needs a review")
    if others:
        CONSOLE.print(f"captures, voids and refunds: {others:,} (okane review ls --operations)")


def _print_payments(payments: Sequence[Payment]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("payment", "account", "amount", "currency", "since", "reason"):
        table.add_column(column, no_wrap=column != "reason", justify="right" if column == "amount" else "left")
    for payment in payments:
        table.add_row(
            str(payment.id),
            payment.account_id,
            f"{payment.amount_minor:,}",
            payment.currency,
            format_time(payment.updated_at),
            payment.last_error or "",
        )
    CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)


async def _show(context: Context, payment_id: str, *, as_json: bool) -> None:
    """Print one payment or operation, whatever its status, with its timeline."""
    async with open_stores(context) as stores:
        if (operation := await find_operation(stores, _id(payment_id))) is not None:
            await show_operation(stores, operation, as_json=as_json)
            return
        payment = await _find_payment(stores, payment_id)
        events = await stores.payments.events(payment.id)
    if as_json:
        print_json({**_document(payment), "events": [event_document(event) for event in events]})
        return
    for name, value in _document(payment).items():
        if value is not None:
            CONSOLE.print(f"{name:<12} {value}", soft_wrap=True)
    for event in events:
        line = f"{event.event:<13} {event.status:<17} attempt {event.attempt:<3} {event.actor}  {event.reason or ''}"
        CONSOLE.print(f"{format_time(event.at)}  {line}", soft_wrap=True)


async def _resolve(
    context: Context,
    payment_id: str,
    *,
    decision: Decision,
    reason: str,
    provider_ref: str | None,
    version: int | None,
    as_json: bool,
) -> None:
    """Decide a payment or operation that needs a review, and remove its dead letter."""
    if provider_ref is not None and decision is not Decision.SUCCESS:
        raise SetupError("--provider-ref goes with --as success only")
    if fault := find_fault(reason, provider_ref, Status(decision.value)):
        option, text = fault
        raise SetupError(f"--{option.replace('_', '-')} {text}")
    async with open_stores(context) as stores:
        if (operation := await find_operation(stores, _id(payment_id))) is not None:
            decided = await stores.operation_intake.resolve(
                operation.id,
                account_id=None,
                decision=OperationStatus.SUCCESS if decision is Decision.SUCCESS else OperationStatus.FAILED_FINAL,
                reason=reason,
                provider_ref=provider_ref,
                actor=OPERATOR,
                version=version,
            )
            await stores.operation_replay.remove_notes([decided.id])
            if as_json:
                print_json(document(decided))
            else:
                line = f"{decided.kind} {decided.id} of {decided.account_id} is {decided.status}"
                CONSOLE.print(line, soft_wrap=True)
            return
        found = await _find_payment(stores, payment_id)
        payment = await stores.intake.resolve(
            found.id,
            account_id=None,
            decision=Status.SUCCESS if decision is Decision.SUCCESS else Status.FAILED_FINAL,
            reason=reason,
            provider_ref=provider_ref,
            actor=OPERATOR,
            version=version,
        )
        await stores.replay.remove_notes([payment.id])
    if as_json:
        print_json(_document(payment))
    else:
        CONSOLE.print(f"payment {payment.id} of {payment.account_id} is {payment.status}", soft_wrap=True)


async def _find_payment(stores: Stores, text: str) -> Payment:
    payment_id = _id(text)
    try:
        return await stores.reviews.find(payment_id)
    except PaymentArchived:
        raise SetupError(f"payments of the time of {payment_id} were archived") from None
    except PaymentNotFound:
        raise SetupError(f"there is no payment {payment_id}: see `okane review ls`") from None


def _id(text: str) -> UUID:
    return payment_id(text, listed_by="okane review ls")


def _document(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": str(payment.id),
        "account_id": payment.account_id,
        "status": payment.status.value,
        "version": payment.version,
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "attempts": payment.attempts,
        "reason": payment.last_error,
        "provider_key": payment.provider_key,  # what to search for at the provider
        "provider": payment.called_provider,
        "provider_ref": payment.provider_ref,
        "attempt_ref": payment.attempt_ref,
        "created_at": iso(payment.created_at),
        "updated_at": iso(payment.updated_at),
    }
