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
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from okane.client.errors import InvalidSignature
from okane.client.webhook_values import WebhookEvent

TOLERANCE = timedelta(minutes=5)  # of Standard Webhooks: for the clocks of both sides, and against replayed requests
_PREFIX, _PUBLIC = "whsec_", "whpk_"
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

    `secrets`: one secret (`whsec_…`), or the new and the older one while one replaces the other; or the public key (`whpk_…`)
    of an asymmetric endpoint, which needs the extra `okane[asymmetric]`. Raises ValueError for a text that can be neither.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"body must be the bytes that arrived, not {type(body).__name__}")
    checks = [_check_by(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not checks:
        raise ValueError("secrets must hold at least one secret")
    found = {name.lower(): value for name, value in headers.items()}
    event_id, timestamp, signature = (found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (event_id and timestamp and signature):
        raise InvalidSignature("webhook-id, webhook-timestamp or webhook-signature is missing")
    _check_time(timestamp, tolerance, now or datetime.now(UTC))
    signed = f"{event_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    if not _is_signed(signed, _signatures(signature), checks):
        raise InvalidSignature("no signature of these secrets")
    return _event(bytes(body), event_id)


# Compares the signed bytes with a signature of this version, in base64.
_Check = tuple[str, Callable[[bytes, bytes], bool]]


def _check_by(secret: str) -> _Check:
    """Return the check by a secret or a public key. Raises ValueError, without the secret in it."""
    if not isinstance(secret, str):
        raise TypeError(f"a secret must be str, not {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.removeprefix(_PUBLIC).removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a secret is {_PREFIX} and base64") from None
    if secret.startswith(_PUBLIC):
        return "v1a", _public_check(key)
    if len(key) < _MIN_SECRET_BYTES:
        raise ValueError(f"a secret has at least {_MIN_SECRET_BYTES} bytes")
    return "v1", lambda signed, given: hmac.compare_digest(_mac(key, signed), given)


def _mac(key: bytes, signed: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _public_check(key: bytes) -> Callable[[bytes, bytes], bool]:
    try:
        # An extra, which a receiver with a secret does not need.
        from cryptography.exceptions import InvalidSignature as Wrong  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError:
        raise ImportError(f"a public key ({_PUBLIC}…) needs the extra okane[asymmetric]: cryptography") from None

    public = Ed25519PublicKey.from_public_bytes(key)

    def check(signed: bytes, given: bytes) -> bool:
        try:
            public.verify(base64.b64decode(given, validate=True), signed)
        except (Wrong, ValueError):
            return False
        return True

    return check


def _check_time(timestamp: str, tolerance: timedelta, now: datetime) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise InvalidSignature("webhook-timestamp is not in whole seconds")
    if abs(now.timestamp() - int(timestamp)) > tolerance.total_seconds():
        raise InvalidSignature("signed too long ago, or in the future: compare the clocks")


def _signatures(header: str) -> Sequence[tuple[str, bytes]]:
    """Return version and signature of each item of a header like `v1,K5oZ… v1a,hnO3…`."""
    if len(header) > _MAX_SIGNATURE:
        raise InvalidSignature("webhook-signature is too long")
    items = [item.partition(",") for item in header.split(" ")[:_MAX_SIGNATURES]]
    return [(version, value.encode("utf-8", "replace")) for version, _, value in items]


def _is_signed(signed: bytes, signatures: Sequence[tuple[str, bytes]], checks: Sequence[_Check]) -> bool:
    """Check with every key, so that the time does not show which one fits. Other versions are skipped, by the standard."""
    found = False
    for version, check in checks:
        for given_version, given in signatures:
            if given_version == version:
                found |= check(signed, given)
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
