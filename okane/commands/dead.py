"""`okane dead`: what was given up, why, and another try for it.

A dead letter is a note in Redis about a payment whose truth stands in Postgres. Replaying one therefore retries the payment
first (as `POST /v1/payments/{id}/retry` does) and drops the letter after: dying in between leaves a letter whose next
replay finds the payment under way, and drops it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from okane.api.handlers import ACCOUNT
from okane.commands.context import Context
from okane.errors import PaymentNotFound, SetupError, StatusConflict
from okane.payment import TRANSITIONS, Status
from okane.pipeline.accept import Accept
from okane.pipeline.lanes import payments_stream
from okane.store import PaymentStore
from streams import DeadLetter, DeadLetters, Producer, connect

PAGE = 500

_console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class _Parts:
    letters: DeadLetters
    store: PaymentStore
    accept: Accept


@contextlib.asynccontextmanager
async def _parts(where: Context) -> AsyncIterator[_Parts]:
    settings = where.settings
    stream = payments_stream(settings.stream)
    async with contextlib.AsyncExitStack() as closing:
        redis = await closing.enter_async_context(connect(where.redis_url))
        store = PaymentStore(where.database_url, actor="operator", lease=settings.lease, grace=settings.sweep_grace)
        closing.push_async_callback(store.aclose)
        producer = Producer(redis, stream)
        closing.push_async_callback(producer.aclose)
        yield _Parts(DeadLetters(redis, stream), store, Accept(store=store, producer=producer))


async def ls(where: Context, *, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page, newest first."""
    async with _parts(where) as parts:
        page = await parts.letters.list(limit, before=before)
        total = await parts.letters.count()
    if as_json:
        _json({"letters": [_letter(letter) for letter in page.letters], "total": total, "before": page.older})
        return
    if not page.letters:
        _console.print("no dead letters" if total == 0 else "no older dead letters")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "payment", "lane", "buried at", "reason"):
        table.add_column(column, no_wrap=column != "reason")
    for letter in page.letters:
        at = letter.buried_at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(letter.id, str(_payment_id(letter) or "-"), letter.lane, at, letter.reason)
    _console.print(table, soft_wrap=not _console.is_terminal)
    older = f"; older ones: okane dead ls --before {page.older}" if page.older else ""
    _console.print(f"{len(page.letters):,} of {total:,}{older}")


async def show(where: Context, letter_id: str, *, as_json: bool) -> None:
    """Print one letter, its payment, and the payment's timeline."""
    async with _parts(where) as parts:
        letter = await _found(parts, letter_id)
        payment_id = _payment_id(letter)
        events = [] if payment_id is None else await parts.store.events(payment_id)
    timeline = [
        {
            "at": event.at.isoformat(),
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
        _console.print(f"{name:<11} {value}", soft_wrap=True)
    for line in timeline:
        _console.print(
            f"{line['at']}  {line['event']:<13} attempt {line['attempt']:<3} {line['actor']}  {line['reason'] or ''}",
            soft_wrap=True,
        )


async def replay(
    where: Context, letter_ids: Sequence[str] | None, *, limit: int | None, dry_run: bool, as_json: bool
) -> None:
    """Retry the payments of these letters (None: of all, oldest first) and drop the letters."""
    retried = dropped = kept = 0
    async with _parts(where) as parts:
        chosen = await _choose(parts, letter_ids)
        for letter in chosen[:limit]:
            if dry_run:
                retried += await _retryable(parts, letter)
                continue
            again = await _retry(parts, letter)
            if again is None:
                kept += 1
                continue
            retried += again
            dropped += await parts.letters.purge(ids=[letter.id])
    if as_json:
        _json({"retried": retried, "dropped": dropped, "kept": kept, "dry_run": dry_run})
    elif dry_run:
        _console.print(f"would retry {retried:,}")
    else:
        kept_too = f", kept {kept:,} whose payments need a review" if kept else ""
        _console.print(f"retried {retried:,}, dropped {dropped:,} letters{kept_too}")


async def purge(
    where: Context, letter_ids: Sequence[str] | None, *, older_than: timedelta | None, as_json: bool
) -> None:
    """Delete these letters (None: all of them, or those older than a time)."""
    async with _parts(where) as parts:
        if letter_ids is not None:
            purged = await parts.letters.purge(ids=letter_ids)
        else:
            purged = await parts.letters.purge(older_than=older_than, everything=older_than is None)
    if as_json:
        _json({"purged": purged})
    else:
        _console.print(f"purged {purged:,}")


async def _retry(parts: _Parts, letter: DeadLetter) -> bool | None:
    """Whether the letter's payment was retried. None if the letter has to stay: its payment waits for a human.

    A payment that is settled, under way or gone leaves its letter with nothing more to say.
    """
    payment_id = _payment_id(letter)
    if payment_id is None:
        return False
    try:
        await parts.accept.retry(payment_id, account_id=ACCOUNT)
    except PaymentNotFound:
        return False
    except StatusConflict as error:
        return None if error.status == Status.NEEDS_REVIEW else False
    return True


async def _retryable(parts: _Parts, letter: DeadLetter) -> bool:
    payment_id = _payment_id(letter)
    if payment_id is None:
        return False
    try:
        payment = await parts.store.get(payment_id, account_id=ACCOUNT)
    except PaymentNotFound:
        return False
    return Status.PENDING in TRANSITIONS[payment.status]


async def _choose(parts: _Parts, letter_ids: Sequence[str] | None) -> list[DeadLetter]:
    if letter_ids is not None:
        return [await _found(parts, letter_id) for letter_id in letter_ids]
    letters: list[DeadLetter] = []
    before: str | None = None
    while True:
        page = await parts.letters.list(PAGE, before=before)
        letters += page.letters
        before = page.older
        if before is None:
            return letters[::-1]


async def _found(parts: _Parts, letter_id: str) -> DeadLetter:
    letter = await parts.letters.get(letter_id)
    if letter is None:
        raise SetupError(f"there is no dead letter {letter_id}: see `okane dead ls`")
    return letter


def _payment_id(letter: DeadLetter) -> UUID | None:
    return UUID(bytes=letter.body) if len(letter.body) == 16 else None


def _letter(letter: DeadLetter) -> dict[str, Any]:
    payment_id = _payment_id(letter)
    return {
        "id": letter.id,
        "payment_id": None if payment_id is None else str(payment_id),
        "lane": letter.lane,
        "reason": letter.reason,
        "buried_at": letter.buried_at.isoformat(),
        "deliveries": letter.deliveries,
    }


def _json(document: dict[str, Any]) -> None:
    print(json.dumps(document))  # noqa: T201 - the command's answer
