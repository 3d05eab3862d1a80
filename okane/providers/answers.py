"""What an HTTP answer of the provider means: the outcome table of a charge and of a look-up, as pure functions.

Promise: only an answer that can mean nothing else becomes `Approved`, `Declined`, `NotFound` or `Unavailable`; whatever
is left may have moved money and is `Unknown`. What is kept of an answer is bounded printable text, fit for a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Self

from okane.payment import Payment
from okane.providers.base import Approved, ChargeResult, Declined, LookUpResult, NotFound, Unavailable, Unknown

# A provider that asks for more would park a payment for days on one mistyped header.
RETRY_AFTER_CAP = timedelta(hours=1)
_TEXT_LIMIT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One complete HTTP answer; a cut or oversized one never becomes an Answer.

    `said` is the body as a JSON object, None when it is anything else; `empty` tells no body from an unreadable one;
    `retry_after` is the header as it was sent.
    """

    status: int
    said: Mapping[str, object] | None
    empty: bool
    retry_after: str | None = None

    @classmethod
    def read(cls, *, status: int, body: bytes, retry_after: str | None = None) -> Self:
        try:
            value = json.loads(body)
        # RecursionError: a body of 64 kB can nest deeper than the parser goes.
        except (ValueError, RecursionError):
            value = None
        said = value if isinstance(value, dict) else None
        return cls(status=status, said=said, empty=not body.strip(), retry_after=retry_after)


def charge_result(answer: Answer, payment: Payment, *, now: datetime) -> ChargeResult:
    """What `answer` to `POST /charges` says about `payment`. `now` is only asked for a Retry-After date."""
    if 200 <= answer.status < 300:
        return _captured(answer, payment)
    if answer.status in (402, 422):
        return _declined(answer)
    return _not_taken(answer, now=now) or Unknown(_unexpected(answer))


def look_up_result(answer: Answer, payment: Payment, *, now: datetime) -> LookUpResult:
    """What `answer` to `GET /charges/{key}` says about `payment`.

    Only a JSON 404 is the provider's: a 404 page of a proxy or of a mistyped base URL must not make a charge vanish.
    `Unavailable` here means that the look-up was not taken; it says nothing about the charge.
    """
    if answer.status == 404 and answer.said is not None:
        return NotFound()
    if answer.status != 200:
        return _not_taken(answer, now=now) or Unknown(_unexpected(answer))
    found = answer.said
    if found is None or not {"status", "amount", "currency"} <= found.keys():
        return Unknown("unreadable 200 to a look-up")
    if found.get("status") == "declined":
        return _mismatch(found, payment) or _declined(answer)
    return _captured(answer, payment)


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Retry-After (RFC 9110: seconds or an HTTP date) as a wait of 0 to `RETRY_AFTER_CAP`; None when unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer digit strings would overflow timedelta (and int() refuses 4,300 of them).
        return RETRY_AFTER_CAP if len(text) > 9 else min(timedelta(seconds=int(text)), RETRY_AFTER_CAP)
    try:
        due = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    due = due.replace(tzinfo=UTC) if due.tzinfo is None else due
    return min(max(due - now, timedelta(0)), RETRY_AFTER_CAP)


def _captured(answer: Answer, payment: Payment) -> Approved | Unknown:
    said = answer.said
    if said is None:
        return Unknown(f"unreadable {answer.status}")
    if (mismatch := _mismatch(said, payment)) is not None:
        return mismatch
    # Go's mock provider sends no status; anything but "captured" (pending, authorized) is not money that moved.
    if said.get("status", "captured") != "captured":
        return Unknown(f"{answer.status} with status {_text(said['status'])!r}")
    ref = said.get("provider_ref")
    if not isinstance(ref, str) or not ref or ref != _text(ref):
        return Unknown(f"{answer.status} without a usable provider_ref")
    return Approved(ref)


def _mismatch(said: Mapping[str, object], payment: Payment) -> Unknown | None:
    """The provider charged something else under our key: money moved, but not as asked. A human's case."""
    amount, currency = said.get("amount", payment.amount_minor), said.get("currency", payment.currency)
    if type(amount) is int and amount == payment.amount_minor and currency == payment.currency:
        return None
    return Unknown(
        f"provider answered for {_text(amount)} {_text(currency)}, not {payment.amount_minor} {payment.currency}"
    )


def _declined(answer: Answer) -> Declined | Unknown:
    said = answer.said
    if said is None:
        return Unknown(f"unreadable {answer.status}")
    code = said.get("code")
    return Declined(_text(code) if isinstance(code, str) and code else "declined", _text(said.get("message", "")))


def _not_taken(answer: Answer, *, now: datetime) -> Unavailable | None:
    """429 and the contractual 503: the provider says that it did nothing.

    A 503 is the contract's with a JSON body or none at all. One with a page or plain text comes from a proxy, and those
    also answer 503 when the connection behind them broke after the request had been forwarded (Envoy's "upstream
    connect error or disconnect/reset before headers").
    """
    ours = answer.status == 503 and (answer.empty or answer.said is not None)
    if answer.status != 429 and not ours:
        return None
    return Unavailable(f"HTTP {answer.status}", parse_retry_after(answer.retry_after, now=now))


def _unexpected(answer: Answer) -> str:
    if answer.status == 409:
        return "HTTP 409: the provider knows this key with another amount, currency or payment"
    code = (answer.said or {}).get("code")
    return f"HTTP {answer.status}" + (f" {_text(code)}" if isinstance(code, str) else "")


def _text(value: object) -> str:
    """`value` as printable text of at most 255 characters: no NUL or lone surrogate gets into a row by this way."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(c if c.isprintable() else "?" for c in text[:_TEXT_LIMIT])
