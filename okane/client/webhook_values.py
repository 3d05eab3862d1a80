"""Webhooks as values: endpoints, events, deliveries and the answer to a test. Members that a later API adds are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from okane.client.values import Document, moment
from okane.payment import Status

_STATUSES = frozenset(Status)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSnapshot:
    """A payment as it was after one change. A thin event has `id` and `version` only; the other members are None then.

    `metadata` is None too if the event would have been too long with it: `metadata_omitted`. `status` is a `Status`, or the
    text of one that a later okane has added: a receiver must not fail on it.
    """

    id: UUID
    version: int
    status: str | None = None
    amount: int | None = None
    currency: str | None = None
    attempts: int | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, str] | None = None
    metadata_omitted: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None
    decline_code: str | None = None
    reason: str | None = None
    amount_captured: int | None = None

    @classmethod
    def of(cls, document: Document) -> PaymentSnapshot:
        return cls(
            id=UUID(document["id"]),
            version=document["version"],
            status=_status(document.get("status")),
            amount=document.get("amount"),
            currency=document.get("currency"),
            attempts=document.get("attempts"),
            idempotency_key=document.get("idempotency_key"),
            metadata=document.get("metadata"),
            metadata_omitted=document.get("metadata_omitted", False),
            created_at=moment(document.get("created_at")),
            updated_at=moment(document.get("updated_at")),
            decline_code=document.get("decline_code"),
            reason=document.get("reason"),
            amount_captured=document.get("amount_captured"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSnapshot:
    """A refund, a capture or a void after its outcome. A thin event has the `id` only. `metadata` is None too if it has over
    2 kB."""

    id: UUID
    status: str | None = None
    amount: int | None = None
    currency: str | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, str] | None = None
    reason: str | None = None
    decline_code: str | None = None
    last_error: str | None = None
    created_at: datetime | None = None

    @classmethod
    def of(cls, document: Document) -> OperationSnapshot:
        texts = ("status", "currency", "idempotency_key", "reason", "decline_code", "last_error")
        return cls(
            id=UUID(document["id"]),
            amount=document.get("amount"),
            metadata=document.get("metadata"),
            created_at=moment(document.get("created_at")),
            **{name: document.get(name) for name in texts},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeSnapshot:
    """A dispute as it was at the event. A thin event has the `id` only."""

    id: UUID
    status: str | None = None
    provider: str | None = None
    provider_ref: str | None = None
    amount: int | None = None
    currency: str | None = None
    reason: str | None = None
    due_by: datetime | None = None

    @classmethod
    def of(cls, document: Document) -> DisputeSnapshot:
        texts = ("status", "provider", "provider_ref", "currency", "reason")
        return cls(
            id=UUID(document["id"]),
            amount=document.get("amount"),
            due_by=moment(document.get("due_by")),
            **{name: document.get(name) for name in texts},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """One event, as an endpoint receives it. `document` is the whole body; `payment` is None for other events.

    `refund` is that of `refund.*`, `capture` that of `payment.capture_failed`, `dispute` that of `dispute.*`. A
    `payment.late_result` or `payment.review_required` about a refund, capture or void has it, too.

    The same `id` may arrive again: take each once. Of one payment, the highest `payment.version` is the newest.
    """

    id: str
    type: str
    at: datetime
    api_version: str
    account: str
    payment: PaymentSnapshot | None
    document: Document = field(repr=False)
    refund: OperationSnapshot | None = None
    capture: OperationSnapshot | None = None
    void: OperationSnapshot | None = None
    dispute: DisputeSnapshot | None = None

    @classmethod
    def of(cls, document: Document) -> WebhookEvent:
        payment = document["data"].get("payment")
        return cls(
            id=document["id"],
            type=document["type"],
            at=datetime.fromisoformat(document["timestamp"]),
            api_version=document["api_version"],
            account=document["account"],
            payment=None if payment is None else PaymentSnapshot.of(payment),
            document=document,
            dispute=DisputeSnapshot.of(document["data"]["dispute"]) if "dispute" in document["data"] else None,
            **{
                name: OperationSnapshot.of(document["data"][name])
                for name in ("refund", "capture", "void")
                if name in document["data"]
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered URL as it was when the API answered. `url` is None for one that `okane listen` has made.

    `backlog`: events that it has yet to take. `failing_since`: of its outage, with the `last_error`.
    """

    id: UUID
    url: str | None
    types: Sequence[str]
    payload: str
    api_version: str
    description: str
    max_in_flight: int
    rate_limit: int | None
    timeout_s: int
    hold_s: int
    asymmetric: bool
    status: str
    created_at: datetime
    disabled_reason: str | None = None
    backlog: int = 0
    waiting: int = 0
    failing_since: datetime | None = None
    last_error: str | None = None
    older_key_until: datetime | None = None
    starts_after: str | None = None

    @classmethod
    def of(cls, document: Document) -> Endpoint:
        return cls(
            id=UUID(document["id"]),
            url=document.get("url"),
            types=document["types"],
            payload=document["payload"],
            api_version=document["api_version"],
            description=document["description"],
            max_in_flight=document["max_in_flight"],
            rate_limit=document.get("rate_limit"),
            timeout_s=document["timeout_s"],
            hold_s=document["hold_s"],
            asymmetric=document.get("asymmetric", False),
            status=document["status"],
            created_at=datetime.fromisoformat(document["created_at"]),
            disabled_reason=document.get("disabled_reason"),
            backlog=document.get("backlog", 0),
            waiting=document.get("waiting", 0),
            failing_since=moment(document.get("failing_since")),
            last_error=document.get("last_error"),
            older_key_until=moment(document.get("older_key_until")),
            starts_after=document.get("starts_after"),
        )


