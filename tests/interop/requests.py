"""Signed requests as okane makes them, with a choice of keys, time and body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow, LoggedEvent
from okane.webhooks import keys, payload, signing
from okane.webhooks.keys import Masters
from okane.webhooks.types import API_VERSION, EventType

MASTERS = Masters((b"a master secret of the tests, long enough",))
NEWER_MASTERS = Masters((b"the master secret that follows that one", *MASTERS.values))
PAYMENT = UUID("01a2b3c4-d5e6-7080-90a0-b0c0d0e0f001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The headers and the body of a request."""

    headers: Mapping[str, str]
    body: bytes

    def with_header(self, name: str, text: str) -> Request:
        return replace(self, headers={**self.headers, name: text})


ENDPOINT = Endpoint(
    id=UUID("01a2b3c4-0000-7080-90a0-b0c0d0e0f0ff"),
    account_id="default",
    url="http://127.0.0.1/hook",
    types=["payment.*"],
    api_version=API_VERSION,
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
    starts_after=0,
)
SECRET = keys.secret(MASTERS.current, ENDPOINT.id, ENDPOINT.key_generation)


def event_row(*, version: int, metadata: Mapping[str, str]) -> EventRow:
    """Return a payment's success with this version."""
    at = datetime(2026, 11, 22, 1, 19, 52, 796174, tzinfo=UTC)
    return EventRow(
        event=LoggedEvent(version, ENDPOINT.account_id, PAYMENT, version, EventType.SUCCEEDED, at),
        status="success",
        attempts=1,
        reason=None,
        decline_code=None,
        amount_minor=440,
        currency="USD",
        idempotency_key="order-1001",
        created_at=at - timedelta(seconds=1),
        metadata=metadata,
    )


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
    body = payload.body(event_row(version=version, metadata=metadata or {}), endpoint) if body is None else body
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
