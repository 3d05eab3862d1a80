"""Pure functions from Stripe's HTTP answers to the results of a charge and of a look-up.

Guarantee: only the answers of the table below close a payment or say that nothing happened; any other may have moved money
and is `Unknown`, whatever Stripe-Should-Retry says, because that describes the request and not the money.

    200, a PaymentIntent                 by its status: see `intents.py`
    400 idempotency_error                Unknown at once: the key was used with other parameters
    400 invalid_request_error            Declined("invalid_request:" + code); Unavailable for an account that is not set up
    402 card_error                       Declined(decline_code or code), soft or hard
    401, 403, 404                        Unavailable, our configuration: a wrong API key or address
    404 to the GET of one intent         Unknown: this account does not have that intent
    429                                  Unavailable, a limit: Stripe counts requests before it reads their keys
    409, 424, 5xx, all others            Unknown
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from okane.http.connection import HttpResponse
from okane.payment import Payment
from okane.providers.answer_text import json_object, printable
from okane.providers.base import ChargeResult, Declined, Unavailable, Unknown
from okane.providers.retry_after import retry_after
from okane.providers.stripe.intents import (
    Object,
    as_object,
    contradicts,
    declined,
    parse_found_intent,
    parse_intent,
    usable_ref,
)

# Errors of the request's form that are about the account or its key. Each would decline every payment.
CONFIGURATION = (
    "account_invalid",
    "api_key_expired",
    "livemode_mismatch",
    "platform_api_key_expired",
    "secret_key_required",
    "testmode_charges_only",
    "tls_version_unsupported",
)


def parse_charge_answer(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult:
    """Return the result in an answer to the POST. `now` is the reference of a Retry-After date without a Date."""
    document = json_object(answer.body)
    error = error_of(document)
    if answer.status == 409:  # the first call is still running
        return Unknown(reason_of(answer, error), is_neutral=True)
    if answer.status == 200:
        return Unknown(reason_of(answer, error)) if document is None else parse_intent(document, payment)
    if answer.status in (400, 402) and error is not None:
        return _refused(answer, error, payment)
    return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))


def is_saved(answer: HttpResponse) -> bool:
    """Return True for an answer that Stripe has kept under the key, from an earlier request."""
    return answer.headers.get("idempotent-replayed") == "true"


def proves(answer: HttpResponse, result: ChargeResult) -> bool:
    """Return True if the answer to a charge that was sent again tells the outcome of the earlier one.

    A saved failure does not. Nor does a fresh 400: Stripe validates a request before it looks its key up, and may find fault
    with one that it executed a day ago.
    """
    if is_saved(answer):
        return not isinstance(result, Unknown) or result.at_once
    return not (answer.status == 400 and isinstance(result, Declined))


def parse_retrieved(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult | None:
    """Return the result in an answer to the GET of one intent, or None if the intent says nothing about the key.

    `Unavailable` means that the look-up was not taken; the charge stays open.
    """
    document = json_object(answer.body)
    if answer.status == 200 and document is not None and document.get("object") == "payment_intent":
        metadata = as_object(document.get("metadata")) or {}
        if metadata.get("payment_id") != str(payment.id):
            return Unknown(
                "the PaymentIntent of this reference belongs to another payment", at_once=True, is_neutral=True
            )
        return parse_found_intent(document, payment)
    error = error_of(document)
    if answer.status == 404:
        # Of one intent: this account does not have it (any more). Other payments are no concern of that.
        return Unknown(reason_of(answer, error), is_neutral=True)
    return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))


def parse_released(answer: HttpResponse, payment: Payment, *, now: datetime) -> ChargeResult:
    """Return the result in an answer to the cancel or the GET of a declined intent: `Declined` only if it is canceled."""
    result = parse_retrieved(answer, payment, now=now)
    if result is None:
        return Unknown("the PaymentIntent of this reference has another key", at_once=True, is_neutral=True)
    document = json_object(answer.body) or {}
    if isinstance(result, Declined) and document.get("status") != "canceled":
        return Unknown("the declined PaymentIntent is not canceled", is_neutral=True)
    return result


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list. `found` is the result in it; `next_after` begins the next page, None after the last one."""

    found: ChargeResult | None
    next_after: str | None


