"""Pure functions from PayU's HTTP answers to the results of a capture, void or refund.

Guarantee: a capture or void is what its order says, and a refund what the refund with our key as its `extRefundId` says. Any
other answer proves nothing and is `Unknown`; a 5xx always.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from okane.providers.payu.answers import code_of, mismatch, not_taken, only_order, undecided, usable_id


def parse_order_change(
    answer: HttpResponse, operation: Operation, order_id: str, *, now: datetime
) -> Pending | Declined | Unavailable | Unknown:
    """Return the result in an answer to the capture or cancellation of an order. PayU may carry it out later: `Pending`."""
    document = json_object(answer.body)
    if answer.status in (200, 201, 202) and document is not None and code_of(document) == "SUCCESS":
        return Pending(order_id)
    if answer.status in (200, 400) and document is not None and (code := code_of(document)) is not None:
        return Declined(f"refused:{printable(code)}"[:255], f"PayU refused the {operation.kind}")
    return not_taken(answer, document, now=now) or undecided(answer, document)


def parse_order_state(
    answer: HttpResponse, operation: Operation, payment: Payment, order_id: str, *, now: datetime
) -> OperationLookUp:
    """Return what the order in an answer to `GET /orders/{order_id}` says about its capture or cancellation."""
    document = json_object(answer.body)
    if answer.status != 200:
        return not_taken(answer, document, now=now) or undecided(answer, document)
    if document is None or code_of(document) != "SUCCESS" or (order := only_order(document)) is None:
        return Unknown("unreadable 200 to a look-up")
    if order.get("orderId") != order_id:
        return Unknown("PayU answered for another order")
    if (wrong := mismatch(order, payment)) is not None:
        return wrong
    is_capture = operation.kind is OperationKind.CAPTURE
    if is_capture and operation.amount_minor != payment.amount_minor:
        return Unknown("PayU captures an order as a whole", at_once=True, is_neutral=True)
    match order.get("status"):
        case "COMPLETED":
            return Approved(order_id) if is_capture else Declined("already_captured", f"{order_id} was captured")
        case "CANCELED":
            return Declined("authorization_ended", f"{order_id} was canceled") if is_capture else Approved(order_id)
        case "WAITING_FOR_CONFIRMATION":
            return NotFound()
        case status:
            return Unknown(f"order with status {printable(status)!r}")


def parse_refund_answer(answer: HttpResponse, operation: Operation, *, now: datetime) -> OperationResult:
    """Return the result in an answer to `POST /orders/{id}/refunds`."""
    document = json_object(answer.body)
    if answer.status in (200, 201) and document is not None:
        refund = document.get("refund")
        if code_of(document) == "SUCCESS" and isinstance(refund, dict):
            return _refund_state(refund, operation)
        return Unknown(f"unreadable {answer.status} to a refund")
    if answer.status == 400 and document is not None and (code := code_of(document)) is not None:
        return Declined(f"refused:{printable(code)}"[:255], "PayU refused the refund")
    return not_taken(answer, document, now=now) or undecided(answer, document)


def parse_refund_list(answer: HttpResponse, operation: Operation, *, now: datetime) -> OperationLookUp:
    """Return what the list of an order's refunds says. Only a list that is read whole says that there is none."""
    document = json_object(answer.body)
    if answer.status != 200:
        return not_taken(answer, document, now=now) or undecided(answer, document)
    refunds = None if document is None else document.get("refunds")
    if not isinstance(refunds, list) or not all(isinstance(one, dict) for one in refunds):
        return Unknown("unreadable list of refunds")
    for one in refunds:
        if _is_earlier(one, operation) and one.get("status") != "CANCELED":
            reason = f"a refund of an earlier key of this operation has the status {printable(one.get('status'))}"
            return Unknown(reason[:255], at_once=True, is_neutral=True)
    ours = [one for one in refunds if one.get("extRefundId") == operation.provider_key]
    if len(ours) > 1:
        return Unknown(f"PayU has {len(ours)} refunds of this operation", at_once=True, is_neutral=True)
    return _refund_state(ours[0], operation) if ours else NotFound()


def _is_earlier(refund: Mapping[str, object], operation: Operation) -> bool:
    """Return True for a refund from before a manual retry: its key is the operation's id too, with another number."""
    key = refund.get("extRefundId")
    return isinstance(key, str) and key != operation.provider_key and key.partition(":")[0] == str(operation.id)


def _refund_state(refund: Mapping[str, object], operation: Operation) -> OperationResult:
    if refund.get("extRefundId") != operation.provider_key:
        return Unknown("PayU answered with another refund", at_once=isinstance(refund.get("extRefundId"), str))
    amount, currency = refund.get("amount"), refund.get("currencyCode")
    # PayU writes amounts as text, and its refunds in some answers as numbers.
    told = amount if isinstance(amount, str) else str(amount) if type(amount) is int else None
    if told != str(operation.amount_minor) or currency != operation.currency:
        return Unknown(f"the refund is {printable(amount)} {printable(currency)}"[:255], at_once=True, is_neutral=True)
    if (ref := usable_id(refund.get("refundId"))) is None:
        return Unknown("a refund without a usable refundId")
    match refund.get("status"):
        case "FINALIZED":
            return Approved(ref)
        case "PENDING" | "WAITING_FOR_CONFIRMATION":
            return Pending(ref)
        case "CANCELED":
            return Declined("canceled", "PayU canceled the refund", ref)
        case status:
            return Unknown(f"refund with status {printable(status)!r}")
