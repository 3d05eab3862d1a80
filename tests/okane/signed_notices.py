"""Webhooks with a signature as Stripe makes it, and a parser of them: for tests of what happens to any provider's notices."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from okane.providers.base import InvalidNotice, Notice

SECRET = "whsec_test"
TOLERANCE_S = 300


def event(payment_id: UUID | str | None, event_id: str = "evt_1", *, ref: str | None = "pi_1", **more: object) -> bytes:
    """Return the body of a webhook."""
    said = None if payment_id is None else str(payment_id)
    return json.dumps(
        {"id": event_id, "type": "payment_intent.succeeded", "payment": said, "ref": ref, **more}
    ).encode()


def signature(body: bytes, *, secret: str = SECRET, age: timedelta = timedelta(0)) -> dict[str, str]:
    """Return the header that signs this body, so long ago."""
    at = int((datetime.now(UTC) - age).timestamp())
    return {"Stripe-Signature": f"t={at},v1={_digest(at, body, secret)}"}


def parse(headers: Mapping[str, str], body: bytes, *, now: datetime) -> Sequence[Notice]:
    parts = dict(part.partition("=")[::2] for part in headers.get("stripe-signature", "").split(","))
    at = int(parts.get("t", "0"))
    signed = hmac.compare_digest(parts.get("v1", ""), _digest(at, body, SECRET))
    if not signed or abs(now.timestamp() - at) > TOLERANCE_S:
        raise InvalidNotice("wrong or old")
    said = json.loads(body)
    return [
        Notice(
            event_id=said["id"],
            kind=said["type"],
            payment_id=said["payment"] and UUID(said["payment"]),
            provider_ref=said["ref"],
            is_refusal=said["type"].endswith("payment_failed"),
        )
    ]


def _digest(at: int, body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
