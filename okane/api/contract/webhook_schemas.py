"""The documents of endpoints, events and deliveries, as types. `okane/webhooks/payload.py` writes the bodies of events by
hand; tests compare the two."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NotRequired
from uuid import UUID

from pydantic import Field, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic does not take the older one of typing

from okane.api.contract.schemas import After, Currency, shown
from okane.dispute import DisputeStatus
from okane.payment import Status
from okane.webhooks.types import API_VERSION, EventType

PAYMENT_TYPES = tuple(one.value for one in EventType if not one.is_of_endpoint)
ENDPOINT_TYPES = tuple(one.value for one in EventType if one.is_of_endpoint)

EventId = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^evt_[0-9a-f]{32}_[0-9]{1,10}$"})]
Version = Annotated[int, Field(ge=0, description="counts the changes: the highest is the newest")]

ENDPOINT_ID = "7d4a1c1e-1f0a-4b7e-9d2c-3b1f0a5c8e21"
EVENT_ID = "evt_0198c0de000070008000000000000001_2"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw4hc1zxRBlQE="  # noqa: S105 - an example
CREATE = {"url": "https://shop.example/okane", "types": ["payment.succeeded", "payment.failed"]}
ENDPOINT = {
    "id": ENDPOINT_ID,
    "url": "https://shop.example/okane",
    "types": ["payment.succeeded", "payment.failed"],
    "payload": "snapshot",
    "api_version": API_VERSION,
    "description": "orders",
    "max_in_flight": 8,
    "timeout_s": 15,
    "hold_s": 300,
    "asymmetric": False,
    "status": "enabled",
    "created_at": "2026-12-01T12:00:00.000000Z",
    "starts_after": "AAAAAAAAAAA",
    "backlog": 0,
    "waiting": 0,
}
EVENT = {
    "id": EVENT_ID,
    "type": "payment.succeeded",
    "timestamp": "2026-03-01T12:00:00.250000Z",
    "api_version": API_VERSION,
    "account": "default",
    "data": {
        "payment": {
            "id": "0198c0de-0000-7000-8000-000000000001",
            "version": 2,
            "status": "success",
            "amount": 440,
            "currency": "USD",
            "attempts": 1,
            "idempotency_key": "demo-key-1",
            "metadata": {"order": "4711"},
            "created_at": "2026-03-01T12:00:00.000000Z",
            "updated_at": "2026-03-01T12:00:00.250000Z",
        }
    },
}
ENDPOINT_EVENT = {
    "id": f"evt_{ENDPOINT_ID.replace('-', '')}_2",
    "type": "webhook_endpoint.failing",
    "timestamp": "2026-03-01T12:00:00.250000Z",
    "api_version": API_VERSION,
    "account": "default",
    "data": {"endpoint": {"id": ENDPOINT_ID, "version": 2}},
}
DELIVERY = {
    "event": EVENT_ID,
    "type": "payment.succeeded",
    "endpoint": ENDPOINT_ID,
    "state": "delivered",
    "attempts": 2,
    "at": "2026-03-01T12:00:05.250000Z",
    "earlier": [{"at": "2026-03-01T12:00:00.250000Z", "status": 503, "ms": 12, "reason": "status_5xx"}],
    "status": 200,
    "ms": 9,
}


@with_config(shown(ENDPOINT))
class Endpoint(TypedDict):
    """A registered URL and its state. Members without a value are left out, `url` apart."""

    id: UUID
    url: Annotated[str | None, Field(description="null: nothing is sent, its events are read from `GET /v1/events`")]
    types: list[str]
    payload: Literal["snapshot", "thin"]
    api_version: Annotated[str, Field(description="of its bodies; never changes")]
    description: str
    max_in_flight: Annotated[int, Field(ge=1, description="requests at the same time")]
    rate_limit: NotRequired[Annotated[int, Field(ge=1, description="requests per second")]]
    timeout_s: Annotated[int, Field(ge=1)]
    hold_s: Annotated[
        int, Field(ge=0, description="seconds for which a failing delivery holds later ones of its payment")
    ]
    asymmetric: Annotated[bool, Field(description="whether `v1a` signatures are sent, too")]
    status: Literal["enabled", "disabled"]
    disabled_reason: NotRequired[
        Annotated[str, Field(description="`requested`, `gone` (410), or `failing` for five days")]
    ]
    created_at: datetime
    older_key_until: NotRequired[Annotated[datetime, Field(description="until then the secret before also signs")]]
    starts_after: Annotated[str, Field(description="where its events begin: an `after` of `GET /v1/events`")]
    backlog: Annotated[
        int, Field(ge=0, description="how many of the account's next 1,000 events it has yet to get; 0 without a URL")
    ]
    waiting: Annotated[int, Field(ge=0, description="failed deliveries that are tried again; 1,000 stands for more")]
    failing_since: NotRequired[datetime]
    last_error: NotRequired[str]


@with_config(shown({"endpoint": ENDPOINT}))
class EndpointAnswer(TypedDict):
    """One endpoint."""

    endpoint: Endpoint


@with_config(shown({"endpoint": ENDPOINT, "secret": SECRET}))
class EndpointSecret(TypedDict):
    """An endpoint, with the secret that verifies its requests (Standard Webhooks)."""

    endpoint: Endpoint
    secret: str


class EndpointList(TypedDict):
    """The endpoints of the account, oldest first."""

    endpoints: list[Endpoint]


@with_config(shown({"secret": SECRET}))
class SecretAnswer(TypedDict):
    """The secrets of an endpoint."""

    secret: str
    older_secret: NotRequired[Annotated[str, Field(description="the one before; also signs until `older_key_until`")]]
    older_key_until: NotRequired[datetime]
    public_key: NotRequired[Annotated[str, Field(description="of the `v1a` signatures: `whpk_` and base64")]]


@with_config(shown({"outcome": "delivered", "status": 200, "ms": 12, "reason": "HTTP 200", "text": "ok"}))
class TestAnswer(TypedDict):
    """The endpoint's answer to a test."""

    outcome: Annotated[str, Field(description="`delivered`, or why it does not count as that")]
    status: NotRequired[Annotated[int, Field(description="of HTTP")]]
    ms: Annotated[int, Field(ge=0)]
    reason: Annotated[str, Field(description="what happened, in words")]
    text: Annotated[str, Field(description="the first kilobyte of the answer's body")]


