"""Captures, voids and refunds as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from okane.cli.api_client import plain
from okane.cli.output import CONSOLE, print_json
from okane.cli.webhook_output import printable
from okane.client import Operation, OperationReceipt
from okane.timestamp_text import format_time


def document(operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON shows it."""
    members: dict[str, Any] = plain(operation)
    return members


def print_operation(operation: Operation, *, as_json: bool) -> None:
    """Print one operation with all its members."""
    members = document(operation)
    if as_json:
        print_json(members)
        return
    for name, value in members.items():
        if value is not None and value != {}:
            CONSOLE.print(f"{name:<16} {printable(str(value))}", soft_wrap=True)


def print_receipt(receipt: OperationReceipt, *, as_json: bool) -> None:
    """Print what was requested, in a line."""
    operation = receipt.operation
    if as_json:
        print_json({**document(operation), "created": receipt.created, "enqueued": receipt.enqueued})
        return
    earlier = "" if receipt.created else " (of an earlier request)"
    CONSOLE.print(
        f"{operation.kind} {operation.id} of {operation.amount:,} {operation.currency} is {operation.status}{earlier}",
        soft_wrap=True,
    )


def print_operations(found: Sequence[Operation], *, by_payment: bool) -> None:
    """Print a line for each, and one with its payment, if they are not all of one, and its reason."""
    for one in found:
        amount = f"{one.amount:,} {one.currency}"
        line = f"{one.id}  {one.kind:<7} {amount:>16}  {one.status:<16} {format_time(one.created_at)}"
        CONSOLE.print(line, soft_wrap=True)
        about = (
            f"payment {one.payment_id}" if by_payment else "",
            one.last_error or one.decline_code or one.reason or "",
        )
        if any(about):
            CONSOLE.print(f"    {'  '.join(printable(part) for part in about if part)}", soft_wrap=True)
