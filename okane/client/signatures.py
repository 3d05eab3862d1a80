"""The verification of webhooks, for receivers: signatures as Standard Webhooks has them. Pure.

Guarantee: an event is returned only for a body that was signed with one of the secrets, within the tolerance.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from okane.client.errors import InvalidSignature
from okane.client.webhook_values import WebhookEvent

TOLERANCE = timedelta(minutes=5)  # of Standard Webhooks: for the clocks of both sides, and against replayed requests
_PREFIX = "whsec_"
_MIN_SECRET_BYTES = 24
_MAX_SIGNATURE = 4096
_MAX_SIGNATURES = 32
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Iterable[str],
    *,
    tolerance: timedelta = TOLERANCE,
    now: datetime | None = None,
) -> WebhookEvent:
    """Return the event in a request, whose `body` must be the bytes that arrived. Raises InvalidSignature.

    `secrets`: one secret (`whsec_…`), or the new and the older one while one replaces the other. Raises ValueError for a text
    that cannot be a secret.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"body must be the bytes that arrived, not {type(body).__name__}")
    keys = [_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not keys:
        raise ValueError("secrets must hold at least one secret")
    found = {name.lower(): value for name, value in headers.items()}
    event_id, timestamp, signature = (found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (event_id and timestamp and signature):
        raise InvalidSignature("webhook-id, webhook-timestamp or webhook-signature is missing")
    _check_time(timestamp, tolerance, now or datetime.now(UTC))
    signed = f"{event_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    if not _is_signed(signed, _signatures(signature), keys):
        raise InvalidSignature("no signature of these secrets")
    return _event(bytes(body), event_id)


def _key(secret: str) -> bytes:
    """Return the bytes of a secret. Raises ValueError, without the secret in it."""
    if not isinstance(secret, str):
        raise TypeError(f"a secret must be str, not {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a secret is {_PREFIX} and base64") from None
    if len(key) < _MIN_SECRET_BYTES:
        raise ValueError(f"a secret has at least {_MIN_SECRET_BYTES} bytes")
    return key


def _check_time(timestamp: str, tolerance: timedelta, now: datetime) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise InvalidSignature("webhook-timestamp is not in whole seconds")
    if abs(now.timestamp() - int(timestamp)) > tolerance.total_seconds():
        raise InvalidSignature("signed too long ago, or in the future: compare the clocks")


def _signatures(header: str) -> Sequence[bytes]:
    """Return the `v1` signatures of a header like `v1,K5oZ… v1a,hnO3…`. Others are skipped, as the standard demands."""
    if len(header) > _MAX_SIGNATURE:
        raise InvalidSignature("webhook-signature is too long")
    items = [item.partition(",") for item in header.split(" ")[:_MAX_SIGNATURES]]
    return [value.encode("utf-8", "replace") for version, _, value in items if version == "v1"]


def _is_signed(signed: bytes, signatures: Sequence[bytes], keys: Sequence[bytes]) -> bool:
    """Compare with every secret, so that the time does not show which one fits."""
    found = False
    for key in keys:
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        for signature in signatures:
            found |= hmac.compare_digest(expected, signature)
    return found


def _event(body: bytes, event_id: str) -> WebhookEvent:
    """Return the event. Raises InvalidSignature for a body that is signed, but not by okane for this id."""
    try:
        event = WebhookEvent.of(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidSignature("signed, but not an event of okane") from None
    if event.id != event_id:
        raise InvalidSignature("webhook-id is not the event's")
    return event
