"""Pure functions from Stripe's HTTP answers to the results of a capture, void or refund.

Guarantee: a capture or void is what its PaymentIntent says, and a refund what the refund with our operation and its present
key in the metadata says. Any other answer proves nothing and is `Unknown`.

    200, a PaymentIntent or refund       by its status
    400 idempotency_error                Unknown at once: the key was used with other parameters
    400 payment_intent_unexpected_state, by the status of the PaymentIntent in the error; Unknown without one
        charge_already_captured
    400 invalid_request_error            Declined("invalid_request:" + code); Unavailable for an account that is not set up
    402 card_error                       Declined(decline_code or code)
    401, 403                             Unavailable, our configuration
    404                                  Unknown: this account does not have that PaymentIntent or refund
    429                                  Unavailable, a limit
    409, 424, 5xx, all others            Unknown
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from okane.http.connection import HttpResponse
from okane.operation import Operation, OperationKind
from okane.payment import Payment
from okane.providers.answer_text import json_object, printable
from okane.providers.base import (
    Approved,
    Declined,
    NotFound,
    OperationLookUp,
    OperationResult,
    Pending,
    Unavailable,
    Unknown,
)
from okane.providers.stripe.amounts import stripe_amount
from okane.providers.stripe.answers import CONFIGURATION, error_of, not_taken, reason_of
from okane.providers.stripe.intents import Object, as_object, declined

_DEAD = ("failed", "canceled")  # no money has moved, and none will
# Errors about the state of the PaymentIntent, which this operation may have brought about.
_OF_STATE = ("payment_intent_unexpected_state", "charge_already_captured")


def reference_of(payment: Payment) -> str | None:
    """Return the PaymentIntent of an authorized or captured payment."""
    return payment.provider_ref or payment.attempt_ref


def parse_operation_answer(
    answer: HttpResponse, operation: Operation, payment: Payment, *, now: datetime
) -> OperationResult:
    """Return the result in an answer to the POST."""
    document = json_object(answer.body)
    error = error_of(document)
    if answer.status == 200:
        result = None if document is None else _state(document, operation, payment)
        return result or Unknown(f"{reason_of(answer, error)} without the {operation.kind} in it")
    if answer.status in (400, 402) and error is not None:
        return _refused(answer, error, operation, payment)
    if answer.status in (404, 409):  # not in this account, or the first call is still running
        return Unknown(reason_of(answer, error), is_neutral=True)
    return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))


def parse_operation_look_up(
    answer: HttpResponse, operation: Operation, payment: Payment, *, now: datetime
) -> OperationLookUp:
    """Return the result in an answer to the GET of the PaymentIntent, or of the refund."""
    document = json_object(answer.body)
    error = error_of(document)
    if answer.status == 200 and document is not None:
        return _state(document, operation, payment) or NotFound()
    if answer.status == 404:
        return Unknown(reason_of(answer, error), is_neutral=True)
    return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))


@dataclass(frozen=True, slots=True)
class RefundPage:
    """A page of refunds. `found` is the result in it; `next_after` begins the next page, None after the last one."""

    found: OperationResult | None
    next_after: str | None


def parse_refund_page(
    answer: HttpResponse, operation: Operation, payment: Payment, *, now: datetime
) -> RefundPage | Unavailable | Unknown:
    """Return what a page says about the refund. Only a page of refunds, read to its end, says "not here"."""
    document = json_object(answer.body)
    error = error_of(document)
    if answer.status in (400, 404) and error is not None and error.get("code") == "resource_missing":
        # This account does not have the PaymentIntent. Other payments are no concern of that.
        return Unknown(reason_of(answer, error), is_neutral=True)
    if answer.status != 200 or document is None:
        return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))
    refunds, has_more = document.get("data"), document.get("has_more")
    readable = document.get("object") == "list" and isinstance(refunds, list) and type(has_more) is bool
    if not readable or not isinstance(refunds, list) or not all(_is_refund(one) for one in refunds):
        return Unknown("unreadable list of refunds")
    if has_more and not refunds:
        return Unknown("a list of refunds with more to come and nothing in it")
    return RefundPage(_found(refunds, operation, payment), str(refunds[-1]["id"]) if has_more else None)


def _found(refunds: Sequence[Object], operation: Operation, payment: Payment) -> OperationResult | None:
    """Return what these refunds say about the operation; None: nothing.

    A refund of an earlier key is from before a manual retry. If it has moved money, or may, one under the present key could
    be the second one.
    """
    ours = [one for one in refunds if _of(one, "operation_id") == str(operation.id)]
    for one in ours:
        if _of(one, "operation_key") != operation.provider_key and one.get("status") not in _DEAD:
            status = printable(one.get("status"))
            return _open(f"{one['id']} of an earlier key of this operation has the status {status}", at_once=True)
    present = [one for one in ours if _of(one, "operation_key") == operation.provider_key]
    if len(present) > 1:
        return _open(f"Stripe has {len(present)} refunds of this operation", at_once=True)
    return _refund_state(present[0], operation, payment) if present else None


def _state(document: Object, operation: Operation, payment: Payment) -> OperationResult | None:
    """Return what an object of Stripe's says about the operation; None: it was not executed."""
    if operation.kind is OperationKind.REFUND:
        return _refund_state(document, operation, payment)
    return _intent_state(document, operation, payment)


