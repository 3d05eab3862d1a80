"""What an HTTP answer of the provider means: the outcome table of a charge and of a look-up, as pure functions.

Promise: only an answer that can mean nothing else becomes `Approved`, `Declined`, `NotFound` or `Unavailable`; whatever
is left may have moved money and is `Unknown`. What is kept of an answer is bounded printable text, fit for a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.base import Approved, ChargeResult, Declined, LookUpResult, NotFound, Unavailable, Unknown

# A provider that asks for more would park a payment for days on one mistyped header.
RETRY_AFTER_CAP = timedelta(hours=1)
_TEXT_LIMIT = 255


def parse_charge_answer(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult:
    """What `answer` to `POST /charges` says about `payment`. `now` is only asked for a Retry-After date."""
    said = _object(answer.body)
    if 200 <= answer.status < 300:
        return _captured(answer.status, said, payment)
    if answer.status in (402, 422):
        return _declined(answer.status, said)
    return _not_taken(answer, said, now=now) or Unknown(_unexpected(answer.status, said))


def parse_look_up_answer(answer: HttpResponse, payment: Payment, *, now: datetime) -> LookUpResult:
    """What `answer` to `GET /charges/{key}` says about `payment`.

    Only a JSON 404 is the provider's: a 404 page of a proxy or of a mistyped base URL must not make a charge vanish.
    `Unavailable` here means that the look-up was not taken; it says nothing about the charge.
    """
    said = _object(answer.body)
    if answer.status == 404 and said is not None:
        return NotFound()
    if answer.status != 200:
        return _not_taken(answer, said, now=now) or Unknown(_unexpected(answer.status, said))
    if said is None or not {"status", "amount", "currency"} <= said.keys():
        return Unknown("unreadable 200 to a look-up")
    if said.get("status") == "declined":
        return _mismatch(said, payment) or _declined(answer.status, said)
    return _captured(answer.status, said, payment)


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Retry-After (RFC 9110: seconds or an HTTP date) as a wait of 0 to `RETRY_AFTER_CAP`; None when unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # Longer digit strings would overflow timedelta (and int() refuses 4,300 of them).
        return RETRY_AFTER_CAP if len(text) > 9 else min(timedelta(seconds=int(text)), RETRY_AFTER_CAP)
    due = _http_date(text)
    return None if due is None else min(max(due - now, timedelta(0)), RETRY_AFTER_CAP)


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _object(body: bytes) -> Mapping[str, object] | None:
    """The body as a JSON object; None when it is anything else."""
    try:
        value = json.loads(body)
    # RecursionError: a body of 64 kB can nest deeper than the parser goes.
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _captured(status: int, said: Mapping[str, object] | None, payment: Payment) -> Approved | Unknown:
    if said is None:
        return Unknown(f"unreadable {status}")
    if (mismatch := _mismatch(said, payment)) is not None:
        return mismatch
    # Go's mock provider sends no status; anything but "captured" (pending, authorized) is not money that moved.
    if said.get("status", "captured") != "captured":
        return Unknown(f"{status} with status {_text(said['status'])!r}")
    ref = said.get("provider_ref")
    if not isinstance(ref, str) or not ref or ref != _text(ref):
        return Unknown(f"{status} without a usable provider_ref")
    return Approved(ref)


def _mismatch(said: Mapping[str, object], payment: Payment) -> Unknown | None:
    """The provider charged something else under our key: money moved, but not as asked. A human's case."""
    amount, currency = said.get("amount", payment.amount_minor), said.get("currency", payment.currency)
    if type(amount) is int and amount == payment.amount_minor and currency == payment.currency:
        return None
    return Unknown(
        f"provider answered for {_text(amount)} {_text(currency)}, not {payment.amount_minor} {payment.currency}"
    )


def _declined(status: int, said: Mapping[str, object] | None) -> Declined | Unknown:
    if said is None:
        return Unknown(f"unreadable {status}")
    code = said.get("code")
    return Declined(_text(code) if isinstance(code, str) and code else "declined", _text(said.get("message", "")))


def _not_taken(answer: HttpResponse, said: Mapping[str, object] | None, *, now: datetime) -> Unavailable | None:
    """429 and the contractual 503: the provider says that it did nothing.

    A 503 is the contract's with a JSON body or none at all. One with a page or plain text comes from a proxy, and those
    also answer 503 when the connection behind them broke after the request had been forwarded (Envoy's "upstream
    connect error or disconnect/reset before headers").
    """
    ours = answer.status == 503 and (said is not None or not answer.body.strip())
    if answer.status != 429 and not ours:
        return None
    # A date is meant by the server's clock, which its Date tells; ours may be off.
    now = _http_date(answer.date) or now
    return Unavailable(f"HTTP {answer.status}", parse_retry_after(answer.retry_after, now=now))


def _unexpected(status: int, said: Mapping[str, object] | None) -> str:
    if status == 409:
        return "HTTP 409: the provider knows this key with another amount, currency or payment"
    code = (said or {}).get("code")
    return f"HTTP {status}" + (f" {_text(code)}" if isinstance(code, str) else "")


def _text(value: object) -> str:
    """`value` as printable text of at most 255 characters: no NUL or lone surrogate gets into a row by this way."""
    text = (value if isinstance(value, str) else repr(value))[:_TEXT_LIMIT]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
