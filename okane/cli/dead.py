"""`okane dead`: list, show, replay and purge dead letters: payments, or with `--operations` captures, voids and refunds.

The list is in Postgres; `replay` and `purge` also delete the entry of the dead-letter stream in Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from okane.cli.context import Context, open_context
from okane.cli.dead_operations import Operations, list_dead, purge_dead, replay_dead, show_operation
from okane.cli.dead_place import cursor, place
from okane.cli.options import Data, Json, Yes, finite
from okane.cli.output import CONSOLE, event_document, iso, print_json
from okane.cli.running import run
from okane.cli.stores import Stores, open_stores, payment_id
from okane.errors import SetupError
from okane.store import OPERATOR, DeadPayment
from okane.timestamp_text import format_time

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def ls(
    *,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[str | None, typer.Option(help="the next page: TIME,ID from the end of this one")] = None,
    operations: Operations = False,
    json_: Json = False,
) -> None:
    """List dead letters, newest first."""
    run(_list(open_context(data), operations=operations, limit=limit, before=before, as_json=json_))


@app.command()
def show(payment_id: str, *, data: Data = None, json_: Json = False) -> None:
    """Show one dead letter and its timeline: of a payment, or of a capture, void or refund."""
    run(_show(open_context(data), payment_id, as_json=json_))


@app.command()
def replay(
    payment_ids: Annotated[list[str] | None, typer.Argument(help="from `okane dead ls`")] = None,
    *,
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="every one, oldest first")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="maximum number")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would happen, change nothing")] = False,
    operations: Operations = False,
    json_: Json = False,
) -> None:
    """Retry payments or operations: they become pending and leave the list."""
    run(
        _replay(
            open_context(data),
            _selected_ids(payment_ids, everything=everything),
            operations=operations,
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
        float | None,
        typer.Option(min=0, max=1_000_000, callback=finite, help="only dead letters older than this many hours"),
    ] = None,
    operations: Operations = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Remove payments or operations from the list. Their status stays. Operations that need a review stay in the list."""
    older_than = None if older_than_h is None else timedelta(hours=older_than_h)
    ids = None if older_than is not None and not payment_ids else _selected_ids(payment_ids, everything=everything)
    if ids is None and not yes:
        typer.confirm("Remove all of these from the list?", abort=True, err=True)
    run(_purge(open_context(data), ids, operations=operations, older_than=older_than, as_json=json_))


def _selected_ids(payment_ids: list[str] | None, *, everything: bool) -> list[str] | None:
    """Return the ids given, or None for `--all`. Raises BadParameter."""
    if bool(payment_ids) == everything:
        raise typer.BadParameter("name them by their IDs, or give --all")
    return payment_ids


