"""The request for a payment: the body of `POST /v1/payments`, `/payments` and `/pay`, parsed, validated and fingerprinted.

`/pay` takes the members of `CreateOlderPayment`, the other routes also those of `CreatePayment`: its answers could not show
a customer the next action.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from json.encoder import encode_basestring_ascii as _quoted
from typing import Annotated, Any, Literal, TypeVar

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
from okane.api.problems import FieldError, invalid
from okane.api.request_body import WHOLE, validate
from okane.api.timestamps import Timestamp
from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.payment import NewPayment
from okane.payment_json import metadata_utf8

MAX_METADATA_BYTES = 56 * 1024  # as JSON: with the rest of a payment, an answer stays below 64 kB
MAX_COMMAS = 500  # in a body that the fast parser takes; commas within strings count too
MAX_QUOTES = 2 * (11 + 8 + 2 * 50)  # in a body without escapes: the names, the strings, and the metadata
MAX_RETURN_URL = 2048


def _currency(code: str) -> str:
    if not _CURRENCY.fullmatch(code):
        raise ValueError("must be an ISO 4217 code in capitals, like USD")
    return code


_CURRENCY = re.compile("[A-Z]{3}")
# `PaymentCreation` checks that a currency exists: those of earlier payments may have been withdrawn.
CURRENCY = {"type": "string", "enum": sorted(CURRENCIES), "title": "CurrencyCode"}
NewCurrency = Annotated[str, AfterValidator(_currency), WithJsonSchema(CURRENCY)]
# Of any payment, earlier ones included.
AnyCurrency = Annotated[
    str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": f"^{_CURRENCY.pattern}$"})
]
# `PaymentCreation` checks the upper bound, for new payments only.
AMOUNT = {"type": "integer", "format": "int64", "exclusiveMinimum": 0, "maximum": MAX_AMOUNT_MINOR}
Amount = Annotated[int, Field(gt=0), WithJsonSchema(AMOUNT)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40)]
MetadataValue = Annotated[str, StringConstraints(max_length=500)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50, title="Metadata")]
IdempotencyKey = Annotated[str, WithJsonSchema(idempotency_key.KEY)]


def _payment_method(token: str) -> str:
    if not _PAYMENT_METHOD.fullmatch(token):
        raise ValueError("must be 1 to 255 visible ASCII characters")
    return token


def _return_url(url: str) -> str:
    if len(url) > MAX_RETURN_URL or not _RETURN_URL.fullmatch(url):
        raise ValueError(
            f"must be an https URL of up to {MAX_RETURN_URL} characters without user or password; http for loopback only"
        )
    return url


def _provider(name: str) -> str:
    if not _PROVIDER.fullmatch(name):
        raise ValueError("must be the name of a provider: up to 32 of a-z, 0-9, _ and -, with a letter first")
    return name


_PAYMENT_METHOD = re.compile("[!-~]{1,255}")
_PROVIDER = re.compile("[a-z][a-z0-9_-]{0,31}")
_PORT = "(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# Narrower than RFC 3986, so that every browser and gateway reads the same host in it.
_RETURN_URL = re.compile(
    r"(?:https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|http://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]))"
    rf"(?::{_PORT})?(?:[/?#][A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*)?"
)
PaymentMethod = Annotated[
    str,
    AfterValidator(_payment_method),
    WithJsonSchema({"type": "string", "pattern": f"^{_PAYMENT_METHOD.pattern}$"}),
]
ReturnUrl = Annotated[
    str,
    AfterValidator(_return_url),
    WithJsonSchema({"type": "string", "maxLength": MAX_RETURN_URL, "pattern": f"^{_RETURN_URL.pattern}$"}),
]
# `PaymentCreation` checks that it is configured.
ProviderName = Annotated[
    str, AfterValidator(_provider), WithJsonSchema({"type": "string", "pattern": f"^{_PROVIDER.pattern}$"})
]


CaptureMethod = Literal["automatic", "manual"]


class CreateOlderPayment(BaseModel):
    """The body of `POST /pay`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    amount: Annotated[Amount, Field(description=f"in minor units of the currency; {WHOLE}")]
    currency: Annotated[NewCurrency | None, Field(description="ISO 4217; the server's default if absent")] = None
    metadata: Metadata | None = None
    execute_at: Annotated[Timestamp | None, Field(description="not to be charged before this")] = None
    expires_at: Annotated[Timestamp | None, Field(description="not to be charged from this on")] = None
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


