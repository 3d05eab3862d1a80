"""`okane dead`: what was given up, why, and another try for it.

The list is Postgres'; what is replayed or purged here is struck off in Redis, too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from okane.api.payment_ids import parse_id
from okane.commands.context import Context
from okane.commands.operating import Parts, opened
from okane.errors import SetupError
from okane.store import OPERATOR, DeadPayment
from okane.store.dead_letters import Place

_console = Console(highlight=False, markup=False, emoji=False)  # texts of others hold brackets


async def ls(where: Context, *, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page, newest first."""
    async with opened(where) as parts:
        found = await parts.dead.page(limit + 1, before=None if before is None else _place(before))
        total = await parts.overview.dead()
    letters, more = found[:limit], len(found) > limit
    older = _cursor(letters[-1]) if more else None
    if as_json:
        _json({"letters": [_letter(letter) for letter in letters], "total": total, "before": older})
        return
    if not letters:
        _console.print("no dead letters" if total == 0 else "no older dead letters")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("payment", "account", "status", "lane", "dead since", "reason"):
        table.add_column(column, no_wrap=column != "reason")
    for letter in letters:
        since = letter.dead_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        payment = letter.payment
        table.add_row(
            str(payment.id), payment.account_id, payment.status.value, payment.lane, since, payment.last_error or ""
        )
    _console.print(table, soft_wrap=not _console.is_terminal)
    _console.print(
        f"{len(letters):,} of {total:,}" + (f"; older ones: okane dead ls --before {older}" if older else "")
    )


async def show(where: Context, payment_id: str, *, as_json: bool) -> None:
    """Print one dead letter with its payment's timeline."""
    async with opened(where) as parts:
        (letter,) = await _chosen(parts, [payment_id], limit=None)
        events = await parts.store.events(letter.payment.id)
    timeline = [
        {
            "at": event.at.astimezone(UTC).isoformat(),
            "event": event.event,
            "status": event.status.value,
            "attempt": event.attempt,
            "actor": event.actor,
            "reason": event.reason,
        }
        for event in events
    ]
    if as_json:
        _json({**_letter(letter), "events": timeline})
        return
    for name, value in _letter(letter).items():
        _console.print(f"{name:<12} {value}", soft_wrap=True)
    for line in timeline:
        _console.print(
            f"{line['at']}  {line['event']:<13} attempt {line['attempt']:<3} {line['actor']}  {line['reason'] or ''}",
            soft_wrap=True,
        )


async def replay(
    where: Context, payment_ids: Sequence[str] | None, *, limit: int | None, dry_run: bool, as_json: bool
) -> None:
    """Try these payments again (None: all, oldest first). One that needs a review stays: a human decides about it."""
    async with opened(where) as parts:
        done = await parts.replay.run(await _chosen(parts, payment_ids, limit=limit), dry_run=dry_run, actor=OPERATOR)
    retried, kept = len(done.retried), len(done.kept)
    if as_json:
        _json({"retried": retried, "kept": kept, "dry_run": dry_run})
        return
    kept_too = f", {kept:,} kept: they need a review" if kept else ""
    _console.print(f"{'would retry' if dry_run else 'retried'} {retried:,}{kept_too}")


async def purge(
    where: Context, payment_ids: Sequence[str] | None, *, older_than: timedelta | None, as_json: bool
) -> None:
    """Strike these (None: all, or those older than a time) off the list. Their payments stay as they are."""
    async with opened(where) as parts:
        ids = None if payment_ids is None else [_id(text) for text in payment_ids]
        purged = await parts.dead.dismiss(ids=ids, older_than=older_than)
        await parts.replay.strike_off(purged)
    if as_json:
        _json({"purged": len(purged)})
    else:
        _console.print(f"purged {len(purged):,}")


async def _chosen(parts: Parts, payment_ids: Sequence[str] | None, *, limit: int | None) -> Sequence[DeadPayment]:
    """The dead letters named, in that order, or the oldest. Raises SetupError for one that is none."""
    if payment_ids is None:
        return await parts.dead.oldest(limit)
    ids = [_id(text) for text in payment_ids]
    found = {letter.payment.id: letter for letter in await parts.dead.some(ids)}
    if missing := [str(payment_id) for payment_id in ids if payment_id not in found]:
        raise SetupError(f"no dead letter: {', '.join(missing)}. See `okane dead ls`")
    return [found[payment_id] for payment_id in ids][:limit]


def _id(text: str) -> UUID:
    payment_id = parse_id(text)
    if payment_id is None:
        raise SetupError(f"{text!r} is not a payment's id: see `okane dead ls`")
    return payment_id


def _cursor(letter: DeadPayment) -> str:
    """Names the place and not the payment, which may be replayed or purged before somebody asks for the next page."""
    dead_at, payment_id = letter.place
    return f"{dead_at.astimezone(UTC).isoformat()},{payment_id}"


def _place(cursor: str) -> Place:
    at, _, payment_id = cursor.partition(",")
    with contextlib.suppress(ValueError):
        dead_at = datetime.fromisoformat(at)
        if dead_at.tzinfo is not None and (id_ := parse_id(payment_id)) is not None:
            return dead_at, id_
    raise SetupError(f"{cursor!r} is no place in the list: give TIME,ID as `okane dead ls` prints it for the next page")


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
        "provider_key": payment.provider_key,  # what to search for at the provider
        "dead_at": letter.dead_at.astimezone(UTC).isoformat(),
    }


def _json(document: dict[str, Any]) -> None:
    print(json.dumps(document))  # noqa: T201 - the command's answer