async def _list(context: Context, *, operations: bool, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page, newest first."""
    async with open_stores(context) as stores:
        if operations:
            await list_dead(stores, limit=limit, before=before, as_json=as_json)
            return
        found = await stores.dead_letters.page(limit + 1, before=None if before is None else place(before))
        total, others = await stores.overview.count_dead(), await stores.overview.count_dead_operations()
    letters, more = found[:limit], len(found) > limit
    older = cursor(letters[-1].place) if more else None
    if as_json:
        found_letters = [_letter(letter) for letter in letters]
        print_json({"letters": found_letters, "total": total, "before": older, "operations": others})
        return
    if not letters:
        CONSOLE.print("no dead letters" if total == 0 else "no older dead letters")
    else:
        _print_letters(letters)
        next_page = f"; older ones: okane dead ls --before {older}" if older else ""
        CONSOLE.print(f"{len(letters):,} of {total:,}{next_page}")
    if others:
        CONSOLE.print(f"captures, voids and refunds: {others:,} more (okane dead ls --operations)")


def _print_letters(letters: Sequence[DeadPayment]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("payment", "account", "status", "lane", "dead since", "reason"):
        table.add_column(column, no_wrap=column != "reason")
    for letter in letters:
        since = format_time(letter.dead_at)
        payment = letter.payment
        table.add_row(
            str(payment.id), payment.account_id, payment.status.value, payment.lane, since, payment.last_error or ""
        )
    CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)


async def _show(context: Context, payment_id: str, *, as_json: bool) -> None:
    """Print one dead letter with its payment's timeline."""
    async with open_stores(context) as stores:
        for dead in await stores.dead_operations.find_many([_id(payment_id)]):
            await show_operation(stores, dead.operation, as_json=as_json)
            return
        (letter,) = await _select_letters(stores, [payment_id], limit=None)
        events = await stores.payments.events(letter.payment.id)
    timeline = [event_document(event) for event in events]
    if as_json:
        print_json({**_letter(letter), "events": timeline})
        return
    for name, value in _letter(letter).items():
        if value is not None:
            CONSOLE.print(f"{name:<12} {value}", soft_wrap=True)
    for line in timeline:
        CONSOLE.print(
            f"{line['at']}  {line['event']:<13} attempt {line['attempt']:<3} {line['actor']}  {line['reason'] or ''}",
            soft_wrap=True,
        )


async def _replay(
    context: Context,
    payment_ids: Sequence[str] | None,
    *,
    operations: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Retry these (None: all, oldest first). One that needs a review stays in the list."""
    async with open_stores(context) as stores:
        if operations:
            await replay_dead(stores, payment_ids, limit=limit, dry_run=dry_run, as_json=as_json)
            return
        done = await stores.replay.run(
            await _select_letters(stores, payment_ids, limit=limit), dry_run=dry_run, actor=OPERATOR
        )
    retried, kept = len(done.retried), len(done.kept)
    if as_json:
        print_json({"retried": retried, "kept": kept, "dry_run": dry_run})
        return
    kept_too = f", {kept:,} kept: they need a review" if kept else ""
    CONSOLE.print(f"{'would retry' if dry_run else 'retried'} {retried:,}{kept_too}")


async def _purge(
    context: Context,
    payment_ids: Sequence[str] | None,
    *,
    operations: bool,
    older_than: timedelta | None,
    as_json: bool,
) -> None:
    """Remove these (None: all, or those older than a time) from the list, without changing their payments."""
    async with open_stores(context) as stores:
        if operations:
            await purge_dead(stores, payment_ids, older_than=older_than, as_json=as_json)
            return
        ids = None if payment_ids is None else [_id(text) for text in payment_ids]
        purged = await stores.dead_letters.dismiss(ids=ids, older_than=older_than)
        await stores.replay.remove_notes(purged)
    if as_json:
        print_json({"purged": len(purged)})
    else:
        CONSOLE.print(f"purged {len(purged):,}")


async def _select_letters(
    stores: Stores, payment_ids: Sequence[str] | None, *, limit: int | None
) -> Sequence[DeadPayment]:
    """Return the dead letters of these payments in this order, or the oldest. Raises SetupError for a missing one."""
    if payment_ids is None:
        return await stores.dead_letters.oldest(limit)
    ids = [_id(text) for text in payment_ids]
    found = {letter.payment.id: letter for letter in await stores.dead_letters.find_many(ids)}
    if missing := [str(payment_id) for payment_id in ids if payment_id not in found]:
        raise SetupError(f"no dead letter: {', '.join(missing)}. See `okane dead ls`")
    return [found[payment_id] for payment_id in ids][:limit]


def _id(text: str) -> UUID:
    return payment_id(text, listed_by="okane dead ls")


def _letter(letter: DeadPayment) -> dict[str, Any]:
    payment = letter.payment
    return {
        "payment_id": str(payment.id),
        "account_id": payment.account_id,
        "status": payment.status.value,
        "lane": payment.lane,
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "attempts": payment.attempts,
        "reason": payment.last_error,
        "provider": payment.called_provider,
        "provider_key": payment.provider_key,  # what to search for at the provider
        "attempt_ref": payment.attempt_ref,  # or this
        "dead_at": iso(letter.dead_at),
    }
