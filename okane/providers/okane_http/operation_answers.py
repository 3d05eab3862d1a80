"""Pure functions from the provider's HTTP answers to the results of a capture, void or refund.

Guarantee: only an unambiguous answer about this operation, with its amount and currency, becomes more than `Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from okane.http.connection import HttpResponse
from okane.operation import Operation
from okane.providers.answer_text import json_object, printable
from okane.providers.base import Approved, Declined, NotFound, OperationLookUp, OperationResult, Pending, Unknown
from okane.providers.okane_http.answer_parser import declined, not_taken, unexpected, usable_ref


def parse_operation_answer(answer: HttpResponse, operation: Operation, *, now: datetime) -> OperationResult:
    """Return the result in an answer to `POST /operations`."""
    document = json_object(answer.body)
    if answer.status == 200:
        return _state(document, operation)
    if answer.status in (402, 422):
        return declined(answer.status, document)
    if answer.status == 404 and document is not None and document.get("code") == "charge_not_found":
        return Declined("charge_not_found", "the provider has no charge under the key of this payment")
    return not_taken(answer, document, now=now) or Unknown(unexpected(answer.status, document))


def parse_operation_look_up(answer: HttpResponse, operation: Operation, *, now: datetime) -> OperationLookUp:
    """Return the result in an answer to `GET /operations/{key}`.

    Only a 404 of the contract is `NotFound`: the page of a proxy, or of a provider that has no operations, proves nothing.
    """
    document = json_object(answer.body)
    if answer.status == 404 and document is not None and document.get("code") == "operation_not_found":
        return NotFound()
    if answer.status != 200:
        return not_taken(answer, document, now=now) or Unknown(unexpected(answer.status, document))
    return _state(document, operation)


def _state(document: Mapping[str, object] | None, operation: Operation) -> OperationResult:
    if document is None or not {"kind", "status", "amount", "currency"} <= document.keys():
        return Unknown("unreadable 200 about an operation")
    amount, currency = document["amount"], document["currency"]
    if (document["kind"], currency) != (operation.kind, operation.currency) or type(amount) is not int:
        return Unknown("the provider answered for another operation", at_once=True)
    if amount != operation.amount_minor:
        return Unknown(f"the provider answered for {printable(amount)}, not {operation.amount_minor}", at_once=True)
    if (ref := usable_ref(document)) is None:
        return Unknown("200 without a usable provider_ref")
    match document["status"]:
        case "succeeded":
            return Approved(ref)
        case "pending":
            return Pending(ref)
        case "failed":
            return declined(200, document)
        case other:
            return Unknown(f"operation with status {printable(other)!r}")