@with_config(shown({"events": 17}))
class Recovering(TypedDict):
    """The range that is delivered again."""

    events: Annotated[
        int,
        Field(
            ge=0, description="how many of the endpoint's types it holds, of its first 10,000; delivered ones included"
        ),
    ]


class PaymentSnapshot(TypedDict):
    """A payment as it was after one change."""

    id: UUID
    version: Version
    status: Status
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    attempts: Annotated[int, Field(ge=0)]
    idempotency_key: str
    metadata: NotRequired[dict[str, str]]
    metadata_omitted: NotRequired[
        Annotated[Literal[True], Field(description="in place of `metadata`: the body would have more than 64 kB")]
    ]
    created_at: datetime
    updated_at: Annotated[datetime, Field(description="the time of the change")]
    decline_code: NotRequired[Annotated[str, Field(description="why the provider declined, in its words")]]
    reason: NotRequired[Annotated[str, Field(description="of the change")]]
    amount_captured: NotRequired[
        Annotated[int, Field(gt=0, description="by the capture that made it a success; all of `amount` if absent")]
    ]


class OperationSnapshot(TypedDict):
    """A refund, a capture or a void after its outcome. Members that are not set are left out, metadata too if it has over
    2 kB."""

    id: UUID
    status: Literal["success", "failed_final", "needs_review"]
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    created_at: datetime
    metadata: NotRequired[dict[str, str]]
    metadata_omitted: NotRequired[bool]
    idempotency_key: NotRequired[str]
    reason: NotRequired[Annotated[str, Field(description="of the request")]]
    decline_code: NotRequired[Annotated[str, Field(description="why the provider declined, in its words")]]
    last_error: NotRequired[Annotated[str, Field(description="why it has failed, or needs a review")]]


class DisputeSnapshot(TypedDict):
    """A dispute as it was at an event of its payment."""

    id: UUID
    provider: str
    provider_ref: Annotated[str, Field(description="the provider's id of the dispute")]
    status: DisputeStatus
    amount: Annotated[int, Field(gt=0, description="in minor units of the currency")]
    currency: Currency
    reason: NotRequired[Annotated[str, Field(description="in the provider's words")]]
    due_by: NotRequired[Annotated[datetime, Field(description="evidence is taken until then")]]


class ThinDispute(TypedDict):
    """The id of a dispute, for endpoints with `\"payload\": \"thin\"`."""

    id: UUID


class ThinOperation(TypedDict):
    """The id of a refund, a capture or a void, for endpoints with `\"payload\": \"thin\"`."""

    id: UUID


_Operation = OperationSnapshot | ThinOperation


class ThinPayment(TypedDict):
    """The ids of a change, for endpoints with `\"payload\": \"thin\"`."""

    id: UUID
    version: Version


class OfPayment(TypedDict):
    """The subject of an event of a payment."""

    payment: PaymentSnapshot | ThinPayment
    refund: NotRequired[
        Annotated[_Operation, Field(description="of `refund.*`, and of `payment.late_result` about a refund")]
    ]
    capture: NotRequired[
        Annotated[
            _Operation,
            Field(
                description="of `payment.capture_failed`, and of `payment.late_result` and `payment.review_required` about a "
                "capture"
            ),
        ]
    ]
    void: NotRequired[
        Annotated[_Operation, Field(description="of `payment.late_result` and `payment.review_required` about a void")]
    ]
    dispute: NotRequired[Annotated[DisputeSnapshot | ThinDispute, Field(description="of `dispute.*`")]]