class CreatePayment(CreateOlderPayment):
    """The body of `POST /payments` and `POST /v1/payments`. A member that is null counts as absent."""

    payment_method: Annotated[
        PaymentMethod | None,
        Field(
            description="the id of a saved payment method, or the provider's token for the customer's card or account"
        ),
    ] = None
    return_url: Annotated[
        ReturnUrl | None,
        Field(description="where the customer goes after the `next_action`; https, or http for loopback"),
    ] = None
    provider: Annotated[
        ProviderName | None, Field(description="the only provider that may charge it; any of the server's if absent")
    ] = None
    capture_method: Annotated[
        CaptureMethod | None,
        Field(description="`manual`: the money is held until it is captured; `automatic` if absent"),
    ] = None
    customer_present: Annotated[
        bool | None,
        Field(description="whether the customer can act, for which it takes a `return_url`; absent: if there is one"),
    ] = None

    @field_validator("customer_present")
    @classmethod
    def _fits_the_return_url(cls, present: bool | None, info: ValidationInfo) -> bool | None:
        # The URL alone is stored and part of the request's meaning: it says the same.
        if present is None or "return_url" not in info.data:  # a wrong one is reported already
            return present
        if present and info.data["return_url"] is None:
            raise ValueError("needs a return_url, to which the customer returns after an action")
        if not present and info.data["return_url"] is not None:
            raise ValueError("must not be false with a return_url, which is for a customer who is present")
        return present


_OF_PROVIDERS = frozenset(CreatePayment.model_fields) - frozenset(CreateOlderPayment.model_fields)

R = TypeVar("R", bound=CreateOlderPayment)


def validate_create_request(body: Any, model: type[R]) -> R:
    """Validate a parsed body. Raises a Problem: 400 if it is not an object, 422 naming every wrong member."""
    return validate(model, body)


def parse_fast(body: bytes, model: type[R]) -> R | None:
    """Return the same as `validate_create_request` at half of its cost, or None where it might raise or decide otherwise."""
    quotes = body.count(b'"')
    # With a backslash, quotes cannot be counted; and pydantic would validate any number of members and values.
    if b"\\" in body or quotes > MAX_QUOTES or body.count(b",") > MAX_COMMAS:
        return None
    try:
        request: R = model.__pydantic_validator__.validate_json(body)
    except ValidationError:
        return None
    # The parser drops the first of two equal names, but the quotes of both are counted.
    texts = (request.currency, request.idempotency_key, request.execute_at, request.expires_at)
    count = len(request.model_fields_set) + 4 - texts.count(None) + 2 * len(request.metadata or ())
    if quotes == 2 * count:
        return request
    if isinstance(request, CreatePayment):  # most have none of these
        members = (request.payment_method, request.return_url, request.provider, request.capture_method)
        count += len(members) - members.count(None)
    return request if quotes == 2 * count else None


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raise a 422 Problem if metadata is too large for the answers that repeat it."""
    if metadata and len(metadata_utf8(metadata).encode()) > MAX_METADATA_BYTES:
        raise invalid([FieldError("/metadata", "too_large", f"has up to {MAX_METADATA_BYTES // 1024} kB as JSON")])


def to_new_payment(request: CreateOlderPayment, *, account_id: str, key: str, currency: str, lane: str) -> NewPayment:
    """Return the payment to accept. Its fingerprint is the SHA-256 of the request, with the defaults and without the key."""
    metadata, execute_at, expires_at = request.metadata or {}, request.execute_at, request.expires_at
    meaning = f'{{"amount":{request.amount},"currency":"{currency}","metadata":'
    meaning += json.dumps(metadata, sort_keys=True, separators=(",", ":")) if metadata else "{}"
    if execute_at is not None:
        meaning += f',"execute_at":"{timestamps.to_text(execute_at)}"'
    if expires_at is not None:
        meaning += f',"expires_at":"{timestamps.to_text(expires_at)}"'
    payment_method = return_url = provider = manual_capture = None
    # Most requests have none of them. That of `/pay` cannot.
    if isinstance(request, CreatePayment) and not _OF_PROVIDERS.isdisjoint(request.model_fields_set):
        payment_method, return_url, provider = request.payment_method, request.return_url, request.provider
        if payment_method is not None:
            meaning += f',"payment_method":{_quoted(payment_method)}'
        if return_url is not None:
            meaning += f',"return_url":{_quoted(return_url)}'
        if provider is not None:
            meaning += f',"provider":{_quoted(provider)}'
        if request.capture_method == "manual":  # `automatic` is the default, which has no meaning of its own
            meaning += ',"capture_method":"manual"'
            manual_capture = True
    return NewPayment(
        account_id=account_id,
        idempotency_key=key,
        fingerprint=hashlib.sha256(f"{meaning}}}".encode()).digest(),
        amount_minor=request.amount,
        currency=currency,
        lane=lane,
        metadata=metadata,
        execute_at=execute_at,
        expires_at=expires_at,
        payment_method=payment_method,
        return_url=return_url,
        requested_provider=provider,
        manual_capture=manual_capture,
    )
