"""The documents that the API answers with, as types. `payment_json` writes them by hand, for speed; tests
compare the two."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic does not take the older one of typing

from okane.api.problems import MAX_ERRORS
from okane.operation import OperationStatus
from okane.payment import Status

# Any code: a client must accept a payment in a currency that is new or withdrawn.
Currency = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$"})]
Lane = Literal["critical", "default", "low"]
Call = Literal["charge", "look_up", "operate"]
CaptureMethod = Literal["manual"]
OlderId = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^pay_[0-9a-f]{32}$"})]


def shown(*examples: Any) -> ConfigDict:
    """Return the configuration that puts these examples into the document."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


PAYMENT = {
    "id": "0198c0de-0000-7000-8000-000000000001",
    "amount": 440,
    "currency": "USD",
    "status": "success",
    "idempotency_key": "demo-key-1",
    "attempts": 1,
    "lane": "low",
    "metadata": {"order": "4711"},
    "created_at": "2026-03-01T12:00:00.000000Z",
    "updated_at": "2026-03-01T12:00:00.250000Z",
    "provider": "stripe",
    "provider_ref": "pi_8f14e45f",
    "payment_method": "pm_card_visa",
}
PENDING = {name: value for name, value in PAYMENT.items() if name not in {"provider", "provider_ref"}} | {
    "status": "pending",
    "attempts": 0,
    "updated_at": "2026-03-01T12:00:00.000000Z",
}
CREATE = {"amount": 440, "currency": "USD", "idempotency_key": "demo-key-1", "metadata": {"order": "4711"}}


class NextAction(TypedDict):
    """The customer's part before the provider can decide."""

    kind: Annotated[str, Field(description="`redirect`: the customer opens `url`, and returns to the `return_url`")]
    url: str


@with_config(shown(PAYMENT))
class Payment(TypedDict):
    """A payment as it is now. Members without a value are left out."""

    id: UUID
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    status: Status
    idempotency_key: str
    attempts: Annotated[int, Field(ge=0, description="how often a worker has claimed it, to call a provider")]
    lane: Lane
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime
    provider: NotRequired[Annotated[str, Field(description="the provider that the last claim chose")]]
    provider_ref: NotRequired[
        Annotated[str, Field(description="the provider's id of the charge; before money has moved, of its attempt")]
    ]
    payment_method: NotRequired[str]
    return_url: NotRequired[str]
    next_action: NotRequired[Annotated[NextAction, Field(description="while the status is `requires_action`")]]
    decline_code: NotRequired[Annotated[str, Field(description="why the provider declined, in its words")]]
    last_error: NotRequired[Annotated[str, Field(description="why the last attempt failed")]]
    capture_method: NotRequired[
        Annotated[CaptureMethod, Field(description="left out where the charge captures at once")]
    ]
    capture_before: NotRequired[
        Annotated[datetime, Field(description="when the hold of the money ends; while the status is `authorized`")]
    ]
    amount_captured: NotRequired[Annotated[int, Field(gt=0, description="by a capture; all of it if absent")]]
    amount_refunded: NotRequired[Annotated[int, Field(gt=0, description="by refunds that succeeded")]]
    execute_at: NotRequired[datetime]
    expires_at: NotRequired[datetime]
    retry_at: NotRequired[Annotated[datetime, Field(description="when it is retried, or looked up")]]


@with_config(shown({"payment": PAYMENT}))
class PaymentAnswer(TypedDict):
    """One payment."""

    payment: Payment


@with_config(shown({"payment": PENDING, "created": True, "enqueued": True}))
class Receipt(TypedDict):
    """The result of a request for a payment."""

    payment: Payment
    created: Annotated[bool, Field(description="whether this request created it")]
    enqueued: Annotated[
        bool, Field(description="whether a wake-up was sent; if not, the sweep sends it later: this is not an error")
    ]


class OlderStatus(enum.StrEnum):
    """The status of a payment, in the words of Titan Queue."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


@with_config(shown({"payment_id": "pay_0198c0de000070008000000000000001", "amount": 440, "status": "PENDING"}))
class OlderPayment(TypedDict):
    """A payment, in the words of Titan Queue."""

    payment_id: OlderId
    amount: Annotated[int, Field(gt=0)]
    status: OlderStatus


class WrongMember(TypedDict):
    """An error in one member of the body."""

    pointer: Annotated[str, Field(description="a JSON Pointer (RFC 6901)")]
    code: str
    detail: str


class WrongParameter(TypedDict):
    """An error in one parameter of the query."""

    parameter: str
    code: str
    detail: str


class ItemProblem(TypedDict):
    """The problem with an item of a batch (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="stays the same between versions")]
    retryable: Annotated[bool, Field(description="whether the same request may succeed later")]
    errors: NotRequired[
        Annotated[
            list[WrongMember | WrongParameter],
            Field(max_length=MAX_ERRORS, description="the first 20 of them; 5 for an item of a batch"),
        ]
    ]
    error_count: NotRequired[Annotated[int, Field(ge=1, description="how many errors there are, listed or not")]]
    payment_id: NotRequired[Annotated[UUID, Field(description="the payment that the idempotency key belongs to")]]
    payment_method_id: NotRequired[
        Annotated[UUID, Field(description="the payment method that the idempotency key belongs to")]
    ]
    payment_status: NotRequired[Annotated[Status, Field(description="the status that does not allow it")]]
    operation_id: NotRequired[Annotated[UUID, Field(description="the operation that the idempotency key belongs to")]]
    operation_status: NotRequired[
        Annotated[OperationStatus, Field(description="the status of the refund that does not allow it")]
    ]
    limit: NotRequired[Annotated[int, Field(ge=0, description="the most that is possible, in minor units")]]