def _intent_state(intent: Object, operation: Operation, payment: Payment) -> OperationResult | None:
    metadata, ref = as_object(intent.get("metadata")) or {}, reference_of(payment)
    if intent.get("object") != "payment_intent" or ref is None or intent.get("id") != ref:
        return _open("Stripe answered with another object than the PaymentIntent", at_once=True)
    if metadata.get("payment_id") != str(payment.id) or intent.get("currency") != payment.currency.lower():
        return _open(f"{ref} is of another payment or currency", at_once=True)
    is_capture, received = operation.kind is OperationKind.CAPTURE, intent.get("amount_received")
    match intent.get("status"):
        case "requires_capture":
            return None
        case "succeeded" if not is_capture:
            return Declined("already_captured", f"{ref} was captured")
        case "succeeded":
            amount = stripe_amount(operation.amount_minor, operation.currency)
            if type(received) is int and received == amount:
                return Approved(ref)
            return _open(f"{ref} was captured for {printable(received)}, not {amount}", at_once=True)
        case "canceled" if received not in (0, None):
            return _open(f"{ref} was canceled after it had received money", at_once=True)
        case "canceled" if is_capture:
            why = intent.get("cancellation_reason")
            return Declined("authorization_ended", printable(why) if isinstance(why, str) else "")
        case "canceled":
            return Approved(ref)
        case "processing":
            return Pending(ref)
        case other:
            return _open(f"{ref} has the status {printable(other)!r}")


def _refund_state(refund: Object, operation: Operation, payment: Payment) -> OperationResult:
    ours = (str(operation.id), operation.provider_key)
    if not _is_refund(refund) or (_of(refund, "operation_id"), _of(refund, "operation_key")) != ours:
        return _open("Stripe answered with another object than the refund", at_once=True)
    ref = str(refund["id"])
    amount = stripe_amount(operation.amount_minor, operation.currency)
    told = (refund.get("amount"), refund.get("currency"), refund.get("payment_intent"))
    if type(told[0]) is not int or told != (amount, operation.currency.lower(), reference_of(payment)):
        return _open(f"{ref} is {printable(told[0])} {printable(told[1])} of {printable(told[2])}", at_once=True)
    match refund.get("status"):
        case "succeeded":
            return Approved(ref)
        case "pending" | "requires_action":
            return Pending(ref)
        case "failed" | "canceled" as status:
            why = refund.get("failure_reason")
            return Declined(printable(why) if isinstance(why, str) and why else status, f"refund {status}", ref)
        case other:
            return _open(f"{ref} has the status {printable(other)!r}")


def _refused(answer: HttpResponse, error: Object, operation: Operation, payment: Payment) -> OperationResult:
    """Return the result in an error with status 400 or 402."""
    kind, code = error.get("type"), error.get("code")
    if answer.status == 402 and kind == "card_error":
        return declined(error, None)
    if answer.status != 400 or kind not in ("idempotency_error", "invalid_request_error"):
        return Unknown(reason_of(answer, error))
    if kind == "idempotency_error":
        return _open(f"{reason_of(answer, error)}: the key was used with other parameters", at_once=True)
    if code in CONFIGURATION:
        return Unavailable(reason_of(answer, error), fault="config")
    if code in _OF_STATE:
        intent = as_object(error.get("payment_intent"))
        state = None if intent is None else _intent_state(intent, operation, payment)
        return state or _open(reason_of(answer, error))
    message = error.get("message")
    return Declined(
        f"invalid_request:{printable(code)}"[:255] if isinstance(code, str) and code else "invalid_request",
        printable(message) if isinstance(message, str) else "",
    )


def _is_refund(value: object) -> bool:
    refund = as_object(value)
    if refund is None or refund.get("object") != "refund":
        return False
    ref = refund.get("id")
    return isinstance(ref, str) and bool(ref) and ref == printable(ref)


def _of(refund: Object, name: str) -> object:
    return (as_object(refund.get("metadata")) or {}).get(name)


def _open(reason: str, *, at_once: bool = False) -> Unknown:
    """Return the outcome of an object that decides nothing. Stripe works: the circuit breaker does not count it."""
    return Unknown(reason, at_once=at_once, is_neutral=True)
