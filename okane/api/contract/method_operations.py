"""The operations on saved payment methods, as the OpenAPI document has them, and their documents as types."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, NotRequired
from uuid import UUID

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic does not take the older one of typing

from okane.api.contract import problem_codes
from okane.api.contract.operations import Body, Operation, SuccessResponse
from okane.api.contract.schemas import After, shown
from okane.api.payment_method_requests import MethodQuery, SavePaymentMethod

METHODS = "Payment methods"
METHOD_ID = "0198c0de-0000-7000-8000-00000000000a"
SAVE = {
    "tokens": {"stripe": "cus_9s6XKzkNRiz8i3/pm_card_visa", "payu": "TOKC_1IQ5sVuMbVqIdRkOGYB2vL0qF7k"},
    "kind": "card",
    "brand": "visa",
    "last4": "4242",
    "expires": "2028-04",
    "customer": "customer-17",
    "idempotency_key": "demo-method-1",
}
METHOD = {
    "id": METHOD_ID,
    "kind": "card",
    "providers": ["payu", "stripe"],
    "created_at": "2026-03-01T12:00:00.000000Z",
    "customer": "customer-17",
    "brand": "visa",
    "last4": "4242",
    "expires": "2028-04",
}


@with_config(shown(METHOD))
class SavedPaymentMethod(TypedDict):
    """A customer's card or account, without its tokens. Members without a value are left out."""

    id: UUID
    kind: str
    providers: Annotated[list[str], Field(description="those that it has a token at")]
    created_at: datetime
    customer: NotRequired[str]
    brand: NotRequired[str]
    last4: NotRequired[str]
    expires: NotRequired[Annotated[str, Field(description="the last month of a card")]]
    deleted_at: NotRequired[Annotated[datetime, Field(description="it takes no new payments since")]]


@with_config(shown({"payment_method": METHOD}))
class PaymentMethodAnswer(TypedDict):
    """One payment method."""

    payment_method: SavedPaymentMethod


@with_config(shown({"payment_method": METHOD, "created": True}))
class SavedMethodReceipt(TypedDict):
    """The result of a request to save a payment method."""

    payment_method: SavedPaymentMethod
    created: Annotated[bool, Field(description="whether this request has saved it")]


class PaymentMethodPage(TypedDict):
    """A page of payment methods, newest first."""

    payment_methods: list[SavedPaymentMethod]
    has_more: bool
    after: After


CREATE_METHOD = Operation(
    name="createPaymentMethod",
    tag=METHODS,
    summary="Save a payment method",
    details="The tokens that providers gave for one card or account become one id, which a payment takes as its "
    "`payment_method`. Repeat a request that got no answer with the same idempotency key: it saves one method.",
    body=Body(schema=SavePaymentMethod, example=SAVE),
    headers=("Idempotency-Key",),
    responses=(
        SuccessResponse(
            status=HTTPStatus.CREATED,
            means="It is saved.",
            body=SavedMethodReceipt,
            headers=("Location",),
            follows="/payment_method/id",
        ),
        SuccessResponse(
            status=HTTPStatus.OK,
            means="The method of an earlier request, as it is now.",
            body=SavedMethodReceipt,
            headers=("Idempotent-Replayed", "Location"),
            follows="/payment_method/id",
        ),
    ),
    problems=(
        *problem_codes.OF_BODIES,
        "body_not_an_object",
        "idempotency_key_missing",
        "idempotency_key_invalid",
        "idempotency_key_mismatch",
        "validation_failed",
        "card_number",
        "provider_unknown",
        "idempotency_key_reused",
        "too_many_reads",
    ),
)
LIST_METHODS = Operation(
    name="listPaymentMethods",
    tag=METHODS,
    summary="List the payment methods, newest first",
    details="Deleted ones are not among them.",
    query=MethodQuery,
    responses=(SuccessResponse(status=HTTPStatus.OK, means="A page.", body=PaymentMethodPage, headers=("Link",)),),
    problems=("query_invalid", "too_many_reads"),
)
GET_METHOD = Operation(
    name="getPaymentMethod",
    tag=METHODS,
    summary="Show a payment method",
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="The method, also a deleted one.", body=PaymentMethodAnswer),
    ),
    problems=("payment_method_not_found", "too_many_reads"),
)
DELETE_METHOD = Operation(
    name="deletePaymentMethod",
    tag=METHODS,
    summary="Delete a payment method",
    details="It takes no new payments. Those that were accepted before are still charged. May be repeated.",
    responses=(SuccessResponse(status=HTTPStatus.NO_CONTENT, means="It is deleted."),),
    problems=("payment_method_not_found", "too_many_reads"),
)
