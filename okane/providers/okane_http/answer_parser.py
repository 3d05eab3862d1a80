"""Pure functions from the provider's HTTP answers to the results of a charge and of a look-up.

Guarantee: only an unambiguous answer becomes `Approved`, `Authorized`, `Declined`, `NotFound` or `Unavailable`. Any
other may have moved money and is `Unknown`. Texts taken from an answer are bounded and printable, so that a row can store
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.answer_text import json_object, printable
from okane.providers.base import (
    Approved,
    Authorized,
    ChargeResult,
    Declined,
    Fault,
    LookUpResult,
    NotFound,
    Unavailable,
    Unknown,
)
from okane.providers.retry_after import retry_after


def parse_charge_answer(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult:
    """Return the result in an answer to `POST /charges`. `now` is the reference of a Retry-After date without a Date."""
    document = json_object(answer.body)
    if 200 <= answer.status < 300:
        return _captured(answer.status, document, payment)
    if answer.status in (402, 422):
        return declined(answer.status, document)
    return not_taken(answer, document, now=now) or Unknown(unexpected(answer.status, document))


def parse_look_up_answer(answer: HttpResponse, payment: Payment, *, now: datetime) -> LookUpResult:
    """Return the result in an answer to `GET /charges/{key}`.

    Only a 404 with JSON is `NotFound`: the 404 page of a proxy or of a mistyped base URL must not hide a charge.
    `Unavailable` means that the look-up was not taken; the charge stays open.
    """
    document = json_object(answer.body)
    if answer.status == 404 and document is not None:
        return NotFound()
    if answer.status != 200:
        return not_taken(answer, document, now=now) or Unknown(unexpected(answer.status, document))
    if document is None or not {"status", "amount", "currency"} <= document.keys():
        return Unknown("unreadable 200 to a look-up")
    if document.get("status") == "declined":
        return _mismatch(document, payment) or declined(answer.status, document)
    if payment.manual_capture and document.get("status") == "voided":
        return _mismatch(document, payment) or Declined("voided", "the authorization was let go, or has ended")
    return _captured(answer.status, document, payment)


def _captured(status: int, document: Mapping[str, object] | None, payment: Payment) -> Approved | Authorized | Unknown:
    if document is None:
        return Unknown(f"unreadable {status}")
    if (mismatch := _mismatch(document, payment)) is not None:
        return mismatch
    # Some providers of this contract send no status. Any but "captured" has not moved money.
    told = document.get("status", "captured")
    is_held = told == "authorized" and payment.manual_capture
    if told != "captured" and not is_held:
        return Unknown(f"{status} with status {printable(told)!r}")
    if (ref := usable_ref(document)) is None:
        return Unknown(f"{status} without a usable provider_ref")
    if is_held:
        return Authorized(ref, time_of(document.get("capture_before")))
    captured = document.get("amount_captured", payment.amount_minor)
    if type(captured) is not int or captured != payment.amount_minor:
        return Unknown(f"captured for {printable(captured)}, not {payment.amount_minor}", at_once=True)
    return Approved(ref)


def usable_ref(document: Mapping[str, object]) -> str | None:
    """Return the provider's name for a charge or operation, if it fits into a row."""
    ref = document.get("provider_ref")
    return ref if isinstance(ref, str) and ref and ref == printable(ref) else None


def time_of(value: object) -> datetime | None:
    """Return a time with an offset, in UTC, or None for anything else."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if time is None or time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _mismatch(document: Mapping[str, object], payment: Payment) -> Unknown | None:
    """Return Unknown if the charge under our key has another amount or currency: a human decides that."""
    amount, currency = document.get("amount", payment.amount_minor), document.get("currency", payment.currency)
    if type(amount) is int and amount == payment.amount_minor and currency == payment.currency:
        return None
    return Unknown(
        f"provider answered for {printable(amount)} {printable(currency)}, not {payment.amount_minor} {payment.currency}"
    )


def declined(status: int, document: Mapping[str, object] | None) -> Declined | Unknown:
    """Return the decline in an answer."""
    if document is None:
        return Unknown(f"unreadable {status}")
    code = document.get("code")
    return Declined(
        printable(code) if isinstance(code, str) and code else "declined", printable(document.get("message", ""))
    )


def not_taken(answer: HttpResponse, document: Mapping[str, object] | None, *, now: datetime) -> Unavailable | None:
    """Return Unavailable for a 429 (its rate limit) and for a 503 of the contract: the provider did nothing.

    The contract's 503 has a JSON body or none. A page or plain text comes from a proxy, which also answers 503 when the
    connection behind it broke after it had forwarded the request (Envoy's "upstream connect error or disconnect/reset
    before headers").
    """
    ours = answer.status == 503 and (document is not None or not answer.body.strip())
    if answer.status != 429 and not ours:
        return None
    fault: Fault = "provider" if ours else "limit"
    return Unavailable(f"HTTP {answer.status}", retry_after(answer, now=now), fault)


def unexpected(status: int, document: Mapping[str, object] | None) -> str:
    """Return the reason for an answer that proves nothing."""
    if status == 409:
        return "HTTP 409: the provider knows this key with another amount, currency or payment"
    code = (document or {}).get("code")
    return f"HTTP {status}" + (f" {printable(code)}" if isinstance(code, str) else "")
