"""The operations on disputes, as the OpenAPI document has them, and their documents as types."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, NotRequired
from uuid import UUID

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic does not take the older one of typing

from okane.api.contract.operations import Operation, SuccessResponse
from okane.api.contract.schemas import PAYMENT, After, Currency, shown
from okane.api.disputes import DisputeQuery
from okane.dispute import DisputeStatus

DISPUTES = "Disputes"
DISPUTE_ID = "0198c0de-0000-7000-8000-00000000000d"
DISPUTE = {
    "id": DISPUTE_ID,
    "payment": PAYMENT["id"],
    "provider": "stripe",
    "provider_ref": "dp_8f14e45f",
    "amount": 440,
    "currency": "USD",
    "status": "needs_response",
    "created_at": "2026-03-09T08:00:00.000000Z",
    "updated_at": "2026-03-09T08:00:00.000000Z",
    "reason": "fraudulent",
    "due_by": "2026-03-18T23:59:59.000000Z",
}


@with_config(shown(DISPUTE))
class Dispute(TypedDict):
    """A dispute as its provider reported it last. Members without a value are left out."""

    id: UUID
    payment: UUID
    provider: str
    provider_ref: Annotated[str, Field(description="the provider's id of the dispute")]
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    status: Annotated[
        DisputeStatus, Field(description="`closed`: over without a decision about the money, such as an inquiry")
    ]
    created_at: Annotated[datetime, Field(description="when okane had it first")]
    updated_at: Annotated[datetime, Field(description="when it was fetched last")]
    reason: NotRequired[Annotated[str, Field(description="in the provider's words")]]
    due_by: NotRequired[Annotated[datetime, Field(description="evidence is taken until then")]]


@with_config(shown({"dispute": DISPUTE}))
class DisputeAnswer(TypedDict):
    """One dispute."""

    dispute: Dispute


class DisputePage(TypedDict):
    """A page of disputes, newest first."""

    disputes: list[Dispute]
    has_more: bool
    after: After


LIST_DISPUTES = Operation(
    name="listDisputes",
    tag=DISPUTES,
    summary="List the disputes, newest first",
    details="A dispute is a charge that a customer has their bank take back. It is answered at the provider, with evidence.",
    query=DisputeQuery,
    responses=(SuccessResponse(status=HTTPStatus.OK, means="A page.", body=DisputePage, headers=("Link",)),),
    problems=("query_invalid", "too_many_reads"),
)
GET_DISPUTE = Operation(
    name="getDispute",
    tag=DISPUTES,
    summary="Show a dispute",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The dispute.", body=DisputeAnswer),),
    problems=("dispute_not_found", "too_many_reads"),
)
