"""The requests for captures and refunds: their bodies, the queries of their lists, and the ids of refunds in paths."""

from __future__ import annotations

import hashlib
import json
import re
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from okane.api import payment_ids, query_parameters
from okane.api.create_request import Amount, AnyCurrency, IdempotencyKey, Metadata, check_metadata
from okane.api.problems import Problem, shortened, unsafe_amount
from okane.api.request_body import WHOLE
from okane.currencies import MAX_AMOUNT_MINOR
from okane.operation import NewOperation, OperationKind, OperationStatus
from okane.payment import MAX_REASON
from okane.payment_id import parse_id
from okane.store.operation_records import OperationFilter

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
OPERATION_ID_SCHEMA = {"type": "string", "pattern": f"^{_UUID.pattern}$"}


def _said(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("must not be blank")
    return text


def _payment(text: object) -> object:
    found = parse_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a payment's id")
    return found


Reason = Annotated[
    str,
    Field(max_length=MAX_REASON),
    AfterValidator(_said),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_REASON, "pattern": r"\S"}),
]
PaymentsCurrency = Annotated[AnyCurrency | None, Field(description="the payment's: a check against mistakes")]
PaymentIdText = Annotated[UUID, BeforeValidator(_payment), WithJsonSchema(payment_ids.ID)]


class CaptureRequest(BaseModel):
    """The body of `POST /v1/payments/{id}/capture`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    amount: Annotated[
        Amount | None,
        Field(description=f"in minor units, up to the payment's; all of it if absent, and the rest is let go; {WHOLE}"),
    ] = None
    currency: PaymentsCurrency = None
    metadata: Metadata | None = None
    idempotency_key: Annotated[
        IdempotencyKey | None, Field(description="unless the Idempotency-Key header is sent")
    ] = None


class RefundRequest(BaseModel):
    """The body of `POST /v1/refunds`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    payment: Annotated[PaymentIdText, Field(description="the payment whose money is given back")]
    amount: Annotated[
        Amount | None,
        Field(description=f"in minor units; all that is not refunded yet if absent; {WHOLE}"),
    ] = None
    currency: PaymentsCurrency = None
    reason: Annotated[Reason | None, Field(description="your words, kept with the refund")] = None
    metadata: Metadata | None = None
    idempotency_key: Annotated[
        IdempotencyKey | None, Field(description="unless the Idempotency-Key header is sent")
    ] = None


class OperationQuery(BaseModel):
    """The parameters of `GET /v1/payments/{id}/operations`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = query_parameters.MAX_LIMIT
    after: query_parameters.Cursor | None = None


class RefundQuery(BaseModel):
    """The parameters of `GET /v1/refunds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = 20
    order: query_parameters.Order = "descending"
    after: query_parameters.Cursor | None = None
    status: frozenset[OperationStatus] = frozenset()
    payment: PaymentIdText | None = None
    currency: AnyCurrency | None = None
    created_after: query_parameters.QueryTimestamp | None = None
    created_before: query_parameters.QueryTimestamp | None = None
    idempotency_key: query_parameters.Key | None = None

    @property
    def filter(self) -> OperationFilter:
        """The filter of the list."""
        return OperationFilter(
            ascending=self.order == "ascending",
            kinds=frozenset({OperationKind.REFUND}),
            statuses=self.status,
            payment_id=self.payment,
            currency=self.currency,
            created_from=self.created_after,
            created_before=self.created_before,
            idempotency_key=self.idempotency_key,
        )


def to_operation(
    request: CaptureRequest | RefundRequest,
    *,
    payment_id: UUID,
    account_id: str,
    key: str,
    request_id: str | None,
    api_key: str | None,
) -> NewOperation:
    """Return the operation to request. Its fingerprint is the SHA-256 of the request, with its payment and without the key.

    Raises a 422 Problem for an amount that not every JSON parser keeps, and for too much metadata.
    """
    if request.amount is not None and request.amount > MAX_AMOUNT_MINOR:
        raise unsafe_amount()
    check_metadata(request.metadata)
    kind = OperationKind.CAPTURE if isinstance(request, CaptureRequest) else OperationKind.REFUND
    reason = request.reason if isinstance(request, RefundRequest) else None
    meaning = {
        "kind": kind.value,
        "payment": str(payment_id),
        "amount": request.amount,
        "currency": request.currency,
        "reason": reason,
        "metadata": request.metadata or {},
    }
    return NewOperation(
        payment_id=payment_id,
        account_id=account_id,
        kind=kind,
        idempotency_key=key,
        fingerprint=hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).digest(),
        amount_minor=request.amount,
        currency=request.currency,
        reason=reason,
        metadata=request.metadata or {},
        request_id=request_id,
        api_key=api_key,
    )


def refund_id_in_path(request: web.Request) -> UUID:
    """Return the refund's id in a request's path. Raises a 404 Problem if it is not one."""
    text = request.match_info["refund_id"]
    if not _UUID.fullmatch(text):
        raise refund_not_found(text)
    return UUID(text)


def refund_not_found(text: object) -> Problem:
    """Return the problem of a refund that the account does not have."""
    return Problem(HTTPStatus.NOT_FOUND, "refund_not_found", f"there is no refund {shortened(str(text))!r}")