def parse_page(answer: HttpResponse, payment: Payment, *, now: datetime) -> Page | Unavailable | Unknown:
    """Return what a page says about the payment. Only a page of PaymentIntents, read to its end, says "not here"."""
    document = json_object(answer.body)
    error = error_of(document)
    if answer.status != 200 or document is None:
        return not_taken(answer, error, now=now) or Unknown(reason_of(answer, error))
    intents, has_more = document.get("data"), document.get("has_more")
    if document.get("object") not in ("list", "search_result") or type(has_more) is not bool:
        return Unknown("unreadable list of PaymentIntents")
    if not isinstance(intents, list) or not all(_is_intent(intent) for intent in intents):
        return Unknown("unreadable list of PaymentIntents")
    if has_more and not intents:
        return Unknown("a list of PaymentIntents with more to come and nothing in it")
    return Page(_found(intents, payment), usable_ref(intents[-1]) if has_more else None)


def _found(intents: Sequence[Object], payment: Payment) -> ChargeResult | None:
    results = [result for intent in intents if (result := parse_found_intent(intent, payment)) is not None]
    if len(results) > 1:
        return Unknown(f"Stripe has {len(results)} PaymentIntents of this payment", at_once=True, is_neutral=True)
    return results[0] if results else None


def _is_intent(value: object) -> bool:
    intent = as_object(value)
    return intent is not None and intent.get("object") == "payment_intent" and usable_ref(intent) is not None


def _refused(answer: HttpResponse, error: Object, payment: Payment) -> Declined | Unavailable | Unknown:
    """Return the result in an error with status 400 or 402."""
    kind, code = error.get("type"), error.get("code")
    if answer.status == 400 and kind == "idempotency_error":
        reason = f"{reason_of(answer, error)}: the key was used with other parameters"
        return Unknown(reason, at_once=True, is_neutral=True)
    intent = as_object(error.get("payment_intent"))
    if contradicts(intent, payment):
        return Unknown(f"{reason_of(answer, error)}, with a PaymentIntent that contradicts it")
    ref = None if intent is None else usable_ref(intent)
    if answer.status == 402 and kind == "card_error":
        return declined(error, ref)
    if answer.status == 400 and kind == "invalid_request_error":
        if code in CONFIGURATION:
            return Unavailable(reason_of(answer, error), fault="config")
        message = error.get("message")
        return Declined(
            f"invalid_request:{printable(code)}"[:255] if isinstance(code, str) and code else "invalid_request",
            printable(message) if isinstance(message, str) else "",
            ref,
        )
    return Unknown(reason_of(answer, error))


def not_taken(answer: HttpResponse, error: Object | None, *, now: datetime) -> Unavailable | None:
    """Return Unavailable for an answer that says that Stripe did nothing."""
    if answer.status == 429:
        return Unavailable(reason_of(answer, error), retry_after(answer, now=now), fault="limit")
    if answer.status in (401, 403, 404):
        return Unavailable(reason_of(answer, error), fault="config")
    return None


# A code of Stripe's, and no key of ours that a broken server repeats in its place.
_WORD = re.compile(r"[a-z_]{1,64}")
_REQUEST_ID = re.compile(r"req_[A-Za-z0-9]{1,60}")


def error_of(document: Object | None) -> Object | None:
    """Return the error object in an answer."""
    return None if document is None else as_object(document.get("error"))


def reason_of(answer: HttpResponse, error: Object | None) -> str:
    """Return the status, the codes and the id of the request at Stripe; never a message, which may repeat a key."""
    parts = [f"HTTP {answer.status}"]
    for name in ("type", "code"):
        text = (error or {}).get(name)
        if isinstance(text, str) and _WORD.fullmatch(text):
            parts.append(text)
    request_id = answer.headers.get("request-id", "")
    return " ".join(parts) + (f" ({request_id})" if _REQUEST_ID.fullmatch(request_id) else "")
