"""The operations of the OpenAPI document that capture a payment, and that make, show and decide refunds."""

from __future__ import annotations

from http import HTTPStatus

from okane.api.contract import operation_schemas, problem_codes
from okane.api.contract.operations import PAYMENTS, Body, Operation, SuccessResponse
from okane.api.operation_requests import CaptureRequest, OperationQuery, RefundQuery, RefundRequest
from okane.api.resolve_request import ResolveRequest

REFUNDS = "Refunds"

_REQUEST = (
    *problem_codes.OF_BODIES,
    "body_not_an_object",
    "idempotency_key_missing",
    "idempotency_key_invalid",
    "idempotency_key_mismatch",
    "validation_failed",
    "amount_unsafe_integer",
    "card_number",
    "idempotency_key_reused",
    "payment_not_found",
    "archived",
    "unsupported_by_provider",
    "too_many_reads",
)
_CHANGE = ("refund_not_found", "status_conflict")
_REPEAT = (
    "Repeat a request that got no answer, or a `retryable` one, with the same idempotency key: it is executed once. The key "
    "is sent as the `Idempotency-Key` header, or as `idempotency_key` in the body."
)

CAPTURE_PAYMENT = Operation(
    name="capturePayment",
    tag=PAYMENTS,
    summary="Take the money that is held for a payment",
    details=f"From `authorized`. A capture of a part lets the rest go: there is no second one. {_REPEAT}",
    body=Body(schema=CaptureRequest, example={"amount": 440, "idempotency_key": "demo-capture-1"}, required=False),
    headers=("Idempotency-Key",),
    responses=(
        SuccessResponse(
            status=HTTPStatus.ACCEPTED,
            means="A new capture.",
            body=operation_schemas.OperationReceipt,
            headers=("Location",),
        ),
        SuccessResponse(
            status=HTTPStatus.OK,
            means="The capture of an earlier request, as it is now.",
            body=operation_schemas.OperationReceipt,
            headers=("Idempotent-Replayed", "Location"),
        ),
    ),
    problems=(
        *_REQUEST,
        "capture_exceeds_authorized",
        "currency_mismatch",
        "payment_not_authorized",
        "operation_in_progress",
    ),
)
LIST_OPERATIONS = Operation(
    name="listOperations",
    tag=PAYMENTS,
    summary="List the captures, voids and refunds of a payment, oldest first",
    query=OperationQuery,
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="A page.", body=operation_schemas.OperationPage, headers=("Link",)),
    ),
    problems=("query_invalid", "too_many_reads", "payment_not_found", "archived"),
)
CREATE_REFUND = Operation(
    name="createRefund",
    tag=REFUNDS,
    summary="Give money of a payment back",
    details="All that was captured and is not refunded yet, or a part; as often as there is something left. The amount is "
    f"reserved at once, so that refunds together never exceed what was captured. {_REPEAT}",
    body=Body(schema=RefundRequest, example=operation_schemas.REFUND),
    headers=("Idempotency-Key",),
    responses=(
        SuccessResponse(
            status=HTTPStatus.ACCEPTED,
            means="A new refund.",
            body=operation_schemas.RefundReceipt,
            headers=("Location",),
            follows="/refund/id",
        ),
        SuccessResponse(
            status=HTTPStatus.OK,
            means="The refund of an earlier request, as it is now.",
            body=operation_schemas.RefundReceipt,
            headers=("Idempotent-Replayed", "Location"),
            follows="/refund/id",
        ),
    ),
    problems=(
        *_REQUEST,
        "refund_exceeds_captured",
        "currency_mismatch",
        "payment_not_captured",
        "operation_in_progress",
    ),
)
LIST_REFUNDS = Operation(
    name="listRefunds",
    tag=REFUNDS,
    summary="List refunds, newest first",
    query=RefundQuery,
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="A page.", body=operation_schemas.RefundPage, headers=("Link",)),
    ),
    problems=("query_invalid", "too_many_reads"),
)
GET_REFUND = Operation(
    name="getRefund",
    tag=REFUNDS,
    summary="Show a refund as it is now",
    headers=("If-None-Match",),
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK, means="The refund.", body=operation_schemas.RefundAnswer, headers=("ETag",)
        ),
        SuccessResponse(status=HTTPStatus.NOT_MODIFIED, means="It is as `If-None-Match` says.", headers=("ETag",)),
    ),
    problems=("refund_not_found",),
)
CANCEL_REFUND = Operation(
    name="cancelRefund",
    tag=REFUNDS,
    summary="Withdraw a refund before it is executed",
    details="From `pending` and `failed_retryable`, and once more from `canceled`: what it had reserved is free again. 409 "
    "when it is too late, or its outcome is open.",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="It is canceled.", body=operation_schemas.RefundAnswer),),
    problems=_CHANGE,
)
RETRY_REFUND = Operation(
    name="retryRefund",
    tag=REFUNDS,
    summary="Try a failed refund again",
    details="A refund that has failed is `pending` again, if what it gives back is still there. From any other status: 409.",
    responses=(
        SuccessResponse(
            status=HTTPStatus.ACCEPTED,
            means="It is pending.",
            body=operation_schemas.RefundReceipt,
            headers=("Location",),
            follows="/refund/id",
        ),
    ),
    problems=(*_CHANGE, "refund_exceeds_captured", "payment_not_captured", "operation_in_progress"),
)
RESOLVE_REFUND = Operation(
    name="resolveRefund",
    tag=REFUNDS,
    summary="Decide a refund that needs a review",
    details="The decision of a person who has checked with the provider, and the reason. From `needs_review`, and once more "
    "with the same decision. From any other status: 409.",
    body=Body(schema=ResolveRequest, example={"as": "success", "reason": "the provider reports the refund"}),
    responses=(SuccessResponse(status=HTTPStatus.OK, means="It is decided.", body=operation_schemas.RefundAnswer),),
    problems=(*problem_codes.OF_BODIES, "body_not_an_object", "validation_failed", "card_number", *_CHANGE),
)
