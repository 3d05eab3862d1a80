"""The wire: what clients send and get, and how it becomes the values inside. Two spellings of one payment.

okane's own (`/payments`, `/v1/payments`) and that of the queue before it (`/pay`, `GET /payments/pay_…`), whose clients go
on working: same fields, same words.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from iso4217 import Currency
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from okane.api.problems import FieldError, invalid, malformed
from okane.payment import Payment, Status
from okane.pipeline.accept import Receipt

MAX_AMOUNT_MINOR = 2**63 - 1

_ID = re.compile(r"(pay_)?([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII | re.IGNORECASE)
_CURRENCIES = frozenset(currency.code for currency in Currency)


def _known_currency(code: str) -> str:
    if code not in _CURRENCIES:
        raise ValueError("must be an ISO 4217 code in capitals, like USD")
    return code


CurrencyCode = Annotated[str, AfterValidator(_known_currency)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40)]
MetadataValue = Annotated[str, StringConstraints(max_length=500)]


class CreatePayment(BaseModel):
    """The body of `POST /payments`, `POST /v1/payments` and `POST /pay`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    amount: Annotated[int, Field(gt=0, le=MAX_AMOUNT_MINOR, description="in minor units of the currency")]
    currency: Annotated[CurrencyCode | None, Field(description="ISO 4217; the server's default if absent")] = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50)] = Field(default_factory=dict)
    idempotency_key: Annotated[str | None, Field(description="unless the Idempotency-Key header is sent")] = None


def read_create(body: Any) -> CreatePayment:
    """Validate a parsed body. Raises a Problem: 400 if it is no object, 422 naming every member that is wrong."""
    if not isinstance(body, dict):
        raise malformed("body_not_an_object", "the body must be a JSON object")
    try:
        return CreatePayment.model_validate(body)
    except ValidationError as error:
        raise invalid([_field_error(one) for one in error.errors(include_url=False, include_input=False)]) from None


def _field_error(error: Any) -> FieldError:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(CreatePayment.model_fields)
        return FieldError(pointer, "unknown_member", f"is not known here; known are {allowed}")
    return FieldError(pointer, error["type"], error["msg"])


def fingerprint(*, amount_minor: int, currency: str, metadata: dict[str, str]) -> bytes:
    """SHA-256 of what a request means, the defaults filled in and the key left out."""
    meaning = {"amount": amount_minor, "currency": currency, "metadata": metadata}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()).digest()


def parse_id(text: str) -> UUID | None:
    """A payment id in either spelling; None if it is neither. (UUID itself takes braces, a urn, and any script's digits.)"""
    return UUID(text.removeprefix("pay_")) if _ID.fullmatch(text) else None


def receipt_json(receipt: Receipt) -> bytes:
    """`{"payment": {…}, "created": …, "enqueued": …}`."""
    return _dumps({"payment": _payment(receipt.payment), "created": receipt.created, "enqueued": receipt.enqueued})


def payment_json(payment: Payment) -> bytes:
    """`{"payment": {…}}`."""
    return _dumps({"payment": _payment(payment)})


def _payment(payment: Payment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": str(payment.id),
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "status": payment.status.value,
        "idempotency_key": payment.idempotency_key,
        "attempts": payment.attempts,
        "lane": payment.lane,
        "metadata": payment.metadata,
        "created_at": _time(payment.created_at),
        "updated_at": _time(payment.updated_at),
    }
    optional = {
        "provider_ref": payment.provider_ref,
        "decline_code": payment.decline_code,
        "last_error": payment.last_error,
        "retry_at": None if payment.retry_at is None or payment.status.terminal else _time(payment.retry_at),
    }
    return document | {name: value for name, value in optional.items() if value is not None}


# The older queue's words for our statuses. What is open to us is under way to its clients; a wait is a place in the queue.
PAY_STATUS = {
    Status.PENDING: "QUEUED",
    Status.PROCESSING: "PROCESSING",
    Status.SUCCESS: "SUCCESS",
    Status.FAILED_RETRYABLE: "QUEUED",
    Status.FAILED_FINAL: "FAILED",
    Status.UNKNOWN: "PROCESSING",
    Status.CANCELED: "FAILED",
    Status.NEEDS_REVIEW: "PROCESSING",
}


def pay_json(payment: Payment, *, created: bool = False) -> bytes:
    """`{"payment_id": "pay_…", "amount": …, "status": …}`; a payment just made is PENDING."""
    status = "PENDING" if created else PAY_STATUS[payment.status]
    return _dumps({"payment_id": f"pay_{payment.id.hex}", "amount": payment.amount_minor, "status": status})


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _dumps(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
