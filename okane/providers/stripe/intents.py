"""Pure functions from a PaymentIntent to the result of a charge.

Guarantee: only the state of an intent that carries our payment, our key and our amount closes a payment. Of any other
intent, and in any other state, the outcome is `Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from okane.payment import NextAction, Payment
from okane.providers.answer_text import is_page_url, printable
from okane.providers.base import Approved, Authorized, ChargeResult, Declined, Pending, Unknown
from okane.providers.stripe.amounts import stripe_amount
from okane.providers.stripe.decline_codes import is_soft

# The states in which an intent has moved money, or still can without a request of ours.
_LIVE = ("succeeded", "processing", "requires_action", "requires_capture")
# Where the customer goes: redirects, and the hosted pages of vouchers, transfers and codes.
# Stripe holds the money of a card for seven days, unless the charge names another end.
_AUTHORIZATION = timedelta(days=7)
_URLS = ("url", "hosted_voucher_url", "hosted_instructions_url", "hosted_verification_url")

Object = Mapping[str, object]


def as_object(value: object) -> Object | None:
    """Return a JSON object, or None for any other value."""
    return value if isinstance(value, dict) else None


def parse_intent(intent: Object, payment: Payment) -> ChargeResult:
    """Return the result in the intent of a payment's present key. Any other intent is `Unknown` at once."""
    metadata = intent.get("metadata")
    if intent.get("object") != "payment_intent" or not isinstance(metadata, dict):
        return _open("Stripe answered with something else than a PaymentIntent of ours", at_once=True)
    if metadata.get("payment_id") != str(payment.id) or metadata.get("attempt_key") != payment.provider_key:
        return _open("Stripe answered with a PaymentIntent of another payment or key", at_once=True)
    ref, status = usable_ref(intent), intent.get("status")
    if ref is None:
        return _open("a PaymentIntent without a usable id")
    amount, currency = stripe_amount(payment.amount_minor, payment.currency), payment.currency.lower()
    if type(intent.get("amount")) is not int or intent.get("amount") != amount or intent.get("currency") != currency:
        found = f"{printable(intent.get('amount'))} {printable(intent.get('currency'))}"
        return _open(f"Stripe answered for {found}, not {amount} {currency}", at_once=True)
    match status:
        case "succeeded":
            received = intent.get("amount_received")
            if type(received) is int and received == amount:
                return Approved(ref)
            return _open(f"{ref} succeeded, but received {printable(received)}", at_once=True)
        case "requires_action":
            return Pending(ref, _next_action(intent))
        case "processing":
            return Pending(ref)
        case "requires_payment_method":
            error = as_object(intent.get("last_payment_error"))
            return (
                _open(f"{ref} requires a payment method, without an error") if error is None else declined(error, ref)
            )
        case "canceled":
            return _canceled(intent, ref)
        case "requires_capture":
            return _held(intent, payment, ref, amount)
        case _:
            return _open(f"{ref} has the status {printable(status)!r}")


def parse_found_intent(intent: Object, payment: Payment) -> ChargeResult | None:
    """Return the result in an intent that a look-up came across, or None if it says nothing about the present key.

    An intent of the payment under another key is from before a manual retry. If it has moved money, or may, a charge under
    the present key could be the second one.
    """
    if not _is_of_payment(intent, payment):
        return None
    if _is_of_key(intent, payment):
        return parse_intent(intent, payment)
    if intent.get("status") in _LIVE:
        ref, status = printable(intent.get("id")), printable(intent.get("status"))
        return _open(f"{ref} of an earlier key of this payment has the status {status}", at_once=True)
    return None


def declined(error: Object, ref: str | None) -> Declined:
    """Return the decline in an error object of Stripe's."""
    code = next(
        (text for name in ("decline_code", "code") if isinstance(text := error.get(name), str) and text), "declined"
    )
    message = error.get("message")
    return Declined(
        printable(code),
        printable(message) if isinstance(message, str) else "",
        ref,
        soft=is_soft(code, error.get("advice_code")),
    )


def contradicts(intent: Object | None, payment: Payment) -> bool:
    """Return True if the intent in an error can have moved money, or is not of this payment: the error proves nothing."""
    if intent is None:
        return False
    return intent.get("status") in _LIVE or not _is_of_payment(intent, payment)


def _open(reason: str, *, at_once: bool = False) -> Unknown:
    """Return the outcome of an intent that decides nothing. Stripe works: the circuit breaker does not count it."""
    return Unknown(reason, at_once=at_once, is_neutral=True)


def usable_ref(intent: Object) -> str | None:
    """Return the id of a PaymentIntent that fits into a row, or None."""
    ref = intent.get("id")
    return ref if isinstance(ref, str) and ref.startswith("pi_") and ref == printable(ref) else None


def _is_of_payment(intent: Object, payment: Payment) -> bool:
    metadata = as_object(intent.get("metadata")) or {}
    return intent.get("object") == "payment_intent" and metadata.get("payment_id") == str(payment.id)


def _is_of_key(intent: Object, payment: Payment) -> bool:
    metadata = as_object(intent.get("metadata")) or {}
    return metadata.get("attempt_key") == payment.provider_key


def _canceled(intent: Object, ref: str) -> Declined | Unknown:
    if intent.get("amount_received", 0) != 0:
        return _open(f"{ref} was canceled after it had received money", at_once=True)
    if (error := as_object(intent.get("last_payment_error"))) is not None:
        return declined(error, ref)
    reason = intent.get("cancellation_reason")
    return Declined("canceled", printable(reason) if isinstance(reason, str) else "", ref)


def _held(intent: Object, payment: Payment, ref: str, amount: int | None) -> Authorized | Unknown:
    if not payment.manual_capture:  # funds are held that were to be captured at once
        return _open(f"{ref} requires a capture", at_once=True)
    held = intent.get("amount_capturable")
    if type(held) is int and held == amount:
        return Authorized(ref, _capture_before(intent))
    return _open(f"{ref} holds {printable(held)}, not {amount}", at_once=True)


def _capture_before(intent: Object) -> datetime | None:
    """Return the end of an authorization, from the expanded charge, or by Stripe's rule from the time of the intent."""
    charge = as_object(intent.get("latest_charge")) or {}
    card = as_object((as_object(charge.get("payment_method_details")) or {}).get("card")) or {}
    told, created = card.get("capture_before"), intent.get("created")
    if (ends := _time(told)) is not None:
        return ends
    began = _time(created)
    return None if began is None else began + _AUTHORIZATION


def _time(value: object) -> datetime | None:
    """Return a time of Stripe's, in seconds since 1970, or None for anything else."""
    return datetime.fromtimestamp(value, UTC) if type(value) is int and 0 < value < 2**32 else None


def _next_action(intent: Object) -> NextAction | None:
    """Return the page that the customer must open, or None if there is none.

    `use_stripe_sdk` has no page: only a page of the merchant's with Stripe's script could go on, and okane gives it no
    client secret. Such an intent ends as Stripe ends it, which a notice or a poll finds.
    """
    action = as_object(intent.get("next_action")) or {}
    kind = action.get("type")
    details = as_object(action.get(kind)) if isinstance(kind, str) else None
    for name in _URLS:
        url = (details or {}).get(name)
        if isinstance(url, str) and is_page_url(url):
            return NextAction(url)
    return None
