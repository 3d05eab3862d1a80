"""`okane dead` and `okane review` for captures, voids and refunds (`--operations`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from okane.cli.dead_place import cursor, place
from okane.cli.output import CONSOLE, iso, print_json
from okane.cli.stores import Stores, payment_id
from okane.cli.webhook_output import printable
from okane.errors import OperationNotFound, SetupError
from okane.monitoring.operation_summary import count_in
from okane.operation import Operation, OperationStatus
from okane.store import OPERATOR
from okane.store.dead_operations import DeadOperation
from okane.store.operation_records import OperationEvent
from okane.timestamp_text import format_time

Operations = Annotated[
    bool, typer.Option("--operations", help="captures, voids and refunds in the place of payments; IDs are theirs")
]


async def list_dead(stores: Stores, *, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page of those that were given up, newest first."""
    found = await stores.dead_operations.page(limit + 1, before=None if before is None else place(before))
    total = await stores.overview.count_dead_operations()
    shown, older = found[:limit], cursor(found[limit - 1].place) if len(found) > limit else None
    if as_json:
        print_json({"operations": [dead_document(one) for one in shown], "total": total, "before": older})
    elif not shown:
        CONSOLE.print("no dead captures, voids or refunds" if total == 0 else "no older ones")
    else:
        _print_lines(shown)
        more = f"; older ones: okane dead ls --operations --before {older}" if older else ""
        CONSOLE.print(f"{len(shown):,} of {total:,}{more}", soft_wrap=True)


async def list_reviews(stores: Stores, *, account: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page of those that need a review, newest first."""
    found = await stores.dead_operations.page(
        limit + 1,
        before=None if before is None else place(before),
        status=OperationStatus.NEEDS_REVIEW,
        account_id=account,
    )
    shown, older = found[:limit], cursor(found[limit - 1].place) if len(found) > limit else None
    if as_json:
        print_json({"operations": [dead_document(one) for one in shown], "before": older})
    elif not shown:
        CONSOLE.print("nothing needs a review" if before is None else "nothing older needs a review")
    else:
        _print_lines(shown)
        more = f"; older ones: okane review ls --operations --before {older}" if older else ""
        CONSOLE.print(f"{len(shown):,}{more}", soft_wrap=True)


async def count_reviews(stores: Stores) -> int:
    """Return the number of captures, voids and refunds that need a review."""
    return count_in(await stores.overview.count_waiting_operations(), OperationStatus.NEEDS_REVIEW)


async def replay_dead(
    stores: Stores, texts: Sequence[str] | None, *, limit: int | None, dry_run: bool, as_json: bool
) -> None:
    """Retry these operations (None: all, oldest first)."""
    if texts is None:
        chosen = await stores.dead_operations.oldest(limit)
    else:
        chosen = (await _select(stores, [operation_id(text) for text in texts]))[:limit]
    done = await stores.operation_replay.run(chosen, dry_run=dry_run, actor=OPERATOR)
    retried, kept = len(done.retried), len(done.kept)
    if as_json:
        print_json({"retried": retried, "kept": kept, "dry_run": dry_run})
        return
    why = "they need a review, or what they move is no longer there"
    CONSOLE.print(
        f"{'would retry' if dry_run else 'retried'} {retried:,}" + (f", {kept:,} kept: {why}" if kept else "")
    )


async def purge_dead(
    stores: Stores, texts: Sequence[str] | None, *, older_than: timedelta | None, as_json: bool
) -> None:
    """Remove these (None: all, or those older than a time) from the list, but those that need a review."""
    ids = None if texts is None else [operation_id(text) for text in texts]
    purged = await stores.dead_operations.dismiss(ids=ids, older_than=older_than)
    await stores.operation_replay.remove_notes(purged)
    if as_json:
        print_json({"purged": len(purged)})
    else:
        CONSOLE.print(f"purged {len(purged):,}")


async def find_operation(stores: Stores, found_id: UUID) -> Operation | None:
    """Return an operation of any account, or None."""
    try:
        return await stores.operations.get(found_id)
    except OperationNotFound:
        return None


async def show_operation(stores: Stores, operation: Operation, *, as_json: bool) -> None:
    """Print one operation with its provider key and its timeline."""
    events = await stores.operations.events(operation.id)
    if as_json:
        print_json({**document(operation), "events": [_event_document(event) for event in events]})
        return
    for name, value in document(operation).items():
        if value is not None:
            CONSOLE.print(f"{name:<13} {printable(str(value))}", soft_wrap=True)
    for event in events:
        line = f"{event.event:<13} {event.status:<17} attempt {event.attempt:<3} {event.actor}  {event.reason or ''}"
        CONSOLE.print(f"{format_time(event.at)}  {printable(line)}", soft_wrap=True)


def operation_id(text: str) -> UUID:
    """Parse the id of an operation. Raises SetupError."""
    try:
        return payment_id(text, listed_by="okane dead ls --operations")
    except SetupError:
        raise SetupError(f"{text!r} is not the id of a capture, void or refund") from None


def dead_document(dead: DeadOperation) -> dict[str, Any]:
    """Return a dead operation as JSON shows it."""
    return {**document(dead.operation), "dead_at": iso(dead.dead_at)}


def document(operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON shows it to an operator."""
    return {
        "operation_id": str(operation.id),
        "kind": operation.kind.value,
        "payment_id": str(operation.payment_id),
        "account_id": operation.account_id,
        "status": operation.status.value,
        "version": operation.version,
        "amount": operation.amount_minor,
        "currency": operation.currency,
        "attempts": operation.attempts,
        "reason": operation.last_error,
        "decline_code": operation.decline_code,
        "provider": operation.provider,
        "provider_key": operation.provider_key,  # what to search for at the provider
        "provider_ref": operation.provider_ref,
        "created_at": iso(operation.created_at),
        "updated_at": iso(operation.updated_at),
    }


async def _select(stores: Stores, ids: Sequence[UUID]) -> Sequence[DeadOperation]:
    """Return those of these ids in this order. Raises SetupError for a missing one."""
    found = {one.operation.id: one for one in await stores.dead_operations.find_many(ids)}
    if missing := [str(one) for one in ids if one not in found]:
        raise SetupError(f"no dead capture, void or refund: {', '.join(missing)}. See `okane dead ls --operations`")
    return [found[one] for one in ids]


def _print_lines(shown: Sequence[DeadOperation]) -> None:
    """Print a line for each, and one with its payment and its reason: 80 columns cut no id."""
    for one in shown:
        operation = one.operation
        amount = f"{operation.amount_minor:,} {operation.currency}"
        line = f"{operation.id}  {operation.kind:<7} {amount:>16}  {operation.status:<12} {format_time(one.dead_at)}"
        CONSOLE.print(line, soft_wrap=True)
        about = (f"payment {operation.payment_id} of {operation.account_id}", operation.last_error or "")
        CONSOLE.print(f"    {'  '.join(printable(part) for part in about if part)}", soft_wrap=True)


def _event_document(event: OperationEvent) -> dict[str, Any]:
    return {
        "at": iso(event.at),
        "event": event.event,
        "status": event.status.value,
        "attempt": event.attempt,
        "actor": event.actor,
        "reason": event.reason,
    }