class OfEndpoint(TypedDict):
    """The subject of an event of an endpoint."""

    endpoint: ThinEndpoint


class ThinEndpoint(TypedDict):
    """The ids of a change of an endpoint."""

    id: UUID
    version: Version


@with_config(shown(EVENT))
class PaymentEvent(TypedDict):
    """A change of a payment, as it is sent to endpoints. The same `id` may arrive again: take each once."""

    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(PAYMENT_TYPES)})]
    timestamp: datetime
    api_version: str
    account: str
    data: OfPayment


@with_config(shown(ENDPOINT_EVENT))
class EndpointEvent(TypedDict):
    """A change of an endpoint, as it is sent to the account's endpoints."""

    id: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(ENDPOINT_TYPES)})]
    timestamp: datetime
    api_version: str
    account: str
    data: OfEndpoint


WebhookEvent = PaymentEvent | EndpointEvent


@with_config(shown({"events": [EVENT], "has_more": False, "after": "AAAAAAAAAAI"}))
class WebhookEventPage(TypedDict):
    """A page of events, oldest first. It may be short or empty although there are more: go on from `after`."""

    events: list[WebhookEvent]
    has_more: bool
    after: Annotated[
        str, Field(description="where the next page begins; also of the last page: later events come after it")
    ]
    redelivered: NotRequired[
        Annotated[
            list[WebhookEvent],
            Field(description="with `endpoint`: what is to be delivered again, until a request has this `after`"),
        ]
    ]


class DeliveryAttempt(TypedDict):
    """A request that failed."""

    at: datetime
    status: NotRequired[int]
    ms: NotRequired[int]
    reason: NotRequired[str]


@with_config(shown(DELIVERY))
class Delivery(TypedDict):
    """One event at one endpoint."""

    event: EventId
    type: Annotated[str, WithJsonSchema({"type": "string", "enum": [*PAYMENT_TYPES, *ENDPOINT_TYPES]})]
    endpoint: UUID
    state: Literal["delivered", "waiting", "given_up"]
    attempts: Annotated[int, Field(ge=0)]
    at: Annotated[datetime, Field(description="the end of the last attempt")]
    next_at: NotRequired[Annotated[datetime, Field(description="when it is tried again")]]
    status: NotRequired[Annotated[int, Field(description="of HTTP, in the last attempt")]]
    ms: NotRequired[Annotated[int, Field(ge=0)]]
    reason: NotRequired[Annotated[str, Field(description="why the last attempt failed")]]
    earlier: Annotated[list[DeliveryAttempt], Field(description="the failed attempts before, at most 20")]


class DeliveryList(TypedDict):
    """The deliveries of an event, one for each endpoint that it was sent to."""

    deliveries: list[Delivery]


@with_config(shown({"deliveries": [DELIVERY], "has_more": False, "after": None}))
class DeliveryPage(TypedDict):
    """A page of an endpoint's deliveries, those of the newest events first.

    With `state` it may be short or empty although there are more: go on until `has_more` is false.
    """

    deliveries: list[Delivery]
    has_more: bool
    after: After


class Redelivered(TypedDict):
    """The delivery that is due again."""

    delivery: Delivery


# The types of events, and their meanings.
MEANINGS: dict[EventType, str] = {
    EventType.SUCCEEDED: "The payment was charged.",
    EventType.FAILED: "The payment was declined, or its retries are spent.",
    EventType.CANCELED: "The payment was withdrawn, or has expired, before it was charged.",
    EventType.REVIEW_REQUIRED: "A person has to decide the payment: its outcome is not known.",
    EventType.RETRY_SCHEDULED: "An attempt failed without a charge: there will be another.",
    EventType.OUTCOME_UNKNOWN: "The provider may have charged the payment: it is looked up.",
    EventType.ACTION_REQUIRED: "The customer has to act before the provider decides.",
    EventType.SUBMITTED: "The provider has taken the payment, and has not decided yet.",
    EventType.RETRIED: "A failed payment is pending again, by request.",
    EventType.LATE_RESULT: "A result came after the payment was closed.",
    EventType.AUTHORIZED: "The money is held: capture it, or cancel the payment.",
    EventType.CAPTURE_FAILED: "A capture has failed for good; the payment is still authorized.",
    EventType.REFUND_SUCCEEDED: "Money of the payment was given back.",
    EventType.REFUND_FAILED: "A refund has failed for good, or came back days after it had succeeded.",
    EventType.DISPUTE_OPENED: "A customer disputes the payment at their bank: answer it at the provider.",
    EventType.DISPUTE_CLOSED: "A dispute of the payment was won or lost, or ended without a decision.",
    EventType.ENDPOINT_FAILING: "An endpoint of the account has failed for an hour, or for a day.",
    EventType.ENDPOINT_DISABLED: "An endpoint of the account was disabled: it has failed for five days, or answered 410.",
    EventType.ENDPOINT_TEST: "A test, by request.",
}
