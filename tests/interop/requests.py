"""Signed requests as okane makes them, with a choice of keys, time and body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from okane.webhooks import keys, payload, signing
from okane.webhooks.keys import Masters

MASTERS = Masters((b"a master secret of the tests, long enough",))
NEWER_MASTERS = Masters((b"the master secret that follows that one", *MASTERS.values))
PAYMENT = UUID("01a2b3c4-d5e6-7080-90a0-b0c0d0e0f001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The part of an endpoint that its requests depend on."""

    id: UUID
    key_generation: int = 1
    older_key_until: datetime | None = None
    asymmetric: bool = False
    payload: Literal["snapshot", "thin"] = "snapshot"
    api_version: str = "2026-12-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a payment, as the log has it."""

    account_id: str = "default"
    payment_id: UUID = PAYMENT
    version: int = 2
    type: str = "payment.succeeded"
    at: datetime = datetime(2026, 11, 22, 1, 19, 52, 796174, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A change with the values of its payment."""

    event: Change = field(default_factory=Change)
    status: str = "success"
    amount_minor: int = 440
    currency: str = "USD"
    attempts: int = 1
    idempotency_key: str = "order-1001"
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime = datetime(2026, 11, 22, 1, 19, 52, 100000, tzinfo=UTC)
    reason: str | None = None
    decline_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The headers and the body of a request."""

    headers: Mapping[str, str]
    body: bytes

    def with_header(self, name: str, text: str) -> Request:
        return replace(self, headers={**self.headers, name: text})


ENDPOINT = Endpoint(id=UUID("01a2b3c4-0000-7080-90a0-b0c0d0e0f0ff"))
SECRET = keys.secret(MASTERS.current, ENDPOINT.id, ENDPOINT.key_generation)


def signed(
    *,
    endpoint: Endpoint = ENDPOINT,
    masters: Masters = MASTERS,
    version: int = 2,
    metadata: Mapping[str, str] | None = None,
    body: bytes | None = None,
    age: timedelta = timedelta(),
) -> Request:
    """Return the request of one change, signed so long ago."""
    row = Row(event=Change(version=version), metadata=metadata or {})
    body = payload.body(row, endpoint) if body is None else body
    now = datetime.now(UTC) - age
    id_, timestamp_s = payload.event_id(PAYMENT, version), int(now.timestamp())
    found = keys.signing_keys(masters, endpoint, now=now)
    return Request(
        headers={
            "Content-Type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signing.sign(found.secrets, id_, timestamp_s, body, found.private_keys),
        },
        body=body,
    )
