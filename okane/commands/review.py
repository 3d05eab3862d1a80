"""`okane review`: which payments need a human's decision, what is known about each, and the decision."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from okane.api.payment_ids import parse_id
from okane.commands.context import Context
from okane.commands.operating import Parts, opened
from okane.errors import PaymentNotFound, SetupError
from okane.payment import MAX_REASON, Payment, Status
from okane.store import OPERATOR, Event

_console = Console(highlight=False)


async def ls(where: Context, *, account: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """Print a page, newest first."""
    place = None if before is None else _id(before)
    async with opened(where) as parts:
        found = await parts.review.page(limit + 1, account_id=account, before=place)
    payments, more = found[:limit], len(found) > limit
    older = str(payments[-1].id) if more else None
    if as_json:
        _json({"payments": [_document(payment) for payment in payments], "before": older})
        return
    if not payments:
        _console.print("nothing needs a review" if before is None else "nothing older needs a review")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("payment", "account", "amount", "currency", "since", "reason"):
        table.add_column(column, no_wrap=column != "reason", justify="right" if column == "amount" else "left")
    for payment in payments:
        table.add_row(
            str(payment.id),
            escape(payment.account_id),
            f"{payment.amount_minor:,}",
            payment.currency,
            _time(payment.updated_at),
            escape(payment.last_error or ""),
        )
    _console.print(table, soft_wrap=not _console.is_terminal)
    _console.print(f"{len(payments):,}" + (f"; older ones: okane review ls --before {older}" if older else ""))


async def show(where: Context, payment_id: str, *, as_json: bool) -> None:
    """Print one payment, whatever its status, with its timeline."""
    async with opened(where) as parts:
        payment = await _found(parts, payment_id)
        events = await parts.store.events(payment.id)
    if as_json:
        _json({**_document(payment), "events": [_line(event) for event in events]})
        return
    for name, value in _document(payment).items():
        if value is not None:
            _console.print(f"{name:<12} {escape(str(value))}", soft_wrap=True)
    for event in events:
        said = f"{event.event:<13} {event.status:<17} attempt {event.attempt:<3} {event.actor}  {event.reason or ''}"
        _console.print(f"{_time(event.at)}  {escape(said)}", soft_wrap=True)


async def resolve(
    where: Context,
    payment_id: str,
    *,
    decision: Literal["success", "failed_final"],
    reason: str,
    provider_ref: str | None,
    as_json: bool,
) -> None:
    """Decide a payment that needs a review, and strike it off the dead letters."""
    _check_texts(reason, provider_ref, decision)
    async with opened(where) as parts:
        found = await _found(parts, payment_id)
        payment = await parts.accept.resolve(
            found.id,
            account_id=None,
            decision=Status.SUCCESS if decision == "success" else Status.FAILED_FINAL,
            reason=reason,
            provider_ref=provider_ref,
            actor=OPERATOR,
        )
        await parts.replay.strike_off([payment.id])
    if as_json:
        _json(_document(payment))
    else:
        _console.print(f"payment {payment.id} of {escape(payment.account_id)} is {payment.status}", soft_wrap=True)


def _check_texts(reason: str, provider_ref: str | None, decision: str) -> None:
    for name, text, longest in (("--reason", reason, MAX_REASON), ("--provider-ref", provider_ref, 255)):
        if text is not None and not (text.strip() and len(text) <= longest and "\0" not in text):
            raise SetupError(f"{name} must have 1 to {longest} characters")
    if provider_ref is not None and decision != "success":
        raise SetupError("--provider-ref goes with --as success only")


async def _found(parts: Parts, text: str) -> Payment:
    payment_id = _id(text)
    try:
        return await parts.review.find(payment_id)
    except PaymentNotFound as error:
        raise SetupError(f"{error}: see `okane review ls`") from None


def _id(text: str) -> UUID:
    payment_id = parse_id(text)
    if payment_id is None:
        raise SetupError(f"{text!r} is not a payment's id: see `okane review ls`")
    return payment_id


def _document(payment: Payment) -> dict[str, Any]:
    return {
        "payment_id": str(payment.id),
        "account_id": payment.account_id,
        "status": payment.status.value,
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "attempts": payment.attempts,
        "reason": payment.last_error,
        "provider_key": payment.provider_key,  # what to search for at the provider
        "provider_ref": payment.provider_ref,
        "created_at": payment.created_at.astimezone(UTC).isoformat(),
        "updated_at": payment.updated_at.astimezone(UTC).isoformat(),
    }


def _line(event: Event) -> dict[str, Any]:
    return {
        "at": event.at.astimezone(UTC).isoformat(),
        "event": event.event,
        "status": event.status.value,
        "attempt": event.attempt,
        "actor": event.actor,
        "reason": event.reason,
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _json(document: dict[str, Any]) -> None:
    print(json.dumps(document))  # noqa: T201 - the command's answer
