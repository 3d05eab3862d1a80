"""The wire: what clients send and get, and how it becomes the values inside. Two spellings of one payment.

okane's own (`/payments`, `/v1/payments`) and that of the queue before it (`/pay`, `GET /payments/pay_…`), whose clients go
on working: same fields, same words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from json.encoder import encode_basestring_ascii as _quoted
from typing import Annotated, Any, TypeVar, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from okane.api import idempotency_key, timestamps
from okane.api.problems import MAX_ERRORS, FieldError, Problem, invalid, malformed, shortened
from okane.api.timestamps import Moment
from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.intake.accept import Receipt
from okane.payment import Payment, Status

MAX_METADATA_BYTES = 56 * 1024  # as JSON: with the rest of a payment, an answer stays below 64 kB
MAX_ASCII = 1024  # characters of metadata: ASCII may take three times as many bytes as were sent
MAX_COMMAS = 500  # of a body that is worth a quick look: in texts, too
MAX_QUOTES = 2 * (6 + 4 + 2 * 50)  # of a body without escapes: the names, the texts, and the metadata

M = TypeVar("M", bound=BaseModel)

_ID = re.compile(r"(pay_)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")
ID = {"type": "string", "pattern": f"^{_ID.pattern}$"}  # in words that JSON Schema has


def _currency(code: str) -> str:
    if not _CURRENCY.fullmatch(code):
        raise ValueError("must be an ISO 4217 code in capitals, like USD")
    return code


_CURRENCY = re.compile("[A-Z]{3}")
# Which currencies there are is a rule for new payments (`PaymentCreation`): those of earlier ones may have been withdrawn.
CURRENCY = {"type": "string", "enum": sorted(CURRENCIES), "title": "CurrencyCode"}  # in words that JSON Schema has
NewCurrency = Annotated[str, AfterValidator(_currency), WithJsonSchema(CURRENCY)]
# Of any payment there may be.
AnyCurrency = Annotated[
    str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": f"^{_CURRENCY.pattern}$"})
]
WHOLE = "a JSON number without fraction or exponent: `96`, not `96.0` or `9.6e1`"
# The upper bound is a rule for new payments, too.
AMOUNT = {"type": "integer", "format": "int64", "exclusiveMinimum": 0, "maximum": MAX_AMOUNT_MINOR}
Amount = Annotated[int, Field(gt=0), WithJsonSchema(AMOUNT)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40)]
MetadataValue = Annotated[str, StringConstraints(max_length=500)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50, title="Metadata")]
IdempotencyKey = Annotated[str, WithJsonSchema(idempotency_key.KEY)]


class CreatePayment(BaseModel):
    """The body of `POST /payments`, `POST /v1/payments` and `POST /pay`. A member that is null is as if it were absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    amount: Annotated[Amount, Field(description=f"in minor units of the currency; {WHOLE}")]
    currency: Annotated[NewCurrency | None, Field(description="ISO 4217; the server's default if absent")] = None
    metadata: Metadata | None = None
    execute_at: Annotated[Moment | None, Field(description="not to be charged before this")] = None
    expires_at: Annotated[Moment | None, Field(description="not to be charged from this on")] = None
    idempotency_key: Annotated[
        IdempotencyKey | None, Field(description="unless the Idempotency-Key header is sent")
    ] = None

    @field_validator("expires_at")
    @classmethod
    def _expires_after_its_execution(cls, expires_at: datetime | None, info: ValidationInfo) -> datetime | None:
        execute_at = info.data.get("execute_at")
        if expires_at is not None and execute_at is not None and expires_at <= execute_at:
            raise ValueError("must be later than execute_at")
        return expires_at


def read_create(body: Any) -> CreatePayment:
    """Validate a parsed body. Raises a Problem: 400 if it is no object, 422 naming every member that is wrong."""
    return validated(CreatePayment, body)


