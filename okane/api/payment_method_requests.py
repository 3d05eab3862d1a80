"""The request to save a payment method: the body of `POST /v1/payment-methods`, validated and fingerprinted."""

from __future__ import annotations

import calendar
import hashlib
import json
import re
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from okane.api import query_parameters
from okane.api.create_request import IdempotencyKey, PaymentMethod, ProviderName
from okane.payment_id import PaymentId
from okane.payment_method import PATTERN, NewSavedMethod

MAX_TOKENS = 16  # providers of one method
METHOD_ID_SCHEMA = {"type": "string", "format": "uuid", "pattern": f"^{PATTERN}$"}

_KIND = re.compile("[a-z][a-z0-9_]{0,31}")
_BRAND = re.compile("[ -~]{1,32}")
_LAST4 = re.compile("[0-9]{4}")
_CUSTOMER = re.compile("[!-~]{1,255}")
_MONTH = re.compile("20[0-9]{2}-(?:0[1-9]|1[0-2])")


def _spelled(pattern: re.Pattern[str], rule: str) -> tuple[AfterValidator, WithJsonSchema]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {rule}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$"})


def _last_day(text: object) -> date:
    if not isinstance(text, str) or not _MONTH.fullmatch(text):
        raise ValueError("must be a month like 2028-04")
    year, month = int(text[:4]), int(text[5:])
    return date(year, month, calendar.monthrange(year, month)[1])


def _customer_parameter(text: object) -> object:
    return query_parameters.without_spaces(text, "the name of a customer") if isinstance(text, str) else text


def month_text(day: date) -> str:
    """Return the month of a day, as requests and documents have it."""
    return f"{day:%Y-%m}"


Kind = Annotated[str, *_spelled(_KIND, "up to 32 of a-z, 0-9 and _, with a letter first, like card")]
Brand = Annotated[str, *_spelled(_BRAND, "1 to 32 printable ASCII characters")]
Last4 = Annotated[str, *_spelled(_LAST4, "four digits")]
Customer = Annotated[str, *_spelled(_CUSTOMER, "1 to 255 visible ASCII characters")]
Month = Annotated[
    date, BeforeValidator(_last_day), WithJsonSchema({"type": "string", "pattern": f"^{_MONTH.pattern}$"})
]


class SavePaymentMethod(BaseModel):
    """The body of `POST /v1/payment-methods`. A member that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tokens: Annotated[
        dict[ProviderName, PaymentMethod],
        Field(
            min_length=1,
            max_length=MAX_TOKENS,
            repr=False,
            title="Tokens",
            description="the token of the card or account at each provider; no answer shows them",
        ),
    ]
    kind: Annotated[Kind, Field(description="`card`, `bank_account`, `wallet`, or a word of your own")]
    brand: Annotated[Brand | None, Field(description="for people, like `visa`")] = None
    last4: Annotated[Last4 | None, Field(description="the last four digits, for people")] = None
    expires: Annotated[Month | None, Field(description="the last month of a card, for people")] = None
    customer: Annotated[Customer | None, Field(description="your name for the customer, to list their methods")] = None
    idempotency_key: Annotated[
        IdempotencyKey | None, Field(description="unless the Idempotency-Key header is sent")
    ] = None


class MethodQuery(BaseModel):
    """The parameters of `GET /v1/payment-methods`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: query_parameters.Limit = 20
    after: query_parameters.Cursor | None = None
    customer: Annotated[Customer, BeforeValidator(_customer_parameter)] | None = None


def to_new_method(
    request: SavePaymentMethod, *, account_id: str, key: str, request_id: str | None, api_key: str | None
) -> NewSavedMethod:
    """Return the method to save. Its fingerprint is the SHA-256 of the request without the key."""
    members: dict[str, Any] = {
        name: member for name, member in request if member is not None and name != "idempotency_key"
    }
    meaning = json.dumps(members, sort_keys=True, default=month_text)
    return NewSavedMethod(
        id=UUID(int=PaymentId().int),
        account_id=account_id,
        idempotency_key=key,
        fingerprint=hashlib.sha256(meaning.encode()).digest(),
        tokens=request.tokens,
        kind=request.kind,
        customer=request.customer,
        brand=request.brand,
        last4=request.last4,
        expires_on=request.expires,
        request_id=request_id,
        api_key=api_key,
    )