@with_config(
    shown(
        {
            "type": "urn:okane:problem:payment_not_found",
            "title": "Not Found",
            "status": 404,
            "detail": "there is no payment 0198c0de-0000-7000-8000-000000000001",
            "code": "payment_not_found",
            "retryable": False,
            "request_id": "3f2a8c",
            "instance": "/v1/payments/0198c0de-0000-7000-8000-000000000001",
        }
    )
)
class Problem(ItemProblem):
    """The problem with a request (RFC 9457)."""

    request_id: Annotated[str, Field(description="the id of the request in the log; the client's X-Request-Id, if any")]
    instance: NotRequired[Annotated[str, Field(description="the path of the request")]]


class BatchAccepted(TypedDict):
    """An item that was accepted: 202 for a new payment, 200 for the repeat of a request."""

    status: Annotated[int, Field(ge=200, le=299)]
    payment: Payment
    created: bool
    enqueued: bool


class BatchRefused(TypedDict):
    """An item that was refused, with the status of a request of its own."""

    status: Annotated[int, Field(ge=400, le=599)]
    problem: ItemProblem


class BatchAnswer(TypedDict):
    """A result for each item, in order."""

    results: list[BatchAccepted | BatchRefused]
    accepted: Annotated[int, Field(ge=0)]
    refused: Annotated[int, Field(ge=0)]


After = Annotated[str | None, Field(description="the cursor of the next page")]


class PaymentPage(TypedDict):
    """A page of payments, newest first unless `order` is `ascending`.

    A page may be empty although there are more: go on until `has_more` is false.
    """

    payments: list[Payment]
    has_more: bool
    after: After


class Event(TypedDict):
    """One change of a payment; `operation` is the capture, void or refund that it reports."""

    version: Annotated[int, Field(ge=0)]
    at: datetime
    event: str
    status: Annotated[Status, Field(description="of the payment, after the event")]
    attempt: Annotated[int, Field(ge=0)]
    actor: Literal["api", "operator", "worker"]
    provider: NotRequired[str]
    call: NotRequired[Call]
    decline_code: NotRequired[str]
    reason: NotRequired[str]
    latency_ms: NotRequired[Annotated[int, Field(ge=0)]]
    operation: NotRequired[UUID]


class EventPage(TypedDict):
    """A page of events, oldest first."""

    events: list[Event]
    has_more: bool
    after: After


class Attempt(TypedDict):
    """One attempt at a payment: a claim and its outcome."""

    attempt: Annotated[int, Field(ge=1)]
    began_at: datetime
    ended_at: NotRequired[datetime]
    outcome: str
    provider: NotRequired[str]
    call: NotRequired[Call]
    decline_code: NotRequired[str]
    reason: NotRequired[str]
    latency_ms: NotRequired[Annotated[int, Field(ge=0)]]


class AttemptPage(TypedDict):
    """A page of attempts, oldest first."""

    attempts: list[Attempt]
    has_more: bool
    after: After


class DeadLetter(TypedDict):
    """A payment that was given up."""

    dead_at: datetime
    provider_key: Annotated[str, Field(description="the key under which the provider has the charge")]
    payment: Payment


class DeadLetterPage(TypedDict):
    """A page of dead letters, newest first unless `order` is `ascending`."""

    dead_letters: list[DeadLetter]
    has_more: bool
    after: After


class Replayed(TypedDict):
    """The payments that are retried, and the named ones that are kept."""

    retried: list[UUID]
    kept: list[UUID]
    dry_run: bool
    has_more: bool


class ListedCurrency(TypedDict):
    """A currency that new payments may be in."""

    code: Annotated[Currency, Field(description="ISO 4217")]
    exponent: Annotated[int, Field(ge=0, le=4, description="the number of decimal digits of its minor units")]
    name: str


@with_config(shown({"currencies": [{"code": "JPY", "exponent": 0, "name": "Yen"}]}))
class CurrencyList(TypedDict):
    """The currencies of new payments, by code."""

    currencies: list[ListedCurrency]


class TakenNotice(TypedDict):
    """The receipt of a webhook."""

    received: bool


class Health(TypedDict):
    """The state of the process."""

    status: Annotated[str, Field(description="ok, or ready")]