@dataclass(frozen=True, slots=True)
class CreatedEndpoint:
    """A new endpoint, with the secret that signs its requests."""

    endpoint: Endpoint
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSecrets:
    """The secret of an endpoint, and until `older_key_until` the one before. `public_key`: of an asymmetric endpoint."""

    secret: str = field(repr=False)
    older_secret: str | None = field(default=None, repr=False)
    older_key_until: datetime | None = None
    public_key: str | None = None

    @classmethod
    def of(cls, document: Document) -> EndpointSecrets:
        return cls(
            secret=document["secret"],
            older_secret=document.get("older_secret"),
            older_key_until=moment(document.get("older_key_until")),
            public_key=document.get("public_key"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events of the log, oldest first. `after` is the place behind the last: the next page begins there.

    `redelivered`: events that were delivered again to the endpoint that reads, which are not part of the page.
    """

    events: Sequence[WebhookEvent]
    after: str
    has_more: bool
    redelivered: Sequence[WebhookEvent] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One request of a delivery that failed."""

    at: datetime
    status: int | None
    reason: str | None
    ms: int | None

    @classmethod
    def of(cls, document: Document) -> DeliveryAttempt:
        return cls(
            at=datetime.fromisoformat(document["at"]),
            status=document.get("status"),
            reason=document.get("reason"),
            ms=document.get("ms"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event at one endpoint: `delivered`, `waiting` for `next_at`, or `given_up`. `earlier`: its failed attempts."""

    event_id: str
    type: str
    endpoint_id: UUID
    state: str
    attempts: int
    at: datetime
    next_at: datetime | None
    status: int | None
    ms: int | None
    reason: str | None
    earlier: Sequence[DeliveryAttempt]

    @classmethod
    def of(cls, document: Document) -> Delivery:
        return cls(
            event_id=document["event"],
            type=document["type"],
            endpoint_id=UUID(document["endpoint"]),
            state=document["state"],
            attempts=document["attempts"],
            at=datetime.fromisoformat(document["at"]),
            next_at=moment(document.get("next_at")),
            status=document.get("status"),
            ms=document.get("ms"),
            reason=document.get("reason"),
            earlier=[DeliveryAttempt.of(one) for one in document.get("earlier", ())],
        )


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries of one endpoint, those of the newest events first. `after`: where the next page begins, None at the end."""

    deliveries: Sequence[Delivery]
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestAnswer:
    """The endpoint's answer to a test. `outcome` is `delivered`, or the class of the failure, which `reason` has in words.

    `text` is the beginning of the answer's body.
    """

    __test__ = False  # not a test of pytest's

    outcome: str
    status: int | None
    ms: int
    reason: str
    text: str

    @classmethod
    def of(cls, document: Document) -> TestAnswer:
        return cls(
            outcome=document["outcome"],
            status=document.get("status"),
            ms=document["ms"],
            reason=document["reason"],
            text=document["text"],
        )


def _status(text: str | None) -> str | None:
    return Status(text) if text is not None and text in _STATUSES else text