def read_quickly(body: bytes) -> CreatePayment | None:
    """What `read_create` makes of the body, for about half of the price; None if that is not certain, or a Problem."""
    quotes = body.count(b'"')
    # A text may hold anything then; or there are too many members, or values, all of which pydantic would look at.
    if b"\\" in body or quotes > MAX_QUOTES or body.count(b",") > MAX_COMMAS:
        return None
    try:
        asked = CreatePayment.__pydantic_validator__.validate_json(body)
    except ValidationError:
        return None
    # A name that stood twice would be forgotten by now, but not its quotes.
    texts = (asked.currency, asked.idempotency_key, asked.execute_at, asked.expires_at)
    count = len(asked.model_fields_set) + 4 - texts.count(None) + 2 * len(asked.metadata or ())
    return asked if quotes == 2 * count else None


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raise a 422 Problem if metadata is too large for the answers that hold it."""
    if metadata and len(_UTF_8.encode(dict(metadata)).encode()) > MAX_METADATA_BYTES:
        raise invalid([FieldError("/metadata", "too_large", f"has up to {MAX_METADATA_BYTES // 1024} kB as JSON")])


def metadata_json(metadata: Mapping[str, str]) -> str:
    """As documents have it: in ASCII, unless that would make an answer many times as long as the request was."""
    if not metadata:
        return "{}"
    text = _ASCII.encode(dict(metadata))
    return text if len(text) <= MAX_ASCII else _UTF_8.encode(dict(metadata))


_ASCII, _UTF_8 = (
    json.JSONEncoder(ensure_ascii=ascii_only, check_circular=False, separators=(",", ":"))
    for ascii_only in (True, False)
)


def validated(model: type[M], body: Any) -> M:
    """A parsed body as what it should be. Raises a Problem: 400 if it is no object, 422 naming every wrong member."""
    if not isinstance(body, dict):
        raise malformed("body_not_an_object", "the body must be a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise invalid([_field_error(model, one) for one in found[:MAX_ERRORS]], count=len(found)) from None


def _field_error(model: type[BaseModel], error: Any) -> FieldError:
    names = [shortened(str(part)) for part in error["loc"] if part != "[key]"]
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
    if error["type"] == "extra_forbidden":
        for name in error["loc"][:-1]:
            annotation = model.model_fields[name].annotation
            kinds = (annotation, *get_args(annotation))  # it may be optional
            model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
        allowed = ", ".join(field.alias or name for name, field in model.model_fields.items())
        return FieldError(pointer, "unknown_member", f"is not known here; known are {allowed}")
    if error["type"] == "int_type":
        return FieldError(pointer, "int_type", f"must be {WHOLE}".replace("`", ""))
    return FieldError(pointer, error["type"], error["msg"].removeprefix("Value error, "))


def fingerprint(
    *,
    amount_minor: int,
    currency: str,
    metadata: dict[str, str],
    execute_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> bytes:
    """SHA-256 of what a request means, the defaults filled in and the key left out."""
    said = json.dumps(metadata, sort_keys=True, separators=(",", ":")) if metadata else "{}"
    schedule = ""
    if execute_at is not None:
        schedule += f',"execute_at":"{timestamps.to_text(execute_at)}"'
    if expires_at is not None:
        schedule += f',"expires_at":"{timestamps.to_text(expires_at)}"'
    meaning = f'{{"amount":{amount_minor},"currency":"{currency}","metadata":{said}{schedule}}}'
    return hashlib.sha256(meaning.encode()).digest()


def parse_id(text: str) -> UUID | None:
    """A payment id in either spelling; None if it is neither. (UUID itself takes braces, a urn, and any script's digits.)"""
    return UUID(text.removeprefix("pay_")) if _ID.fullmatch(text) else None


def payment_id(text: str) -> UUID:
    """The payment id in a path. Raises a 404 Problem if it is none."""
    found = parse_id(text)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "payment_not_found", f"there is no payment {text[:64]!r}")
    return found


def receipt_json(receipt: Receipt) -> bytes:
    """`{"payment": {…}, "created": …, "enqueued": …}`."""
    return receipt_text(receipt).encode()


def receipt_text(receipt: Receipt) -> str:
    """The same, to stand in another document."""
    created, enqueued = _word(receipt.created), _word(receipt.enqueued)
    return f'{{"payment":{payment_document(receipt.payment)},"created":{created},"enqueued":{enqueued}}}'


def payment_json(payment: Payment) -> bytes:
    """`{"payment": {…}}`."""
    return f'{{"payment":{payment_document(payment)}}}'.encode()


def payment_document(payment: Payment) -> str:
    """The document of a payment, put together by hand: every accepted request pays for it, and json.dumps costs ten times
    as much. What a client chose is quoted; the rest holds nothing that would have to be."""
    metadata = metadata_json(payment.metadata)
    created_at = timestamps.to_text(payment.created_at)
    updated_at = created_at if payment.updated_at == payment.created_at else timestamps.to_text(payment.updated_at)
    document = (
        f'"id":"{payment.id}","amount":{payment.amount_minor},"currency":"{payment.currency}",'
        f'"status":"{payment.status}","idempotency_key":{_quoted(payment.idempotency_key)},'
        f'"attempts":{payment.attempts},"lane":"{payment.lane}","metadata":{metadata},'
        f'"created_at":"{created_at}","updated_at":"{updated_at}"'
    )
    for name, value in (
        ("provider_ref", payment.provider_ref),
        ("decline_code", payment.decline_code),
        ("last_error", payment.last_error),
    ):
        if value is not None:
            document += f',"{name}":{_quoted(value)}'
    if payment.execute_at is not None:
        document += f',"execute_at":"{timestamps.to_text(payment.execute_at)}"'
    if payment.expires_at is not None:
        document += f',"expires_at":"{timestamps.to_text(payment.expires_at)}"'
    if payment.retry_at is not None and not payment.status.terminal:
        document += f',"retry_at":"{timestamps.to_text(payment.retry_at)}"'
    return f"{{{document}}}"


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
    return f'{{"payment_id":"pay_{payment.id.hex}","amount":{payment.amount_minor},"status":"{status}"}}'.encode()


def pay_receipt_json(receipt: Receipt) -> bytes:
    """The same, for the answer to a request."""
    return pay_json(receipt.payment, created=receipt.created)


def _word(value: bool) -> str:
    return "true" if value else "false"
